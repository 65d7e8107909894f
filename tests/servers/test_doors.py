"""The real nginx, Caddy, Envoy and LiteLLM, set up by `stillwatch guard config`: same subject, same decision."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stillwatch.guard import Subject
from stillwatch.guard.doors.asgi import StillwatchMiddleware
from stillwatch.guard.doors.check import litellm_subject
from stillwatch.guard.doors.http import Identity, subject_of
from stillwatch.guard.doors.sees import DOORS, FIELDS, table
from stillwatch.guard.subject import Decision
from stillwatch.ingest.bodies import asking_columns
from tests.servers.conftest import ADDRESS, BLOCKED, BODIES, CHAT, FREE, SYSTEM, Asked, Live
from tests.servers.guarded import Front, front
from tests.servers.programs import ROOT, installed, program
from tests.servers.upstream import ANSWER

pytestmark = pytest.mark.server

SERVICES = ("nginx", "caddy", "envoy", "ext_proc", "litellm")
"""Gateways that ask over the network; vLLM has the guard in its process."""


@pytest.fixture(scope="module", params=DOORS)
def door(
    request: pytest.FixtureRequest, live: Live, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    with front(request.param, tmp_path_factory.mktemp(request.param), live.path, keys=live.accounts) as found:
        yield found


def _service(door: Front) -> Any:
    if door.guard is None:
        pytest.skip(f"{door.name} has the guard in its own process: no service that could be away")
    return door.guard


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", BODIES)
def test_same_subject_same_decision(door: Front, live: Live, path: str, stream: bool) -> None:
    body = {"model": "m-large", **BODIES[path], **({"stream": True} if stream else {})}
    before = len(door.seen)
    for key, (status, expected, error) in live.refused.items():
        got, headers, text = door.ask(key, body, path, ADDRESS)
        if door.name == "litellm":
            # LiteLLM knows one status for every refusal, and wraps the words.
            assert got == 400
            assert error["error"]["message"] in json.dumps(json.loads(text))
            continue
        if door.name == "litellm-in-process":
            # In the form of LiteLLM's own errors.
            said = json.loads(text)["error"]
            for name in ("type", "message"):
                assert said[name] == error["error"][name]
            assert said["provider_specific_fields"] == {n: error["error"][n] for n in ("code", "appeal")}
            assert got == status
        else:
            assert (got, json.loads(text)) == (status, error)
        assert headers["content-type"] == "application/json"
        assert headers.get("retry-after") == expected.get("retry-after")
    assert len(door.seen) == before
    status, headers, text = door.ask(FREE, body, path, ADDRESS)
    assert status == 200
    words = text.decode().replace('"}', "")
    assert ANSWER in words or all(word in words for word in ANSWER.split())
    if stream:
        assert headers["content-type"].startswith("text/event-stream")
    assert len(door.seen) == before + 1
    if not door.name.startswith("litellm"):
        assert door.seen[-1]["x-stillwatch-action"] == "allow"


def test_a_decision_names_what_its_door_did_not_see(door: Front) -> None:
    before = door.guard.told()["lacked"] if door.guard is not None else {}
    for _ in range(3):
        assert door.ask(FREE, CHAT, headers=ADDRESS)[0] == 200
    if door.name == "litellm-in-process":
        assert door.ask(BLOCKED, CHAT, headers=ADDRESS)[0] == 403
        # Of what is about time a member lacks more.
        lacked = set(_told(door)[-1]["lacked"]) - {"hours"}
    elif door.guard is None:
        lacked = set(door.seen[-1]["x-stillwatch-lacked"].split(","))
    else:
        after = door.guard.told()["lacked"]
        lacked = {name for name in after if after[name] - before.get(name, 0) == 3}
        assert all(after[name] - before.get(name, 0) in (0, 3) for name in after)
    # The time is the clock's at every door.
    assert lacked - {"time"} == DOORS[door.name].lacks()


def _told(door: Front) -> list[dict[str, Any]]:
    """The decisions in the gateway's log."""
    found = [line for line in door.log.read_text("utf-8").splitlines() if line.startswith('{"action"')]
    return [json.loads(line) for line in found]


def _told(door: Front) -> list[dict[str, Any]]:
    """The decisions in the gateway's log."""
    found = [line for line in door.log.read_text("utf-8").splitlines() if line.startswith('{"action"')]
    return [json.loads(line) for line in found]


def test_a_stream_arrives_as_it_is_written(door: Front) -> None:
    body = {"model": "m-large", "messages": [{"role": "user", "content": "count slowly"}], "stream": True}
    with door.asked(FREE, body, "/v1/chat/completions", ADDRESS) as answer:
        assert answer.status == 200
        first = answer.read1()
        at = time.monotonic()
        rest = answer.read()
    assert b"data:" in first
    assert b"[DONE]" not in first
    assert rest.rstrip().endswith(b"[DONE]")
    assert time.monotonic() - at > 0.25


def test_a_guard_that_is_killed_stops_nobody(door: Front, live: Live) -> None:
    service = _service(door)
    before = door.counted()
    with service.killed():
        for body in (CHAT, {**CHAT, "stream": True}):
            for key in (BLOCKED, FREE):
                assert door.ask(key, body, headers=ADDRESS)[0] == 200
        assert door.counted() == before + 4
    # And one that comes back is asked again.
    assert door.ask(BLOCKED, CHAT, headers=ADDRESS)[0] == (400 if door.name == "litellm" else 403)
    assert door.counted() == before + 4


def test_a_guard_that_hangs_stops_nobody(door: Front) -> None:
    service = _service(door)
    before = door.counted()
    with service.hung():
        for body in (CHAT, {**CHAT, "stream": True}):
            begin = time.monotonic()
            assert door.ask(BLOCKED, body, headers=ADDRESS)[0] == 200
            # `front` sets the gateway's timeout to a second.
            assert time.monotonic() - begin < 6
        assert door.counted() == before + 2
    assert door.ask(BLOCKED, CHAT, headers=ADDRESS)[0] == (400 if door.name == "litellm" else 403)


def test_a_large_body_is_no_reason_to_refuse_and_hides_nobody(door: Front) -> None:
    for size in (2, 9, 20):
        body = {"model": "m-large", "messages": [{"role": "user", "content": "x" * (size << 20)}]}
        assert door.ask(FREE, body, headers=ADDRESS)[0] == 200
    reached = len(door.seen)
    # A gateway may answer and hang up before it has read it all.
    with contextlib.suppress(ConnectionError):
        assert door.ask(BLOCKED, body, headers=ADDRESS)[0] == (400 if door.name == "litellm" else 403)
    assert len(door.seen) == reached


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in ("nginx", "litellm") else pytest.mark.slow) for n in SERVICES],
)
def test_fail_closed_refuses_what_nobody_judged(name: str, live: Live, tmp_path: Path) -> None:
    with front(name, tmp_path, live.path, "--fail-closed", keys=live.accounts) as door:
        assert door.guard is not None
        assert door.ask(FREE, CHAT, headers=ADDRESS)[0] == 200
        reached = len(door.seen)
        with door.guard.killed():
            status, _, _ = door.ask(FREE, CHAT, headers=ADDRESS)
            assert status == (500 if name == "litellm" else 503)
            assert len(door.seen) == reached
        assert door.ask(FREE, CHAT, headers=ADDRESS)[0] == 200


@pytest.mark.parametrize("name", SERVICES)
def test_the_token_reaches_the_guard_and_nobody_else(name: str, live: Live, tmp_path: Path) -> None:
    with front(name, tmp_path, live.path, keys=live.accounts, token="a token of the tests") as door:
        assert door.guard is not None
        assert door.ask(BLOCKED, CHAT, headers=ADDRESS)[0] == (400 if name == "litellm" else 403)
        wrong = ADDRESS | {"x-stillwatch-token": "another"}
        assert door.ask(FREE, CHAT, headers=wrong)[0] == 200
        assert door.guard.told()["strangers"] == 0
        assert "a token of the tests" not in json.dumps(door.seen)
        # The gateway's own log shows neither keys nor the token nor what was asked.
        text = door.log.read_text("utf-8", "replace")
        assert not [
            word for word in ("a token", BLOCKED, "name a colour", *live.accounts.values()) if word in text
        ]


@pytest.mark.parametrize("name", SERVICES)
def test_each_door_sees_what_the_table_says(
    name: str, live: Live, tmp_path: Path, listener: tuple[int, Asked]
) -> None:
    port, heard = listener
    with front(name, tmp_path, live.path, guard=port, keys=live.accounts) as door:
        assert door.ask(BLOCKED, CHAT, headers=ADDRESS)[0] == 200
    if name == "litellm":
        subject = litellm_subject(heard.body, Identity(None, 1))
        asked = subject.body
    else:
        assert heard.path.startswith("/v1/chat/completions" if name == "ext_proc" else "/v1/check")
        subject = subject_of(heard.headers, None, heard.body or None, Identity(None, 2))
        asked = json.loads(heard.body) if heard.body else {}
    assert _shown(subject, asked, live) == DOORS[name].sees


def test_the_middleware_sees_what_the_table_says(live: Live) -> None:
    subjects: list[Subject] = []

    def decide(subject: Subject) -> Decision:
        subjects.append(subject)
        return Decision(action="allow", would="allow", shadow=False, reason="nothing_known")

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(CHAT).encode()}

    snapshot = SimpleNamespace(policy=SimpleNamespace(mode="shadow"))
    watched: Any = SimpleNamespace(guard=SimpleNamespace(decide=decide, snapshot=snapshot))
    headers = [
        (b"authorization", f"Bearer {BLOCKED}".encode()),
        (b"x-forwarded-for", ADDRESS["x-forwarded-for"].encode()),
    ]
    scope = {"type": "http", "method": "POST", "headers": headers, "client": ("10.0.0.1", 1)}
    middleware: Any = StillwatchMiddleware(application, watched, Identity(None, 1))
    asyncio.run(middleware(scope, receive, None))
    (subject,) = subjects
    assert isinstance(subject.body, bytes)
    assert _shown(subject, json.loads(subject.body), live) == DOORS["vllm"].sees


def _shown(subject: Subject, asked: Any, live: Live) -> set[str]:
    """The fields of the table that a subject holds rightly."""
    columns = asking_columns(asked)
    whole = asking_columns(CHAT)
    right = {
        "key": subject.api_key == BLOCKED, "user": subject.account == live.accounts[BLOCKED],
        "prompt": columns.get("prompt") == "name a colour", "system": columns.get("system") == SYSTEM,
        "tools": columns.get("tools_hash") == whole["tools_hash"],
        "format": columns.get("format_hash") == whole["format_hash"], "address": subject.ip == "203.0.113.9",
    }  # fmt: skip
    assert set(right) == set(FIELDS)
    return {name for name, seen in right.items() if seen}


def test_a_missing_program_is_named_and_an_error_where_servers_are_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("STILLWATCH_NGINX", "STILLWATCH_CADDY"):
        monkeypatch.setenv(variable, "/nowhere")
    finds = (
        lambda: installed("nginx", "STILLWATCH_NGINX", "apt-get install nginx-light"),
        lambda: program("caddy", "STILLWATCH_CADDY"),
    )
    told = (
        "nginx is not installed: `apt-get install nginx-light`",
        "caddy is not installed: run `make servers`",
    )
    for required, outcome in (("0", pytest.skip.Exception), ("1", pytest.fail.Exception)):
        monkeypatch.setenv("STILLWATCH_REQUIRE_SERVERS", required)
        for find, words in zip(finds, told, strict=True):
            with pytest.raises(outcome, match=words):
                find()


def test_the_table_is_in_the_docs() -> None:
    assert table() in (ROOT / "docs" / "guard.md").read_text("utf-8")
