"""Carries out `strip` and `mark` around an ASGI application. Requests that are allowed pass nothing of this but the
action's header."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from stillwatch.guard.doors.strip import StripStream, strip_answer_bytes, strip_asked_bytes
from stillwatch.guard.sight import MOST_BODY

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

OURS = b"x-stillwatch-"
ACTION = b"x-stillwatch-action"
_DIGESTS = frozenset({b"content-digest", b"repr-digest", b"digest", b"content-md5", b"etag"})


@dataclass(slots=True)
class Answers:
    """Counts answers under `strip`."""

    changed: int = 0
    """Something was taken out."""
    unread: int = 0
    """Passed on as they were: compressed all the same, too large, or in a form that is not known."""


def with_action(headers: Any, action: str) -> Headers:
    """A request's headers with the action, and with none of ours that the client wrote."""
    out = [pair for pair in headers if not pair[0].lower().startswith(OURS)]
    out.append((ACTION, action.encode()))
    return out


def stripped_request(
    scope: MutableMapping[str, Any], messages: list[Message], body: bytes, whole: bool
) -> list[Message]:
    """The request without what asks for what will be taken out; its answer must not be compressed.

    `whole`: whether `messages` hold all of `body`.
    """
    headers = [pair for pair in scope["headers"] if pair[0].lower() != b"accept-encoding"]
    headers.append((b"accept-encoding", b"identity"))
    less = strip_asked_bytes(body) if whole else body
    if less is not body:
        headers = _sized(headers, len(less))
        messages = [{"type": "http.request", "body": less, "more_body": False}]
    scope["headers"] = headers
    return messages


def _sized(headers: Headers, size: int) -> Headers:
    return [
        (name, str(size).encode() if name.lower() == b"content-length" else value)
        for name, value in headers
        if name.lower() not in _DIGESTS
    ]


class StripSend:
    """Stands for `send`: takes reasoning and log-probabilities out of one answer.

    An answer in JSON is kept back until it is whole, up to `MOST_BODY`; of a stream one event.
    """

    def __init__(self, send: Send, answers: Answers, most: int = MOST_BODY) -> None:
        self._send, self._answers, self._most = send, answers, most
        self._start: Message | None = None
        """Of an answer that is kept back."""
        self._kept: list[bytes] = []
        self._size = 0
        self._stream: StripStream | None = None

    async def __call__(self, message: Message) -> None:
        """One message of the application's."""
        kind = message["type"]
        if kind == "http.response.start":
            await self._begin(message)
        elif kind == "http.response.body" and self._stream is not None:
            await self._event(message, self._stream)
        elif kind == "http.response.body" and self._start is not None:
            await self._part(message)
        else:
            # A file that the server itself sends, say: what was kept back goes first.
            await self._give_up()
            await self._send(message)

    async def _begin(self, message: Message) -> None:
        headers = {n.lower(): v.lower() for n, v in message.get("headers", ())}
        media = headers.get(b"content-type", b"").partition(b";")[0].strip()
        stream = media == b"text/event-stream"
        if not stream and media != b"application/json":
            await self._send(message)
        elif headers.get(b"content-encoding", b"identity") != b"identity":
            self._answers.unread += 1
            await self._send(message)
        elif stream:
            self._stream = StripStream()
            # How long it will be is not known yet.
            left = [p for p in message["headers"] if p[0].lower() not in {b"content-length", *_DIGESTS}]
            await self._send({**message, "headers": left})
        else:
            self._start = message

    async def _event(self, message: Message, stream: StripStream) -> None:
        more = message.get("more_body", False)
        out = stream.feed(message.get("body", b""))
        if not more:
            out += stream.close()
            self._answers.changed += stream.changed > 0
            self._answers.unread += stream.unknown > 0
            self._stream = None
        if out or not more:
            await self._send({**message, "body": out})

    async def _part(self, message: Message) -> None:
        part = message.get("body", b"")
        self._size += len(part)
        if self._size > self._most:
            self._answers.unread += 1
            await self._give_up()
            await self._send(message)
            return
        self._kept.append(part)
        if message.get("more_body", False):
            return
        start, whole = self._start, b"".join(self._kept)
        self._start = None
        assert start is not None
        body, found = strip_answer_bytes(whole)
        self._answers.changed += found == "changed"
        self._answers.unread += found == "unknown"
        if found == "changed":
            start = {**start, "headers": _sized(start["headers"], len(body))}
        await self._send(start)
        await self._send({**message, "body": body})

    async def _give_up(self) -> None:
        start, self._start = self._start, None
        if start is None:
            return
        await self._send(start)
        if self._kept:
            await self._send({"type": "http.response.body", "body": b"".join(self._kept), "more_body": True})
            self._kept.clear()
