"""The bytes of refused rows, read again when somebody asks for them (`--keep-refused`).

By default a refusal carries no content: what is broken may be a prompt. Reading twice costs nothing where it is not
asked for.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.ingest.blocks import json_blocks, line_blocks, record_blocks
from stillwatch.ingest.source import Source, arrow_reader, csv_delimiter
from stillwatch.schema.refusals import Refusal

MOST_ROW_BYTES = 65_536
"""Of a longer row the beginning is kept."""
MOST_BYTES = 256 << 20
"""Of a whole scan. Refusals beyond it stay without bytes."""

Ints = npt.NDArray[np.int64]


def with_bytes(refusals: Sequence[Refusal], sources: Sequence[Source]) -> list[Refusal]:
    """The same refusals with `raw` filled.

    Text logs give the row as it stands in the (decompressed) file; Parquet and Arrow have no such bytes, so the row
    is written as a JSON object. Rows that cannot be found again keep None.
    """
    out = list(refusals)
    left = MOST_BYTES
    for source in sources:
        mine = {index: refusal for index, refusal in enumerate(refusals) if refusal.file == source.path}
        if not mine or source.container == "empty":
            continue
        find = _table_rows if source.container in ("parquet", "arrow") else _text_rows
        for index, data in find(source, mine):
            if left <= 0:
                break
            raw = data[:MOST_ROW_BYTES]
            left -= len(raw)
            out[index] = msgspec.structs.replace(mine[index], raw=raw)
    return out


def _text_rows(source: Source, wanted: dict[int, Refusal]) -> Iterator[tuple[int, bytes]]:
    """Rows by their byte offset where they have one, else by their number."""
    by_offset: dict[int, list[int]] = {}
    by_row: dict[int, list[int]] = {}
    for index, refusal in wanted.items():
        if refusal.offset is None:
            by_row.setdefault(refusal.row, []).append(index)
        else:
            by_offset.setdefault(refusal.offset, []).append(index)
    offsets, rows = np.array(sorted(by_offset), np.int64), np.array(sorted(by_row), np.int64)
    stream = source.open()
    try:
        if source.container == "csv":
            blocks = record_blocks(stream, csv_delimiter(source.head), len(source.columns or ()))
        else:
            blocks = line_blocks(stream) if source.container == "jsonl" else json_blocks(stream)
        for block in blocks:
            starts = block.starts + block.base
            for place in np.flatnonzero(np.isin(starts, offsets) | np.isin(block.rows, rows)).tolist():
                data = block.data[int(block.starts[place]) : int(block.ends[place])]
                found = by_offset.pop(int(starts[place]), []) + by_row.pop(int(block.rows[place]), [])
                yield from ((index, data) for index in found)
    finally:
        stream.close()
    # What never became a row (a bracket that does not close, a record of the wrong width) has a place all the same.
    yield from _from_places(source, by_offset)


def _from_places(source: Source, by_offset: dict[int, list[int]]) -> Iterator[tuple[int, bytes]]:
    """From each offset to the end of its line."""
    stream = source.open()
    at, data = 0, b""
    try:
        for offset in sorted(by_offset):
            while at + len(data) < offset + MOST_ROW_BYTES:
                more = stream.read(1 << 20)
                if not more:
                    break
                keep = max(0, min(len(data), offset - at))
                at, data = at + keep, data[keep:] + more
            line = data[max(0, offset - at) :][:MOST_ROW_BYTES].split(b"\n", 1)[0]
            if line:
                yield from ((index, line) for index in by_offset[offset])
    finally:
        stream.close()


def _table_rows(source: Source, wanted: dict[int, Refusal]) -> Iterator[tuple[int, bytes]]:
    places: dict[int, list[int]] = {}
    for index, refusal in wanted.items():
        places.setdefault(refusal.row, []).append(index)
    numbers = np.array(sorted(places), np.int64)
    start = 1
    for batch in _batches(source):
        inside = numbers[(numbers >= start) & (numbers < start + batch.num_rows)]
        for row in inside.tolist():
            data = json.dumps(
                {
                    name: _plain(batch.column(place)[row - start])
                    for place, name in enumerate(batch.schema.names)
                },
                ensure_ascii=False,
            )
            yield from ((index, data.encode("utf-8", "replace")) for index in places[row])
        start += batch.num_rows


def _batches(source: Source) -> Iterator[pa.RecordBatch]:
    if source.container == "parquet":
        with pq.ParquetFile(source.local, memory_map=True) as parquet:
            yield from parquet.iter_batches(batch_size=1024)
        return
    reader: Any = arrow_reader(source.local)
    if hasattr(reader, "num_record_batches"):
        yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
    else:
        yield from reader


def _plain(value: pa.Scalar) -> Any:
    """A cell as JSON writes it; text that is not UTF-8 with its odd bytes escaped."""
    try:
        plain = value.as_py()
    except UnicodeDecodeError:
        return bytes(value.cast(pa.binary()).as_py()).decode("utf-8", "backslashreplace")
    except (ValueError, OverflowError):
        return None
    if isinstance(plain, bytes):
        return base64.b64encode(plain).decode()
    return plain if isinstance(plain, str | int | float | bool | None) else str(plain)
