"""Snapshots for doors elsewhere: `GET /v1/snapshot`, a pure ASGI application over one file.

`ETag` and `If-None-Match` (RFC 9110); with `?wait=SECONDS` the answer comes as soon as there is another
snapshot, or 304 when there was none for so long. What is sent is sealed, and says
nothing to whoever lacks the secret.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs

from stillwatch.guard.doors.fetch import etag_of, pieces
from stillwatch.guard.doors.http import header
from stillwatch.guard.doors.serving import Callers, Receive, Send, lifespan, respond

PATH = "/v1/snapshot"
MOST_WAIT_S = 60.0
EVERY_S = 0.1
MOST_WAITING = 10_000
_PIECE = 1 << 20
_Mark = tuple[int, int, int]


class SnapshotService:
    """The application. `token`: what callers must send in `x-stillwatch-token`; None: whoever reaches it may ask."""

    def __init__(self, path: Path, token: str | None = None) -> None:
        self._path = path
        self._callers = Callers(token)
        self._known: tuple[_Mark, str] | None = None
        self._waiting = 0
        self.sent = 0
        """Snapshots that were sent whole."""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        if scope["path"] == "/healthz":
            await _plain(send, 200)
        elif scope["path"] != PATH:
            await _plain(send, 404)
        elif scope["method"] != "GET":
            await _plain(send, 405)
        elif not self._callers.may(scope["headers"]):
            await _plain(send, 503)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        had, end = header(scope["headers"], b"if-none-match"), loop.time() + _wait(scope)
        gone = asyncio.ensure_future(_gone(receive))
        self._waiting += 1
        try:
            while True:
                found = await self._open()
                if found is not None and found[1] != had:
                    break
                if found is not None:
                    found[0].close()
                if loop.time() >= end or gone.done() or self._waiting > MOST_WAITING:
                    await _plain(send, 304 if found is not None else 503)
                    return
                await asyncio.sleep(EVERY_S)
        finally:
            self._waiting -= 1
            gone.cancel()
        handle, etag = found
        with handle:
            size = os.fstat(handle.fileno()).st_size
            headers = [
                (b"content-type", b"application/octet-stream"),
                (b"content-length", str(size).encode()),
                (b"etag", etag.encode()),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while part := await asyncio.to_thread(handle.read, _PIECE):
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        self.sent += 1

    async def _open(self) -> tuple[BinaryIO, str] | None:
        """The file as it is now, and its etag. It is replaced as a whole: what is open does not change."""
        try:
            handle = self._path.open("rb")
        except OSError:
            return None
        found = os.fstat(handle.fileno())
        mark = found.st_ino, found.st_size, found.st_mtime_ns
        if self._known is None or self._known[0] != mark:
            etag = await asyncio.to_thread(lambda: etag_of(pieces(handle)))
            handle.seek(0)
            self._known = mark, etag
        return handle, self._known[1]


def _wait(scope: MutableMapping[str, Any]) -> float:
    text = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("wait", ["0"])[0]
    try:
        asked = float(text)
    except ValueError:
        return 0.0
    return min(asked, MOST_WAIT_S) if asked > 0 else 0.0


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _plain(send: Send, status: int) -> None:
    await respond(send, (status, [(b"content-length", b"0")], b""))
