"""Carries out `strip` and `mark` around an ASGI application. Requests that are allowed pass nothing of this but the
action's header."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from stillwatch.guard.doors.serving import Message, Send
from stillwatch.guard.doors.strip import strip_asked_bytes
from stillwatch.guard.doors.stripped import LOSES, Answers, StrippedAnswer
from stillwatch.guard.sight import MOST_BODY

Headers = list[tuple[bytes, bytes]]

OURS = b"x-stillwatch-"
ACTION = b"x-stillwatch-action"


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
        if name.lower() == b"content-length" or name.lower() not in LOSES
    ]


class StripSend:
    """Stands for `send`: takes reasoning and log-probabilities out of one answer (`StrippedAnswer`)."""

    def __init__(self, send: Send, answers: Answers, most: int = MOST_BODY) -> None:
        self._send = send
        self._answer = StrippedAnswer(answers, most)
        self._reads = False
        self._start: Message | None = None
        """Of an answer that is kept back."""
        self._came = 0

    async def __call__(self, message: Message) -> None:
        """One message of the application's."""
        kind = message["type"]
        if kind == "http.response.start":
            self._reads = self._answer.begin(message.get("headers", ()))
            if self._answer.streaming:
                # How long it will be is not known yet.
                left = [pair for pair in message["headers"] if pair[0].lower() not in LOSES]
                message = {**message, "headers": left}
            elif self._reads:
                self._start = message
                return
            await self._send(message)
        elif kind == "http.response.body" and self._reads:
            await self._body(message)
        else:
            # A file that the server itself sends, say: what was kept back goes first.
            await self._begin(None)
            if self._reads and (kept := self._answer.give_up()):
                await self._send({"type": "http.response.body", "body": kept, "more_body": True})
            self._reads = False
            await self._send(message)

    async def _body(self, message: Message) -> None:
        part, end = message.get("body", b""), not message.get("more_body", False)
        self._came += len(part)
        out = self._answer.feed(part, end)
        if not out and not end:
            return
        if self._start is not None:
            # Where it was too large to be read it goes on as it came, and its end is not known yet.
            await self._begin(len(out) if end and len(out) != self._came else None)
        await self._send({**message, "body": out})

    async def _begin(self, size: int | None) -> None:
        """Send the answer's beginning, if it was kept back. `size`: the body's new length, None: as it was."""
        start, self._start = self._start, None
        if start is not None:
            if size is not None:
                start = {**start, "headers": _sized(start["headers"], size)}
            await self._send(start)
