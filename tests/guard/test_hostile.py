"""Whatever a caller sends, no fault is ours, and no error reaches the gateway."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillwatch.guard import Guard, Snapshot, Subject
from stillwatch.guard.policy import parse_policy
from tests.guard.conftest import SECRET, Scanned
from tests.guard.test_decide import _ask, _now, _strong

HOSTILE: list[dict[str, Any]] = [
    {"account": 5}, {"account": b"bytes"}, {"account": ""}, {"account": "\x1f" * 100}, {"account": "a" * 10_000_000},
    {"account": "\ud800"}, {"api_key": 1.5}, {"api_key_sha256": []}, {"prompt": 5}, {"prompt": b"\xff"},
    {"prompt": ""}, {"prompt": "\ud800\udfff"}, {"prompt": "[REDACTED]"}, {"prompt": "\x00" * 1000},
    {"prompt": "a" * 5_000_000}, {"prompt": "漢" * 100_000}, {"system": {}}, {"system": "\udcff" * 50},
    {"system_hash": -1}, {"system_hash": 2**80}, {"tools_hash": "x"}, {"tools_hash": True}, {"format_hash": 0.5},
    {"ip": 7}, {"ip": "999.1.1.1"}, {"ip": "1" * 100_000}, {"ip": "::1%" + "x" * 30}, {"ip": "\ud800"},
    {"ts_us": -5}, {"ts_us": 0}, {"ts_us": 2**63}, {"ts_us": "now"}, {"ts_us": float("nan")}, {"ts_us": True},
    {"body": b""}, {"body": b"{"}, {"body": b"\xff\xfe"}, {"body": b"[1, 2]"}, {"body": b'"text"'}, {"body": b"null"},
    {"body": b"[" * 100_000}, {"body": b'{"messages": 5}'}, {"body": b'{"messages": [5, null, {"role": 7}]}'},
    {"body": b'{"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}'},
    {"body": {"messages": [{"role": "user", "content": object()}]}}, {"body": {1: 2}}, {"body": 5},
    {"body": b'{"messages": [{"role": "user", "content": "\\ud800"}]}'}, {"body": b'{"tools": [{"a": [[[[]]]]}]}'},
    {"gateway": 5, "end_user": 5, "end_user_verified": "yes"}, {"refused": "no"}, {"refused": 1},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_whatever_comes_no_fault_is_ours(demo: Scanned, number: int) -> None:
    guard = Guard(demo.snapshot)
    for account in ("somebody", _strong(demo)[0]["account_id"]):
        decision = guard.decide(Subject(**({"account": account} | HOSTILE[number])))
        assert decision.action in ("allow", "observe")
    assert guard.faults == 0


def test_a_body_of_100_mb_is_not_read(demo: Scanned) -> None:
    guard = Guard(demo.snapshot)
    body = b'{"messages": [{"role": "user", "content": "' + b"a " * (50 << 20) + b'"}]}'
    decision = _ask(guard, demo, "somebody", body=body)
    assert "body" in decision.lacked


def test_a_body_is_read_as_its_parts_are(demo: Scanned) -> None:
    member = _strong(demo)[0]["account_id"]

    def shown(**how: Any) -> dict[int, int]:
        guard = Guard(demo.snapshot, history=False)
        guard.decide(Subject(account="x", ts_us=_now(demo), **how))
        return guard._strangers[SECRET.account("x")].counts

    several = 0
    for subject in [s for s in demo.subjects() if s.account == member and s.prompt]:
        messages = [{"role": "user", "content": subject.prompt}]
        if subject.system:
            messages.insert(0, {"role": "system", "content": subject.system})
        body = {"model": "m", "messages": messages}
        parts = shown(prompt=subject.prompt, system=subject.system, system_hash=subject.system_hash)
        assert shown(body=json.dumps(body).encode()) == shown(body=body) == parts
        several += len(parts) > 0
    assert several > 3


@pytest.mark.parametrize(
    ("mode", "on_fault", "action"),
    [("shadow", "closed", "allow"), ("enforce", "open", "allow"), ("enforce", "closed", "block")],
)
def test_a_fault_opens_unless_the_policy_closes(
    demo: Scanned, monkeypatch: pytest.MonkeyPatch, mode: str, on_fault: str, action: str
) -> None:
    policy = parse_policy(f'version = 1\nmode = "{mode}"\non_fault = "{on_fault}"\n')
    snapshot = Snapshot(demo.snapshot.meta, demo.snapshot.arrays, policy, SECRET, {})
    guard = Guard(snapshot)
    monkeypatch.setattr(guard.sight, "look", lambda *_: 1 / 0)
    assert guard.decide(Subject(account="a")).action == action
    assert guard.faults == 1


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_BODY = st.dictionaries(
    st.sampled_from(
        [
            "messages",
            "input",
            "prompt",
            "system",
            "instructions",
            "tools",
            "response_format",
            "text",
            "conversation",
        ]
    ),
    _JSON
    | st.lists(
        st.fixed_dictionaries({}, optional={"role": _JSON, "content": _JSON, "type": _JSON, "text": _JSON}),
        max_size=4,
    ),
    max_size=5,
)


@pytest.fixture
def faults(demo: Scanned) -> Callable[[dict[str, Any]], int]:
    """Faults after a body was asked about, as bytes and as it is."""

    def asked(body: dict[str, Any]) -> int:
        guard = Guard(demo.snapshot)
        for how in (json.dumps(body).encode(), body):
            guard.decide(Subject(account="somebody", body=how, ts_us=_now(demo)))
        return guard.faults

    return asked


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=_BODY)
def test_no_json_is_a_fault(faults: Callable[[dict[str, Any]], int], body: dict[str, Any]) -> None:
    assert faults(body) == 0
