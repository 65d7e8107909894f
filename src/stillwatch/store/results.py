"""A results folder: written beside its place and moved there in one step, read back with its version checked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.campaign.freed import Freed
from stillwatch.campaign.lineage import Earlier
from stillwatch.schema.errors import OutputError, ResultError, Where, unwritable
from stillwatch.schema.proof import PROOF
from stillwatch.schema.refusals import Refusal
from stillwatch.schema.results import (
    ACCOUNT_ROWS,
    FAMILY_ROWS,
    PROFILE_ROWS,
    SCHEMA_VERSION,
    STREAM_ROWS,
    WATERFALL_ROWS,
    Findings,
)
from stillwatch.schema.scoring import SCORING
from stillwatch.store.appeals import freed_by, read_appeals
from stillwatch.store.chain import head_of

if TYPE_CHECKING:
    from stillwatch.scan import Scanned

TABLES = {
    "accounts": ACCOUNT_ROWS,
    "streams": STREAM_ROWS,
    "families": FAMILY_ROWS,
    "profiles": PROFILE_ROWS,
    "waterfall": WATERFALL_ROWS,
}
DIGESTED = ("findings.json", *(f"{name}.parquet" for name in TABLES), "refused.jsonl")
"""The files that are a function of input, seed and version. `run.json` and `report.html` are not among them."""

_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Results:
    """Everything a scan writes."""

    findings: Findings
    accounts: pa.Table
    streams: pa.Table
    families: pa.Table
    profiles: pa.Table
    waterfall: pa.Table
    refusals: list[Refusal] = field(default_factory=list)
    run_info: Mapping[str, Any] = field(default_factory=dict)
    report_html: str | None = None
    scoring: Mapping[str, pa.Table] = field(default_factory=dict)
    """What the guard goes on measuring by (`schema.scoring`). `read_scoring` reads it, not `read_results."""
    proof: Mapping[str, pa.Table] = field(default_factory=dict)
    """What the claims of campaigns follow from (`schema.proof`). `read_proof` reads it."""


def results_of(scanned: Scanned) -> Results:
    """A scan's outcome as it is kept."""
    return Results(
        scanned.findings,
        scanned.accounts,
        scanned.streams,
        scanned.families,
        scanned.profiles,
        scanned.waterfall,
        scanned.refusals,
        scanned.run_info,
        scoring=scanned.scoring,
        proof=scanned.proof,
    )


def rounded(value: Any) -> Any:
    """The same value with every float rounded to 12 significant digits, recursively."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return value


def encode_findings(findings: Findings) -> bytes:
    """`findings.json`: sorted keys, two spaces, rounded statistics, a final newline."""
    plain = rounded(msgspec.to_builtins(findings))
    return (json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write_results(out: Path, results: Results, *, force: bool = False) -> None:
    """Write a results folder (mode 0700) in one step.

    OutputError if `out` exists (and not `force`), the disk is full, or the place cannot be written; nothing is
    left half-written then, nor after Ctrl-C.
    """
    refuse_existing(out, force=force)
    with _beside(out) as folder:
        (folder / "findings.json").write_bytes(encode_findings(results.findings))
        for name, schema in TABLES.items():
            _write_table(folder / f"{name}.parquet", getattr(results, name), schema)
        for name, table in (*results.scoring.items(), *results.proof.items()):
            # What is computed with must stay what it is to the last digit.
            pq.write_table(
                table.combine_chunks(), folder / f"{name}.parquet", compression="zstd", store_schema=False
            )
        with (folder / "refused.jsonl").open("wb") as handle:
            for refusal in results.refusals:
                handle.write(msgspec.json.encode(refusal) + b"\n")
        info = json.dumps(dict(results.run_info), indent=2, sort_keys=True) + "\n"
        (folder / "run.json").write_text(info, encoding="utf-8")
        if results.report_html is not None:
            (folder / "report.html").write_text(results.report_html, encoding="utf-8")


def refuse_existing(out: Path, *, force: bool) -> None:
    """OutputError if the place is taken: asked before a long scan, and again before writing."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() and not (force and (out / "findings.json").exists()):
        raise OutputError(
            "the output folder already exists",
            where=Where(str(out)),
            hint="name another folder; --force replaces an earlier results folder, and nothing else",
        )


@contextlib.contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` if nothing goes wrong, and is gone otherwise."""
    folder: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        yield folder
        for path in folder.iterdir():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
            os.replace(out, old / "was")
            os.replace(folder, out)
            shutil.rmtree(old)
        else:
            os.replace(folder, out)
    except OSError as error:
        raise unwritable(error, str(out)) from error
    finally:
        if folder is not None and folder.exists():
            shutil.rmtree(folder, ignore_errors=True)


def _write_table(path: Path, table: pa.Table, schema: pa.Schema) -> None:
    table = table.select(schema.names).cast(schema)
    columns = []
    for name in schema.names:
        column = table.column(name)
        if pa.types.is_floating(column.type):
            column = pa.chunked_array([[rounded(v) for v in column.to_pylist()]], column.type)
        columns.append(column)
    plain = pa.Table.from_arrays(columns, schema=schema)
    keys = [(n, "ascending") for n in schema.names if pa.types.is_string(schema.field(n).type)]
    plain = plain.sort_by(keys) if plain.num_rows else plain
    # The footer names the writing library, which the lock file pins; row groups do not depend on chunking.
    pq.write_table(plain.combine_chunks(), path, compression="zstd", store_schema=False)


def read_results(folder: Path) -> Results:
    """Read a results folder. ResultError if it is missing, damaged, or of another schema version."""
    findings = read_findings(folder)
    tables = {}
    for name in TABLES:
        path = folder / f"{name}.parquet"
        try:
            tables[name] = pq.read_table(path)
        except FileNotFoundError as error:
            raise ResultError("a table is missing", where=Where(str(path)), hint="scan again") from error
        except (OSError, pa.ArrowException) as error:
            raise ResultError("a table is damaged", where=Where(str(path)), hint="scan again") from error
    refusals: list[Refusal] = []
    path = folder / "refused.jsonl"
    try:
        with path.open("rb") as handle:
            refusals = [msgspec.json.decode(line, type=Refusal) for line in handle]
        info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise ResultError(
            "the results folder is damaged", where=Where(str(path)), hint="scan again"
        ) from error
    return Results(findings, **tables, refusals=refusals, run_info=info)


def read_scoring(folder: Path) -> dict[str, pa.Table]:
    """What the bits of a scan's campaigns were measured by. ResultError where it is missing or damaged."""
    return _read_exact(folder, SCORING, "a table for the guard")


def read_proof(folder: Path) -> dict[str, pa.Table]:
    """What the claims of a scan's campaigns follow from (`schema.proof`). ResultError where it is missing or damaged.

    The tables are as they were written; nobody has checked that their numbers fit each other.
    """
    return _read_exact(folder, PROOF, "a table of what claims follow from")


def _read_exact(folder: Path, schemas: Mapping[str, pa.Schema], what: str) -> dict[str, pa.Table]:
    tables = {}
    for name, schema in schemas.items():
        where = Where(str(folder / f"{name}.parquet"))
        try:
            table = pq.read_table(folder / f"{name}.parquet").select(schema.names).cast(schema)
            # Casting does not look at what must not be null.
            table.validate(full=True)
            lacking = [f.name for f in schema if not f.nullable and table.column(f.name).null_count]
        except FileNotFoundError as error:
            raise ResultError(
                f"{what} is missing", where=where, hint="scan again with this version"
            ) from error
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise ResultError(f"{what} is damaged", where=where, hint="scan again") from error
        if lacking:
            raise ResultError(
                f"{what} is damaged: values are missing",
                where=replace(where, column=lacking[0]),
                hint="scan again",
            )
        tables[name] = table
    return tables


def read_findings(folder: Path) -> Findings:
    """`findings.json` of a results folder. Raises ResultError as `read_results`."""
    path = folder / "findings.json"
    if not folder.is_dir():
        raise ResultError(
            "there is no such folder" if not folder.exists() else "this is a file, not a results folder",
            where=Where(str(folder)),
            hint="name a folder that `stillwatch scan --out` wrote",
        )
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ResultError(
            "this is no results folder: findings.json is missing",
            where=Where(str(folder)),
            hint="name a folder that `stillwatch scan --out` wrote",
        ) from error
    except OSError as error:
        raise ResultError("findings.json cannot be read", where=Where(str(path))) from error
    try:
        version = json.loads(data).get("schema_version")
        if version != SCHEMA_VERSION:
            # Whatever stands there may be anything, and is not repeated.
            named = f"schema version {version}" if type(version) is int else "no schema version"
            raise ResultError(
                f"the results have {named}, this program reads {SCHEMA_VERSION}",
                where=Where(str(path)),
                hint="scan again with this version",
            )
        return msgspec.json.decode(data, type=Findings)
    except (ValueError, AttributeError, msgspec.DecodeError) as error:
        raise ResultError("findings.json is damaged", where=Where(str(path)), hint="scan again") from error


def read_earlier(folder: Path) -> Earlier:
    """The groups of an earlier results folder, for `scan --previous`. Raises ResultError as `read_results`."""
    rows = read_results(folder).accounts.select(["campaign_id", "account_id"]).to_pydict()
    groups: dict[str, set[str]] = {}
    for group, account in zip(rows["campaign_id"], rows["account_id"], strict=True):
        groups.setdefault(group, set()).add(account)
    return Earlier(results_digest(folder), groups)


def read_freed(path: Path, head: str | None = None) -> Freed:
    """Who is freed by a file of appeals, for `scan --appeals`. Raises as `store.appeals.freed`.

    `head`: as of the row with this hash, to scan again what was scanned when it was the last one.
    """
    rows = read_appeals(path, head)
    if head is not None:
        rows = rows[: next((row.number + 1 for row in rows if row.hash == head), 0)]
    return Freed(head_of(rows), frozenset(freed_by(rows)))


def results_digest(folder: Path) -> str:
    """SHA-256 over the deterministic files of a results folder, hex."""
    digest = hashlib.sha256()
    exact = [f"{name}.parquet" for name in (*SCORING, *PROOF) if (folder / f"{name}.parquet").exists()]
    for name in (*DIGESTED, *exact):
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            raise ResultError("a results file is missing", where=Where(str(folder / name))) from error
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()
