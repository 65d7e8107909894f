"""What is appended is one entry, signed for, provable, and there when the file is opened again."""

from __future__ import annotations

import json
import math
import stat
import threading
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from stillwatch.evidence.database import size_of
from stillwatch.evidence.entry import MOST_BYTES, canonical
from stillwatch.evidence.keys import vkey
from stillwatch.evidence.log import TransparencyLog
from stillwatch.evidence.merkle import consistent, included, leaf_hash
from stillwatch.evidence.note import parse
from stillwatch.evidence.read import checkpoint, entries, prove_entry, prove_growth
from stillwatch.evidence.verify import verify
from stillwatch.schema import InputError, Journal, JournalError, OutputError, UsageError
from tests.evidence.conftest import KEY, ORIGIN, OTHER, events_of, filled, run_sql, ticking


def test_what_is_appended_is_there_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "log"
    with TransparencyLog.create(path, KEY, ORIGIN, ticking()) as log:
        journal: Journal = log
        journal.append(
            "partition", {"file": "days/1", "rows": 3, "share": 0.1, "none": None, "list": [True, "ä"]}
        )
        assert log.append_all([("finding", {"n": n}) for n in range(3)]) == 3
        assert (log.size, log.origin) == (5, ORIGIN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["log"]
    with TransparencyLog(path, KEY) as log:
        log.append("decision", {"row": "00"})
    found = list(entries(path))
    assert [entry.kind for entry in found] == ["log", "partition", *["finding"] * 3, "decision"]
    assert found[1].payload == (
        '{"file":"days/1","list":[true,"ä"],"none":null,"rows":3,"share":0.1}'.encode()
    )
    assert found[1].time == "2026-03-01T00:00:02.000000Z"
    proved = verify(path, key=KEY.public)
    assert (proved.entries, proved.vkey, proved.removed) == (6, vkey(ORIGIN, KEY.public), 0)
    assert proved.kinds == {"log": 1, "partition": 1, "finding": 3, "decision": 1}
    assert (proved.first, proved.last) == (found[0].time, found[5].time)
    assert [entry.number for entry in entries(path, last=2, kind="finding")] == [3, 4]
    assert [entry.number for entry in entries(path, last=99)] == list(range(6))
    assert [entry.number for entry in entries(path, last=2)] == [4, 5]


def test_an_event_that_is_told_again_keeps_its_place_and_time(made: Path) -> None:
    before = list(entries(made))
    with TransparencyLog(made, KEY, ticking()) as log:
        # Also in another order of its keys, and twice in one batch; another kind makes it another event.
        log.append("finding", {"accounts": 5, "group": "g-5"})
        assert log.append_all([("finding", {"group": "g-new"})] * 2) == 1
        log.append("lead", {"group": "g-5", "accounts": 5})
    after = list(entries(made))
    assert after[:13] == before
    assert [(entry.number, entry.kind) for entry in after[13:]] == [(13, "finding"), (14, "lead")]
    assert verify(made).entries == 15


@pytest.mark.parametrize(
    "payload",
    [
        {"x": math.nan}, {"x": math.inf}, {"x": 1 << 53}, {"x": -(1 << 53)}, {"x": [10**400]}, {"x": b"bytes"},
        {"x": (1,)}, {"x": "\ud800"}, {1: 2}, {"x": {2: 1}}, {"x": "a" * MOST_BYTES}, {"x": {1, 2}},
    ],
)  # fmt: skip
def test_what_other_readers_would_change_is_refused(made: Path, payload: dict[str, Any]) -> None:
    with TransparencyLog(made, KEY) as log:
        with pytest.raises(UsageError):
            log.append_all([("finding", {"group": "g-other"}), ("finding", payload)])
        assert log.size == 13


def test_depth_is_bounded_even_without_end(made: Path) -> None:
    endless: dict[str, Any] = {}
    endless["x"] = endless
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    for payload in (endless, {"x": deep}):
        with pytest.raises(UsageError, match="levels"):
            canonical(payload)
    assert json.loads(canonical({"x": [[1.5, -0.0, 2**53 - 1, False]]})) == {
        "x": [[1.5, 0, 2**53 - 1, False]]
    }


@pytest.mark.parametrize("kind", ["", "Finding", "a b", "log", "payload_removed", "a" * 65, "a\n", "ä"])
def test_kinds_are_plain_words_and_the_logs_own_are_its_own(made: Path, kind: str) -> None:
    with TransparencyLog(made, KEY) as log, pytest.raises(UsageError):
        log.append(kind, {})


def test_a_stranger_can_check_a_checkpoint_and_a_proof(made: Path) -> None:
    size, note = checkpoint(made)
    body, _, signatures = note.partition("\n\n")
    origin, count, root = body.split("\n")
    assert (origin, int(count), size) == (ORIGIN, 13, 13)
    dash, name, encoded = signatures.rstrip("\n").split(" ")
    raw = b64decode(encoded)
    public = Ed25519PublicKey.from_public_bytes(KEY.public)
    public.verify(raw[4:], (body + "\n").encode())
    assert (dash, name, raw[:4].hex()) == ("—", ORIGIN, vkey(ORIGIN, KEY.public).split("+")[1])
    for number in range(13):
        proof = json.loads(json.dumps(prove_entry(made, number)))
        leaf, path = leaf_hash(proof["leaf"].encode()), [b64decode(step) for step in proof["path"]]
        assert included(leaf, number, 13, path, b64decode(root))
        assert proof["checkpoint"] == note
    for first in range(1, 14):
        older = parse(checkpoint(filled(made.with_name(f"log{first}"), first - 1))[1].encode())
        assert older is not None
        growth = prove_growth(made, first)
        path = [b64decode(step) for step in growth["path"]]
        assert consistent(first, 13, older.root, b64decode(root), path)
    for asked in (-1, 13, 1 << 70):
        with pytest.raises(UsageError):
            prove_entry(made, asked)
    for asked in (0, 14):
        with pytest.raises(UsageError):
            prove_growth(made, asked)


def test_a_removed_payload_leaves_its_entry_provable_and_no_byte_of_it(made: Path) -> None:
    with TransparencyLog(made, KEY) as log:
        log.append("finding", {"group": "g-secretive"})
        log.remove_payload(13)
        # It may be told again: it was there, and stays removed.
        log.append("finding", {"group": "g-secretive"})
        for number in (0, 14, 15, -1):
            with pytest.raises(UsageError):
                log.remove_payload(number)
        assert not any(b"g-secretive" in path.read_bytes() for path in made.parent.iterdir())
    proved = verify(made)
    assert (proved.entries, proved.removed, proved.kinds["payload_removed"]) == (15, 1, 1)
    proof = prove_entry(made, 13)
    assert proof["payload"] is None
    assert '"kind":"finding"' in proof["leaf"]


def test_only_the_logs_key_writes_and_nothing_is_replaced(made: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the transparency log's own"):
        TransparencyLog(made, OTHER)
    before = made.read_bytes()
    with pytest.raises(OutputError, match="a file already"):
        TransparencyLog.create(made, OTHER, ORIGIN)
    assert made.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    for origin in ("", "a b", "a+b", "a\n", "ä", "a" * 129):
        with pytest.raises(UsageError):
            TransparencyLog.create(tmp_path / "new", KEY, origin)


def test_a_writer_notices_what_happened_behind_its_back(made: Path) -> None:
    older = made.read_bytes()
    for change, told in (
        (
            ("DELETE FROM entries WHERE number > 9", "DELETE FROM nodes WHERE number > 9 AND level = 0"),
            "is missing",
        ),
        (("UPDATE nodes SET hash = zeroblob(32) WHERE level = 3",), "has changed"),
        (("DELETE FROM nodes WHERE level = 3",), "hash of the tree is missing"),
    ):
        made.write_bytes(older)
        with TransparencyLog(made, KEY) as log:
            run_sql(made, *change)
            with pytest.raises(JournalError, match=told):
                log.append("finding", {"group": "g-late"})
            assert size_of(log._db) in (10, 13)
    # An older copy that grew again is as long, and not the same.
    made.write_bytes(older)
    copy = made.with_name("copy")
    copy.write_bytes(older)
    with TransparencyLog(made, KEY) as log, TransparencyLog(copy, KEY) as other:
        log.append("finding", {"group": "g-a"})
        other.append("finding", {"group": "g-b"})
        log._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        log._db, other._db = other._db, log._db
        with pytest.raises(JournalError, match="has changed"):
            log.append("finding", {"group": "g-c"})


def test_the_end_is_checked_when_a_log_is_opened(made: Path) -> None:
    run_sql(made, "UPDATE entries SET kind = 'lead' WHERE number = 12")
    # The nodes and the signature still fit: the log can be written, and `verify` finds it.
    TransparencyLog(made, KEY).close()
    with pytest.raises(JournalError, match="entry 12 does not hold"):
        verify(made)
    run_sql(made, "UPDATE entries SET signature = zeroblob(64) WHERE number = 12")
    with pytest.raises(JournalError, match="not the one that was signed"):
        TransparencyLog(made, KEY)


def test_two_that_write_at_once_take_turns(made: Path) -> None:
    failed: list[BaseException] = []

    def write(name: str) -> None:
        try:
            with TransparencyLog(made, KEY) as log:
                for n in range(25):
                    log.append("scan", {"by": name, "n": n})
                    log.append("both", {"n": n})
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert verify(made).kinds == {"log": 1, "finding": 12, "scan": 50, "both": 25}
    assert len({(kind, payload) for _, kind, payload in events_of(made)}) == 88


def test_a_full_disk_is_told_and_leaves_the_log_as_it_was(made: Path) -> None:
    with TransparencyLog(made, KEY) as log:
        pages = log._db.execute("PRAGMA page_count").fetchone()[0]
        log._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OutputError, match="the disk is full"):
            log.append_all([("finding", {"text": "x" * 9000, "n": n}) for n in range(9)])
        log._db.execute("PRAGMA max_page_count = 100000")
        log.append("finding", {"group": "g-after"})
    assert verify(made).entries == 14
