"""A log that a stranger made to harm its readers: they say that it does not hold, and end."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from stillwatch.evidence import database
from stillwatch.evidence.database import make
from stillwatch.evidence.entry import digest_of
from stillwatch.evidence.log import TransparencyLog, _add
from stillwatch.evidence.merkle import Frontier
from stillwatch.evidence.read import checkpoint, entries, prove_entry
from stillwatch.evidence.verify import verify
from stillwatch.schema import JournalError
from tests.evidence.conftest import KEY, ORIGIN, run_sql

AT = "2026-03-01T00:00:00.000000Z"
PLAIN = f'{{"key":"{KEY.public.hex()}","origin":"{ORIGIN}","version":1}}'.encode()


def signed(path: Path, *events: tuple[str, bytes, str]) -> Path:
    """A log whose every entry is rightly signed, with what no writer of ours would have put in."""
    db, frontier = make(path), Frontier()
    for kind, payload, time in events:
        _add(db, frontier, KEY, ORIGIN, kind, payload, time)
    db.execute("COMMIT")
    db.close()
    return path


def refused(path: Path) -> str:
    """What every reader says, in the words of `verify`."""
    with pytest.raises(JournalError) as told:
        verify(path)
    for read in (lambda: list(entries(path)), lambda: checkpoint(path), lambda: prove_entry(path, 0)):
        try:
            read()
        except JournalError:
            continue
    return told.value.what


@pytest.mark.parametrize(
    "first",
    [
        b"", b"null", b"[]", b"[" * 200_000, b'{"a":' * 100_000, b"\xff\xfe", b'{"version":1}', b"9" * 10_000,
        PLAIN.replace(b":1}", b":2}"), PLAIN.replace(b":1}", b":1e999}"), PLAIN.replace(b"example", b"\\u001b[31m"),
        PLAIN.replace(KEY.public.hex().encode(), b"zz" * 32), PLAIN.replace(KEY.public.hex().encode(), b"00" * 31),
        PLAIN.replace(f'"{ORIGIN}"'.encode(), b"5"),
    ],
)  # fmt: skip
def test_a_first_entry_that_says_nothing(tmp_path: Path, first: bytes) -> None:
    assert "entry 0 does not hold" in refused(signed(tmp_path / "log", ("log", first, AT)))


@pytest.mark.parametrize(
    ("kind", "time"),
    [("\x1b[2J", AT), ("finding", "\x1b]0;x\x07"), ("", AT), ("finding", "yesterday"), ("a" * 70, AT)],
)
def test_words_that_would_move_a_terminal_are_not_shown(tmp_path: Path, kind: str, time: str) -> None:
    path = signed(tmp_path / "log", ("log", PLAIN, AT), (kind, b"{}", time))
    assert refused(path).endswith("entry 1 does not hold: it has not the form of an entry")


@pytest.mark.parametrize(
    ("payload", "holds"),
    [
        (b"[" * 200_000, True), (b'{"entry":' + b"9" * 9000 + b"}", True), (b'{"entry":"x"}', True),
        (b'{"entry":1e400}', True), (b'{"entry":true}', True), (b'{"entry":-1}', False), (b'{"entry":7}', False),
    ],
)  # fmt: skip
def test_a_removal_that_names_nothing_removes_nothing(tmp_path: Path, payload: bytes, holds: bool) -> None:
    path = signed(tmp_path / "log", ("log", PLAIN, AT), ("payload_removed", payload, AT))
    if holds:
        assert verify(path).removed == 0
    else:
        assert "another entry says that it was removed" in refused(path)


def test_cells_and_numbers_without_measure(made: Path) -> None:
    for statement in (
        "UPDATE entries SET number = 9223372036854775807 WHERE number = 12",
        "UPDATE entries SET number = -9223372036854775808 WHERE number = 0",
        "UPDATE entries SET payload = zeroblob(50000000) WHERE number = 1",
        "UPDATE entries SET kind = CAST(x'ff' AS TEXT) WHERE number = 2",
    ):
        copy = made.with_name("copy")
        copy.write_bytes(made.read_bytes())
        run_sql(copy, statement)
        assert refused(copy)
        copy.unlink()


def test_a_first_entry_of_another_kind_is_none(tmp_path: Path) -> None:
    assert "entry 0" in refused(signed(tmp_path / "log", ("finding", PLAIN, AT)))
    # And one that has no entries at all.
    assert "entry 0" in refused(signed(tmp_path / "empty"))


def test_another_version_is_named(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_sql(made, "PRAGMA user_version = 7")
    assert "has version 7, this program reads 1" in refused(made)
    monkeypatch.setattr(database, "VERSION", 7)
    with pytest.raises(JournalError, match="whose log this is"):
        TransparencyLog(made, KEY)


def test_the_digest_is_of_the_bytes_and_not_of_what_they_mean(made: Path) -> None:
    with sqlite3.connect(made) as db:
        (payload,) = db.execute("SELECT payload FROM entries WHERE number = 1").fetchone()
    db.close()
    spaced = payload.replace(b",", b", ")
    assert digest_of(spaced) != digest_of(payload)
    run_sql(made, ("UPDATE entries SET payload = ? WHERE number = 1", (spaced,)))
    assert "its payload" in refused(made)
