"""Tables without one account: its rows go, and what points to rows by number points to the same ones as before."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.schema.tables import SEPARATOR

Bools = npt.NDArray[np.bool_]
ACCOUNTS = "scoring_accounts"
BY_NUMBER = ("scoring_held", "scoring_measured")
"""Tables whose column `account` is the number of a row of `ACCOUNTS`."""


def is_of(value: str, account: str) -> bool:
    """Whether an id is the account's, or that of a user behind it."""
    return value == account or value.startswith(account + SEPARATOR)


def rows_of(table: pa.Table | pa.RecordBatch, account: str) -> Bools:
    """bool[rows]: rows of the account, by `account_id`. Other columns say nothing: an id may be any word."""
    if "account_id" not in table.schema.names:
        return np.zeros(table.num_rows, bool)
    column = table.column("account_id")
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    mine = pc.or_(pc.equal(column, account), pc.starts_with(column, account + SEPARATOR))
    return np.asarray(pc.fill_null(mine, False).to_numpy(zero_copy_only=False), bool)


def without(tables: Mapping[str, pa.Table], account: str) -> dict[str, pa.Table]:
    """The tables of a results folder, by name, without the account's rows. Only those that change."""
    changed: dict[str, pa.Table] = {}
    for name, table in tables.items():
        mine = rows_of(table, account)
        if mine.any():
            changed[name] = table.filter(pa.array(~mine))
    if ACCOUNTS in changed:
        gone = rows_of(tables[ACCOUNTS], account)
        number = np.cumsum(~gone) - 1
        for name in BY_NUMBER:
            if name in tables:
                changed[name] = _renumbered(tables[name], gone, number)
    return changed


def _renumbered(table: pa.Table, gone: Bools, number: npt.NDArray[np.int64]) -> pa.Table:
    who = table.column("account").to_numpy()
    kept = table.filter(pa.array(~gone[who]))
    place = table.schema.get_field_index("account")
    column = pa.array(number[kept.column("account").to_numpy()], table.schema.field(place).type)
    return kept.set_column(place, table.schema.field(place), column)
