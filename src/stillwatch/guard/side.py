"""What a snapshot takes from the operator's tables: tiers, contracts, owners, API keys, and who is vouched for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillwatch.guard.secret import Secret

Made = dict[str, npt.NDArray[Any]]


def vouched(
    accounts: pa.Table | None, references: pa.Table | None, secret: Secret, freed: Collection[str] = ()
) -> npt.NDArray[np.uint64]:
    """Accounts for which the operator's word stands, by the tables and by appeals alone; sorted."""
    names: list[str] = [*freed]
    if accounts is not None:
        column = {name: accounts.column(name).to_pylist() for name in accounts.column_names}
        blank = [None] * accounts.num_rows
        rows = zip(
            column["account_id"], column.get("contract", blank), column.get("verified", blank),
            column.get("entity_id", blank), strict=True,
        )  # fmt: skip
        names += [name for name, contract, verified, entity in rows if contract or (verified and entity)]
    if references is not None:
        names += references.column("account_id").to_pylist()
    return np.array(sorted({secret.account(name) for name in names}), np.uint64)


def rows_of(table: pa.Table | None, hashes: npt.NDArray[np.uint64], secret: Secret) -> dict[str, int]:
    """Row of each account of the accounts table that the snapshot knows."""
    if table is None or len(hashes) == 0:
        return {}
    names = table.column("account_id").to_pylist()
    wanted = np.fromiter((secret.account(name) for name in names), np.uint64, len(names))
    at = np.minimum(np.searchsorted(hashes, wanted), len(hashes) - 1)
    there = hashes[at] == wanted
    return {name: row for name, row, known in zip(names, at.tolist(), there.tolist(), strict=True) if known}


def side_arrays(
    table: pa.Table | None, number: dict[str, int], n: int
) -> tuple[Made, tuple[tuple[str, ...], ...]]:
    """Tier, contract and owner of each account, as numbers of names."""
    made: Made = {}
    names: list[tuple[str, ...]] = []
    for column, target, kind in (
        ("tier", "account_tier", np.int16),
        ("contract", "account_contract", np.int16),
        ("entity_id", "account_owner", np.int32),
    ):
        made[target] = np.full(n, -1, kind)
        if table is None or column not in table.column_names:
            names.append(())
            continue
        values = table.column(column).cast(pa.string()).to_pylist()
        listed = sorted({value for value in values if value})
        code = {value: i for i, value in enumerate(listed)}
        for account, value in zip(table.column("account_id").to_pylist(), values, strict=True):
            if value and account in number:
                made[target][number[account]] = code[value]
        names.append(tuple(listed))
    return made, tuple(names)


def api_key_arrays(pairs: Sequence[tuple[str, str]], secret: Secret) -> Made:
    """Keyed hashes of API keys, sorted, and of the accounts that they belong to."""
    owner = dict(sorted((secret.api_key(key), secret.account(account)) for account, key in pairs))
    return {
        "api_key_hash": np.array(list(owner), np.uint64),
        "api_key_account": np.array(list(owner.values()), np.uint64),
    }
