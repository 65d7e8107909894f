"""One segment of partitions: rows, and in the file's metadata how far their input had been read with them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.schema.errors import InputError, Where
from stillwatch.schema.refusals import Refusal

_META = b"stillwatch"


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata of a segment."""

    input: str
    number: int
    position: Any
    rows: int
    refusals: list[Refusal] = []
    owners: list[tuple[str, str | None, str | None, int]] = []


def segment(table: pa.Table, head: Head) -> memoryview:
    """The bytes of a segment's file."""
    sink = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata({_META: msgspec.json.encode(head)}), sink, compression="zstd"
    )
    return sink.getbuffer()


def read_head(path: Path) -> Head:
    """The metadata alone. InputError if it cannot be read."""
    try:
        return msgspec.json.decode(pq.read_schema(path).metadata[_META], type=Head)
    except (OSError, KeyError, TypeError, pa.ArrowException, msgspec.DecodeError) as error:
        raise InputError(
            "rows that were kept cannot be read",
            where=Where(str(path)),
            hint="restore the file from a backup, or remove it: its rows are lost then",
        ) from error
