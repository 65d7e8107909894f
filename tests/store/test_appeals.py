"""Appeals are chained and signed; who is freed stays so until newer evidence and another person's word."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from stillwatch.schema import DecisionError, UsageError
from stillwatch.store.appeals import (
    CODES,
    Row,
    cases,
    decide,
    freed,
    freed_by,
    read_appeals,
    receive,
)
from stillwatch.store.chain import head_of
from stillwatch.store.decisions import Signer
from stillwatch.store.events import of_appeals
from stillwatch.store.pseudonyms import Pseudonyms

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ANNA, BELA = (Signer(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2))
NAMES = Pseudonyms("0a1b2c3d", "appeal", bytes(range(32)))


def rule(path: Path, account: str = "acct-1", **changes: Any) -> Row:
    plain: dict[str, Any] = {
        "campaign": "g-1", "outcome": "reversed", "code": "evaluation", "note": "They sent the paper.",
        "results": "a" * 64, "evidence_until": "2026-02-28T23:00:00Z", "names": NAMES, "signer": ANNA, "at": NOW,
    }  # fmt: skip
    return decide(path, account, **(plain | changes))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "appeals.jsonl"


def test_who_is_freed_is_free_until_newer_evidence_and_another_ruling(path: Path) -> None:
    assert freed(path) == set()
    rule(path)
    rule(path, "acct-2", outcome="upheld", code="evidence_stands")
    assert freed(path) == {"acct-1"}
    assert path.stat().st_mode & 0o777 == 0o600
    later = NOW + timedelta(days=20)
    with pytest.raises(DecisionError, match="free already"):
        rule(path, at=later)
    bind: dict[str, Any] = {"outcome": "upheld", "code": "new_evidence", "at": later, "signer": BELA}
    for old in (
        {},
        {"results": "b" * 64},
        {"evidence_until": "2026-03-20T00:00:00Z"},
        {"results": "b" * 64, "evidence_until": "2026-03-20T00:00:00Z", "code": "evidence_stands"},
    ):
        with pytest.raises(DecisionError, match="only newer evidence"):
            rule(path, **(bind | old))
    assert freed(path) == {"acct-1"}
    rule(path, **bind, results="b" * 64, evidence_until="2026-03-20T00:00:00Z")
    assert freed(path) == set()
    # And it may appeal again.
    rule(path, at=later + timedelta(days=1))
    assert freed(path) == {"acct-1"}


def test_only_listed_keys_free_somebody_where_keys_are_listed(path: Path) -> None:
    rows = [rule(path)]
    assert freed_by(rows, {ANNA.key}) == {"acct-1"}
    with pytest.raises(DecisionError, match="does not list"):
        freed_by(rows, {BELA.key})


def test_a_ruling_that_somebody_else_signed_frees_nobody(path: Path) -> None:
    row = rule(path)
    for changes in (
        {"key": BELA.key},
        {"signature": BELA.sign("reversed", row.ruling.digest if row.ruling else "")},
        {"signature": ANNA.sign("upheld", row.ruling.digest if row.ruling else "")},
        {"signature": None},
    ):
        forged = msgspec.structs.replace(row, **changes)
        forged = msgspec.structs.replace(forged, hash=forged.own_hash)
        path.write_bytes(msgspec.json.encode(forged) + b"\n")
        with pytest.raises(DecisionError, match="not rightly signed"):
            freed(path)


def test_every_change_to_the_file_is_found(path: Path) -> None:
    receive(path, "acct-1", "g-1", NAMES, NOW)
    rule(path)
    rule(path, "acct-2", outcome="upheld", code="no_answer")
    lines = path.read_bytes().splitlines(keepends=True)
    head = head_of(read_appeals(path))
    for number, line in enumerate(lines):
        plain = json.loads(line)
        for name, value in plain.items():
            if name == "hash" or value is None:
                continue
            changed = {**plain, name: {**value, "code": "other"} if name == "ruling" else f"{value}x"}
            path.write_bytes(
                b"".join(lines[:number])
                + json.dumps(changed).encode()
                + b"\n"
                + b"".join(lines[number + 1 :])
            )
            with pytest.raises(DecisionError, match=r"altered here|no row of appeals"):
                read_appeals(path)
        path.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))
        if number < 2:
            with pytest.raises(DecisionError, match="altered here"):
                read_appeals(path)
    with pytest.raises(DecisionError, match="missing"):
        read_appeals(path, head)
    path.unlink()
    with pytest.raises(DecisionError, match="not named"):
        read_appeals(path, head)


@given(st.binary(max_size=200))
def test_whatever_stands_in_the_file_is_an_error_of_ours(tmp_path_factory: Any, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.jsonl"
    path.write_bytes(data)
    place = None
    try:
        assert all(isinstance(row, Row) for row in read_appeals(path))
    except DecisionError as error:
        place = error.where
    assert place is None or place.line is not None


def test_what_is_missing_is_asked_for(path: Path) -> None:
    for changes, says in (
        ({"code": "evidence_stands"}, "no reason for 'reversed'"),
        ({"note": " \n"}, "the note is empty"),
        ({"note": "x" * 70_000}, "longer than"),
    ):
        with pytest.raises(UsageError, match=says):
            rule(path, **changes)
    with pytest.raises(DecisionError, match="before it came in"):
        rule(path, received=NOW + timedelta(days=1))
    with pytest.raises(DecisionError, match="time zone"):
        rule(path, at=datetime(2026, 3, 1))
    assert not path.exists()


def test_the_log_is_told_neither_who_nor_what_was_written(path: Path) -> None:
    receive(path, "acct-1", "g-1", NAMES, NOW - timedelta(days=2))
    rule(path)
    rule(path, "acct-2", outcome="upheld", code="no_answer", note="Nothing came from Ms Novak.")
    events = of_appeals(read_appeals(path))
    assert [kind for kind, _ in events] == ["appeal", "appeal_reversal", "appeal"]
    told = json.dumps(events)
    for word in ("acct-1", "acct-2", "paper", "Novak"):
        assert word not in told
    assert {payload["account"] for _, payload in events} == {
        NAMES.of("account", "acct-1"), NAMES.of("account", "acct-2")
    }  # fmt: skip
    # Nobody who knows every field but the key can find the account by trying: the row's hash is blinded.
    row = read_appeals(path)[0]
    assert msgspec.structs.replace(row, blind="").own_hash != row.hash
    assert of_appeals(read_appeals(path)) == events


def test_an_appeal_is_counted_from_its_receipt(path: Path) -> None:
    receive(path, "acct-1", "g-1", NAMES, NOW - timedelta(days=5))
    receive(path, "acct-3", None, NAMES, NOW - timedelta(days=1))
    rule(path)
    rule(path, "acct-2", received=NOW - timedelta(days=3), outcome="upheld", code="no_answer")
    found = [(c.account, c.received, c.outcome) for c in cases(read_appeals(path))]
    assert found == [
        ("acct-1", NOW - timedelta(days=5), "reversed"),
        ("acct-2", NOW - timedelta(days=3), "upheld"),
        ("acct-3", NOW - timedelta(days=1), None),
    ]
    assert all(CODES[name] for name in ("reversed", "upheld"))
