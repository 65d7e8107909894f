"""Taking rows out of a bundle. What is left of a row is its hash, so that every proof and signature still holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from stillwatch.evidence.merkle import leaf_hash
from stillwatch.schema.errors import InputError, UsageError


def redacted(files: Mapping[str, bytes], rows: Iterable[int]) -> dict[str, bytes]:
    """The files without the named rows, which count from 0. UsageError where there is no such row.

    The row's salt goes with it: without that nobody can test a guess against the hash.
    """
    lines = files.get("rows.jsonl", b"").split(b"\n")[:-1]
    if not lines:
        raise InputError("the bundle has no rows")
    for row in sorted(set(rows)):
        if not 0 <= row < len(lines):
            raise UsageError(f"there is no row {row}", hint=f"the bundle has 0 to {len(lines) - 1}")
        if not lines[row].startswith(b'{"leaf":'):
            lines[row] = json.dumps({"leaf": leaf_hash(lines[row]).hex()}, separators=(",", ":")).encode()
    return {**files, "rows.jsonl": b"".join(line + b"\n" for line in lines)}
