"""What baselines read of a log, and the result files that they write."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stillwatch.schema.errors import MissingExtraError

MOST_ROWS = 500_000
"""Rows that methods whose cost is in text read: each account's first ones, as many of each as fit."""


def missing(package: str) -> MissingExtraError:
    """The error of a baseline whose package is not there."""
    return MissingExtraError(package, "baselines", needed_for="this baseline")


def query(log: Path, sql: str) -> Any:
    """A DuckDB relation; `$e` and `$a` are the exchanges and the accounts."""
    for mark, name in (("$e", "exchanges*"), ("$a", "accounts")):
        sql = sql.replace(mark, f"'{log / name}.parquet'")
    return duckdb.sql(sql)


def first_rows(log: Path, columns: str, most: int = MOST_ROWS, where: str = "true") -> pa.Table:
    """`columns` (SQL) of each account's first exchanges in the order of time, at most about `most` rows."""
    rows = query(log, f"select count(*) from $e where {where} group by account_id").fetchall()
    counts = [n for (n,) in rows]
    keep = max(counts or [1])
    if sum(counts) > most:
        low, high = 1, keep
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if sum(min(n, middle) for n in counts) <= most else (low, middle - 1)
        keep = low
    return query(
        log,
        f"select {columns} from (select *, row_number() over (partition by account_id order by ts, exchange_id) "
        f"as place from $e where {where}) where place <= {keep} order by ts, exchange_id",
    ).to_arrow_table()


def honest_accounts(log: Path) -> set[str]:
    """Accounts of verified organisations: what a provider knows to be honest, to set thresholds by."""
    found = query(log, "select account_id from $a where verified").fetchall()
    return {name for (name,) in found}


def write_groups(log: Path, out: Path, groups: Mapping[str, Iterable[str]] | Sequence[Iterable[str]]) -> None:
    """One results folder `all` with every group a campaign; empty groups are left out.

    Accounts of verified organisations are never named, whatever the method says: every provider would leave them out.
    """
    named = dict(groups) if isinstance(groups, Mapping) else {f"group{i}": g for i, g in enumerate(groups)}
    honest = honest_accounts(log)
    kept = {name: sorted(set(found) - honest) for name, found in named.items()}
    kept = {name: found for name, found in kept.items() if found}
    folder = out / "all"
    folder.mkdir(parents=True)
    plain = {"groups": [{"id": name, "verdict": "campaign"} for name in kept]}
    (folder / "findings.json").write_text(json.dumps(plain, sort_keys=True) + "\n", encoding="utf-8")
    rows = [(account, name) for name, found in kept.items() for account in found]
    columns = {"account_id": [a for a, _ in rows], "campaign_id": [g for _, g in rows]}
    text = pa.string()
    pq.write_table(
        pa.table(columns, schema=pa.schema([(n, text) for n in columns])), folder / "accounts.parquet"
    )


def components(edges: Iterable[tuple[str, str]], least: int) -> list[list[str]]:
    """Connected components of at least `least` accounts, largest first."""
    pairs = list(edges)
    if not pairs:
        return []
    names, ends = np.unique(np.array(pairs).ravel(), return_inverse=True)
    graph = coo_array((np.ones(len(pairs), bool), (ends[::2], ends[1::2])), shape=(len(names), len(names)))
    labels = connected_components(graph, directed=False)[1]
    groups: dict[int, list[str]] = {}
    for name, label in zip(names.tolist(), labels.tolist(), strict=True):
        groups.setdefault(label, []).append(name)
    return sorted((g for g in groups.values() if len(g) >= least), key=lambda g: (-len(g), g[0]))
