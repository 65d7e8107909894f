"""Whether a transparency log still is what was signed: everything is computed anew, nothing stored is believed.

Without the private key nobody can change, remove, move or put in an entry, a payload, a signature or a hash so that
it is not found. An older copy in the log's place, or a log made anew by whoever holds the key, holds in itself: that
is found by a checkpoint that somebody else has noted, and by the key that they know.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stillwatch.evidence.database import (
    COLUMNS,
    REMOVED,
    ROTATED,
    Identity,
    altered,
    connect,
    entry_of,
    explained,
    identity_of,
    nodes_of,
    payload_of,
    size_of,
    who_after,
)
from stillwatch.evidence.keys import PublicKey, vkey
from stillwatch.evidence.merkle import Frontier, leaf_hash
from stillwatch.evidence.note import Checkpoint, text_of
from stillwatch.schema.errors import JournalError, Where


@dataclass(slots=True)
class Verified:
    """What was proved. There is none for a log that does not hold."""

    origin: str
    vkey: str
    """The key that signs now, as verifiers name it."""
    keys: list[str] = field(default_factory=list)
    """All keys that signed, oldest first; each signed for the next one."""
    entries: int = 0
    """Each of them signed for, with all before it."""
    root: bytes = b""
    """32 bytes."""
    kinds: Counter[str] = field(default_factory=Counter)
    removed: int = 0
    """Payloads that are gone as the log says; their digests hold."""
    first: str = ""
    last: str = ""
    """Times of the first and the last entry."""
    noted: dict[str, int] = field(default_factory=dict)
    """Name -> size of the checkpoints that the log was compared with."""


def verify(
    path: Path, *, noted: Mapping[str, Checkpoint] | None = None, key: bytes | None = None
) -> Verified:
    """Check all of a log: its file, every entry, hash and signature, and that it goes on from each noted checkpoint.

    `key`: the public key (32 bytes) that has to have signed: the first, or a later one that it leads to.
    JournalError names the first entry that does not hold, or says how the log and what was noted differ. The log may
    grow meanwhile.
    """
    with contextlib.closing(connect(path, write=False)) as db, explained(path):
        db.execute("BEGIN")
        (sound,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        who = identity_of(db, path)
        if key is not None and key not in {mine for _, mine in who.keys}:
            raise JournalError(
                "the transparency log is signed by another key than the one that was named",
                where=Where(str(path)),
                hint=f"its own is {vkey(who.origin, who.public)}",
            )
        for name, checkpoint in (noted or {}).items():
            _of_this_log(checkpoint, name, who, size_of(db))
        found = _entries(db, path, who, noted or {})
        if sound != "ok":
            # Only now: an entry that does not hold says more.
            raise JournalError(
                f"the file of the transparency log is damaged: {sound}", where=Where(str(path))
            )
        return found


def _entries(db: sqlite3.Connection, path: Path, who: Identity, noted: Mapping[str, Checkpoint]) -> Verified:
    found = Verified(who.origin, vkey(who.origin, who.public), [vkey(who.origin, key) for _, key in who.keys])
    node, frontier, nodes = nodes_of(db, path), Frontier(), 0
    # The keys are followed anew from the first one, by what was verified up to here.
    now = Identity(who.origin, who.keys[:1])
    public = PublicKey(now.public)
    gone: set[int] = set()
    said: set[int] = set()
    at_size: dict[int, dict[str, bytes]] = {}
    for name, checkpoint in noted.items():
        at_size.setdefault(checkpoint.size, {})[name] = checkpoint.root
    for row in db.execute(f"SELECT {COLUMNS} FROM entries ORDER BY number"):
        number = frontier.size
        if row[0] != number:
            raise altered(path, number, "it is missing")
        entry = entry_of(row, path)
        for level, place, computed in frontier.add(leaf_hash(entry.leaf)):
            nodes += 1
            if node(level, place) != computed:
                raise altered(path, number, "the hash that was kept for it is another")
        if not public.signed(text_of(who.origin, frontier.size, frontier.root), entry.signature):
            raise altered(path, number, "the tree that ends with it is not the one that was signed")
        if entry.kind == ROTATED:
            now = who_after(entry, now, path)
            public = PublicKey(now.public)
        for name, root in at_size.get(frontier.size, {}).items():
            if frontier.root != root:
                raise JournalError(
                    f"the transparency log was rewritten: its first {frontier.size} entries are not those of the "
                    "noted checkpoint",
                    where=Where(name),
                    hint="both are signed by the log's key: keep the two, they prove it",
                )
            found.noted[name] = frontier.size
        if entry.payload is None:
            gone.add(number)
        if entry.kind == REMOVED:
            named = payload_of(entry).get("entry")
            said.update([named] if type(named) is int else [])
        found.kinds[entry.kind] += 1
        found.first, found.last = found.first or entry.time, entry.time
    for number in sorted(gone ^ said):
        raise altered(
            path,
            number,
            "its payload is missing, and no entry says that it was removed"
            if number in gone
            else "its payload is there, and another entry says that it was removed",
        )
    if (kept := db.execute("SELECT count(*) FROM nodes").fetchone()[0]) != nodes:
        raise JournalError(
            f"the transparency log was altered or is damaged: it keeps {kept} hashes, and its entries make {nodes}",
            where=Where(str(path)),
            hint="restore the file from a copy",
        )
    for name, checkpoint in noted.items():
        if checkpoint.size > frontier.size:
            raise JournalError(
                f"entries of the transparency log were removed at its end: {checkpoint.size} were noted, "
                f"{frontier.size} are there",
                where=Where(name),
                hint="an older copy may stand in its place; the noted checkpoint is signed, keep it",
            )
    found.entries, found.root, found.removed = frontier.size, frontier.root, len(gone)
    return found


def _of_this_log(checkpoint: Checkpoint, name: str, who: Identity, size: int) -> None:
    if checkpoint.origin != who.origin:
        raise JournalError(
            f"the noted checkpoint is of another log, {checkpoint.origin!a}; this one is {who.origin}",
            where=Where(name),
        )
    if checkpoint.size == 0 or not checkpoint.signed_by(who.origin, who.key_at(checkpoint.size)):
        more = checkpoint.size > size
        raise JournalError(
            "the noted checkpoint is not signed by this log's key",
            where=Where(name),
            hint="either it was changed, or the log was made anew with another key"
            + (", or an older copy from before a change of its key is in its place" if more else ""),
        )
