"""The lookup tables: their names, the columns in which people supply them, and the form in which they are kept.

    asn_ipv4                  start, end (IPv4 as numbers), asn [, org]
    hosting_asns              asn [, org]
    ip_kinds                  cidr (a block, or `first-last`), kind [, provider]; or start, end, kind
    disposable_email_domains  domain
    public_prompts            prompt (text, which is hashed and dropped), or posting (hashes)

Each is one Parquet, Arrow or CSV file of that name in a folder. Other columns are ignored.
"""

from __future__ import annotations

import ipaddress
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.ingest.source import Source, inspect
from stillwatch.ingest.tabular import read_tables
from stillwatch.schema.errors import ColumnError, FormatError, InputError, Where
from stillwatch.sketch import sketch_text

COSTS = {
    "asn_ipv4": "`asn` stays empty where the log has none",
    "hosting_asns": "hosting networks are not told from homes and offices",
    "ip_kinds": "strangers behind one relay, VPN or proxy look like people at one site",
    "disposable_email_domains": "accounts on one throw-away mail domain may look like one open customer",
    "public_prompts": "a published prompt counts as a template until many accounts use it",
}
"""Tables by name, with what a scan loses without them."""

NAMES = tuple(COSTS)
SUFFIXES = (".parquet", ".csv", ".csv.gz", ".arrow", ".tsv")
MOST_ADDRESSES = 2**32

I64 = npt.NDArray[np.int64]


def read_supplied(folder: Path) -> dict[str, pa.Table]:
    """The tables of a folder, in the form in which they are kept. Unknown files are left alone.

    Raises InputError (no folder, no table in it), ColumnError and FormatError (with file, row and column).
    """
    if not folder.is_dir():
        raise InputError("no such folder", where=Where(str(folder)))
    found: dict[str, pa.Table] = {}
    for name in NAMES:
        paths = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
        path = next((path for path in paths if path.is_file()), None)
        if path is not None:
            found[name] = normal(name, _read(path), str(path))
    if not found:
        raise InputError(
            "no lookup table in this folder",
            where=Where(str(folder)),
            hint=f"tables are called {', '.join(NAMES)}, as .parquet or .csv",
        )
    return found


def normal(name: str, table: pa.Table, file: str) -> pa.Table:
    """A table as supplied -> as kept: sorted, checked, and without what nobody looks up."""
    return _NORMAL[name](table, file)


def _read(path: Path) -> pa.Table:
    work = Path(tempfile.mkdtemp(prefix="stillwatch-"))
    try:
        source: Source = inspect(str(path), 0, work)
        if source.container not in ("parquet", "arrow", "csv"):
            raise FormatError("neither Parquet, Arrow nor CSV", where=Where(str(path)))
        parts: list[pa.Table] = []
        for slab in read_tables(source, None, 65_536):
            if slab.broken:
                first = slab.broken[0]
                raise FormatError(first.reason, where=Where(str(path), first.row, first.column))
            parts.append(slab.table)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if not parts:
        raise FormatError("the table is empty", where=Where(str(path)))
    return pa.concat_tables(parts, promote_options="permissive")


def _column(table: pa.Table, name: str, file: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise ColumnError(
            f"the column {name!r} is missing",
            where=Where(file, column=name),
            hint=f"it has {', '.join(table.column_names[:8])}; docs/tables.md lists the columns",
        )
    return table.column(name)


def _numbers(table: pa.Table, name: str, file: str, low: int, high: int) -> I64:
    column = _column(table, name, file)
    try:
        cast = column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise ColumnError("a whole number is expected", where=Where(file, column=name)) from error
    values: I64 = pc.fill_null(cast, -1).to_numpy()
    bad = (values < low) | (values > high)
    if bad.any():
        row = int(np.flatnonzero(bad)[0]) + 1
        raise FormatError(f"{name} lies outside {low} to {high}", where=Where(file, row, name))
    return values


def _texts(table: pa.Table, name: str, file: str) -> pa.ChunkedArray:
    column = _column(table, name, file)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise ColumnError("text is expected", where=Where(file, column=name))
    return column.cast(pa.large_string())


def _asn_ipv4(table: pa.Table, file: str) -> pa.Table:
    start = _numbers(table, "start", file, 0, MOST_ADDRESSES - 1)
    end = _numbers(table, "end", file, 0, MOST_ADDRESSES - 1)
    asn = _numbers(table, "asn", file, 0, 2**32 - 1)
    backwards = end < start
    if backwards.any():
        raise FormatError("a range ends before it starts", where=Where(file, _row(backwards), "end"))
    # Where ranges overlap, the one that starts later is the more specific one: the earlier ends before it.
    order = np.lexsort((asn, -end, start))
    start, end, asn = start[order], end[order], asn[order]
    end = np.minimum(end, np.append(start[1:] - 1, MOST_ADDRESSES))
    kept = end >= start
    return pa.table({"start": start[kept], "end": end[kept], "asn": asn[kept]})


def _hosting_asns(table: pa.Table, file: str) -> pa.Table:
    return pa.table({"asn": np.unique(_numbers(table, "asn", file, 0, 2**32 - 1))})


def _ip_kinds(table: pa.Table, file: str) -> pa.Table:
    kinds = _texts(table, "kind", file).to_pylist()
    if "cidr" in table.column_names:
        blocks = _texts(table, "cidr", file).to_pylist()
        ends = [_ends(block, file, row) for row, block in enumerate(blocks, 1)]
    else:
        start = _numbers(table, "start", file, 0, MOST_ADDRESSES - 1).tolist()
        ends = list(zip(start, _numbers(table, "end", file, 0, MOST_ADDRESSES - 1).tolist(), strict=True))
    rows = sorted(
        {(*pair, kind) for pair, kind in zip(ends, kinds, strict=True) if pair is not None and kind}
    )
    columns: list[list[Any]] = [list(part) for part in zip(*rows, strict=True)] or [[], [], []]
    return pa.table(
        {
            "start": pa.array(columns[0], pa.int64()),
            "end": pa.array(columns[1], pa.int64()),
            "kind": pa.array(columns[2], pa.large_string()),
        }
    )


def _ends(block: str | None, file: str, row: int) -> tuple[int, int] | None:
    """First and last address as numbers; None for IPv6, which is not looked up."""
    text = (block or "").strip()
    try:
        if "-" in text:
            first, last = (ipaddress.ip_address(part.strip()) for part in text.split("-", 1))
        else:
            network = ipaddress.ip_network(text, strict=False)
            first, last = network[0], network[-1]
    except ValueError as error:
        raise FormatError("no address block", where=Where(file, row, "cidr")) from error
    if first.version == 6:
        return None
    if int(last) < int(first):
        raise FormatError("a range ends before it starts", where=Where(file, row, "cidr"))
    return int(first), int(last)


def _disposable(table: pa.Table, file: str) -> pa.Table:
    texts = pc.utf8_lower(pc.utf8_trim_whitespace(_texts(table, "domain", file)))
    domains = sorted({text for text in texts.to_pylist() if text and not text.startswith("#")})
    odd = next((domain for domain in domains if "." not in domain or len(domain) > 253), None)
    if odd is not None:
        row = texts.to_pylist().index(odd) + 1
        raise FormatError("no mail domain", where=Where(file, row, "domain"))
    return pa.table({"domain": pa.array(domains, pa.large_string())})


def _public_prompts(table: pa.Table, file: str) -> pa.Table:
    if "posting" in table.column_names:
        column = table.column("posting")
        if column.type != pa.uint64():
            raise ColumnError("unsigned 64-bit numbers are expected", where=Where(file, column="posting"))
        postings = column.drop_null().to_numpy()
    else:
        postings = sketch_text(_texts(table, "prompt", file)).post
    return pa.table({"posting": np.unique(postings)})


def _row(bad: npt.NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(bad)[0]) + 1


_NORMAL: dict[str, Callable[[pa.Table, str], pa.Table]] = {
    "asn_ipv4": _asn_ipv4,
    "hosting_asns": _hosting_asns,
    "ip_kinds": _ip_kinds,
    "disposable_email_domains": _disposable,
    "public_prompts": _public_prompts,
}
