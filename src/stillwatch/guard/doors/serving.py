"""What every ASGI application here does alike: start and stop, read a body, know a caller, answer.

https://asgi.readthedocs.io/en/latest/specs/www.html and .../lifespan.html
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from stillwatch.guard.sight import MOST_BODY

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
Answer = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers, body."""

UNREAD = b""
"""Stands for a body that is too large to be read: it is no JSON, and so the decision lacks it."""
TOKEN_HEADER = b"x-stillwatch-token"
JSON = (b"content-type", b"application/json")
METRICS = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


async def lifespan(receive: Receive, send: Send, closing: Callable[[], None] | None = None) -> None:
    """Answer the server's start and stop; `closing` is called when it has answered its last request.

    What comes after the server's own call may never run: uvicorn raises the signal that ended it once more.
    """
    while True:
        kind = (await receive())["type"]
        if kind == "lifespan.shutdown" and closing is not None:
            closing()
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def respond(send: Send, answer: Answer) -> None:
    """Send one answer whole."""
    status, headers, body = answer
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read_body(receive: Receive, most: int = MOST_BODY) -> tuple[list[Message], bytes | None]:
    """(messages as they came, body), up to the body's end. None for one that breaks off or is over `most` bytes."""
    messages: list[Message] = []
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request":
            return messages, None
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            return messages, None
        parts.append(part)
        if not message.get("more_body", False):
            return messages, b"".join(parts)


class Callers:
    """Who may ask: whoever sends the token in `x-stillwatch-token`, or as a bearer. `token` None: everybody."""

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode()

    def may(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a request with these headers is answered."""
        if self._token is None:
            return True
        given = bearer = b""
        for name, value in headers:
            name = name.lower()
            if name == TOKEN_HEADER:
                given = given or value
            elif name == b"authorization" and value[:7].lower() == b"bearer ":
                bearer = bearer or value[7:].strip()
        return hmac.compare_digest(given or bearer, self._token)
