"""The transparency log: events are only added, in a Merkle tree (RFC 6962) whose every state is signed.

Each event becomes one entry, in a transaction that also holds the nodes of the tree and a signature over the tree
that ends with the entry. So there is no entry that no signature covers, wherever the process ends. The same kind and
payload are one entry: whoever repeats an event after a crash adds nothing.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from stillwatch.evidence.database import (
    FIRST,
    KEPT,
    REMOVED,
    ROTATED,
    VERSION,
    Identity,
    altered,
    change_text,
    connect,
    entry_at,
    explained,
    head_of,
    identity_of,
    make,
    nodes_of,
    size_of,
)
from stillwatch.evidence.entry import KIND, Entry, canonical, digest_of
from stillwatch.evidence.keys import Key
from stillwatch.evidence.merkle import Frontier, leaf_hash, root_of
from stillwatch.evidence.note import check_origin, text_of
from stillwatch.schema.errors import InputError, OutputError, UsageError, Where, unwritable
from stillwatch.schema.journal import Json
from stillwatch.store.files import sync_folder

Clock = Callable[[], datetime]
Event = tuple[str, Mapping[str, Json]]


def _now() -> datetime:
    return datetime.now(UTC)


class TransparencyLog:
    """The log, open for writing; implements `schema.Journal` and `BatchJournal`.

    Several processes may have it open. One thread each.
    """

    def __init__(self, path: Path, key: Key, clock: Clock = _now) -> None:
        """Open the log that is there.

        JournalError if its end does not hold, InputError if `key` is not the log's, OutputError if it cannot be
        written. Only `verify` looks at all of it.
        """
        self.path, self._key, self._clock = path, key, clock
        self._next: tuple[int, bytes] | None = None
        self._db = connect(path, write=True)
        try:
            with self._transaction("DEFERRED"):
                self._who = self._whose()
                self._seen = head_of(self._db, path, self._who)[:2]
        except BaseException:
            self._db.close()
            raise

    @classmethod
    def create(cls, path: Path, key: Key, origin: str, clock: Clock = _now) -> TransparencyLog:
        """Make a log (mode 0600) whose first entry names `origin` and the key. OutputError if something is there."""
        check_origin(origin)
        first: dict[str, Json] = {"origin": origin, "key": key.public.hex(), "version": VERSION}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
                draft = Path(folder) / "log"
                os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                with explained(path), contextlib.closing(make(draft)) as db:
                    payload = canonical(first)
                    _add(db, Frontier(), key, origin, FIRST, payload, _written(clock))
                    db.execute("COMMIT")
                # Unlike a rename, a link replaces nothing that is there.
                os.link(draft, path)
            sync_folder(path.parent)
        except FileExistsError as error:
            raise OutputError(
                "there is a file already",
                where=Where(str(path)),
                hint="name another file; a log is never replaced",
            ) from error
        except OSError as error:
            raise unwritable(error, str(path), "the transparency log") from error
        return cls(path, key, clock)

    def __enter__(self) -> TransparencyLog:
        """The log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @property
    def origin(self) -> str:
        """The log's name."""
        return self._who.origin

    @property
    def size(self) -> int:
        """Entries."""
        with explained(self.path):
            return size_of(self._db)

    def append(self, kind: str, payload: Mapping[str, Json]) -> None:
        """Commit one event; `append_all` says how."""
        self.append_all([(kind, payload)])

    def append_all(self, events: Sequence[Event]) -> int:
        """Commit events in their order, all or none; how many were new. Durable on return.

        An event that is there already, with the same kind and payload, keeps its place and time. UsageError for what
        is no event (see `entry.canonical`), OutputError if nothing could be written, JournalError if the log is not
        what it was when this process last saw it.
        """
        ready = []
        for kind, payload in events:
            if not KIND.fullmatch(kind) or kind in KEPT:
                raise UsageError(f"{kind!a} is no kind of event")
            ready.append((kind, canonical(payload)))
        with explained(self.path):
            if all(self._has(kind, payload) for kind, payload in ready):
                return 0
        with self._transaction("IMMEDIATE"):
            return self._add_all(ready)

    def remove_payload(self, number: int) -> None:
        """Remove the payload of an entry for good, and commit that it was removed. Proofs go on to hold.

        UsageError for an entry that is not there, or that says what a verifier needs.
        """
        with self._transaction("IMMEDIATE"):
            if not 0 <= number < size_of(self._db):
                raise UsageError(f"the transparency log has no entry {number}")
            if entry_at(self._db, number, self.path).kind in KEPT:
                raise UsageError(f"entry {number} is needed to verify the log; its payload stays")
            self._add_all([(REMOVED, canonical({"entry": number}))])
            self._db.execute("UPDATE entries SET payload = NULL WHERE number = ?", (number,))
        with explained(self.path):
            # What was overwritten is still in the write-ahead log.
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def rotate(self, new: Key) -> None:
        """Let another key sign from the next entry on. The one before signs the entry that says so.

        Durable on return; this process goes on with the new key, others have to open the log anew with it.
        UsageError for a key that the log had before.
        """
        old = self._key.public
        if new.public in {key for _, key in self._who.keys}:
            raise UsageError("the log has or had this key", hint="make a new one")
        payload: dict[str, Json] = {
            "key": new.public.hex(),
            "signed": new.sign(change_text(self.origin, old, new.public)).hex(),
        }
        with self._transaction("IMMEDIATE"):
            self._add_all([(ROTATED, canonical(payload))])
        self._key = new
        with explained(self.path):
            self._who = self._whose()

    def _whose(self) -> Identity:
        """Which log this is. InputError if its key is not the one that this process has."""
        who = identity_of(self._db, self.path)
        if who.public == self._key.public:
            return who
        changed = self._key.public in {key for _, key in who.keys}
        raise InputError(
            "the transparency log's key was changed, this one signs no more"
            if changed
            else "this key is not the transparency log's own",
            where=Where(str(self.path)),
            hint="name its new key" if changed else "name the key that the log was made with",
        )

    def _has(self, kind: str, payload: bytes) -> bool:
        asked = (kind, digest_of(payload))
        return (
            self._db.execute("SELECT 1 FROM entries WHERE kind = ? AND digest = ?", asked).fetchone()
            is not None
        )

    def _add_all(self, events: Iterable[tuple[str, bytes]]) -> int:
        """Within a transaction."""
        frontier = self._edge()
        before = frontier.size
        for kind, payload in events:
            if not self._has(kind, payload):
                _add(self._db, frontier, self._key, self.origin, kind, payload, _written(self._clock))
        self._next = frontier.size, frontier.root
        return frontier.size - before

    def _edge(self) -> Frontier:
        """The right edge of the tree as it is, which must follow from what this process saw last.

        A log signs nothing that contradicts what it signed before: neither what somebody else rewrote, nor what goes
        on from an older copy that was put in its place.
        """
        node, size = nodes_of(self._db, self.path), size_of(self._db)
        seen, root = self._seen
        if size < seen:
            raise altered(self.path, size, "it is missing, and was there when this process last looked")
        if root_of(seen, node) != root:
            raise altered(self.path, seen - 1, "the tree up to it has changed since this process last looked")
        if size > seen:
            self._who = self._whose()
            head_of(self._db, self.path, self._who)
        return Frontier.at(size, node)

    @contextlib.contextmanager
    def _transaction(self, how: str) -> Iterator[None]:
        """All of it or nothing."""
        self._next = None
        with explained(self.path):
            try:
                self._db.execute(f"BEGIN {how}")
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")
                raise
        if self._next is not None:
            self._seen = self._next


def _written(clock: Clock) -> str:
    return clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _add(
    db: sqlite3.Connection, frontier: Frontier, key: Key, origin: str, kind: str, payload: bytes, time: str
) -> None:
    """One entry, the nodes that it completes, and the signature over the tree that ends with it."""
    number, digest = frontier.size, digest_of(payload)
    leaf = Entry(number, time, kind, digest, payload, b"").leaf
    made = frontier.add(leaf_hash(leaf))
    signature = key.sign(text_of(origin, frontier.size, frontier.root))
    db.execute(
        "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", (number, time, kind, digest, payload, signature)
    )
    db.executemany("INSERT INTO nodes VALUES (?, ?, ?)", made)
