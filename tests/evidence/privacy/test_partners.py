"""What the transparency log, a bundle and an export say of a partner: neither who it is, nor what can be guessed."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stillwatch.cli.intel import _exported
from stillwatch.evidence.intel import psi
from stillwatch.evidence.sharing import Request, shared_event, terms
from stillwatch.schema.results import Evidence
from stillwatch.store import appeals
from stillwatch.store.decisions import Signer
from stillwatch.store.events import Event, of_appeals
from stillwatch.store.public import public_group
from tests.evidence.intel.conftest import ACME, AT, OTHER, Side


@pytest.fixture
def side(tmp_path: Path) -> Side:
    return Side.made(tmp_path)


NAMES = ("acme", "acct-guessed-1")
"""A partner and an account, as somebody who has the log would guess them."""


def guesses(value: str) -> set[str]:
    """What an unkeyed form of a value would look like."""
    found = {value, value.encode().hex(), base64.b64encode(value.encode()).decode()}
    for name in ("sha256", "sha1", "md5", "sha512", "blake2b"):
        digest = hashlib.new(name, value.encode()).digest()
        found |= {digest.hex()[:16], base64.b64encode(digest).decode()[:16]}
    return found


def told(side: Side, folder: Path) -> list[Event]:
    """One event of each kind that is about a partner or an account."""
    partner = side.ring.partner("acme")
    asked = Request(folder, "g-1", "acme", terms("amber", 80, datetime(2027, 1, 1, tzinfo=UTC)))
    events = [
        shared_event(asked, form, b"data", partner, revoked=back)
        for form in ("stix", "csv")
        for back in (False, True)
    ]
    events += [side.take(side.feed(side.indicator())).event, _exported(b"feed", partner, 1)]
    signer, names = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32))), side.ring.names("appeal")
    appeals.receive(folder / "appeals", NAMES[1], "g-1", names, AT)
    appeals.decide(
        folder / "appeals", NAMES[1], campaign="g-1", outcome="reversed", code="evaluation", note=NAMES[0],
        results="0" * 64, evidence_until="2026-01-01", names=names, signer=signer, at=AT,
    )  # fmt: skip
    return events + of_appeals(appeals.read_appeals(folder / "appeals"))


def test_no_payload_of_the_log_has_a_name_or_what_can_be_guessed(side: Side, tmp_path: Path) -> None:
    events = told(side, tmp_path)
    assert {kind for kind, _ in events} == {"share", "intel", "appeal", "appeal_reversal"}
    for kind, payload in events:
        text = json.dumps(payload)
        assert [guess for name in NAMES for guess in guesses(name) if guess in text] == [], kind
    # Whoever has the ring can tell, and each partner has one name there.
    about = {payload["partner"] for kind, payload in events if kind in ("share", "intel")}
    assert about == {side.ring.names("share").of("partner", "acme")}
    assert side.ring.partner("other") not in about


def test_private_set_intersection_tells_the_log_no_name(side: Side, tmp_path: Path) -> None:
    pytest.importorskip("private_set_intersection", reason="the extra psi is not installed")
    wording = {"g-1": [f"{n:032x}" for n in range(40)]}
    names, partner = side.ring.names("fingerprint", "acme"), side.ring.partner("acme")
    request, state, response = (tmp_path / name for name in ("request", "state", "response"))
    offered = psi.offer(wording, "acme", names, OTHER, request, state, partner)
    answered = psi.answer(request, wording["g-1"], "other", [names], ACME, response, side.store, AT, partner)
    _, opened = psi.opened(response, state, side.store)
    for _, payload in (offered, answered, opened):
        assert [guess for guess in guesses("acme") | guesses("other") if guess in json.dumps(payload)] == []
    assert offered[1]["partner"] == answered[1]["partner"] == partner
    # Opening needs no ring: the request's number says whose answer it is.
    assert "partner" not in opened[1]


def test_the_form_of_a_finding_that_may_leave_names_no_partner() -> None:
    part = Evidence(
        kind="PARTNER", signal="partner_decisive", bits=0.0,
        text="acme reports this wording (TLP:RED, confidence 80 of 100, until 2026-09-01).",
    )  # fmt: skip
    plain = {
        "kind": part.kind, "signal": part.signal, "bits": part.bits, "text": part.text, "keys": [],
    }  # fmt: skip
    group = {"evidence": [plain], "counter_evidence": [plain], "shared": []}
    public = public_group(group)
    for side in ("evidence", "counter_evidence"):
        text = public[side][0]["text"]
        assert not [word for word in ("acme", "RED", "confidence", "2026") if word in text]
        assert "An indicator that a partner shared" in text
        assert "terms (TLP) bind" in text
