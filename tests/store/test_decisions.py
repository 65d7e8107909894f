"""Decisions are signed, chained and undone; whatever is done to the file is found."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from stillwatch.schema import DecisionError, InputError
from stillwatch.store.chain import head_of
from stillwatch.store.decisions import (
    Order,
    Signer,
    approve,
    expire,
    propose,
    read_decisions,
    read_signer,
    revoke,
    signed,
    standing,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ANNA, BELA = (Signer(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2))


def order(**changes: object) -> Order:
    plain = {
        "campaign": "g-1", "action": "block", "policy": "0" * 64, "expires": NOW + timedelta(days=7), "at": NOW,
        "reason": "reviewed", "mapped": True,
    }  # fmt: skip
    return Order(**(plain | changes))  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "decisions.jsonl"


def test_a_decision_stands_until_it_is_revoked_or_runs_out(path: Path) -> None:
    first = propose(path, order(), ANNA)
    propose(path, order(campaign="g-2", expires=NOW + timedelta(days=1)), BELA)
    approve(path, first.digest, BELA, NOW)
    rows = read_decisions(path)
    assert [row.did for row in rows] == ["propose", "propose", "approve"]
    assert [d.order.campaign for d in standing(rows, NOW)] == ["g-1", "g-2"]
    decision = standing(rows, NOW)[0]
    assert signed("propose", first.digest, decision.proposer, decision.proposed)
    assert all(signed("approve", first.digest, *pair) for pair in decision.approvals)
    later = NOW + timedelta(days=2)
    assert [d.order.campaign for d in standing(rows, later)] == ["g-1"]
    assert [row.did for row in expire(path, later)] == ["expire"]
    assert expire(path, later) == []
    revoke(path, first.digest, BELA, later)
    assert standing(read_decisions(path), later) == []
    with pytest.raises(DecisionError, match="no such decision stands"):
        approve(path, first.digest, BELA, later)


def test_nobody_approves_their_own_decision_or_twice(path: Path) -> None:
    digest = propose(path, order(), ANNA).digest
    with pytest.raises(DecisionError, match="somebody else"):
        approve(path, digest, ANNA, NOW)
    approve(path, digest, BELA, NOW)
    with pytest.raises(DecisionError, match="somebody else"):
        approve(path, digest, BELA, NOW)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"expires": NOW}, "end before it begins"),
        ({"expires": datetime(2027, 1, 1)}, "time zone"),
    ],
)
def test_times_that_make_no_sense_are_refused(path: Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(DecisionError, match=says):
        propose(path, order(**changes), ANNA)
    assert not path.exists()


def test_the_same_decision_is_proposed_once(path: Path) -> None:
    propose(path, order(), ANNA)
    with pytest.raises(DecisionError, match="proposed before"):
        propose(path, order(), BELA)


def test_whatever_is_done_to_the_file_is_found(path: Path) -> None:
    first = propose(path, order(), ANNA)
    propose(path, order(campaign="g-2"), ANNA)
    approve(path, first.digest, BELA, NOW)
    lines = path.read_bytes().splitlines(keepends=True)
    head = head_of(read_decisions(path))
    changed = json.loads(lines[0])
    changed["order"]["campaign"] = "g-3"
    wrong = {
        1: [json.dumps(changed).encode() + b"\n", *lines[1:]],
        2: [lines[0], lines[2]],
        3: [lines[0], lines[1], lines[1]],
        4: [*lines, b"{}\n"],
        5: [*lines, b"\xff\n"],
    }
    at = {1: 1, 2: 2, 3: 3, 4: 4, 5: 4}
    for number, altered in wrong.items():
        path.write_bytes(b"".join(altered))
        with pytest.raises(DecisionError) as caught:
            read_decisions(path)
        assert caught.value.where is not None
        assert caught.value.where.line == at[number]
    path.write_bytes(b"".join(lines[:2]))
    assert len(read_decisions(path)) == 2
    with pytest.raises(DecisionError, match="cut off"):
        read_decisions(path, head)
    path.unlink()
    with pytest.raises(DecisionError, match="cut off"):
        read_decisions(path, head)


def test_an_order_that_is_swapped_with_a_right_hash_chain_is_found(path: Path) -> None:
    """Whoever can rewrite all hashes can still not forge what was signed."""
    row = propose(path, order(), ANNA)
    forged = order(action="throttle")
    assert not signed("propose", forged.digest, ANNA.key, row.signature or "")
    assert not signed("approve", row.digest, ANNA.key, row.signature or "")
    assert not signed("propose", row.digest, BELA.key, row.signature or "")
    assert not signed("propose", row.digest, ANNA.key, "no base64")
    assert not signed("propose", row.digest, "rsa:AAAA", row.signature or "")


def test_keys_come_from_pem_files(tmp_path: Path) -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    assert read_signer(tmp_path / "key.pem").key == ANNA.key
    other = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "other.pem").write_bytes(other)
    (tmp_path / "none.pem").write_bytes(b"no key")
    for name, says in (("other.pem", "not ed25519"), ("none.pem", "no PEM"), ("gone.pem", "cannot be read")):
        with pytest.raises(InputError, match=says):
            read_signer(tmp_path / name)
