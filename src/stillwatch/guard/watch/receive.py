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
import hmac
import zlib
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import msgspec

from stillwatch.guard.doors.asgi import Receive, Send
from stillwatch.guard.watch.otlp_proto import as_json
from stillwatch.schema.errors import FormatError, MissingExtraError

MOST_BODY = 64 << 20
"""Bytes of a body, packed or not."""
MOST_WAITING = 256 << 20
"""Bytes that may wait to be kept; beyond it senders are asked to come again."""
RETRY_S = 5
TOKEN_HEADER = b"x-stillwatch-token"
TRACES = "/v1/traces"
_JSON = (b"content-type", b"application/json")
_TEXT = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_PROTOBUF = "application/x-protobuf"
Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


@dataclass(slots=True)
class Parcel:
    """A body that waits to be kept."""

    input: str
    format: str
    data: bytes
    answer: Callable[[Answer], None]
    """To be called once, from any thread."""


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
        self._token = None if token is None else token.encode()
        self.strangers = 0
        """Senders without the token."""
        self.turned_away = 0
        """Bodies for which there was no room; their senders were asked to come again."""
        self.unreadable = 0
        """Bodies that were no log, too large or damaged."""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        status, headers, body = await self._answer(scope, receive)
        headers = [*headers, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive) -> Answer:
        path: str = scope["path"]
        if path == "/healthz":
            return 200, [_JSON], b'{"status": "ok"}'
        if path == "/readyz":
            return 200, [_JSON], msgspec.json.encode({"status": "ready", **self._told()})
        if path == "/metrics" and self._exposition is not None:
            return 200, [_TEXT], self._exposition()
        format = "otlp" if path == TRACES else path.removeprefix("/ingest/")
        if path != TRACES and (not path.startswith("/ingest/") or format not in self._formats):
            return _error(404, "no such path")
        if scope.get("method") != "POST":
            return _error(405, "send with POST")
        headers = {name.lower(): value for name, value in scope["headers"]}
        if self._token is not None and not self._knows(headers):
            self.strangers += 1
            return _error(401, "x-stillwatch-token is missing or wrong")
        body = await _read(receive)
        if body is None:
            self.unreadable += 1
            return _error(413, f"more than {MOST_BODY >> 20} MiB")
        unpacked = unpack(body, headers.get(b"content-encoding", b"").decode("latin-1"))
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
            return 200, [_JSON], b"{}"
        answer = await self._kept("otlp" if path == TRACES else format, format, unpacked)
        if answer[0] == 200 and path == TRACES and kind == _PROTOBUF:
            return 200, [(b"content-type", _PROTOBUF.encode())], b""
        return answer

    def _knows(self, headers: Mapping[bytes, bytes]) -> bool:
        given = headers.get(TOKEN_HEADER)
        if given is None:
            scheme, _, value = headers.get(b"authorization", b"").partition(b" ")
            given = value.strip() if scheme.lower() == b"bearer" else b""
        return hmac.compare_digest(given, self._token or b"")

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
    return 200, [_JSON], msgspec.json.encode({"rows": rows, "refused": refused})


def _error(status: int, words: str) -> Answer:
    return status, [_JSON], msgspec.json.encode({"error": {"message": words}})


def unpack(body: bytes, encoding: str) -> bytes | None:
    """The body without its content coding (gzip, deflate or none); None where that fails or is over `MOST_BODY`."""
    coding = encoding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in ("gzip", "x-gzip", "deflate"):
        return None
    parts: list[bytes] = []
    left = MOST_BODY
    while True:
        # 32: gzip or zlib, by the header. gzip may have several members, one after the other (RFC 1952).
        engine = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        try:
            parts.append(engine.decompress(body, left + 1))
        except zlib.error:
            return None
        left -= len(parts[-1])
        if left < 0 or not engine.eof:
            return None
        body = engine.unused_data
        if not body:
            return b"".join(parts)


async def _read(receive: Receive) -> bytes | None:
    """The body; None where it is too large or breaks off."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > MOST_BODY:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
