"""What the logs say about who holds the accounts, counted, and the accounts table that comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.schema.tables import ACCOUNTS

OWNERS = pa.schema(
    [
        pa.field("account_id", pa.string(), nullable=False),
        pa.field("entity_id", pa.string()),
        pa.field("email_domain", pa.string()),
        pa.field("count", pa.int64(), nullable=False),
    ]
)

Owner = tuple[str, str | None, str | None]
"""Account, declared owner, mail domain."""


def in_order(owners: Mapping[Owner, int]) -> list[tuple[str, str | None, str | None, int]]:
    """Declarations with their counts, in an order that depends on nothing else."""
    return [(*owner, count) for owner, count in sorted(owners.items(), key=_order)]


def _order(entry: tuple[Owner, int]) -> tuple[str, str, str]:
    (account, entity, domain), _ = entry
    return account, entity or "", domain or ""


def owners_table(owners: Mapping[Owner, int]) -> pa.Table:
    """The declarations as they are kept on disk."""
    rows = in_order(owners)
    return pa.table(
        [pa.array([row[place] for row in rows], OWNERS.field(place).type) for place in range(len(OWNERS))],
        schema=OWNERS,
    )


def owners_in(table: pa.Table) -> Counter[Owner]:
    """What `owners_table` was made of."""
    return Counter(
        {
            (row["account_id"], row["entity_id"], row["email_domain"]): row["count"]
            for row in table.to_pylist()
        }
    )


def accounts_of(table: pa.Table) -> pa.Table:
    """An accounts table; the commonest of several declarations counts."""
    columns: dict[str, pa.Array] = {}
    names = sorted(set(table.column("account_id").to_pylist()))
    columns["account_id"] = pa.array(names, pa.string())
    for column in ("entity_id", "email_domain"):
        best: dict[str, tuple[int, str]] = {}
        said = table.filter(pc.is_valid(table.column(column)))
        summed = said.group_by(["account_id", column]).aggregate([("count", "sum")]).to_pydict()
        for account, value, count in zip(
            summed["account_id"], summed[column], summed["count_sum"], strict=True
        ):
            best[account] = min(best.get(account, (0, "")), (-count, value))
        columns[column] = pa.array([best.get(name, (0, None))[1] for name in names], pa.string())
    return pa.Table.from_arrays(
        [columns.get(f.name, pa.nulls(len(names), f.type)) for f in ACCOUNTS], schema=ACCOUNTS
    )
