"""Whatever is done to the file without the key is found; and so is an older copy, by whoever noted a checkpoint."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from stillwatch.evidence.database import COLUMNS
from stillwatch.evidence.entry import Entry, digest_of
from stillwatch.evidence.log import TransparencyLog
from stillwatch.evidence.merkle import Frontier, leaf_hash
from stillwatch.evidence.note import Checkpoint, parse, text_of
from stillwatch.evidence.read import checkpoint, prove_entry
from stillwatch.evidence.verify import verify
from stillwatch.schema import JournalError, OutputError
from tests.evidence.conftest import KEY, ORIGIN, OTHER, filled, run_sql, ticking


def contents(path: Path) -> list[tuple[object, ...]]:
    """Every row of the file."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT * FROM entries ORDER BY number").fetchall()
        return rows + db.execute("SELECT * FROM nodes ORDER BY level, number").fetchall()


def noted(path: Path) -> Checkpoint:
    """The newest checkpoint, as somebody else keeps it."""
    found = parse(checkpoint(path)[1].encode())
    assert found is not None
    return found


def make_nodes_anew(path: Path) -> None:
    """What somebody does who knows how the tree is made, and lacks the key."""
    frontier = Frontier()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        rows = db.execute(f"SELECT {COLUMNS} FROM entries ORDER BY number").fetchall()
        db.execute("DELETE FROM nodes")
        for row in rows:
            made = frontier.add(leaf_hash(Entry(*row).leaf))
            db.executemany("INSERT INTO nodes VALUES (?, ?, ?)", made)


@pytest.mark.parametrize("column", ["number", "time", "kind", "digest", "payload", "signature", "hash"])
def test_each_byte_of_each_row_counts(tmp_path: Path, column: str) -> None:
    made = filled(tmp_path / "log", 5)
    table = "nodes" if column == "hash" else "entries"
    key = "level * 100 + number" if column == "hash" else "number"
    with contextlib.closing(sqlite3.connect(made, isolation_level=None)) as db:
        cells = db.execute(f"SELECT {key}, {column} FROM {table} ORDER BY 1").fetchall()
        assert len(cells) == (6 if table == "entries" else 10)
        for place, cell in cells:
            raw = cell.encode() if isinstance(cell, str) else cell
            if isinstance(raw, int):
                changes: list[object] = [raw ^ 1 << bit for bit in range(0, 63, 9)]
            else:
                changes = [str(raw)]
                for at in range(len(raw)):
                    other = raw[:at] + bytes([raw[at] ^ 1 << at % 7]) + raw[at + 1 :]
                    changes.append(other.decode() if isinstance(cell, str) else other)
            for change in [*changes, None, b"", "", 7.5]:
                try:
                    db.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (change, place))
                except (sqlite3.IntegrityError, sqlite3.DataError):
                    # SQLite itself will not have it: null where there must be a value, or a number twice.
                    continue
                with pytest.raises(JournalError):
                    verify(made)
                where = change if column == "number" else place
                db.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (cell, where))
    assert verify(made).entries == 6


PUT = (
    "INSERT INTO entries SELECT {}, time, kind, zeroblob(32), NULL, signature FROM entries WHERE number = {}"
)
ROWS = [
    ("first removed", ["DELETE FROM entries WHERE number = 0"]),
    ("first removed, moved up", ["DELETE FROM entries WHERE number = 0",
                                 "UPDATE entries SET number = number - 1"]),
    ("middle removed", ["DELETE FROM entries WHERE number = 6"]),
    ("middle removed, moved up", ["DELETE FROM entries WHERE number = 6",
                                  "UPDATE entries SET number = number - 1 WHERE number > 6"]),
    ("last removed", ["DELETE FROM entries WHERE number = 12"]),
    ("all removed", ["DELETE FROM entries"]),
    ("swapped", ["UPDATE entries SET number = 99 WHERE number = 4", "UPDATE entries SET number = 4 WHERE number = 5",
                 "UPDATE entries SET number = 5 WHERE number = 99"]),
    ("put in", ["UPDATE entries SET number = -number WHERE number > 6",
                "UPDATE entries SET number = 1 - number WHERE number < 0",
                PUT.format(7, 6)]),
    ("put on", [PUT.format(13, 12)]),
    ("signatures swapped", ["UPDATE entries SET signature = (SELECT signature FROM entries WHERE number = 3) "
                            "WHERE number = 2"]),
    ("signature removed", ["UPDATE entries SET signature = zeroblob(64) WHERE number = 8"]),
    ("payload removed", ["UPDATE entries SET payload = NULL WHERE number = 8"]),
    ("kind changed", ["UPDATE entries SET kind = 'lead' WHERE number = 12"]),
]  # fmt: skip
FILE = [
    ("node too many", ["INSERT INTO nodes VALUES (9, 0, zeroblob(32))"]),
    ("node missing", ["DELETE FROM nodes WHERE level = 0 AND number = 12"]),
    ("trigger", ["CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries WHERE number = 3; END"]),
    ("another table", ["CREATE TABLE more (x)"]),
    ("view in a table's place", ["ALTER TABLE nodes RENAME TO nodes_", "CREATE VIEW nodes AS SELECT * FROM nodes_"]),
    ("version", ["PRAGMA user_version = 2"]),
    ("no log of ours", ["PRAGMA application_id = 1"]),
]  # fmt: skip


@pytest.mark.parametrize("anew", [False, True], ids=["", "nodes made anew"])
@pytest.mark.parametrize(("name", "statements"), ROWS, ids=[name for name, _ in ROWS])
def test_rows_removed_moved_put_in_and_changed(
    made: Path, name: str, statements: list[str], anew: bool
) -> None:
    note = noted(made)
    run_sql(made, *statements)
    if anew:
        make_nodes_anew(made)
    # The end removed cleanly is an older state, which was signed: only who noted a later one can tell.
    with pytest.raises(JournalError) as told:
        verify(made, noted={"note": note} if name == "last removed" else None)
    assert told.value.where is not None


@pytest.mark.parametrize(("name", "statements"), FILE, ids=[name for name, _ in FILE])
def test_other_things_done_to_the_file(made: Path, name: str, statements: list[str]) -> None:
    run_sql(made, *statements)
    with pytest.raises(JournalError):
        verify(made)


def test_the_last_entries_removed_cleanly_are_found_by_a_checkpoint_that_was_noted(made: Path) -> None:
    note = noted(made)
    run_sql(made, "DELETE FROM entries WHERE number > 8")
    make_nodes_anew(made)
    # An older state was signed, too: in itself it holds.
    assert verify(made).entries == 9
    with pytest.raises(JournalError, match="removed at its end: 13 were noted, 9 are there"):
        verify(made, noted={"note.txt": note})
    # It grows again, by the key's holder who was given the older copy.
    with TransparencyLog(made, KEY, ticking()) as log:
        log.append_all([("finding", {"group": f"h-{n}"}) for n in range(9)])
    assert verify(made).entries == 18
    with pytest.raises(JournalError, match="rewritten: its first 13 entries"):
        verify(made, noted={"note.txt": note})


def test_a_log_that_grew_holds_what_was_noted(made: Path) -> None:
    first = noted(made)
    with TransparencyLog(made, KEY) as log:
        log.append("finding", {"group": "g-more"})
    proved = verify(made, noted={"first": first, "now": noted(made)}, key=KEY.public)
    assert proved.noted == {"first": 13, "now": 14}


def test_a_log_made_anew_with_another_key_is_found(made: Path) -> None:
    note = noted(made)
    other = filled(made.with_name("other"), key=OTHER)
    assert verify(other).entries == 13
    with pytest.raises(JournalError, match="not signed by this log's key"):
        verify(other, noted={"note": note})
    with pytest.raises(JournalError, match="another key than the one that was named"):
        verify(other, key=KEY.public)
    with TransparencyLog.create(made.with_name("third"), KEY, "example.com/third") as third:
        pass
    with pytest.raises(JournalError, match=r"of another log, 'example\.com/log'"):
        verify(third.path, noted={"note": note})
    # The note itself changed, and one that says nothing.
    for text in (text_of(ORIGIN, 12, note.root), text_of(ORIGIN, 13, bytes(32))):
        size = int(text.split(b"\n")[1])
        forged = Checkpoint(ORIGIN, size, note.root, text, note.signatures)
        with pytest.raises(JournalError, match="not signed by this log's key"):
            verify(made, noted={"note": forged})


def test_a_signed_tree_over_another_payload_is_found_by_the_payload(made: Path) -> None:
    payload = b'{"accounts":99,"group":"g-3"}'
    run_sql(made, ("UPDATE entries SET payload = ? WHERE number = 4", (payload,)))
    with pytest.raises(JournalError, match="entry 4 does not hold: its payload"):
        verify(made)
    run_sql(made, ("UPDATE entries SET digest = ? WHERE number = 4", (digest_of(payload),)))
    with pytest.raises(JournalError, match="entry 4 does not hold: the hash"):
        verify(made)
    with pytest.raises(JournalError, match="entry 4 does not hold: it is not in the tree"):
        prove_entry(made, 4)
    make_nodes_anew(made)
    with pytest.raises(JournalError, match="entry 4 does not hold: the tree"):
        verify(made)


def test_a_payload_put_back_or_removed_without_a_word_is_found(made: Path) -> None:
    with contextlib.closing(sqlite3.connect(made)) as db:
        (payload,) = db.execute("SELECT payload FROM entries WHERE number = 3").fetchone()
    with TransparencyLog(made, KEY) as log:
        log.remove_payload(3)
    assert verify(made).removed == 1
    run_sql(made, ("UPDATE entries SET payload = ? WHERE number = 3", (payload,)))
    with pytest.raises(JournalError, match="its payload is there"):
        verify(made)
    run_sql(made, "UPDATE entries SET payload = NULL WHERE number IN (3, 5)")
    with pytest.raises(JournalError, match="entry 5 does not hold: its payload is missing"):
        verify(made)


def holds_or_says_the_same(path: Path, before: list[tuple[object, ...]]) -> bool:
    """Whether a change of the file is found; if not, nothing that the log says may be another."""
    try:
        verify(path)
    except (JournalError, OutputError):
        return True
    assert contents(path) == before
    return False


def _flip(made: Path, places: Callable[[int], list[int]]) -> tuple[int, int]:
    data, before = made.read_bytes(), contents(made)
    copy = made.with_name("copy")
    found = 0
    chosen = places(len(data))
    for place in chosen:
        copy.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        found += holds_or_says_the_same(copy, before)
        for end in ("-wal", "-shm", "-journal"):
            copy.with_name(copy.name + end).unlink(missing_ok=True)
    return found, len(chosen)


def test_any_byte_of_the_file_is_found_or_says_nothing(made: Path) -> None:
    rng = random.Random(7)
    found, tried = _flip(made, lambda size: [*range(100), *rng.sample(range(100, size), 250)])
    assert 0 < found < tried


@pytest.mark.slow
def test_every_byte_of_the_file_is_found_or_says_nothing(made: Path) -> None:
    found, tried = _flip(made, lambda size: list(range(size)))
    assert tried == made.stat().st_size
    # What is in no row is room that SQLite does not use.
    stored = [cell for row in contents(made) for cell in row if isinstance(cell, bytes | str)]
    assert found >= sum(map(len, stored)) > 2500


def test_a_file_that_is_cut_off_is_found(made: Path) -> None:
    data = made.read_bytes()
    for size in (0, 1, 99, 100, 4095, 4096, 8192, len(data) - 4096, len(data) - 1):
        copy = made.with_name("copy")
        copy.write_bytes(data[:size])
        with pytest.raises((JournalError, OutputError)):
            verify(copy)
    shutil.copy(made, copy)
    assert verify(copy).entries == 13
