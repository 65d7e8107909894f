"""Private set intersection by files: what both learn, and that no more is answered than is allowed."""

from __future__ import annotations

import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from stillwatch.evidence.intel import psi
from stillwatch.evidence.intel.envelope import seal
from stillwatch.schema.errors import FormatError, MissingExtraError, OutputError, UsageError
from tests.evidence.intel.conftest import ACME, AT, OTHER, STRANGER, Side

OURS = {"g-1": [f"{n:032x}" for n in range(40)], "g-2": [f"{n:032x}" for n in range(100, 130)]}
THEIRS = [f"{n:032x}" for n in range(25)]


def have() -> None:
    pytest.importorskip("private_set_intersection", reason="the extra psi is not installed")


def offered(side: Side, folder: Path) -> tuple[Path, Path]:
    names = side.ring.names("fingerprint", "acme")
    request, state = folder / "request", folder / "state"
    psi.offer(OURS, "acme", names, OTHER, request, state)
    return request, state


def answered(side: Side, request: Path, out: Path, partner: str = "other", days: int = 0) -> None:
    keys = side.ring.every("fingerprint", "acme")
    psi.answer(request, THEIRS, partner, keys, ACME, out, side.store, AT + timedelta(days=days))


def test_each_campaign_that_both_have_is_found_and_no_other(side: Side, tmp_path: Path) -> None:
    have()
    request, state = offered(side, tmp_path)
    answered(side, request, tmp_path / "response")
    found, (kind, told) = psi.opened(tmp_path / "response", state, side.store)
    assert [(o.campaign, o.asked, o.common, o.matches) for o in found] == [
        ("g-1", 40, 25, True),
        ("g-2", 30, 0, False),
    ]
    assert kind == "intel"
    assert "acme" not in json.dumps(told)
    assert "g-1" not in json.dumps(told)
    assert state.stat().st_mode & 0o777 == 0o600


def test_neither_file_has_a_posting_or_the_exact_number_of_them(side: Side, tmp_path: Path) -> None:
    have()
    request, _ = offered(side, tmp_path)
    answered(side, request, tmp_path / "response")
    for path in (request, tmp_path / "response"):
        payload = b64decode(json.loads(path.read_text())["payload"])
        plain = json.loads(payload)
        assert plain["elements"] % psi.STEP == 0
        for element in [*OURS["g-1"], *OURS["g-2"], *THEIRS]:
            assert element.encode() not in payload
            assert bytes.fromhex(element) not in b64decode(plain["body"]) + b64decode(plain["setup"])


def test_a_partner_that_probes_is_stopped_by_its_budget(side: Side, tmp_path: Path) -> None:
    """The attack: a partner asks about guesses, file after file. It gets `DAILY` answers a day, and then none."""
    have()
    request, _ = offered(side, tmp_path)
    got = [
        psi.STEP for n in range(psi.DAILY // psi.STEP) if answered(side, request, tmp_path / f"r{n}") is None
    ]
    with pytest.raises(UsageError, match="a day are answered"):
        answered(side, request, tmp_path / "one more")
    assert sum(got) == psi.DAILY
    answered(side, request, tmp_path / "tomorrow", days=1)


@pytest.mark.parametrize(
    ("partner", "message"), [("acme", "not signed by this partner"), ("nobody", "no partner of this store")]
)
def test_only_the_partner_itself_is_answered(side: Side, tmp_path: Path, partner: str, message: str) -> None:
    have()
    request, _ = offered(side, tmp_path)
    with pytest.raises((FormatError, UsageError), match=message):
        answered(side, request, tmp_path / "response", partner)


def test_a_request_under_another_key_or_over_a_file_is_refused(side: Side, tmp_path: Path) -> None:
    have()
    request, _ = offered(side, tmp_path)
    with pytest.raises(UsageError, match="not agreed on"):
        psi.answer(request, THEIRS, "other", [], ACME, tmp_path / "r", side.store, AT)
    (tmp_path / "there").write_text("x")
    with pytest.raises(OutputError):
        answered(side, request, tmp_path / "there")
    assert side.store.read().partner("other").asked == {}


def _changed(change: Callable[[dict[str, object]], object]) -> Callable[[bytes], bytes]:
    def apply(data: bytes) -> bytes:
        plain = json.loads(b64decode(json.loads(data)["payload"]))
        change(plain)
        return seal(json.dumps(plain).encode(), psi.TYPE, OTHER)

    return apply


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:50],
        lambda data: b"{}",
        _changed(lambda p: p.update(body=b64encode(b"\xff\xff junk").decode())),
        _changed(lambda p: p.update(body="no base64!")),
        _changed(lambda p: p.update(body="")),
        _changed(lambda p: p.update(elements=1 << 40)),
        _changed(lambda p: p.update(elements=1)),
        _changed(lambda p: p.update(format="x")),
        _changed(lambda p: p.update(more=1)),
        lambda data: seal(b"[]", psi.TYPE, OTHER),
        lambda data: seal(json.loads(data)["payload"].encode(), "text/plain", OTHER),
        lambda data: seal(b64decode(json.loads(data)["payload"]), psi.TYPE, STRANGER),
    ],
)
def test_a_hostile_request_is_refused_and_costs_no_budget(
    side: Side, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    have()
    request, _ = offered(side, tmp_path)
    request.write_bytes(damage(request.read_bytes()))
    with pytest.raises(FormatError):
        answered(side, request, tmp_path / "response")
    assert not (tmp_path / "response").exists()


def test_a_response_opens_with_its_own_state_alone(side: Side, tmp_path: Path) -> None:
    have()
    request, state = offered(side, tmp_path)
    answered(side, request, tmp_path / "response")
    (tmp_path / "second").mkdir()
    _, other = offered(side, tmp_path / "second")
    with pytest.raises(FormatError, match="another request"):
        psi.opened(tmp_path / "response", other, side.store)
    state.write_text("{}")
    with pytest.raises(FormatError, match="psi offer"):
        psi.opened(tmp_path / "response", state, side.store)


def test_without_the_library_the_install_line_is_named(
    side: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "private_set_intersection.python", None)
    with pytest.raises(MissingExtraError, match=r"stillwatch\[psi\]"):
        psi.offer(OURS, "acme", side.ring.names("fingerprint", "acme"), OTHER, tmp_path / "a", tmp_path / "b")
