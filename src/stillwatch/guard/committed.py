"""What the transparency log is told of a snapshot: which file, made of what, and whom it may act on. No account."""

from __future__ import annotations

import hashlib
from pathlib import Path

from stillwatch.guard.layout import header_in
from stillwatch.guard.snapshot import Meta
from stillwatch.schema.errors import SnapshotError, Where
from stillwatch.schema.journal import Json
from stillwatch.store.events import Event


def of_snapshot(path: Path) -> Event:
    """`snapshot`: SHA-256 of the file, what its header says. SnapshotError where it is none.

    The header is not checked against the secret: the event says which file was there, and that it said this.
    """
    where = Where(path.name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SnapshotError(f"the snapshot cannot be read: {error.strerror}", where=where) from error
    meta: Meta
    meta, shapes = header_in(data, where, Meta)
    told: dict[str, Json] = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "version": meta.program,
        "results": meta.results,
        "policy": hashlib.sha256(meta.policy.encode()).hexdigest(),
        "campaigns": [group.id for group in meta.campaigns],
        "accounts": shapes["account_hash"][0],
        "api_keys": shapes["api_key_hash"][0],
        "decisions": [standing.order.digest for standing in meta.decisions],
        "decisions_head": meta.decisions_head,
    }
    return "snapshot", told
