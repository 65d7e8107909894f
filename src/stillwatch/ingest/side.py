"""Side tables (accounts, sanctions, releases, references) from Parquet, Arrow, JSON, JSON lines or CSV."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from stillwatch.ingest.columns import Misfit, text_times, to_text
from stillwatch.ingest.objects import read_objects
from stillwatch.ingest.registry import Broken
from stillwatch.ingest.source import Source, digest, inspect
from stillwatch.ingest.tabular import read_tables
from stillwatch.schema.checks import check_side
from stillwatch.schema.errors import FormatError, UsageError, Where
from stillwatch.schema.tables import SIDE_TABLES

_BATCH_ROWS = 65_536


def read_side(name: str, path: str) -> pa.Table:
    """The checked side table `name` at `path`.

    Unlike a log, a side table with a broken row is refused as a whole (FormatError or RowError, naming the
    row): a lost sanction or a lost contract would change verdicts without a trace. Raises UsageError for an
    unknown name, InputError and its kinds for the rest. An empty file is an empty table.
    """
    return read_side_and_digest(name, path)[0]


def read_side_and_digest(name: str, path: str) -> tuple[pa.Table, str]:
    """As `read_side`, with the SHA-256 of the file as it was given, hex."""
    if name not in SIDE_TABLES:
        known = ", ".join(sorted(SIDE_TABLES))
        raise UsageError(f"unknown side table {name!r}", hint=f"side tables: {known}")
    folder = Path(tempfile.mkdtemp(prefix="stillwatch-"))
    try:
        source = inspect(path, 0, folder)
        told = digest(source.original)
        if source.container == "empty":
            return SIDE_TABLES[name].empty_table(), told
        table = _from_json(name, source) if source.container in ("json", "jsonl") else _from_table(source)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    checked, _ = check_side(name, table, path, strict=True)
    arrays = [
        checked.column(field.name)
        if field.name in checked.column_names
        else pa.nulls(checked.num_rows, field.type)
        for field in SIDE_TABLES[name]
    ]
    return pa.Table.from_arrays(arrays, schema=SIDE_TABLES[name]), told


def _from_table(source: Source) -> pa.Table:
    parts: list[pa.Table] = []
    for slab in read_tables(source, None, _BATCH_ROWS):
        _refuse(source, slab.broken)
        parts.append(slab.table)
    if not parts:
        return pa.table({column: pa.array([], pa.string()) for column in source.columns or ()})
    table = pa.concat_tables(parts, promote_options="permissive")
    if source.container == "csv":
        for index, column in enumerate(table.column_names):
            if column in ("ts", "created_at"):
                table = table.set_column(index, column, text_times(table.column(index).combine_chunks()))
            elif column == "verified":
                table = table.set_column(
                    index, column, _flags(source, column, table.column(index).to_pylist())
                )
    return table


def _from_json(name: str, source: Source) -> pa.Table:
    schema = SIDE_TABLES[name]
    columns: dict[str, list[Any]] = {field.name: [] for field in schema}
    for piece in read_objects(source, msgspec.json.Decoder(dict[str, Any])):
        _refuse(source, piece.broken)
        for found in piece.objects:
            for column, values in columns.items():
                values.append(found.get(column))
    arrays: dict[str, pa.Array] = {}
    for field in schema:
        values = columns[field.name]
        if all(value is None for value in values) and field.nullable:
            continue
        if field.type == pa.bool_():
            arrays[field.name] = _flags(source, field.name, values)
            continue
        timed = pa.types.is_timestamp(field.type)
        if timed and all(
            v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in values
        ):
            whole = all(v is None or isinstance(v, int) for v in values)
            arrays[field.name] = _numbers(source, field.name, values, whole)
            continue
        arrays[field.name] = _texts(source, field.name, values)
    return pa.table(arrays)


def _numbers(source: Source, column: str, values: Sequence[Any], whole: bool) -> pa.Array:
    try:
        return pa.array(values, pa.int64() if whole else pa.float64())
    except (OverflowError, pa.ArrowException):
        raise FormatError(
            "a time beyond the range of 64 bits", where=Where(source.path, None, column), hint="repair it"
        ) from None


def _texts(source: Source, column: str, values: Sequence[Any]) -> pa.Array:
    out: list[str | None] = []
    for index, value in enumerate(values):
        try:
            out.append(None if value is None else to_text(value))
        except Misfit as misfit:
            raise FormatError(
                str(misfit), where=Where(source.path, index + 1, column), hint="repair the row"
            ) from None
    return pa.array(out, pa.string())


def _flags(source: Source, column: str, values: Sequence[Any]) -> pa.Array:
    """Booleans however they are written. An unreadable one is an error: `verified` decides verdicts."""
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    out: list[bool | None] = []
    for index, value in enumerate(values):
        if value is None or isinstance(value, bool):
            out.append(value)
        elif str(value).strip().lower() in known:
            out.append(known[str(value).strip().lower()])
        else:
            where = Where(source.path, index + 1, column)
            raise FormatError("neither true nor false", where=where, hint="write true, false, 1 or 0")
    return pa.array(out, pa.bool_())


def _refuse(source: Source, broken: Sequence[Broken]) -> None:
    if broken:
        first = broken[0]
        raise FormatError(
            f"a row of a side table is refused: {first.reason}",
            where=Where(source.path, first.row, first.column),
            hint="repair the row: side tables are taken whole or not at all",
        )
