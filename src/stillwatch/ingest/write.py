"""Writing a log in its canonical form: `exchanges.parquet`, `accounts.parquet` and the other side tables."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.ingest.read import Log
from stillwatch.ingest.textfree import text_free
from stillwatch.schema.errors import OutputError, Where, unwritable
from stillwatch.sketch import RulePack

_ROW_GROUP = 65_536


def write_canonical(
    log: Log,
    out: Path,
    *,
    sketched: bool = False,
    rules: RulePack | None = None,
    keep_refused: bool = False,
) -> int:
    """Write the log to the new folder `out` (mode 0700) in one step; returns the number of exchanges.

    `sketched` writes the text-free form: sketches instead of texts, tagged with `rules` (the pack of this version by
    default), and no unknown columns. Refused rows are listed in `refused.jsonl`, with their bytes if `keep_refused`.

    Accounts come from the side table, else from what the log says about its accounts. Raises OutputError
    (exists, no permission, disk full; nothing half-written stays) and what `Log.batches` raises.
    """
    if out.exists():
        raise OutputError(
            "the output folder already exists", where=Where(str(out)), hint="name one that does not exist yet"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise unwritable(error, str(out), "the tables") from error
    try:
        rows = _write_exchanges(log, work / "exchanges.parquet", sketched, rules)
        tables = dict(log.side)
        if "accounts" not in tables and len(log.owners):
            tables["accounts"] = log.owners.table()
        for name in sorted(tables):
            pq.write_table(tables[name], work / f"{name}.parquet", compression="zstd")
        refusals = log.refusals_with_bytes() if keep_refused else log.refusals
        if refusals:
            with (work / "refused.jsonl").open("wb") as handle:
                handle.writelines(msgspec.json.encode(refusal) + b"\n" for refusal in refusals)
        for path in work.iterdir():
            with path.open("rb") as written:
                os.fsync(written.fileno())
        work.rename(out)
    except OSError as error:
        raise unwritable(error, str(out), "the tables") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return rows


def _write_exchanges(log: Log, path: Path, sketched: bool, rules: RulePack | None) -> int:
    rows = 0
    writer: pq.ParquetWriter | None = None
    with contextlib.ExitStack() as stack:
        for batch in _pieces(log, sketched, rules):
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(path, batch.schema, compression="zstd"))
            elif batch.schema != writer.schema:
                # Unknown columns may differ between files: the first file's set is the one that is kept.
                batch = _fitted(batch, writer.schema)
            writer.write_batch(batch, row_group_size=_ROW_GROUP)
            rows += batch.num_rows
        if writer is None:
            pq.write_table(log.schema.empty_table(), path, compression="zstd")
    return rows


def _pieces(log: Log, sketched: bool, rules: RulePack | None) -> Iterator[pa.RecordBatch]:
    for batch in log.batches():
        if sketched:
            yield from text_free(batch, rules)
        else:
            yield batch


def _fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for field in schema:
        if field.name in batch.schema.names:
            arrays.append(batch.column(field.name).cast(field.type))
        else:
            arrays.append(pa.nulls(batch.num_rows, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
