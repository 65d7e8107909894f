"""Logs that are sent: kept before they are answered, and nothing that is sent breaks the service."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from stillwatch.guard.watch import receive
from stillwatch.guard.watch.intake import Intake, Piece
from stillwatch.guard.watch.receive import Inbox, Receiver
from stillwatch.guard.watch.service import Service, Settings
from stillwatch.schema.errors import OutputError

FIXTURES = Path(__file__).parents[2] / "ingest" / "fixtures"
EVENTS = [json.loads(line) for line in (FIXTURES / "litellm-events.jsonl").read_text().splitlines()]
TRACES = (FIXTURES / "litellm-traces.jsonl").read_text().splitlines()
NOW = 1_795_600_000.0
"""2026-11-25."""


class Live:
    """A service whose loop runs in a thread, and its receiver."""

    def __init__(self, folder: Path, token: str | None = None) -> None:
        self.said: list[str] = []
        self.service = Service(
            Settings(folder=folder, snapshot=folder / "snapshot"), self.said.append, clock=lambda: NOW
        )
        formats = frozenset({"litellm", "canonical", "otlp", "bodies"})
        self.receiver = Receiver(self.service.inbox, formats, dict, token)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.service.step()
            time.sleep(0.005)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.service.close()

    def send(
        self, path: str, body: bytes, parts: int = 1, method: str = "POST", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        size = max(1, -(-len(body) // parts))
        pieces = [body[i : i + size] for i in range(0, len(body), size)] or [b""]
        coming = iter(
            {"type": "http.request", "body": piece, "more_body": i + 1 < len(pieces)}
            for i, piece in enumerate(pieces)
        )
        sent: list[Any] = []

        async def take() -> Any:
            return next(coming, {"type": "http.disconnect"})

        async def give(message: Any) -> None:
            sent.append(message)

        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "path": path, "method": method, "headers": raw}
        asyncio.run(self.receiver(scope, take, give))
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], found, sent[1]["body"]

    def ids(self) -> list[str]:
        self.service.partitions.compact()
        folder = self.service.partitions.folder
        files = [folder / part.file for part in self.service.partitions.manifest.parts]
        return [n for f in files for n in pq.ParquetFile(f).read(["exchange_id"]).column(0).to_pylist()]


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    found = Live(tmp_path / "service")
    yield found
    found.close()


@pytest.mark.parametrize("form", ["array", "lines", "single"])
def test_litellm_sends_in_three_forms(live: Live, form: str) -> None:
    bodies = {
        "array": [json.dumps(EVENTS).encode()],
        "lines": ["".join(json.dumps(event) + "\n" for event in EVENTS).encode()],
        "single": [json.dumps(event).encode() for event in EVENTS],
    }[form]
    for body in bodies:
        status, _, text = live.send("/ingest/litellm", body, parts=3, content_type="application/json")
        assert (status, json.loads(text)["refused"]) == (200, 0)
    direct = Intake("litellm").read([Piece("x", json.dumps(EVENTS).encode())])
    wanted = [name for batch in direct.batches for name in batch.column("exchange_id").to_pylist()]
    assert len(wanted) == len(EVENTS)
    assert sorted(live.ids()) == sorted(wanted)


def test_what_is_sent_twice_is_kept_once(live: Live) -> None:
    body = json.dumps(EVENTS).encode()
    assert [live.send("/ingest/litellm", body)[0] for _ in range(3)] == [200] * 3
    assert len(live.ids()) == len(set(live.ids())) == len(EVENTS)


@pytest.mark.parametrize("coding", ["", "gzip", "deflate"])
def test_traces_in_json_and_in_protobuf_are_the_same_rows(live: Live, coding: str) -> None:
    pack = {"": bytes, "gzip": gzip.compress, "deflate": zlib.compress}[coding]
    proto = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    rows = {}
    for line in TRACES:
        status, headers, text = live.send(
            "/v1/traces", pack(line.encode()), content_type="application/json", content_encoding=coding
        )
        assert (status, headers["content-type"]) == (200, "application/json")
    rows["json"] = live.ids()
    for line in TRACES:
        message = _message(proto.ExportTraceServiceRequest, json.loads(line))
        status, headers, text = live.send(
            "/v1/traces", pack(message), content_type="application/x-protobuf", content_encoding=coding
        )
        assert (status, headers["content-type"], text) == (200, "application/x-protobuf", b"")
    # The ids are those of the spans: sent in another form they are the same exchanges.
    assert sorted(live.ids()) == sorted(rows["json"])
    assert rows["json"]


def _message(kind: Any, request: dict[str, Any]) -> bytes:
    """OTLP/JSON as a protobuf message: ids are bytes there."""
    import base64

    from google.protobuf.json_format import ParseDict

    for resource in request["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for part in (span, *span.get("links", ())):
                    for name in ("traceId", "spanId", "parentSpanId"):
                        if part.get(name):
                            part[name] = base64.b64encode(bytes.fromhex(part[name])).decode()
    return bytes(ParseDict(request, kind(), ignore_unknown_fields=True).SerializeToString())


HOSTILE = {
    "no JSON": b"\x00\xff not json",
    "half": json.dumps(EVENTS).encode()[:-7000],
    "nested": b"[" * 200_000,
    "a number": b"1e999999",
    "strings": b'["a", "b"]',
    "surrogates": b'[{"id": "\\ud800"}]',
    "lines of nothing": b"\n" * 10_000,
    "an empty list": b"[]",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("path", ["/ingest/litellm", "/ingest/canonical", "/v1/traces"])
def test_whatever_is_sent_is_answered_and_good_rows_go_on(live: Live, name: str, path: str) -> None:
    status, _, text = live.send(path, HOSTILE[name])
    assert status in (200, 400)
    assert b"not json" not in text
    assert live.send("/ingest/litellm", json.dumps(EVENTS).encode())[0] == 200
    assert set(live.ids()) >= {event["id"] for event in EVENTS if event.get("id")} or len(live.ids()) >= len(
        EVENTS
    )


def test_bodies_are_bounded_packed_or_not(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "MOST_BODY", 10_000)
    assert live.send("/ingest/litellm", b" " * 10_001)[0] == 413
    bomb = gzip.compress(b" " * 50_000_000)
    assert live.send("/ingest/litellm", bomb, content_encoding="gzip")[0] in (400, 413)
    assert live.receiver.unreadable == 2


def test_a_token_is_asked_for(tmp_path: Path) -> None:
    live = Live(tmp_path / "service", token="right")
    try:
        body = json.dumps(EVENTS).encode()
        assert live.send("/ingest/litellm", body)[0] == 401
        assert live.send("/ingest/litellm", body, x_stillwatch_token="wrong")[0] == 401
        assert live.receiver.strangers == 2
        assert live.send("/ingest/litellm", body, x_stillwatch_token="right")[0] == 200
        assert live.send("/ingest/litellm", body, authorization="Bearer right")[0] == 200
        assert live.send("/healthz", b"", method="GET")[0] == 200
    finally:
        live.close()


def test_wrong_paths_and_methods(live: Live) -> None:
    assert live.send("/ingest/unknown", b"{}")[0] == 404
    assert live.send("/ingest/litellm", b"", method="GET")[0] == 405
    assert live.send("/ingest/mapping", b"{}")[0] == 404


def test_without_room_senders_come_again(tmp_path: Path) -> None:
    inbox = Inbox(most=10)
    receiver = Receiver(inbox, frozenset({"litellm"}), dict)
    parcel = receive.Parcel("http-litellm", "litellm", b"x" * 11, lambda answer: None)
    # One body is always taken, or it could never be kept.
    assert inbox.put(parcel)
    assert not inbox.put(parcel)
    status, headers, _ = receive.busy()
    assert (status, dict(headers)[b"retry-after"]) == (503, b"5")
    assert receiver.turned_away == 0
    assert [p.data for p in inbox.take()] == [b"x" * 11]
    assert inbox.put(parcel)


def test_slow_senders_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "MOST_WAITING", 1_000)
    app = Receiver(Inbox(), frozenset({"litellm"}), dict)
    scope = {"type": "http", "path": "/ingest/litellm", "method": "POST", "headers": []}

    async def run() -> None:
        rest, status = asyncio.Event(), []

        async def begun() -> dict[str, Any]:
            if app._coming < 900:
                return {"type": "http.request", "body": b"x" * 300, "more_body": True}
            await rest.wait()
            return {"type": "http.disconnect"}

        async def whole() -> dict[str, Any]:
            return {"type": "http.request", "body": b"x" * 300, "more_body": False}

        async def sent(message: Any) -> None:
            status.append(message.get("status"))

        slow = asyncio.ensure_future(app(scope, begun, sent))
        await asyncio.sleep(0)
        assert app._coming == 900
        await app(scope, whole, sent)
        assert (status[0], app.turned_away, app._coming) == (503, 1, 900)
        rest.set()
        await slow
        assert (app._coming, app.unreadable) == (0, 1)

    asyncio.run(run())


def test_what_cannot_be_written_is_not_acknowledged(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OutputError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(live.service.partitions, "commit", full)
        assert live.send("/ingest/litellm", json.dumps(EVENTS).encode())[0] == 503
    assert live.said == ["the disk is full"]
    assert live.send("/ingest/litellm", json.dumps(EVENTS).encode())[0] == 200
    assert len(live.ids()) == len(EVENTS)


def test_rows_from_the_future_are_refused_and_old_ones_have_their_own_day(live: Live) -> None:
    lines = [
        {"exchange_id": str(i), "ts": ts, "account_id": "a", "model": "m", "prompt": "a question"}
        for i, ts in enumerate(("2026-11-25T01:00:00Z", "2199-11-26T12:00:00Z", "2016-01-01T00:00:00Z"))
    ]
    body = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    status, _, text = live.send("/ingest/canonical", body)
    assert (status, json.loads(text)) == (200, {"rows": 2, "refused": 1})
    assert sorted(live.ids()) == ["0", "2"]
    days = [part.day for part in live.service.partitions.manifest.parts]
    assert days == ["2016-01-01", "2026-11-25"]
    assert [part.day for part in live.service.partitions.window(14)] == ["2026-11-25"]
    listed = [p.read_text() for p in live.service.partitions.folder.glob("refused/*.jsonl")]
    assert "in the future" in listed[0]
    assert "question" not in listed[0]
