"""Where lookup tables are kept between scans, and the digests by which a result names them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.ingest.lookup.shapes import NAMES
from stillwatch.ingest.lookup.use import Lookups
from stillwatch.schema.errors import OutputError, Where, unwritable
from stillwatch.schema.results import TableUsed

VARIABLE = "STILLWATCH_DATA"
MANIFEST = "tables.json"


def default_folder() -> Path:
    """`$STILLWATCH_DATA`, else `stillwatch/tables` in the user's cache folder (XDG base directories)."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "stillwatch" / "tables"


def digest(table: pa.Table) -> str:
    """SHA-256 over names, types and values of a table, whatever wrote it: hex."""
    value = hashlib.sha256()
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        value.update(f"{name}\0{column.type}\0{len(column)}\0".encode())
        if pa.types.is_large_string(column.type) or pa.types.is_string(column.type):
            texts = [text.encode() for text in column.to_pylist()]
            value.update(np.array([len(text) for text in texts], "<i8").tobytes())
            value.update(b"".join(texts))
        else:
            value.update(column.to_numpy(zero_copy_only=False).astype("<u8").tobytes())
    return value.hexdigest()


def write_tables(folder: Path, tables: Mapping[str, pa.Table], origins: Mapping[str, str]) -> list[TableUsed]:
    """Keep `tables` in `folder`, beside those that are there already. One step: all of them or none.

    `origins` says in words where each table is from. Raises OutputError.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists() and not folder.is_dir():
            raise OutputError("this is a file, not a folder", where=Where(str(folder)))
        if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
            raise OutputError(
                "this folder holds something else than lookup tables",
                where=Where(str(folder)),
                hint=f"name an empty folder in {VARIABLE}",
            )
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise unwritable(error, str(folder), "the tables") from error
    try:
        manifest = _manifest(folder)
        for name in NAMES:
            target = work / f"{name}.parquet"
            if name in tables:
                table = tables[name]
                pq.write_table(table, target, compression="zstd", store_schema=False)
                manifest[name] = {
                    "rows": table.num_rows,
                    "digest": digest(_read(target, name)),
                    "origin": origins[name],
                }
            elif name in manifest and (folder / target.name).is_file():
                shutil.copyfile(folder / target.name, target)
        text = json.dumps({"version": 1, "tables": manifest}, indent=2, sort_keys=True) + "\n"
        (work / MANIFEST).write_text(text, encoding="utf-8")
        for path in work.iterdir():
            with path.open("rb") as written:
                os.fsync(written.fileno())
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
            os.replace(folder, old / "was")
            os.replace(work, folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(work, folder)
    except OSError as error:
        raise unwritable(error, str(folder), "the tables") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return [_used(name, manifest[name]) for name in NAMES if name in tables]


def read_lookups(folder: Path | None = None) -> Lookups:
    """The tables kept in `folder` (default: `default_folder()`). Never raises: what cannot be read is `damaged`."""
    folder = folder or default_folder()
    tables: dict[str, pa.Table] = {}
    used: list[TableUsed] = []
    damaged: list[str] = []
    for name, record in _manifest(folder).items():
        try:
            table = _read(folder / f"{name}.parquet", name)
            entry = _used(name, record)
            if digest(table) != entry.digest:
                raise ValueError("the table is not the one that was kept")
        except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
            damaged.append(name)
            continue
        tables[name] = table
        used.append(entry)
    return Lookups(tables, tuple(sorted(used, key=lambda entry: entry.name)), tuple(damaged))


def origins(folder: Path | None = None) -> dict[str, str]:
    """Where each kept table is from."""
    return {
        name: str(record.get("origin", "")) for name, record in _manifest(folder or default_folder()).items()
    }


_COLUMNS = {
    "asn_ipv4": {"start": pa.int64(), "end": pa.int64(), "asn": pa.int64()},
    "hosting_asns": {"asn": pa.int64()},
    "ip_kinds": {"start": pa.int64(), "end": pa.int64(), "kind": pa.large_string()},
    "disposable_email_domains": {"domain": pa.large_string()},
    "public_prompts": {"posting": pa.uint64()},
}


def _read(path: Path, name: str) -> pa.Table:
    table = pq.read_table(path, columns=list(_COLUMNS[name]))
    return table.cast(pa.schema(_COLUMNS[name])).combine_chunks()


def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        tables = found["tables"]
        return {name: dict(tables[name]) for name in NAMES if name in tables}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _used(name: str, record: Mapping[str, Any]) -> TableUsed:
    return TableUsed(name=name, rows=int(record["rows"]), digest=str(record["digest"]))
