"""The log's key changes: the old one signs for the new one, and whoever knows the first verifies all."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stillwatch.evidence.database import COLUMNS, change_text
from stillwatch.evidence.entry import Entry, canonical, digest_of
from stillwatch.evidence.keys import Key, PublicKey, vkey
from stillwatch.evidence.log import TransparencyLog
from stillwatch.evidence.merkle import Frontier, included, leaf_hash
from stillwatch.evidence.note import parse, text_of
from stillwatch.evidence.read import checkpoint, prove_entry, prove_growth
from stillwatch.evidence.verify import verify
from stillwatch.schema import InputError, JournalError, StillwatchError, UsageError
from tests.evidence.conftest import KEY, ORIGIN, OTHER, run_sql, ticking
from tests.evidence.test_crash import Breaks, Killed

THIRD, STRANGER = (Key(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (3, 4))


@pytest.fixture
def turned(made: Path) -> Path:
    """A log of 13 entries, a change to OTHER, two entries, a change to THIRD, one entry."""
    with TransparencyLog(made, KEY, ticking()) as log:
        log.rotate(OTHER)
        log.append_all([("scan", {"n": 1}), ("scan", {"n": 2})])
        log.rotate(THIRD)
        log.append("scan", {"n": 3})
    return made


def test_who_knows_the_first_key_verifies_all(made: Path) -> None:
    before = parse(checkpoint(made)[1].encode())
    assert before is not None
    with TransparencyLog(made, KEY, ticking()) as log:
        log.rotate(OTHER)
        between = parse(checkpoint(made)[1].encode())
        assert between is not None
        log.append("scan", {"n": 1})
    after = parse(checkpoint(made)[1].encode())
    assert after is not None
    found = verify(made, noted={"a": before, "b": between, "c": after}, key=KEY.public)
    assert found.noted == {"a": 13, "b": 14, "c": 15}
    assert found.keys == [vkey(ORIGIN, KEY.public), vkey(ORIGIN, OTHER.public)]
    assert found.vkey == found.keys[1]
    # The entry that names the new key is signed by the old one, the next by the new one.
    assert between.signed_by(ORIGIN, KEY.public)
    assert not between.signed_by(ORIGIN, OTHER.public)
    assert after.signed_by(ORIGIN, OTHER.public)
    assert verify(made, key=OTHER.public).entries == 15
    with pytest.raises(JournalError, match="another key"):
        verify(made, key=THIRD.public)


def test_only_the_new_key_goes_on(turned: Path) -> None:
    for old in (KEY, OTHER):
        with pytest.raises(InputError, match="was changed"):
            TransparencyLog(turned, old)
    with pytest.raises(InputError, match="not the transparency log's own"):
        TransparencyLog(turned, STRANGER)
    with TransparencyLog(turned, THIRD, ticking()) as log:
        # What was told before the change is there once.
        assert log.append_all([("scan", {"n": 1}), ("finding", {"group": "g-1", "accounts": 1})]) == 0
        for known in (KEY, OTHER, THIRD):
            with pytest.raises(UsageError, match="has or had"):
                log.rotate(known)
        with pytest.raises(UsageError, match="needed to verify"):
            log.remove_payload(13)
        with pytest.raises(UsageError, match="no kind"):
            log.append("key", {"key": "00"})
    assert verify(turned, key=KEY.public).kinds["key"] == 2


def test_a_process_that_missed_the_change_signs_nothing_more(made: Path) -> None:
    with TransparencyLog(made, KEY, ticking()) as late:
        with TransparencyLog(made, KEY, ticking()) as log:
            log.rotate(OTHER)
        with pytest.raises(InputError, match="was changed"):
            late.append("scan", {"n": 9})
    assert verify(made).entries == 14


def test_a_stranger_follows_the_keys_in_a_proof(turned: Path) -> None:
    for proof in (prove_entry(turned, 2), prove_growth(turned, 5)):
        known = KEY.public
        for change in proof["keys"]:
            note = parse(change["checkpoint"].encode())
            assert note is not None
            assert note.signed_by(ORIGIN, known)
            leaf = json.loads(change["leaf"])
            path = [b64decode(step) for step in change["path"]]
            assert included(leaf_hash(change["leaf"].encode()), change["index"], note.size, path, note.root)
            assert (leaf["kind"], leaf["sha256"]) == ("key", digest_of(change["payload"].encode()).hex())
            known = bytes.fromhex(json.loads(change["payload"])["key"])
        newest = parse(proof["checkpoint"].encode())
        assert newest is not None
        assert newest.signed_by(ORIGIN, known)
        assert known == THIRD.public


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_wherever_a_change_ends_one_key_signs(made: Path, after: bool) -> None:
    whole, left = made.read_bytes(), 1
    while True:
        made.write_bytes(whole)
        log = TransparencyLog(made, KEY, ticking())
        real = log._db
        breaks = Breaks(real, left, Killed, after)
        log._db = breaks  # type: ignore[assignment]
        try:
            log.rotate(OTHER)
        except (Killed, StillwatchError):
            pass
        else:
            assert breaks.used < left
            break
        finally:
            real.close()
        found = verify(made)
        assert found.entries in (13, 14)
        with TransparencyLog(made, KEY if found.entries == 13 else OTHER, ticking()) as again:
            again.append("scan", {"n": 1})
        assert verify(made, key=KEY.public).kinds["scan"] == 1
        left += 1
    assert left > 6


def _signed_anew(path: Path, begin: int, change: Callable[[Entry], Entry], key: Key) -> None:
    """What somebody does who has `key`: entries from `begin` on are changed and signed with it."""
    frontier = Frontier()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        rows = db.execute(f"SELECT {COLUMNS} FROM entries ORDER BY number").fetchall()
        db.execute("DELETE FROM nodes")
        db.execute("DELETE FROM entries")
        for row in rows:
            entry = Entry(*row)
            if entry.number >= begin:
                entry = change(entry)
            nodes = frontier.add(leaf_hash(entry.leaf))
            signature = entry.signature
            if entry.number >= begin:
                signature = key.sign(text_of(ORIGIN, frontier.size, frontier.root))
            cells = (entry.number, entry.time, entry.kind, entry.digest, entry.payload, signature)
            db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", cells)
            db.executemany("INSERT INTO nodes VALUES (?, ?, ?)", nodes)


def _names(key: Key, agreed: Key, old: Key) -> Callable[[Entry], Entry]:
    payload = canonical(
        {"key": key.public.hex(), "signed": agreed.sign(change_text(ORIGIN, old.public, key.public)).hex()}
    )

    def change(entry: Entry) -> Entry:
        if entry.number != 13:
            return entry
        return Entry(13, entry.time, "key", digest_of(payload), payload, b"")

    return change


def _readers(path: Path) -> None:
    """Whoever only looks at the end believes no more than whoever looks at all of it."""
    for look in (verify, checkpoint, lambda p: prove_entry(p, 1), lambda p: TransparencyLog(p, STRANGER)):
        with pytest.raises(JournalError):
            look(path)


def test_nobody_without_the_key_names_another(turned: Path) -> None:
    # A stranger puts their own key in and signs everything after it, and even the change itself.
    _signed_anew(turned, 13, _names(STRANGER, STRANGER, KEY), STRANGER)
    _readers(turned)


def test_a_key_that_did_not_agree_is_none(turned: Path) -> None:
    # The owner of the old key names somebody else's key.
    _signed_anew(turned, 13, _names(STRANGER, KEY, KEY), KEY)
    _readers(turned)


def test_a_key_that_was_retired_signs_nothing_more(turned: Path) -> None:
    # Whoever finds the first key later signs what came after the change with it.
    _signed_anew(turned, 14, lambda entry: entry, KEY)
    _readers(turned)


def test_an_old_key_that_leads_elsewhere_is_found_by_what_was_noted(turned: Path) -> None:
    newest = parse(checkpoint(turned)[1].encode())
    assert newest is not None
    _signed_anew(turned, 13, _names(STRANGER, STRANGER, KEY), KEY)
    run_sql(turned, "DELETE FROM entries WHERE number > 13", "DELETE FROM nodes WHERE number << level > 13")
    # It holds in itself: the first key was its owner's. The newest key, or a checkpoint, tells.
    with pytest.raises(JournalError, match="another key"):
        verify(turned, key=THIRD.public)
    with pytest.raises(JournalError, match="not signed by this log's key"):
        verify(turned, noted={"a": newest})


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET kind = 'scan' WHERE number = 13",
        "UPDATE entries SET payload = NULL WHERE number = 13",
        "UPDATE entries SET kind = 'key' WHERE number = 5",
        "DELETE FROM entries WHERE number = 13",
        "UPDATE nodes SET hash = zeroblob(32) WHERE level = 0 AND number = 13",
    ],
)
def test_a_change_that_was_tampered_with_is_found(turned: Path, statement: str) -> None:
    run_sql(turned, statement)
    with pytest.raises(JournalError):
        verify(turned)
    if "nodes" not in statement:
        with pytest.raises((JournalError, InputError)):
            TransparencyLog(turned, THIRD)


def test_an_older_copy_from_before_the_change_is_told_as_that(made: Path) -> None:
    older = made.read_bytes()
    with TransparencyLog(made, KEY, ticking()) as log:
        log.rotate(OTHER)
        log.append("scan", {"n": 1})
    newest = parse(checkpoint(made)[1].encode())
    assert newest is not None
    made.write_bytes(older)
    with pytest.raises(JournalError) as caught:
        verify(made, noted={"a": newest})
    assert "older copy from before a change of its key" in str(caught.value)


def test_the_keys_are_what_they_seem() -> None:
    assert PublicKey(THIRD.public).signed(b"x", THIRD.sign(b"x"))
    assert len({k.public for k in (KEY, OTHER, THIRD, STRANGER)}) == 4
