"""The rows of partitions: their columns, the days that they belong to, and each of them once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stillwatch.schema.errors import InputError, Where
from stillwatch.schema.tables import EXCHANGES

TEXTS = frozenset({"system", "prompt", "response", "raw_ref"})
ROWS = pa.schema([column for column in EXCHANGES if column.name not in TEXTS])
"""The columns of a partition: no text, and no place in an input that is gone."""


def shaped(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with the columns of `ROWS` and no others; null where it lacks one."""
    have = set(batch.schema.names)
    arrays = [
        batch.column(f.name).cast(f.type) if f.name in have else pa.nulls(batch.num_rows, f.type)
        for f in ROWS
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=ROWS)


def read_rows(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A file of partitions. InputError if it cannot be read."""
    try:
        # Not `read_table`: it would take folder names for columns.
        with pq.ParquetFile(path) as file:
            return file.read(columns).replace_schema_metadata()
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            "a partition is missing or damaged", where=Where(str(path)), hint="restore it from a backup"
        ) from error


def day_of(us: int) -> str:
    """The UTC day of a time."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).date().isoformat()


def by_day(table: pa.Table) -> Iterable[tuple[str, pa.Table]]:
    """The rows of each UTC day."""
    if table.num_rows == 0:
        return
    days = pc.floor_temporal(table.column("ts"), unit="day").cast(pa.int64())
    for day in pc.unique(days).to_pylist():
        yield day_of(day), table.filter(pc.equal(days, day))


def one_table(tables: Sequence[pa.Table], known: Sequence[pa.Table]) -> tuple[pa.Table, int]:
    """One table in the order of time and id, each id once, none that is `known`; and how many rows went for that."""
    table = pa.concat_tables([ROWS.empty_table(), *(t.select(ROWS.names).cast(ROWS) for t in tables)])
    before = table.num_rows
    if known:
        ids = pa.concat_tables(known).column("exchange_id").combine_chunks()
        table = table.filter(pc.invert(pc.is_in(table.column("exchange_id"), value_set=ids)))
    table = table.append_column("_at", pa.array(range(table.num_rows), pa.int64()))
    first = table.group_by("exchange_id", use_threads=False).aggregate([("_at", "min")])
    if first.num_rows < table.num_rows:
        table = table.filter(
            pc.is_in(table.column("_at"), value_set=first.column("_at_min").combine_chunks())
        )
    table = table.sort_by([("ts", "ascending"), ("exchange_id", "ascending")]).select(ROWS.names)
    return table.combine_chunks(), before - table.num_rows
