"""The ASGI door carries out `strip`, and hands `mark` over to the application."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from stillwatch.guard import Action, Subject
from stillwatch.guard.doors.asgi import StillwatchMiddleware
from stillwatch.guard.doors.carry_out import StripSend
from stillwatch.guard.doors.http import Identity
from stillwatch.guard.doors.stripped import Answers
from stillwatch.guard.sight import MOST_BODY
from stillwatch.guard.subject import Decision
from tests.guard.test_strip import SECRET, STREAMS, WHOLE, event, read

Messages = list[dict[str, Any]]
ASKED = {"messages": [{"role": "user", "content": "hello"}], "logprobs": True, "top_logprobs": 3}
JSON, SSE = (b"content-type", b"application/json; charset=utf-8"), (b"content-type", b"text/event-stream")


def _middleware(action: Action, application: Any) -> StillwatchMiddleware:
    def decide(subject: Subject) -> Decision:
        return Decision(action=action, would=action, shadow=False, reason="named")

    snapshot = SimpleNamespace(policy=SimpleNamespace(mode="enforce"))
    watched: Any = SimpleNamespace(guard=SimpleNamespace(decide=decide, snapshot=snapshot))
    return StillwatchMiddleware(application, watched, Identity())


class _Application:
    """Answers with the messages that it is given; remembers what it was asked."""

    def __init__(self, answer: Messages) -> None:
        self.answer = answer
        self.scope: Any = None
        self.body = b""
        self.send: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope, self.send = scope, send
        more = True
        while more:
            message = await receive()
            self.body += message.get("body", b"")
            more = message.get("more_body", False)
        for message in self.answer:
            await send(dict(message))

    def headers(self) -> dict[bytes, bytes]:
        found = dict(self.scope["headers"])
        assert len(found) == len(self.scope["headers"])
        return found


def _ask(
    action: Action, answer: Messages, body: bytes = b"{}", **more: str
) -> tuple[_Application, Messages, Answers]:
    application = _Application(answer)
    middleware = _middleware(action, application)
    sent: Messages = []
    half = len(body) // 2
    parts: Messages = [
        {"type": "http.request", "body": body[:half], "more_body": True},
        {"type": "http.request", "body": body[half:], "more_body": False},
    ]

    async def receive() -> dict[str, Any]:
        return parts.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = {"content-length": str(len(body)), "accept-encoding": "gzip", **more}
    scope = {
        "type": "http", "method": "POST", "path": "/v1/chat/completions", "client": ("192.0.2.9", 1),
        "headers": [(n.encode(), v.encode()) for n, v in headers.items()],
    }  # fmt: skip
    asyncio.run(middleware(scope, receive, send))  # type: ignore[arg-type]
    return application, sent, middleware.answers


def _answer(body: bytes, *headers: tuple[bytes, bytes], parts: int = 1) -> Messages:
    size = max(1, -(-len(body) // parts))
    pieces = [body[i : i + size] for i in range(0, len(body), size)] or [b""]
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [*headers, (b"content-length", str(len(body)).encode())],
    }
    return [start, *({"type": "http.response.body", "body": p, "more_body": True} for p in pieces),
            {"type": "http.response.body"}]  # fmt: skip


def _body(sent: Messages) -> bytes:
    assert [m["type"] for m in sent] == ["http.response.start", *["http.response.body"] * (len(sent) - 1)]
    assert [m.get("more_body", False) for m in sent[1:]] == [True] * (len(sent) - 2) + [False]
    return b"".join(m.get("body", b"") for m in sent[1:])


@pytest.mark.parametrize("name", WHOLE)
def test_an_answer_in_json_and_its_length(name: str) -> None:
    before, after = WHOLE[name]
    answer = _answer(json.dumps(before).encode(), JSON, (b"etag", b"x"), (b"x-mine", b"y"), parts=3)
    application, sent, answers = _ask("strip", answer, json.dumps(ASKED).encode())
    body = _body(sent)
    headers = dict(sent[0]["headers"])
    assert json.loads(body) == after
    assert headers == {JSON[0]: JSON[1], b"x-mine": b"y", b"content-length": str(len(body)).encode()}
    assert json.loads(application.body) == {"messages": ASKED["messages"]}
    asked = application.headers()
    assert asked[b"content-length"] == str(len(application.body)).encode()
    assert (asked[b"accept-encoding"], asked[b"x-stillwatch-action"]) == (b"identity", b"strip")
    assert answers == Answers(changed=1)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_and_that_each_event_goes_on_at_once(name: str) -> None:
    before, after = STREAMS[name]
    raw = b"".join(event(one) for one in before)
    application, sent, answers = _ask("strip", _answer(raw, SSE, parts=17))
    assert read(_body(sent)) == after
    assert b"content-length" not in dict(sent[0]["headers"])
    assert answers == Answers(changed=1)
    # A request that asks for nothing of the kind stays as it is.
    assert application.body == b"{}"
    first = event(after[0])
    _, sent, answers = _ask("strip", [*_answer(first, SSE)[:2]])
    assert sent[1]["body"] == first


@pytest.mark.parametrize("action", ["allow", "observe", "mark"])
def test_other_actions_wrap_nothing_and_are_handed_over(action: Action) -> None:
    raw = json.dumps(WHOLE["chat"][0]).encode()
    answer = _answer(raw, JSON)
    body = json.dumps(ASKED).encode()
    forged = {"x-stillwatch-action": "allow", "X-Stillwatch-Lacked": "nothing"}
    application, sent, _ = _ask(action, answer, body, **forged)
    assert sent == answer
    assert not isinstance(application.send, StripSend)
    assert application.body == body
    assert application.headers() == {
        b"content-length": str(len(body)).encode(), b"accept-encoding": b"gzip",
        b"x-stillwatch-action": action.encode(),
    }  # fmt: skip
    assert application.scope["state"]["stillwatch"].action == action


@pytest.mark.parametrize(
    ("answer", "unread"),
    [
        (_answer(b"\x1f\x8b thinking", JSON, (b"content-encoding", b"gzip")), 1),
        (_answer(b"\x1f\x8b thinking", SSE, (b"content-encoding", b"br")), 1),
        (_answer(b"a thinking page", (b"content-type", b"text/html")), 0),
        (_answer(b'{"data": "thinking"}', JSON), 1),
        (_answer(b'{"a thinking', JSON), 1),
        (_answer(b"", JSON), 0),
        ([{"type": "http.response.start", "status": 204}, {"type": "http.response.body"}], 0),
        (
            [
                {"type": "http.response.start", "status": 200, "headers": [JSON]},
                {"type": "http.response.pathsend", "path": "/f"},
            ],
            0,
        ),
    ],
)
def test_what_cannot_be_read_goes_on_as_it_is(answer: Messages, unread: int) -> None:
    _, sent, answers = _ask("strip", answer)
    assert sent[0] == answer[0]
    assert [m for m in sent if "path" in m] == [m for m in answer if "path" in m]
    assert b"".join(m.get("body", b"") for m in sent) == b"".join(m.get("body", b"") for m in answer)
    assert answers == Answers(unread=unread)


def test_an_answer_that_is_too_large_is_not_kept_back() -> None:
    raw = json.dumps(WHOLE["chat"][0]).encode() + b" " * MOST_BODY
    answer = _answer(raw, JSON, parts=9)
    _, sent, answers = _ask("strip", answer)
    assert (_body(sent), sent[0], answers) == (raw, answer[0], Answers(unread=1))


def test_a_request_that_is_too_large_or_no_json_is_asked_as_it_is() -> None:
    answer = _answer(json.dumps(WHOLE["chat"][0]).encode(), JSON)
    large = json.dumps({**ASKED, "x": "x" * MOST_BODY}).encode()
    for body in (large, b"\x1f\x8b logprobs", b"[]"):
        application, sent, _ = _ask("strip", answer, body)
        assert application.body == body
        assert SECRET.encode() not in _body(sent)
