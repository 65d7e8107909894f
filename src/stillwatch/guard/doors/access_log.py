"""The sink of Envoy's access log (gRPC ALS v3): one canonical row for each exchange, without text.

Envoy sends an entry when an exchange is over: who, when, from where, status, time. What ext_proc saw of the
request, its body and the order of its headers, waits here in memory under the exchange's own name until then, and
becomes model, parameters, hashes and sketches. The text itself is written nowhere.

The interface has no acknowledgement: what Envoy has sent counts as delivered. Envoy keeps back what the sink does not
take, up to its buffer, and drops the rest (its statistic `access_logs.grpc_access_log.logs_dropped`); what the sink
cannot keep or write is counted in `told`. Envoy is never made to wait.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import queue
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pyarrow as pa

from stillwatch.guard.doors import envoy_messages as pb
from stillwatch.guard.doors.ext_proc import EXCHANGE, REFUSED, Pairs
from stillwatch.guard.doors.http import Identity, subject_of
from stillwatch.guard.doors.metrics import Tally
from stillwatch.guard.doors.rotated import Rotated
from stillwatch.guard.secret import Secret
from stillwatch.ingest.bodies import request_columns
from stillwatch.ingest.endpoints import endpoint_of
from stillwatch.ingest.envoy import NO_MODEL
from stillwatch.ingest.headers import header_columns
from stillwatch.schema.errors import OutputError
from stillwatch.schema.tables import EXCHANGES, OWN_REFUSAL
from stillwatch.sketch import sketch_text, to_binary

MOST_NOTES = 50_000
MOST_NOTED_BYTES = 128 << 20
"""Bodies that wait for their exchange to end. Beyond it the oldest give way: their rows have no content."""
MOST_WAITING = 256
"""Messages of Envoy's, each up to 16 KiB, that wait to be written."""
LOG = logging.getLogger("stillwatch.guard")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PARTS = ("system", "prompt")
_ADDED = ("x-forwarded-", "x-envoy-", "x-stillwatch-", ":")
"""Beginnings of headers that a proxy adds: they say nothing about the client's program."""
_ADDED_NAMES = frozenset({"x-request-id", "x-ja4"})
_Noted = tuple[Pairs, bytes | None]


class AccessLog:
    """Takes notes of requests and entries of exchanges; writes rows on a thread of its own."""

    def __init__(self, out: Rotated, who: Identity, secret: Secret) -> None:
        self._out, self._who, self._secret = out, who, secret
        self._notes: dict[str, _Noted] = {}
        self._bytes = 0
        self._lock = threading.Lock()
        self._waiting: queue.Queue[Any] = queue.Queue(MOST_WAITING)
        self.told: Counter[str] = Counter()
        """`rows`: written; `without_content`: of them, whose body was not kept or not seen; `nameless`: exchanges
        without a key or account; `other`: paths of no model; `dropped`: entries that could not be kept or written."""
        # Compiles before the first row.
        sketch_text(pa.array(["."]))
        self._thread = threading.Thread(target=self._write, name="stillwatch-rows", daemon=True)
        self._thread.start()

    def note(self, exchange: str, headers: Pairs, body: bytes | None) -> None:
        """Keep what a request showed until its entry comes."""
        with self._lock:
            self._notes[exchange] = headers, body
            self._bytes += len(body or b"")
            while len(self._notes) > MOST_NOTES or self._bytes > MOST_NOTED_BYTES:
                self._take(next(iter(self._notes)))

    def _take(self, exchange: str) -> _Noted | None:
        found = self._notes.pop(exchange, None)
        if found is not None:
            self._bytes -= len(found[1] or b"")
        return found

    def tally(self) -> Tally:
        """`told`, for metrics."""
        what = "What became of the exchanges that Envoy told of."
        return Tally("envoy_exchanges", what, "state", lambda: self.told)

    async def stream(self, messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """StreamAccessLogs: entries until Envoy hangs up. The answer at the end is empty."""
        async for data in messages:
            self.take(data)
        yield b""

    def take(self, data: bytes) -> None:
        """One message of entries; dropped, and counted, where too many wait."""
        message = pb.StreamAccessLogsMessage.FromString(data)
        entries = message.http_logs.log_entry
        try:
            self._waiting.put_nowait(entries)
        except queue.Full:
            self.told["dropped"] += len(entries)

    def close(self) -> None:
        """Write what waits, and stop."""
        self._waiting.put(None)
        self._thread.join()
        self._out.close()

    def _write(self) -> None:
        while (entries := self._waiting.get()) is not None:
            try:
                rows = [row for row in map(self._row, entries) if row is not None]
                _sketch(rows)
                self._out.write([msgspec.json.encode(row) for row in rows])
                self.told["rows"] += len(rows)
            except OutputError as error:
                self.told["dropped"] += len(entries)
                LOG.error("the exchanges could not be written: %s", error.what)
            except Exception as error:
                # Whatever came, the next entries are written.
                self.told["dropped"] += len(entries)
                LOG.error("entries of the access log could not be read: %s", type(error).__name__)

    def _row(self, entry: Any) -> dict[str, Any] | None:
        common, request, response = entry.common_properties, entry.request, entry.response
        shown = {pair.key: pair.value for pair in request.request_headers}
        exchange = shown.get(EXCHANGE) or ""
        details, action = response.response_code_details, None
        if details.startswith(REFUSED):
            # A refused request goes nowhere, and so do the headers that it was given.
            action, _, exchange = details[len(REFUSED) :].partition(":")
        with self._lock:
            noted = self._take(exchange)
        columns = _asked(noted[1]) if noted is not None else {}
        endpoint = endpoint_of(request.original_path or request.path)
        if endpoint is None and "model" not in columns:
            self.told["other"] += 1
            return None
        pairs = [(name.encode(), value.encode()) for name, value in shown.items()]
        pairs.append((b"x-forwarded-for", request.forwarded_for.encode()))
        peer = common.downstream_remote_address.socket_address.address or None
        subject = subject_of(pairs, peer, None, self._who)
        account, key = subject.account, None
        if subject.api_key is not None:
            key = key_name(self._secret, subject.api_key)
        if account is None and key is None:
            self.told["nameless"] += 1
            return None
        if not columns:
            self.told["without_content"] += 1
        duration = common.duration if common.HasField("duration") else common.time_to_last_downstream_tx_byte
        status = response.response_code.value
        at = common.start_time
        row = {
            **columns,
            "exchange_id": exchange or request.request_id or None,
            "ts": (_EPOCH + timedelta(seconds=at.seconds, microseconds=at.nanos // 1000)).isoformat(),
            "account_id": account or key, "key_id": key, "model": columns.get("model") or NO_MODEL,
            "endpoint": endpoint, "status": status if 100 <= status <= 599 else None,
            "latency_ms": duration.seconds * 1e3 + duration.nanos / 1e6,
            "blocked_by": None if action is None else f"{OWN_REFUSAL}{action}",
            "ip": subject.ip, "ja4": shown.get("x-ja4") or None, "user_agent": request.user_agent or None,
            "header_hash": None if noted is None else _header_hash(noted[0]),
        }  # fmt: skip
        return {name: value for name, value in row.items() if value is not None}


def _asked(body: bytes | None) -> dict[str, Any]:
    """Canonical columns of a request's body; none where it cannot be read."""
    if not body:
        return {}
    try:
        found = request_columns(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return {name: value for name, value in found.items() if name in _CANONICAL and value is not None}


_CANONICAL = frozenset(EXCHANGES.names)


def _header_hash(headers: Pairs) -> Any:
    names = [name.decode("latin-1") for name, _ in headers]
    kept = [[name, ""] for name in names if not name.startswith(_ADDED) and name not in _ADDED_NAMES]
    return (header_columns(kept) or {}).get("header_hash")


def _sketch(rows: Sequence[dict[str, Any]]) -> None:
    """In place: sketches where texts were, and `content_state`."""
    for part in _PARTS:
        texts = [row.pop(part, None) for row in rows]
        made = to_binary(sketch_text(pa.array(texts, pa.large_string()))).to_pylist()
        for row, text, sketch in zip(rows, texts, made, strict=True):
            if type(text) is str:
                row[f"{part}_sketch"] = base64.b64encode(sketch or b"").decode()
    for row in rows:
        seen = "prompt_sketch" in row or "system_sketch" in row
        row.setdefault("content_state", "sketch" if seen else "absent")


def key_name(secret: Secret, key: str) -> str:
    """The name of an API key in the rows: its keyed hash, by which nobody finds the key, nor its plain SHA-256."""
    return f"key-{secret.api_key(hashlib.sha256(key.encode('utf-8', 'replace')).hexdigest()):016x}"
