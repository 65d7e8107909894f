"""Logs that are sent over HTTP: LiteLLM's batches, OTLP traces, whatever an importer reads. A pure ASGI application.

| path | what it takes |
| --- | --- |
| `/ingest/litellm` | what LiteLLM's `generic_api` callback sends: an array of events, lines, or one event |
| `/v1/traces` | OTLP over HTTP (https://opentelemetry.io/docs/specs/otlp/#otlphttp), JSON or protobuf |
| `/ingest/FORMAT` | a file of any other importer's format |
| `/healthz`, `/readyz`, `/metrics` | alive; what came in, and how the last scan went |

An answer of 200 means that every row is kept or listed as refused. 503 with `retry-after`: come again, nothing of it
is kept. A body that is no log at all is refused with 400, and counted; its sender would only repeat it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import msgspec

from stillwatch.guard.doors.coded import unpack
from stillwatch.guard.doors.serving import (
    JSON,
    METRICS,
    Answer,
    Callers,
    Message,
    Receive,
    Send,
    lifespan,
    read_body,
    respond,
)
from stillwatch.guard.watch.otlp_proto import as_json
from stillwatch.schema.errors import FormatError, MissingExtraError

MOST_BODY = 64 << 20
"""Bytes of a body, packed or not."""
MOST_WAITING = 256 << 20
"""Bytes that may wait to be kept, and as many that may be on their way in; beyond it senders come again."""
RETRY_S = 5
TRACES = "/v1/traces"
_PROTOBUF = "application/x-protobuf"


@dataclass(slots=True)
class Parcel:
    """A body that waits to be kept."""

    input: str
    format: str
    data: bytes
    answer: Callable[[Answer], None]
    """To be called once, from any thread."""


class _Full(Exception):
    """No room for what is on its way in."""


class Inbox:
    """What came in and is not yet kept. Safe for several threads."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._parcels: deque[Parcel] = deque()
        self._bytes, self._most = 0, most
        self._lock = Lock()

    def put(self, parcel: Parcel) -> bool:
        """Whether there was room."""
        with self._lock:
            if self._parcels and self._bytes + len(parcel.data) > self._most:
                return False
            self._parcels.append(parcel)
            self._bytes += len(parcel.data)
            return True

    def take(self, most: int = MOST_BODY) -> list[Parcel]:
        """The oldest ones, about `most` bytes."""
        out: list[Parcel] = []
        size = 0
        with self._lock:
            while self._parcels and size < most:
                parcel = self._parcels.popleft()
                out.append(parcel)
                size += len(parcel.data)
            self._bytes -= size
        return out


class Receiver:
    """The application. `token`: what senders give in `x-stillwatch-token` or as a bearer; None: anybody may send."""

    def __init__(
        self,
        inbox: Inbox,
        formats: frozenset[str],
        told: Callable[[], Mapping[str, Any]],
        token: str | None = None,
        exposition: Callable[[], bytes] | None = None,
    ) -> None:
        """`formats`: names of importers; `told`: what `/readyz` says; `exposition`: what `/metrics` answers."""
        self._exposition = exposition
        self._inbox, self._formats, self._told = inbox, formats, told
        self._callers = Callers(token)
        self._coming = 0
        self.strangers = 0
        """Senders without the token."""
        self.turned_away = 0
        """Bodies for which there was no room; their senders were asked to come again."""
        self.unreadable = 0
        """Bodies that were no log, too large or damaged."""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        status, headers, body = await self._answer(scope, receive)
        await respond(send, (status, [*headers, (b"content-length", str(len(body)).encode())], body))

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive) -> Answer:
        path: str = scope["path"]
        if path == "/healthz":
            return 200, [JSON], b'{"status": "ok"}'
        if path == "/readyz":
            return 200, [JSON], msgspec.json.encode({"status": "ready", **self._told()})
        if path == "/metrics" and self._exposition is not None:
            return 200, [METRICS], self._exposition()
        format = "otlp" if path == TRACES else path.removeprefix("/ingest/")
        if path != TRACES and (not path.startswith("/ingest/") or format not in self._formats):
            return _error(404, "no such path")
        if scope.get("method") != "POST":
            return _error(405, "send with POST")
        if not self._callers.may(scope["headers"]):
            self.strangers += 1
            return _error(401, "x-stillwatch-token is missing or wrong")
        try:
            body = await self._read(receive)
        except _Full:
            self.turned_away += 1
            return busy()
        if body is None:
            self.unreadable += 1
            return _error(413, f"more than {MOST_BODY >> 20} MiB")
        headers = {name.lower(): value for name, value in scope["headers"]}
        unpacked = unpack(headers.get(b"content-encoding", b"").split(b","), body, MOST_BODY)
        if unpacked is None:
            self.unreadable += 1
            return _error(400, f"the body cannot be unpacked, or is more than {MOST_BODY >> 20} MiB then")
        kind = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
        if path == TRACES and kind == _PROTOBUF:
            try:
                unpacked = as_json(unpacked)
            except MissingExtraError as error:
                return _error(415, f"{error.what}; JSON is read without it")
            except FormatError as error:
                self.unreadable += 1
                return _error(400, error.what)
        if not unpacked.strip():
            return 200, [JSON], b"{}"
        answer = await self._kept("otlp" if path == TRACES else format, format, unpacked)
        if answer[0] == 200 and path == TRACES and kind == _PROTOBUF:
            return 200, [(b"content-type", _PROTOBUF.encode())], b""
        return answer

    async def _read(self, receive: Receive) -> bytes | None:
        """The body; `_Full` where too much is on its way in from all senders together, however slowly they send."""
        mine = 0

        async def counted() -> Message:
            nonlocal mine
            message = await receive()
            size = len(message.get("body", b""))
            mine += size
            self._coming += size
            if self._coming > MOST_WAITING:
                raise _Full
            return message

        try:
            return (await read_body(counted, MOST_BODY))[1]
        finally:
            self._coming -= mine

    async def _kept(self, name: str, format: str, data: bytes) -> Answer:
        """Hand it over, and wait until it is kept."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Answer] = loop.create_future()

        def settle(answer: Answer) -> None:
            if not waiting.done():
                waiting.set_result(answer)

        def answer(found: Answer) -> None:
            loop.call_soon_threadsafe(settle, found)

        if not self._inbox.put(Parcel(f"http-{name}", format, data, answer)):
            self.turned_away += 1
            return busy()
        found = await waiting
        if found[0] == 400:
            self.unreadable += 1
        return found


def busy() -> Answer:
    """Come again: nothing of it is kept."""
    status, headers, body = _error(503, "busy; send it again")
    return status, [*headers, (b"retry-after", str(RETRY_S).encode())], body


def no_log(reason: str) -> Answer:
    """What was sent is no log of its format."""
    return _error(400, reason)


def kept(rows: int, refused: int) -> Answer:
    """Everything is kept or listed."""
    return 200, [JSON], msgspec.json.encode({"rows": rows, "refused": refused})


def _error(status: int, words: str) -> Answer:
    return status, [JSON], msgspec.json.encode({"error": {"message": words}})
