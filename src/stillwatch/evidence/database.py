"""The log's SQLite file: its tables, how it is opened, and what SQLite's errors mean to a person.

    entries (number, time, kind, digest, payload, signature)   events; signed is the tree that ends with the entry
    nodes (level, number, hash)                                every complete subtree, for proofs in O(log n)

Everything else follows from these: the origin and the key are in entry 0. What follows from other columns is not kept
twice, but for the nodes, which `verify` makes anew.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillwatch.evidence.entry import KIND, TIME, Entry, digest_of
from stillwatch.evidence.keys import PublicKey
from stillwatch.evidence.merkle import Node, included, inclusion, leaf_hash, root_of
from stillwatch.evidence.note import text_of
from stillwatch.schema.errors import JournalError, OutputError, StillwatchError, Where

APPLICATION = 0x53574C47
"""`SWLG`: what makes a SQLite file one of ours."""
VERSION = 1
TABLES = {
    "entries": """CREATE TABLE entries (
    number INTEGER PRIMARY KEY, time TEXT NOT NULL, kind TEXT NOT NULL, digest BLOB NOT NULL, payload BLOB,
    signature BLOB NOT NULL, UNIQUE (kind, digest))""",
    "nodes": """CREATE TABLE nodes (
    level INTEGER NOT NULL, number INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (level, number)
    ) WITHOUT ROWID""",
}
COLUMNS = "number, time, kind, digest, payload, signature"
FIRST = "log"
"""Kind of entry 0."""
REMOVED = "payload_removed"
"""Kind of the entry that says that another's payload was removed."""
ROTATED = "key"
"""Kind of the entry that names the key that signs from the next entry on; the one before signs for it."""
KEPT = (FIRST, REMOVED, ROTATED)
"""Kinds that a verifier needs: only the log itself adds them, and their payloads stay."""
MOST_CELL = 4 << 20
MOST_KEYS = 1000
"""Changes of the key: each is checked whenever the log is opened."""
WAIT_S = 30.0
"""For another process that writes."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which log it is: what entry 0 says, and the changes of its key."""

    origin: str
    keys: tuple[tuple[int, bytes], ...]
    """(size of the first tree that it signs, public key), oldest first."""

    @property
    def public(self) -> bytes:
        """The key that signs now."""
        return self.keys[-1][1]

    def key_at(self, size: int) -> bytes:
        """The key that signs the tree of that size."""
        return next(key for first, key in reversed(self.keys) if first <= size)


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """Open the file that is there. JournalError where it is no log of this version, OutputError where not allowed."""
    if not path.is_file():
        raise JournalError(
            "there is no transparency log",
            where=Where(str(path)),
            hint="`stillwatch log init FILE --key KEY` makes one",
        )
    with explained(path):
        db = _opened(path, write)
        try:
            if write:
                db.execute("PRAGMA synchronous = FULL")
                db.execute("PRAGMA secure_delete = ON")
            _check(db, path)
        except BaseException:
            db.close()
            raise
    return db


def _opened(path: Path, write: bool) -> sqlite3.Connection:
    """Readers may not change the log, but tidy up after themselves what SQLite keeps beside it, where they can."""
    uri = path.absolute().as_uri()
    alone = not path.with_name(path.name + "-wal").exists()
    ways = ["mode=rw"] if write else ["mode=rw", "mode=ro", *(["mode=ro&immutable=1"] if alone else [])]
    for way in ways[:-1]:
        try:
            db = _connected(f"{uri}?{way}")
        except sqlite3.OperationalError:
            continue
        try:
            db.execute("PRAGMA query_only = ON")
            db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        except BaseException as error:
            db.close()
            # In a folder that cannot be written SQLite reads such a file only if told that nobody changes it.
            if isinstance(error, sqlite3.OperationalError):
                continue
            raise
        return db
    return _connected(f"{uri}?{ways[-1]}")


def _connected(uri: str) -> sqlite3.Connection:
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=WAIT_S)
    # The file may be a stranger's: nothing in its schema runs, and no cell may take all memory.
    db.execute("PRAGMA trusted_schema = OFF")
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_CELL)
    return db


def _check(db: sqlite3.Connection, path: Path) -> None:
    """Whether this is a log of this version, with its tables and nothing else."""
    (kind,), (version,) = (
        db.execute("PRAGMA application_id").fetchone(),
        db.execute("PRAGMA user_version").fetchone(),
    )
    if kind != APPLICATION:
        raise JournalError("this is no transparency log", where=Where(str(path)))
    if version != VERSION:
        raise JournalError(
            f"the transparency log has version {version}, this program reads {VERSION}",
            where=Where(str(path)),
        )
    found = dict(db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall())
    if found != TABLES:
        raise JournalError(
            "the tables of the transparency log are not those that this program made", where=Where(str(path))
        )


def make(path: Path) -> sqlite3.Connection:
    """A new file with empty tables, in a transaction that is still open."""
    db = _connected(f"{path.absolute().as_uri()}?mode=rwc")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("BEGIN IMMEDIATE")
    for text in TABLES.values():
        db.execute(text)
    db.execute(f"PRAGMA application_id = {APPLICATION}")
    db.execute(f"PRAGMA user_version = {VERSION}")
    return db


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explained(error, Where(str(path))) from error
    except UnicodeDecodeError as error:
        # Even SQLite's own message quotes what is in a damaged file.
        raise JournalError(
            "the transparency log is damaged: it has no text where text must be", where=Where(str(path))
        ) from error


def _explained(error: sqlite3.Error, where: Where) -> StillwatchError:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_BUSY") or name.startswith("SQLITE_LOCKED"):
        return OutputError(
            f"another process has been writing to the transparency log for {WAIT_S:.0f} s; nothing was added",
            where=where,
            hint="try again; what was committed before is not added twice",
        )
    if name == "SQLITE_FULL":
        return OutputError(
            "the disk is full; nothing was added to the transparency log", where=where, hint="free some space"
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_IOERR", "SQLITE_AUTH")):
        return OutputError(
            f"the transparency log cannot be opened, read or written here: {error}",
            where=where,
            hint="check the permissions of the file and of its folder, in which SQLite makes files beside it",
        )
    if name == "SQLITE_NOTADB":
        return JournalError("this is no transparency log", where=where)
    return JournalError(
        f"the transparency log is damaged: {error}",
        where=where,
        hint="restore it from a copy; `log verify` checks one",
    )


def entry_of(row: tuple[Any, ...], path: Path) -> Entry:
    """A row as an entry that holds in itself. JournalError where it does not."""
    number, time, kind, digest, payload, signature = row
    shaped = (
        type(time) is str and TIME.fullmatch(time)
        and type(kind) is str and KIND.fullmatch(kind)
        and type(digest) is bytes and len(digest) == 32
        and (payload is None or type(payload) is bytes)
        and type(signature) is bytes and len(signature) == 64
    )  # fmt: skip
    if not shaped:
        raise altered(path, number, "it has not the form of an entry")
    if payload is not None and digest_of(payload) != digest:
        raise altered(path, number, "its payload is not the one whose digest was committed")
    return Entry(number, time, kind, digest, payload, signature)


def altered(path: Path, number: int, how: str) -> JournalError:
    """The error for the first entry that does not hold."""
    return JournalError(
        f"the transparency log was altered or is damaged: entry {number} does not hold: {how}",
        where=Where(str(path)),
        hint="nothing from this entry on counts; restore the file from a copy",
    )


def entry_at(db: sqlite3.Connection, number: int, path: Path) -> Entry:
    """The entry with this number. JournalError if it is missing or does not hold in itself."""
    row = db.execute(f"SELECT {COLUMNS} FROM entries WHERE number = ?", (number,)).fetchone()
    if row is None:
        raise altered(path, number, "it is missing")
    return entry_of(row, path)


def size_of(db: sqlite3.Connection) -> int:
    """How many entries there are, if none is missing."""
    (last,) = db.execute("SELECT max(number) FROM entries").fetchone()
    return 0 if last is None else int(last) + 1


def nodes_of(db: sqlite3.Connection, path: Path) -> Node:
    """Look-up of stored nodes. JournalError where one is missing."""

    def node(level: int, number: int) -> bytes:
        row = db.execute("SELECT hash FROM nodes WHERE level = ? AND number = ?", (level, number)).fetchone()
        if row is None or type(row[0]) is not bytes or len(row[0]) != 32:
            raise altered(path, (number + 1 << level) - 1, "a hash of the tree is missing")
        return row[0]

    return node


def identity_of(db: sqlite3.Connection, path: Path) -> Identity:
    """Who the log says that it is. JournalError if entry 0 does not say it, or a change of its key does not hold.

    Each change is checked back to the first key, so that nothing is believed of a key that no other one signed for.
    """
    entry = entry_at(db, 0, path)
    plain = payload_of(entry)
    origin, public = plain.get("origin"), _public(plain.get("key"))
    named = isinstance(origin, str) and origin.isascii() and origin.isprintable()
    if entry.kind != FIRST or plain.get("version") != VERSION or not named or public is None:
        raise altered(path, 0, "it does not say whose log this is")
    who = Identity(str(origin), ((1, public),))
    changes = db.execute("SELECT number FROM entries WHERE kind = ? ORDER BY number", (ROTATED,)).fetchall()
    for (number,) in changes[: MOST_KEYS + 1]:
        who = _changed(db, path, who, number)
    return who


def _public(text: object) -> bytes | None:
    """A public key in hex, None where it is none."""
    with contextlib.suppress(ValueError, TypeError):
        public = bytes.fromhex(text)  # type: ignore[arg-type]
        PublicKey(public)
        return public
    return None


def change_text(origin: str, old: bytes, new: bytes) -> bytes:
    """What the new key signs of a change, so that a log names no key that is somebody else's."""
    return f"stillwatch log key 1\n{origin}\n{old.hex()}\n{new.hex()}\n".encode()


def _changed(db: sqlite3.Connection, path: Path, who: Identity, number: object) -> Identity:
    """The identity after the change of key that entry `number` commits; the key before must have signed for it."""
    if type(number) is not int or not 0 < number < size_of(db) or len(who.keys) > MOST_KEYS:
        raise altered(path, 0, "the changes of its key have not the form of such")
    entry, node = entry_at(db, number, path), nodes_of(db, path)
    root, leaf = root_of(number + 1, node), leaf_hash(entry.leaf)
    there = included(leaf, number, number + 1, inclusion(number, number + 1, node), root)
    if not there or not PublicKey(who.public).signed(text_of(who.origin, number + 1, root), entry.signature):
        raise altered(path, number, "the tree that ends with it is not the one that was signed")
    return who_after(entry, who, path)


def who_after(entry: Entry, who: Identity, path: Path) -> Identity:
    """The identity after a change of key whose signature holds. JournalError if it names none that agrees."""
    plain = payload_of(entry)
    new, agreed = _public(plain.get("key")), plain.get("signed")
    if new is not None and isinstance(agreed, str) and new not in {key for _, key in who.keys}:
        with contextlib.suppress(ValueError):
            if PublicKey(new).signed(change_text(who.origin, who.public, new), bytes.fromhex(agreed)):
                return Identity(who.origin, (*who.keys, (entry.number + 2, new)))
    raise altered(path, entry.number, "it names no key that could sign from then on")


def payload_of(entry: Entry) -> dict[str, Any]:
    """The payload; nothing where it was removed or is no object."""
    try:
        plain = json.loads(entry.payload or b"{}")
    except (ValueError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}


def head_of(db: sqlite3.Connection, path: Path, who: Identity) -> tuple[int, bytes, bytes]:
    """Size, root and signature of the newest checkpoint, its signature checked. JournalError where it fails."""
    size = size_of(db)
    if size == 0:
        raise altered(path, 0, "it is missing")
    root, last = root_of(size, nodes_of(db, path)), entry_at(db, size - 1, path)
    if not PublicKey(who.key_at(size)).signed(text_of(who.origin, size, root), last.signature):
        raise altered(path, size - 1, "the tree that ends with it is not the one that was signed")
    return size, root, last.signature
