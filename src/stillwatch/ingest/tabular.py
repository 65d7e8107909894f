"""Parquet, Arrow and CSV -> Arrow tables of bounded size, as they lie in the file.

CSV columns come out as text; what they mean is judged per column later. Text that is not UTF-8 costs its row,
not the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from stillwatch.ingest.blocks import Block, record_blocks
from stillwatch.ingest.registry import Broken
from stillwatch.ingest.source import Source, arrow_reader, csv_delimiter
from stillwatch.schema.errors import FormatError, Where

TARGET_BYTES = 64 << 20
"""Uncompressed size that a batch aims at: rows of 50 KB must not come 65,536 at a time."""

_ERRORS = (pa.ArrowException, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Slab:
    """Consecutive rows of a table with their places."""

    table: pa.Table
    rows: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64] | None
    broken: list[Broken]


def read_tables(
    source: Source,
    wanted: Sequence[str] | None,
    batch_rows: int,
    rows: npt.NDArray[np.int64] | None = None,
) -> Iterator[Slab]:
    """Slabs of the columns `wanted` (all, if None) that the source has. FormatError where it is damaged.

    Of a Parquet or Arrow file only the `rows` are given, if they are named; row groups that hold none of them are
    not read.
    """
    if source.container == "csv":
        yield from _read_csv(source, wanted)
    else:
        yield from _ahead(_read_columns(source, wanted, batch_rows, rows))


def _ahead(slabs: Iterator[Slab]) -> Iterator[Slab]:
    """The same slabs; the next one is decoded while this one is in use."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, slabs, None)
        while (slab := coming.result()) is not None:
            coming = pool.submit(next, slabs, None)
            yield slab


def _read_columns(
    source: Source,
    wanted: Sequence[str] | None,
    batch_rows: int,
    rows: npt.NDArray[np.int64] | None,
) -> Iterator[Slab]:
    batches: Iterator[pa.RecordBatch | int] = (
        _parquet_batches(source, wanted, batch_rows, rows)
        if source.container == "parquet"
        else _arrow_batches(source, wanted, batch_rows)
    )
    row = 1
    while True:
        try:
            batch = next(batches, None)
        except _ERRORS as error:
            raise FormatError(
                "the file is truncated or corrupt",
                where=Where(source.path, row=row),
                hint="copy the file again, or leave it out of the scan",
            ) from error
        if batch is None:
            return
        if isinstance(batch, int):
            row += batch
            continue
        numbers = np.arange(row, row + batch.num_rows, dtype=np.int64)
        row += batch.num_rows
        if rows is not None:
            keep = np.isin(numbers, rows)
            batch, numbers = batch.filter(pa.array(keep)), numbers[keep]
        if batch.num_rows:
            yield _valid_text(source, batch, numbers)


def _parquet_batches(
    source: Source,
    wanted: Sequence[str] | None,
    batch_rows: int,
    rows: npt.NDArray[np.int64] | None,
) -> Iterator[pa.RecordBatch | int]:
    """Batches in order; a number stands for so many rows that were skipped."""
    with pq.ParquetFile(source.local, memory_map=True) as parquet:
        names = parquet.schema_arrow.names
        chosen = names if wanted is None else [name for name in names if name in wanted]
        meta = parquet.metadata
        sizes = sum(meta.row_group(index).total_byte_size for index in range(meta.num_row_groups))
        per_row = max(1, sizes // max(1, meta.num_rows))
        count = int(max(64, min(batch_rows, TARGET_BYTES // per_row)))
        if not chosen:
            # Without a single known column there is still the number of rows to tell.
            yield from pa.table({"": pa.nulls(meta.num_rows)}).to_batches(max_chunksize=batch_rows)
            return
        if rows is None:
            yield from parquet.iter_batches(batch_size=count, columns=chosen, use_threads=True)
            return
        sizes_by_group = [meta.row_group(index).num_rows for index in range(meta.num_row_groups)]
        ends = np.cumsum(sizes_by_group)
        for index in range(meta.num_row_groups):
            if np.any((rows > ends[index] - sizes_by_group[index]) & (rows <= ends[index])):
                yield from parquet.iter_batches(
                    batch_size=count, row_groups=[index], columns=chosen, use_threads=True
                )
            else:
                yield sizes_by_group[index]


def _arrow_batches(source: Source, wanted: Sequence[str] | None, batch_rows: int) -> Iterator[pa.RecordBatch]:
    reader = arrow_reader(source.local)
    names = reader.schema.names
    chosen = names if wanted is None else [name for name in names if name in wanted]
    for batch in _each(reader):
        part = batch.select(chosen) if chosen else pa.record_batch({"": pa.nulls(batch.num_rows)})
        for start in range(0, part.num_rows, batch_rows):
            yield part.slice(start, batch_rows)


def _each(reader: ipc.RecordBatchStreamReader | ipc.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, ipc.RecordBatchFileReader):
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index)
    else:
        yield from reader


def _valid_text(source: Source, batch: pa.RecordBatch, rows: npt.NDArray[np.int64]) -> Slab:
    """Leave out rows with text that is not UTF-8; Parquet and Arrow readers do not look."""
    bad: dict[int, str] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            kind = column.type
            plain = column
            if pa.types.is_dictionary(kind):
                plain = column.indices
                kind = column.type.value_type
            if "UTF8" not in str(error) or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise FormatError(
                    "the column is corrupt",
                    where=Where(source.path, row=int(rows[0]), column=name),
                    hint="write the file again, or leave it out of the scan",
                ) from error
            binary = column.dictionary_decode() if plain is not column else column
            for index, value in enumerate(binary.cast(pa.large_binary()).to_pylist()):
                if value is not None and not is_utf8(value):
                    bad.setdefault(index, name)
    table = pa.Table.from_batches([batch])
    if not bad:
        return Slab(table, rows, None, [])
    keep = np.ones(len(rows), dtype=bool)
    keep[list(bad)] = False
    broken = [Broken(int(rows[index]), "invalid UTF-8", None, name) for index, name in sorted(bad.items())]
    return Slab(table.filter(pa.array(keep)), rows[keep], None, broken)


def is_utf8(value: bytes) -> bool:
    """True for bytes that decode."""
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _read_csv(source: Source, wanted: Sequence[str] | None) -> Iterator[Slab]:
    names = list(source.columns or ())
    chosen = names if wanted is None else [name for name in names if name in wanted]
    delimiter = csv_delimiter(source.head)
    stream = source.open()
    try:
        for block in record_blocks(stream, delimiter, len(names)):
            broken = [Broken(part.row, part.reason, part.offset) for part in block.broken]
            yield _parse_records(block, names, chosen, delimiter, broken)
    finally:
        stream.close()


def _parse_records(
    block: Block, names: list[str], chosen: list[str], delimiter: str, broken: list[Broken]
) -> Slab:
    rows, offsets = block.rows, block.starts + block.base
    texts = block.slices()
    table = _parse(texts, names, chosen, delimiter)
    if table is None:
        # The parser and the splitter disagree on some record: find out which, one at a time.
        good = [
            index for index, text in enumerate(texts) if _parse([text], names, chosen, delimiter) is not None
        ]
        lost = sorted(set(range(len(texts))) - set(good))
        broken.extend(Broken(int(rows[i]), "not a CSV record", int(offsets[i])) for i in lost)
        places = np.array(good, dtype=np.int64)
        rows, offsets = rows[places], offsets[places]
        parts = [_parse([texts[index]], names, chosen, delimiter) for index in good]
        table = pa.concat_tables([part for part in parts if part is not None]) if parts else _no_rows(chosen)
    bad: dict[int, str] = {}
    columns: list[pa.ChunkedArray] = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        try:
            columns.append(column.cast(pa.string()))
        except pa.ArrowInvalid:
            values = column.to_pylist()
            for index, value in enumerate(values):
                if value is not None and not is_utf8(value):
                    bad.setdefault(index, name)
            columns.append(
                pa.chunked_array([[None if v is None else v.decode("utf-8", "replace") for v in values]])
            )
    table = pa.table(columns, names=table.column_names) if columns else table
    if bad:
        keep = np.ones(len(rows), dtype=bool)
        keep[list(bad)] = False
        broken.extend(Broken(int(rows[i]), "invalid UTF-8", int(offsets[i]), name) for i, name in bad.items())
        table, rows, offsets = table.filter(pa.array(keep)), rows[keep], offsets[keep]
    broken.sort(key=lambda part: part.row)
    return Slab(table, rows, offsets, broken)


def _no_rows(chosen: list[str]) -> pa.Table:
    return pa.table({name: pa.array([], pa.binary()) for name in chosen})


def _parse(texts: list[bytes], names: list[str], chosen: list[str], delimiter: str) -> pa.Table | None:
    """Records as binary columns, or None where the parser sees other records than the splitter did."""
    if not texts or not chosen:
        return pa.table({"": pa.nulls(len(texts))}) if texts else _no_rows(chosen)
    longest = max(map(len, texts))
    try:
        table = csv.read_csv(
            pa.BufferReader(b"\n".join(texts) + b"\n"),
            read_options=csv.ReadOptions(column_names=names, block_size=max(1 << 20, 2 * longest + 16)),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types={name: pa.binary() for name in chosen},
                include_columns=chosen,
                null_values=[""],
                strings_can_be_null=True,
                check_utf8=False,
            ),
        )
    except _ERRORS:
        return None
    return table if table.num_rows == len(texts) else None
