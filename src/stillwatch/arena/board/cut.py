"""A made log as it stood at a moment, to see when an operation is found and what it had taken by then."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stillwatch.arena.files import exchange_files

DAY_US = 86_400_000_000
DAYS = (1, 2, 3, 4, 5, 7, 10, 14)
"""Days after the log's first exchange at which it is cut."""


def bounds_us(log: Path) -> tuple[int, int]:
    """First and last exchange, in microseconds since 1970."""
    ts = _exchanges(log, ["ts"])["ts"]
    found = pc.min_max(ts)
    return found["min"].value, found["max"].value


def cut(log: Path, out: Path, until_us: int) -> bool:
    """Write the log as it stood at `until_us`: exchanges, accounts, sanctions, releases and truth before it.

    Returns False, and writes nothing, where no exchange lies before it.
    """
    exchanges = _exchanges(log)
    before = _until(exchanges["ts"], until_us)
    kept = exchanges.filter(before)
    if not kept.num_rows:
        return False
    shutil.rmtree(out, ignore_errors=True)
    (out / "truth").mkdir(parents=True, mode=0o700)
    pq.write_table(kept, out / "exchanges.parquet", compression="zstd", row_group_size=65_536)
    for name in ("sanctions", "releases"):
        table = pq.read_table(log / f"{name}.parquet")
        pq.write_table(table.filter(_until(table["ts"], until_us)), out / f"{name}.parquet")
    accounts = pq.read_table(log / "accounts.parquet")
    known = _until(accounts["created_at"], until_us)
    pq.write_table(accounts.filter(known), out / "accounts.parquet")
    truth = pq.read_table(log / "truth" / "accounts.parquet")
    active = pc.is_in(truth["account_id"], value_set=pc.unique(kept["account_id"]))
    pq.write_table(truth.filter(active), out / "truth" / "accounts.parquet")
    labels = pq.read_table(log / "truth" / "exchanges.parquet")
    pq.write_table(labels.filter(before), out / "truth" / "exchanges.parquet")
    shutil.copy(log / "truth" / "groups.parquet", out / "truth" / "groups.parquet")
    return True


def _exchanges(log: Path, columns: list[str] | None = None) -> pa.Table:
    return pa.concat_tables(pq.read_table(p, columns=columns, partitioning=None) for p in exchange_files(log))


def _until(times: pa.ChunkedArray, until_us: int) -> pa.ChunkedArray:
    """Which times lie at or before a moment; an unknown time does."""
    return pc.fill_null(pc.less_equal(times.cast(pa.int64()), until_us), True)
