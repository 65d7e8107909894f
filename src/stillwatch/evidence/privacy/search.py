"""Whether a file still mentions an account: as text, in cells of tables, in the ways that JSON and HTML write it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.schema.errors import ResultError, Where
from stillwatch.store.without import is_of

WORD = 6
"""Ids of so many characters are looked for as a word anywhere; shorter ones only between quotes or tags, because a
number like 42 stands everywhere."""
_CHUNK = 1 << 20


def mentions(path: Path, account: str) -> bool:
    """Whether the file's bytes, or a Parquet file's cells, mention the account. ResultError if it cannot be read."""
    pattern = _pattern(account)
    try:
        if path.suffix == ".parquet":
            return any(_in_cell(cell, account, pattern) for cell in _cells(path))
        return _in_bytes(path, pattern, 12 * len(account.encode("utf-8", "replace")) + 4)
    except (OSError, pa.ArrowException) as error:
        raise ResultError("a file cannot be searched for the account", where=Where(str(path))) from error


def _pattern(account: str) -> re.Pattern[bytes]:
    forms = {
        account,
        html.escape(account),
        json.dumps(account)[1:-1],
        json.dumps(account, ensure_ascii=False)[1:-1],
    }
    either = b"|".join(re.escape(form.encode("utf-8", "replace")) for form in sorted(forms))
    if len(account) < WORD:
        return re.compile(b"[\"'>](?:" + either + b")[\"'<]")
    return re.compile(b"(?<![A-Za-z0-9])(?:" + either + b")(?![A-Za-z0-9])")


def _in_bytes(path: Path, pattern: re.Pattern[bytes], overlap: int) -> bool:
    before = b""
    with path.open("rb") as handle:
        while piece := handle.read(_CHUNK):
            if pattern.search(before + piece):
                return True
            before = (before + piece)[-overlap:]
    return False


def _cells(path: Path) -> Iterator[str | bytes]:
    with pq.ParquetFile(path) as file:
        yield from (file.schema_arrow.metadata or {}).values()
        for batch in file.iter_batches(8192):
            for column in batch.columns:
                yield from _texts(column)


def _texts(column: pa.Array) -> Iterator[str | bytes]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        yield from _texts(column.dictionary)
    elif pa.types.is_struct(kind):
        for part in column.flatten():
            yield from _texts(part)
    elif pa.types.is_map(kind):
        yield from _texts(column.keys)
        yield from _texts(column.items)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _texts(column.flatten())
    elif (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    ):
        yield from (cell for cell in column.unique().to_pylist() if cell is not None)


def _in_cell(cell: str | bytes, account: str, pattern: re.Pattern[bytes]) -> bool:
    if isinstance(cell, str):
        return is_of(cell, account) or pattern.search(cell.encode("utf-8", "replace")) is not None
    return pattern.search(cell) is not None
