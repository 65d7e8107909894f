"""What others take away from a log: entries, checkpoints, and proofs that need no log to check.

These look up what they need and check that; `verify` is what looks at everything.
"""

from __future__ import annotations

import contextlib
import sqlite3
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stillwatch.evidence.database import (
    COLUMNS,
    Identity,
    altered,
    connect,
    entry_at,
    entry_of,
    explained,
    head_of,
    identity_of,
    nodes_of,
)
from stillwatch.evidence.entry import Entry
from stillwatch.evidence.keys import vkey
from stillwatch.evidence.merkle import consistency, included, inclusion, leaf_hash, root_of
from stillwatch.evidence.note import note_of
from stillwatch.schema.errors import UsageError


def entries(path: Path, last: int | None = None, kind: str | None = None) -> Iterator[Entry]:
    """The entries in their order; of those of `kind`, if given, the `last` ones.

    JournalError at one that does not hold in itself.
    """
    with contextlib.closing(connect(path, write=False)) as db, explained(path):
        db.execute("BEGIN")
        begin = 0
        if last is not None:
            asked = (
                "SELECT number FROM entries WHERE ? IS NULL OR kind = ? ORDER BY number DESC LIMIT 1 OFFSET ?"
            )
            row = db.execute(asked, (kind, kind, max(last, 1) - 1)).fetchone()
            begin = 0 if row is None else row[0]
        rows = db.execute(f"SELECT {COLUMNS} FROM entries WHERE number >= ? ORDER BY number", (begin,))
        for row in rows:
            if kind is None or row[2] == kind:
                yield entry_of(row, path)


def checkpoint(path: Path) -> tuple[int, str]:
    """Size of the log, and its newest checkpoint as text (C2SP tlog-checkpoint).

    JournalError if the log's end does not hold.
    """
    with contextlib.closing(connect(path, write=False)) as db, explained(path):
        db.execute("BEGIN")
        who = identity_of(db, path)
        size, root, signature = head_of(db, path, who)
        return size, note_of(who.origin, size, root, who.key_at(size), signature)


def prove_entry(path: Path, number: int) -> dict[str, Any]:
    """Proof that an entry is in the log, as plain JSON.

    `leaf` is the text whose RFC 6962 leaf hash, number `index`, leads with `path` (hashes in base64) to the root in
    `checkpoint`; its `sha256` is that of `payload`, the text of the event (None if it was removed). UsageError if
    there is no such entry, JournalError if the log does not hold there.
    """
    with contextlib.closing(connect(path, write=False)) as db, explained(path):
        db.execute("BEGIN")
        who = identity_of(db, path)
        size, root, signature = head_of(db, path, who)
        if not 0 <= number < size:
            raise UsageError(f"there is no entry {number}", hint=f"the log has 0 to {size - 1}")
        entry = entry_at(db, number, path)
        steps = inclusion(number, size, nodes_of(db, path))
        if not included(leaf_hash(entry.leaf), number, size, steps, root):
            raise altered(path, number, "it is not in the tree that was signed")
        return {
            **_proof(entry, steps),
            "checkpoint": note_of(who.origin, size, root, who.key_at(size), signature),
            **_changes(db, path, who),
        }


def _proof(entry: Entry, steps: list[bytes]) -> dict[str, Any]:
    return {
        "index": entry.number,
        "leaf": entry.leaf.decode(),
        "payload": None if entry.payload is None else entry.payload.decode(),
        "path": [b64encode(step).decode() for step in steps],
    }


def _changes(db: sqlite3.Connection, path: Path, who: Identity) -> dict[str, Any]:
    """`keys`, where the log's key was changed: proof of each change, signed by the key before it, oldest first.

    By them a stranger comes from the first key, which they may know, to the one that signed the checkpoint.
    """
    changes, node = [], nodes_of(db, path)
    for (first, _), (_, old) in zip(who.keys[1:], who.keys, strict=False):
        number, size = first - 2, first - 1
        entry = entry_at(db, number, path)
        proof = _proof(entry, inclusion(number, size, node))
        note = note_of(who.origin, size, root_of(size, node), old, entry.signature)
        changes.append(proof | {"checkpoint": note})
    return {"keys": changes} if changes else {}


def prove_entries(path: Path, numbers: Sequence[int], since: Sequence[int] = ()) -> dict[str, Any]:
    """Proofs to one checkpoint: of several entries, and that the log goes on from its first `since` entries.

    `entries` and `growth` are lists of what `prove_entry` and `prove_growth` give, less the checkpoint, which stands
    once, beside the log's `vkey` and, as there, the `keys` that led to it.
    UsageError if there is no such entry or no such earlier size, JournalError if the log does not hold there.
    """
    with contextlib.closing(connect(path, write=False)) as db, explained(path):
        db.execute("BEGIN")
        who = identity_of(db, path)
        size, root, signature = head_of(db, path, who)
        node = nodes_of(db, path)
        proved = []
        for number in numbers:
            if not 0 <= number < size:
                raise UsageError(f"there is no entry {number}", hint=f"the log has 0 to {size - 1}")
            entry, steps = entry_at(db, number, path), inclusion(number, size, node)
            if not included(leaf_hash(entry.leaf), number, size, steps, root):
                raise altered(path, number, "it is not in the tree that was signed")
            proved.append(_proof(entry, steps))
        growth = []
        for first in since:
            if not 0 < first <= size:
                raise UsageError(f"the log has {size} entries: nothing goes on from {first}")
            steps = consistency(first, size, node)
            growth.append({"from": first, "path": [b64encode(step).decode() for step in steps]})
        return {
            "vkey": vkey(who.origin, who.key_at(size)),
            "checkpoint": note_of(who.origin, size, root, who.key_at(size), signature),
            "entries": proved,
            "growth": growth,
            **_changes(db, path, who),
        }


def prove_growth(path: Path, first: int) -> dict[str, Any]:
    """Proof that the log goes on from its first `first` entries, as plain JSON (RFC 6962, 2.1.2).

    It leads from the root of a checkpoint of that size to the one in `checkpoint`. UsageError if it has not so many.
    """
    with contextlib.closing(connect(path, write=False)) as db, explained(path):
        db.execute("BEGIN")
        who = identity_of(db, path)
        size, root, signature = head_of(db, path, who)
        if not 0 < first <= size:
            raise UsageError(f"the log has {size} entries: nothing goes on from {first}")
        steps = consistency(first, size, nodes_of(db, path))
        return {
            "from": first,
            "path": [b64encode(step).decode() for step in steps],
            "checkpoint": note_of(who.origin, size, root, who.key_at(size), signature),
            **_changes(db, path, who),
        }
