"""Opening one row of a bundle: the whole raw row and the salt of its commitment, for whoever may see it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stillwatch.evidence.bundle.rows import raw_of
from stillwatch.evidence.inputs import sources_of
from stillwatch.ingest import Log, open_log
from stillwatch.schema.errors import InputError, ResultError, UsageError
from stillwatch.schema.results import Run
from stillwatch.store.pseudonyms import Pseudonyms


def revealed(
    files: Mapping[str, bytes],
    row: int,
    inputs: Sequence[str],
    run: Run,
    names: Sequence[Pseudonyms],
    how: Mapping[str, Any],
) -> dict[str, Any]:
    """`row` (from 0), `salt` (hex) and `raw`, the row as it was read: SHA-256 over both is the row's commitment.

    `run`: of the results; `names`: keys under which it may have been made. UsageError where there is no such row,
    InputError where the input is another, ResultError where no key makes its commitment.
    """
    lines = files["rows.jsonl"].split(b"\n")[:-1]
    if not 0 <= row < len(lines) or b'"leaf"' in lines[row][:8]:
        raise UsageError(
            f"there is no row {row}, or it was taken out", hint=f"the bundle has 0 to {len(lines) - 1}"
        )
    shown = json.loads(lines[row])["row"]
    digest = json.loads(files["finding.json"])["run"]["inputs"][shown["input"]]["sha256"]
    with tempfile.TemporaryDirectory(prefix="stillwatch-") as scratch:
        read = sources_of(inputs, run, Path(scratch))
        with open_log(read.paths, **{**how, "format": how.get("format") or read.format}) as log:
            plain = _found(log, digest, shown["row"])
    if plain is None:
        raise InputError(
            "the input that the row came from is not among these", hint=f"its SHA-256 is {digest}"
        )
    place = f"{digest}:{shown['row']}".encode()
    for key in names:
        salt, raw, found = raw_of(plain, place, key)
        if found == shown["raw"]:
            return {"row": row, "salt": salt.hex(), "raw": raw}
    raise ResultError(
        "the row's commitment is not made by a key of this ring", hint="--partner names whose bundle it is"
    )


def _found(log: Log, digest: str, row: int) -> dict[str, Any] | None:
    """A row of the input with this digest, as it is read."""
    number = next((entry.number for entry in log.inputs if entry.digest == digest), None)
    if number is None:
        return None
    for batch in log.batches():
        places = batch.column("raw_ref")
        mine = places.field("input").to_numpy() == number
        at = np.flatnonzero(mine & (places.field("row").to_numpy() == row))
        if len(at):
            plain: dict[str, Any] = batch.slice(int(at[0]), 1).to_pylist()[0]
            return plain
    return None
