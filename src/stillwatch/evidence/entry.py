"""What the log holds: one event, its canonical JSON, and the leaf that commits to it.

The leaf names the payload by its digest, so that a payload can be removed later and the entry still proves what kind
of event there was, when, and that its digest is the one that was committed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from stillwatch.schema.errors import UsageError
from stillwatch.schema.journal import Json

KIND = re.compile(r"[a-z][a-z0-9_]{0,63}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
MOST_BYTES = 1 << 20
"""Of one payload."""
MOST_DEPTH = 16
MOST_INT = (1 << 53) - 1
"""Larger numbers are not the same in every reader of JSON (RFC 7493, 2.2)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry."""

    number: int
    """From 0."""
    time: str
    """When it was first committed: UTC, by the clock of the machine that wrote it."""
    kind: str
    digest: bytes
    """SHA-256 of the payload, 32 bytes."""
    payload: bytes | None
    """Canonical JSON; None where it was removed."""
    signature: bytes
    """Over the checkpoint that ends with this entry, 64 bytes."""

    @property
    def leaf(self) -> bytes:
        """The bytes that the tree holds: canonical JSON of kind, payload's SHA-256 (hex) and time."""
        plain = {"kind": self.kind, "sha256": self.digest.hex(), "time": self.time}
        return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def canonical(payload: Mapping[str, Json]) -> bytes:
    """The payload's canonical JSON: sorted keys, no spaces, UTF-8. UsageError for what is no plain JSON.

    Refused are numbers that other readers would change (not finite, or whole and beyond 2**53), half surrogate
    pairs, keys that are no strings, values of other types, more than `MOST_DEPTH` levels and `MOST_BYTES` bytes.
    """
    waiting: list[tuple[object, int]] = [(payload if isinstance(payload, dict) else dict(payload), 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MOST_DEPTH:
            raise UsageError(f"an event's payload has more than {MOST_DEPTH} levels")
        if type(value) is dict:
            if not all(type(name) is str for name in value):
                raise UsageError("an event's payload has a key that is no string")
            waiting += [(part, depth + 1) for part in value.values()]
        elif type(value) is list:
            waiting += [(part, depth + 1) for part in value]
        elif type(value) is float:
            if not math.isfinite(value):
                raise UsageError("an event's payload has a number that is not finite")
        elif type(value) is int:
            if abs(value) > MOST_INT:
                raise UsageError("an event's payload has a whole number beyond 2**53")
        elif value is not None and type(value) not in (str, bool):
            raise UsageError(f"an event's payload holds a {type(value).__name__}, which is no JSON")
    try:
        data = json.dumps(dict(payload), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UsageError("an event's payload has half a surrogate pair") from error
    if len(data) > MOST_BYTES:
        raise UsageError(f"an event's payload has more than {MOST_BYTES} bytes")
    return data


def digest_of(payload: bytes) -> bytes:
    """SHA-256 of a payload's canonical JSON, 32 bytes."""
    return hashlib.sha256(payload).digest()
