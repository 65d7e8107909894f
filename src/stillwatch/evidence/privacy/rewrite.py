"""Folders that a scan, `ingest` or `sketch` wrote, written anew without one account and put in place in one step."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.report.html import render
from stillwatch.schema.errors import ResultError, Where, unwritable
from stillwatch.schema.refusals import Refusal
from stillwatch.store import erasures
from stillwatch.store.erasures import Erasure, read_erasures
from stillwatch.store.results import read_results, results_digest
from stillwatch.store.swap import fresh, replace_folder
from stillwatch.store.without import rows_of, without

_ROW_GROUP = 65_536


def tables_digest(folder: Path) -> str:
    """SHA-256 over the tables of a folder that `ingest` or `sketch` wrote, and of the folders in it, hex."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.parquet")):
        with path.open("rb") as handle:
            own = hashlib.file_digest(handle, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder)}\0{own}\0".encode())
    return digest.hexdigest()


def holds_rows(path: Path, account: str) -> bool:
    """Whether a Parquet file has a row of the account. ResultError if it cannot be read."""
    try:
        with pq.ParquetFile(path) as file:
            return any(rows_of(batch, account).any() for batch in file.iter_batches(_ROW_GROUP))
    except (OSError, pa.ArrowException) as error:
        raise ResultError("a table is damaged", where=Where(str(path))) from error


def results_without(folder: Path, account: str, subject: str | None) -> bool:
    """A results folder without the account; whether there was anything of it. ResultError if it cannot be read.

    findings.json stays: it has counts and words about groups. The report is made anew.
    """
    _may_be_rewritten(folder)
    try:
        tables = {path.stem: pq.ParquetFile(path).read() for path in sorted(folder.glob("*.parquet"))}
    except (OSError, pa.ArrowException) as error:
        raise ResultError("a table is damaged", where=Where(str(folder)), hint="scan again") from error
    changed = without(tables, account)

    def write(made: Path) -> None:
        for name, table in changed.items():
            pq.write_table(
                table.combine_chunks(), made / f"{name}.parquet", compression="zstd", store_schema=False
            )

    def after(made: Path) -> None:
        if (folder / "report.html").exists():
            (made / "report.html").write_text(render(read_results(made)), encoding="utf-8")

    return _written_anew(
        folder,
        {Path(f"{name}.parquet"): write for name in changed},
        account,
        "results",
        results_digest,
        subject,
        after,
    )


def tables_without(folder: Path, account: str, subject: str | None) -> bool:
    """A folder of canonical tables without the account; whether there was anything of it. Read piece by piece."""
    _may_be_rewritten(folder)
    return _written_anew(folder, {}, account, "tables", tables_digest, subject, lambda _: None)


def _may_be_rewritten(folder: Path) -> None:
    """Only plain files and folders: what a link leads to is not what was named."""
    odd = (path for path in folder.rglob("*") if path.is_symlink() or not (path.is_file() or path.is_dir()))
    if folder.is_symlink() or any(odd):
        raise ResultError(
            "the folder is a link or holds some, so it is not rewritten",
            where=Where(str(folder)),
            hint="put what the links lead to in their place",
        )


def _written_anew(
    folder: Path,
    mine: dict[Path, Callable[[Path], None]],
    account: str,
    kind: Literal["results", "tables"],
    digest: Callable[[Path], str],
    subject: str | None,
    after: Callable[[Path], None],
) -> bool:
    """The folder's content beside it, then in its place, with one more erasure; False where there is no need.

    `mine` writes some tables; others that have rows of the account are written here. What stays as it is, is linked.
    """
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    rest = [name for name in files if name.suffix == ".parquet" and name not in mine]
    rest = [name for name in rest if holds_rows(folder / name, account)]
    told = _without_bytes(folder / "refused.jsonl")
    if not mine and not rest and told is None:
        return False
    new = {*mine, *rest, Path(erasures.NAME)}
    new |= {Path("report.html")} if kind == "results" else set()
    new |= set() if told is None else {Path("refused.jsonl")}
    was = digest(folder)
    try:
        made = fresh(folder)
        try:
            for name in files:
                (made / name.parent).mkdir(parents=True, exist_ok=True, mode=0o700)
                if name not in new:
                    os.link(folder / name, made / name)
            for write in dict.fromkeys(mine.values()):
                write(made)
            for name in rest:
                _filter(folder / name, made / name, account)
            if told is not None:
                (made / "refused.jsonl").write_bytes(told)
            after(made)
            entry = Erasure(kind=kind, was=was, now=digest(made), subject=subject)
            lines = [msgspec.json.encode(row) + b"\n" for row in (*read_erasures(folder), entry)]
            (made / erasures.NAME).write_bytes(b"".join(lines))
            replace_folder(made, folder)
        finally:
            if made.exists():
                rmtree(made, ignore_errors=True)
    except OSError as error:
        raise unwritable(error, str(folder), "the folder without the account") from error
    return True


def _filter(source: Path, made: Path, account: str) -> None:
    with (
        pq.ParquetFile(source) as file,
        pq.ParquetWriter(made, file.schema_arrow, compression="zstd") as out,
    ):
        for batch in file.iter_batches(_ROW_GROUP):
            kept = batch.filter(pa.array(np.logical_not(rows_of(batch, account))))
            out.write_batch(kept, row_group_size=_ROW_GROUP)


def _without_bytes(path: Path) -> bytes | None:
    """refused.jsonl without the bytes that `--keep-refused` kept: nobody can tell whose they are. None: has none."""
    try:
        rows = [msgspec.json.decode(line, type=Refusal) for line in path.read_bytes().splitlines()]
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultError("the list of refused rows is damaged", where=Where(str(path))) from error
    if all(row.raw is None for row in rows):
        return None
    return b"".join(msgspec.json.encode(msgspec.structs.replace(row, raw=None)) + b"\n" for row in rows)
