"""Doors: what they believe, what they pass on, and that they never break a request."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from stillwatch.cli import main
from stillwatch.guard import Guard, Snapshot, Subject
from stillwatch.guard.doors.asgi import StillwatchMiddleware
from stillwatch.guard.doors.check import LITELLM, CheckService, litellm_subject
from stillwatch.guard.doors.http import Identity, identity, refusal, subject_of
from stillwatch.guard.doors.watched import VARIABLE, Watched, watched
from stillwatch.guard.sight import MOST_BODY
from stillwatch.guard.subject import Decision
from stillwatch.schema import SnapshotError, UsageError
from tests.guard.conftest import SECRET, Scanned
from tests.guard.test_decide import ENFORCE, _enforced, _now, _strong

Messages = list[dict[str, Any]]
WHO = Identity(account_header="x-account", proxies=1)


class _Fixed:
    """Stands for `Watched`: one guard, and a clock that stands at the log's end."""

    def __init__(self, snapshot: Snapshot, now_us: int) -> None:
        self.guard = Guard(snapshot, clock=lambda: now_us)
        self.swaps = self.failed = 0
        self.problem = None


@pytest.fixture(scope="module")
def fixed(demo: Scanned, tmp_path_factory: pytest.TempPathFactory) -> _Fixed:
    """Enforces the order to block the strongest member's campaign."""
    return _Fixed(_enforced(demo, tmp_path_factory.mktemp("doors") / "snapshot"), _now(demo))


def _ask(
    app: Callable[..., Awaitable[None]],
    path: str = "/v1/chat/completions",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    parts: int = 1,
    method: str = "POST",
    query: bytes = b"",
) -> Messages:
    """One request through an ASGI application; the messages that it sends."""
    size = max(1, -(-len(body) // parts))
    pieces = [body[i : i + size] for i in range(0, len(body), size)] or [b""]
    incoming: Messages = [
        {"type": "http.request", "body": piece, "more_body": i < len(pieces) - 1}
        for i, piece in enumerate(pieces)
    ]
    sent: Messages = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "query_string": query, "client": ("198.51.100.9", 1234),
        "headers": [(n.encode(), v.encode("latin-1")) for n, v in (headers or {}).items()],
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    return sent


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers with the body that it gets, and what it was told."""
    body, more = b"", scope["type"] == "http"
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    told = scope.get("state", {}).get("stillwatch")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-told", repr(told).encode())]})
    await send({"type": "http.response.body", "body": body})


def test_the_middleware_refuses_members_and_passes_others_on_unchanged(demo: Scanned, fixed: _Fixed) -> None:
    app = StillwatchMiddleware(_echo, fixed, WHO)  # type: ignore[arg-type]
    member = {"x-account": _strong(demo)[0]["account_id"]}
    start, end = _ask(app, headers=member, body=b'{"messages": []}')
    assert start["status"] == 403
    error = json.loads(end["body"])["error"]
    assert (error["code"], error["type"]) == ("stillwatch_block", "permission_error")
    assert error["appeal"] in error["message"]
    assert member["x-account"] not in end["body"].decode()
    for parts in (1, 3, 50):
        body = json.dumps({"messages": [{"role": "user", "content": "hello " * 50}]}).encode()
        start, end = _ask(app, headers={"x-account": "somebody"}, body=body, parts=parts)
        assert (start["status"], end["body"]) == (200, body)
        assert b"nothing_known" in dict(start["headers"])[b"x-told"]
    start, _ = _ask(app, headers=member, method="GET")
    assert (start["status"], dict(start["headers"])[b"x-told"]) == (200, b"None")


def test_a_body_that_is_too_large_reaches_the_application_whole(demo: Scanned, fixed: _Fixed) -> None:
    app = StillwatchMiddleware(_echo, fixed, WHO)  # type: ignore[arg-type]
    body = b"x" * (MOST_BODY + 100)
    start, end = _ask(app, headers={"x-account": "somebody"}, body=body, parts=7)
    assert end["body"] == body
    assert b"'body'" in dict(start["headers"])[b"x-told"]
    # Whoever is known is refused all the same.
    start, _ = _ask(app, headers={"x-account": _strong(demo)[0]["account_id"]}, body=body, parts=7)
    assert start["status"] == 403


def test_other_scopes_are_not_touched(fixed: _Fixed) -> None:
    app, seen = None, []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    app = StillwatchMiddleware(inner, fixed, WHO)  # type: ignore[arg-type]
    for kind in ("lifespan", "websocket"):
        asyncio.run(app({"type": kind}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan", "websocket"]


def test_only_what_a_client_cannot_forge_is_believed() -> None:
    headers = [
        (b"X-Account", b"mine"), (b"x-account", b"other"), (b"Authorization", b"Bearer sk-1"),
        (b"X-Api-Key", b"sk-2"), (b"X-Forwarded-For", b"1.1.1.1, 2.2.2.2"), (b"x-forwarded-for", b"3.3.3.3"),
    ]  # fmt: skip
    plain = subject_of(headers, "9.9.9.9", None, Identity())
    assert (plain.account, plain.api_key, plain.ip) == (None, "sk-1", "9.9.9.9")
    for proxies, ip in ((1, "3.3.3.3"), (2, "2.2.2.2"), (3, "1.1.1.1"), (4, None)):
        found = subject_of(headers, "9.9.9.9", None, Identity("x-account", proxies))
        assert (found.account, found.ip) == ("mine", ip)
    assert subject_of([(b"x-api-key", b"sk-2")], None, None, Identity()).api_key == "sk-2"
    assert subject_of([(b"authorization", b"Basic abc")], None, None, Identity()).api_key is None
    assert subject_of([(b"authorization", b"\xff\x00")], None, None, Identity()).api_key is None
    assert identity({"STILLWATCH_GUARD_PROXIES": "2"}).proxies == 2
    for wrong in ("-1", "two", "17"):
        with pytest.raises(UsageError, match="0 to 16"):
            identity({"STILLWATCH_GUARD_PROXIES": wrong})


@pytest.mark.parametrize(
    ("action", "status", "more"),
    [("block", 403, {}), ("challenge", 403, {}), ("throttle", 429, {b"retry-after": b"7"}), ("strip", None, {}),
     ("mark", None, {}), ("observe", None, {}), ("allow", None, {})],
)  # fmt: skip
def test_which_actions_are_a_refusal(action: Any, status: int | None, more: dict[bytes, bytes]) -> None:
    decision = Decision(
        action=action, would=action, shadow=False, reason="named", retry_after_s=7, appeal="00ff"
    )
    found = refusal(decision)
    assert (found and found[0]) == status
    if found is not None:
        headers = dict(found[1])
        assert headers[b"content-length"] == str(len(found[2])).encode()
        assert {n: v for n, v in headers.items() if n == b"retry-after"} == more


def test_the_check_service_answers_proxies(demo: Scanned, fixed: _Fixed) -> None:
    app = CheckService(fixed, WHO, "a token")  # type: ignore[arg-type]
    member, token = {"x-account": _strong(demo)[0]["account_id"]}, {"x-stillwatch-token": "a token"}
    for path in ("/v1/check", "/v1/check/v1/chat/completions"):
        for method in ("GET", "POST"):
            start, _ = _ask(app, path, member | token, method=method)
            assert (start["status"], dict(start["headers"])[b"x-stillwatch-action"]) == (403, b"block")
            start, _ = _ask(app, path, {"x-account": "somebody"} | token, method=method)
            assert (start["status"], dict(start["headers"])[b"x-stillwatch-reason"]) == (
                200,
                b"nothing_known",
            )
    assert _ask(app, "/v1/check", member)[0]["status"] == 503
    assert _ask(app, "/v1/check", member | {"x-stillwatch-token": "a token "})[0]["status"] == 503
    assert _ask(app, "/v1/checks", member | token)[0]["status"] == 404
    assert _ask(app, "/healthz", method="GET")[0]["status"] == 200
    ready = json.loads(_ask(app, "/readyz", method="GET")[1]["body"])
    assert (ready["mode"], ready["faults"], ready["strangers"]) == ("enforce", 0, 2)
    # No body and no address in any of the eight; the time is the clock's.
    assert (ready["lacked"]["prompt"], ready["lacked"]["address"], ready["lacked"]["time"]) == (8, 8, 8)
    for body in (b"{", b"\xff" * 100, b"[]", b"x" * (MOST_BODY + 1)):
        assert _ask(app, "/v1/check", {"x-account": "somebody"} | token, body)[0]["status"] == 200
    assert fixed.guard.faults == 0


def test_what_would_be_done_is_logged_without_names(demo: Scanned, caplog: pytest.LogCaptureFixture) -> None:
    shadow = _Fixed(demo.snapshot, _now(demo))
    member = _strong(demo)[0]["account_id"]
    body = b'{"messages": [{"role": "user", "content": "name a colour"}]}'
    for app in (CheckService(shadow, WHO), StillwatchMiddleware(_echo, shadow, WHO)):  # type: ignore[arg-type]
        caplog.clear()
        for account in (member, "somebody"):
            _ask(app, "/v1/check", {"x-account": account, "x-forwarded-for": "203.0.113.9"}, body)
        (line,) = [record.getMessage() for record in caplog.records if record.name == "stillwatch.guard"]
        told = json.loads(line)
        assert (told["action"], told["would"], told["reason"]) == ("observe", "block", "shadow")
        assert not [word for word in (member, "203.0.113", "colour") if word in line]


def test_nginx_understands_403_only(demo: Scanned, tmp_path: Path) -> None:
    policy = ENFORCE.replace('name = "strong"\naction = "block"', 'name = "strong"\naction = "throttle"')
    snapshot = _enforced(demo, tmp_path / "snapshot", policy, approver=None, action="throttle")
    app = CheckService(_Fixed(snapshot, _now(demo)), WHO)  # type: ignore[arg-type]
    member = {"x-account": _strong(demo)[0]["account_id"]}
    start, _ = _ask(app, "/v1/check", member)
    assert (start["status"], dict(start["headers"])[b"retry-after"]) == (429, b"60")
    start, end = _ask(app, "/v1/check-403", member, query=b"a=1")
    headers = dict(start["headers"])
    assert (start["status"], headers[b"x-stillwatch-status"]) == (403, b"429")
    assert headers[b"x-stillwatch-answer"] == end["body"]
    assert json.loads(end["body"])["error"]["code"] == "stillwatch_throttle"


def test_litellm_s_guardrail_gets_its_own_answer(demo: Scanned, fixed: _Fixed) -> None:
    app = CheckService(fixed, WHO)  # type: ignore[arg-type]
    member = _strong(demo)[0]["account_id"]
    asked = {"request_data": {"user_api_key_user_id": member}, "structured_messages": [], "texts": ["hello"]}
    start, end = _ask(app, LITELLM, body=json.dumps(asked).encode())
    answer = json.loads(end["body"])
    assert (start["status"], answer["action"]) == (200, "BLOCKED")
    assert "To appeal" in answer["blocked_reason"]
    # A prompt that is too large to be sketched hides nobody.
    large = json.dumps(asked | {"texts": ["x" * MOST_BODY], "more": "x" * MOST_BODY}).encode()
    assert json.loads(_ask(app, LITELLM, body=large, parts=3)[1]["body"])["action"] == "BLOCKED"
    asked["request_data"] = {"user_api_key_hash": "ab" * 32}
    assert json.loads(_ask(app, LITELLM, body=json.dumps(asked).encode())[1]["body"]) == {"action": "NONE"}
    for body in (
        b"",
        b"[]",
        b"{}",
        b'{"request_data": 5}',
        b'{"request_data": {"user_api_key_user_id": {}}, "texts": 7}',
    ):
        assert json.loads(_ask(app, LITELLM, body=body)[1]["body"]) == {"action": "NONE"}
    found = litellm_subject(
        json.dumps(asked | {"structured_messages": [{"role": "user", "content": "x"}]}).encode(), WHO
    )
    assert (found.account, found.body) == (
        "ab" * 32,
        {"messages": [{"role": "user", "content": "x"}], "tools": None},
    )
    assert found.ip is None
    for hops, ip in (("6.6.6.6, 203.0.113.9", "203.0.113.9"), ("[present]", None), (7, None)):
        body = json.dumps(asked | {"request_headers": {"x-forwarded-for": hops}}).encode()
        assert litellm_subject(body, WHO).ip == ip
        assert litellm_subject(body, Identity()).ip is None
    assert fixed.guard.faults == 0


@pytest.fixture
def watching(demo: Scanned, tmp_path: Path) -> Iterator[tuple[Watched, Path]]:
    path = tmp_path / "snapshot"
    shutil.copy(demo.path, path)
    found = Watched(path, SECRET, every_s=0.05)
    yield found, path
    found.close()


def _until(what: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.01)
    return what()


def test_a_new_snapshot_takes_over_and_a_bad_one_does_not(
    demo: Scanned, watching: tuple[Watched, Path]
) -> None:
    found, path = watching
    first = found.guard
    demo.made(path, "version = 1\n")
    assert _until(lambda: found.swaps == 1)
    assert found.guard is not first
    assert found.guard.snapshot.policy.rules == ()
    second = found.guard
    path.with_suffix(".new").write_bytes(demo.path.read_bytes()[:-5])
    os.replace(path.with_suffix(".new"), path)
    assert _until(lambda: found.failed == 1)
    assert found.guard is second
    assert "truncated" in str(found.problem)
    path.unlink()
    assert _until(lambda: found.failed == 2)
    assert found.guard.decide(Subject(account="a")).action == "allow"
    shutil.copy(demo.path, path)
    assert _until(lambda: found.swaps == 2)
    assert found.problem is None


def test_by_the_environment(demo: Scanned) -> None:
    with pytest.raises(UsageError, match="has no snapshot"):
        watched({})
    env = {VARIABLE: str(demo.path), "STILLWATCH_GUARD_SECRET": "a secret of the tests, no other"}
    found = watched(env)
    found.close()
    assert found.guard.snapshot.accounts == demo.snapshot.accounts
    with pytest.raises(SnapshotError, match="another secret"):
        watched(env | {"STILLWATCH_GUARD_SECRET": "another secret, of nobody"})


def test_without_a_token_the_service_stays_on_loopback(
    demo: Scanned, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("STILLWATCH_GUARD_TOKEN", raising=False)
    with pytest.raises(SystemExit) as stop:
        main(("guard", "serve", "--snapshot", str(demo.path), "--host", "0.0.0.0"))
    assert stop.value.code == 2
    assert "loopback only" in capsys.readouterr().err


@pytest.mark.server
def test_the_service_runs_under_a_real_server(demo: Scanned, tmp_path: Path) -> None:
    if find_spec("uvicorn") is None and not os.environ.get("STILLWATCH_REQUIRE_SERVERS"):
        pytest.skip("uvicorn is not installed (pip install 'stillwatch[serve]')")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {
        "STILLWATCH_GUARD_SECRET": "a secret of the tests, no other", "STILLWATCH_GUARD_TOKEN": "a token",
    }  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "stillwatch",
        "guard",
        "serve",
        "--snapshot",
        str(demo.path),
        "--port",
        str(port),
    ]
    command += ["--account-header", "x-account", "--proxies", "1"]
    server = subprocess.Popen(command, env=env)
    url = f"http://127.0.0.1:{port}"

    def ask(path: str, token: str = "a token", body: bytes | None = None) -> int:
        request = urllib.request.Request(url + path, data=body, headers={"x-stillwatch-token": token})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def up() -> bool:
        try:
            return ask("/healthz") == 200
        except OSError:
            return False

    try:
        assert _until(up, 60)
        assert ask("/readyz") == 200
        assert ask("/v1/check/v1/messages") == 200
        assert ask("/v1/check", body=b'{"messages": [{"role": "user", "content": "hello"}]}') == 200
        assert ask("/v1/check", token="wrong") == 503
        assert ask("/v2") == 404
    finally:
        server.terminate()
        server.wait(20)
