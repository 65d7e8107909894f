"""Opening one row of a bundle: the whole raw row and the salt of its commitment, for whoever may see it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stillwatch.evidence.bundle.rows import raw_of
from stillwatch.ingest import open_log
from stillwatch.schema.errors import InputError, ResultError, UsageError
from stillwatch.store.pseudonyms import Pseudonyms


def revealed(
    files: Mapping[str, bytes],
    row: int,
    inputs: Sequence[str],
    names: Sequence[Pseudonyms],
    how: Mapping[str, Any],
) -> dict[str, Any]:
    """`row` (from 0), `salt` (hex) and `raw`, the row as it was read: SHA-256 over both is the row's commitment.

    `names`: keys under which it may have been made. UsageError where there is no such row, InputError where the input
    is another, ResultError where no key makes its commitment.
    """
    lines = files["rows.jsonl"].split(b"\n")[:-1]
    if not 0 <= row < len(lines) or b'"leaf"' in lines[row][:8]:
        raise UsageError(
            f"there is no row {row}, or it was taken out", hint=f"the bundle has 0 to {len(lines) - 1}"
        )
    shown = json.loads(lines[row])["row"]
    digest = json.loads(files["finding.json"])["run"]["inputs"][shown["input"]]["sha256"]
    with open_log(inputs, **how) as log:
        number = next((entry.number for entry in log.inputs if entry.digest == digest), None)
        if number is None:
            raise InputError(
                "the input that the row came from is not among these", hint=f"its SHA-256 is {digest}"
            )
        plain = None
        for batch in log.batches():
            places = batch.column("raw_ref")
            mine = places.field("input").to_numpy() == number
            at = np.flatnonzero(mine & (places.field("row").to_numpy() == shown["row"]))
            if len(at):
                plain = batch.slice(int(at[0]), 1).to_pylist()[0]
                break
    if plain is None:
        raise InputError("the input has no such row any more")
    place = f"{digest}:{shown['row']}".encode()
    for key in names:
        salt, raw, found = raw_of(plain, place, key)
        if found == shown["raw"]:
            return {"row": row, "salt": salt.hex(), "raw": raw}
    raise ResultError(
        "the row's commitment is not made by a key of this ring", hint="--partner names whose bundle it is"
    )
