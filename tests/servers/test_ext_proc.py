"""Envoy over gRPC: clients that hide their prompts, hostile requests, and the rows that exchanges become."""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stillwatch.guard.doors.access_log import key_name
from stillwatch.ingest import open_log
from stillwatch.sketch import sketch_text, to_binary
from tests.guard.conftest import SECRET
from tests.guard.test_strip import read
from tests.servers.conftest import ADDRESS, BLOCKED, BODIES, CHAT, FREE, Live, aloud
from tests.servers.guarded import Front, front
from tests.servers.programs import missing
from tests.servers.upstream import ANSWER, THOUGHT

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def door(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with front("ext_proc", tmp_path_factory.mktemp("grpc"), live.path, keys=live.accounts) as found:
        yield found


def _send(
    door: Front, body: bytes, headers: dict[str, str] | None = None, key: str = FREE
) -> tuple[int, bytes]:
    with socket.create_connection(("127.0.0.1", door.port), 30) as client:
        own = {
            "host": "a", "authorization": f"Bearer {key}", "connection": "close", "content-type": "application/json",
            "content-length": str(len(body)), **ADDRESS, **(headers or {}),
        }  # fmt: skip
        head = "".join(f"{name}: {value}\r\n" for name, value in own.items() if value)
        client.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode())
        # Who is refused may be told before everything is sent.
        with contextlib.suppress(ConnectionError):
            client.sendall(body)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while part := client.recv(1 << 16):
                answer += part
    return int(answer[9:12]), answer


def _unread(door: Front) -> int:
    """Requests so far whose body the guard could not read."""
    assert door.guard is not None
    return int(door.guard.told()["lacked"].get("body", 0))


def test_a_packed_body_is_unpacked_and_what_cannot_be_read_is_named(door: Front) -> None:
    plain = json.dumps(CHAT).encode()
    packed = gzip.compress(plain)
    before = _unread(door)
    assert _send(door, packed, {"content-encoding": "gzip"})[0] == 200
    # The request keeps its form, whoever reads it: length, coding.
    assert door.seen[-1]["content-encoding"] == "gzip"
    assert door.seen[-1]["content-length"] == str(len(packed))
    assert _unread(door) == before
    bomb = gzip.compress(b" " * (9 << 20))
    hidden = (
        (bomb, "gzip"),
        (packed[:-9], "gzip"),
        (packed * 2, "gzip"),
        (packed, "br"),
        (packed, "gzip, gzip"),
    )
    for count, (body, coding) in enumerate(hidden, 1):
        # The model behind may make nothing of it either: what it answers does not matter here.
        assert _send(door, body, {"content-encoding": coding})[0] != 403
        assert _unread(door) == before + count
    # And it hides nobody.
    assert _send(door, bomb, {"content-encoding": "gzip"}, BLOCKED)[0] == 403


@pytest.mark.parametrize("piece", [1 << 16, 1 << 25])
def test_a_body_without_a_length_is_read_and_a_long_one_is_no_reason_to_refuse(
    door: Front, piece: int
) -> None:
    def chunked(data: bytes) -> bytes:
        parts = [data[i : i + piece] for i in range(0, len(data), piece)]
        return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"

    before, sent = _unread(door), {"transfer-encoding": "chunked", "content-length": ""}
    # Right above what is read, the end comes with the last bytes: Envoy's BUFFERED_PARTIAL lost it there.
    for size, key, status in (
        (10, BLOCKED, 403),
        (9 << 20, BLOCKED, 403),
        (10, FREE, 200),
        ((8 << 20) + 1000, FREE, 200),
        ((8 << 20) + 70_000, FREE, 200),
        (9 << 20, FREE, 200),
    ):
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * size}]}).encode()
        assert _send(door, chunked(body), sent, key)[0] == status
    assert _unread(door) == before + 4
    # Envoy looks at its limit between two reads, so what comes in one may pass.
    assert _send(
        door,
        chunked(json.dumps({"model": "m", "messages": [], "user": "x" * (18 << 20)}).encode()),
        sent,
        FREE,
    )[0] in (200, 413)
    assert door.counted() == 0


def test_hostile_requests_neither_harm_the_guard_nor_are_counted_as_its_absence(door: Front) -> None:
    before = door.counted()
    assert _send(door, b"{}", {"x-bomb": "x" * 100_000})[0] == 431
    assert _send(door, b"{}", {f"x-{i}": "y" for i in range(300)})[0] == 431
    assert _send(door, b"\xff\xfe{{{{" * 1000)[0] in (200, 502, 503)
    assert _send(door, b"x" * (100 << 20), key=BLOCKED)[0] == 403
    assert door.ask(FREE, CHAT, headers=ADDRESS)[0] == 200
    assert door.ask(BLOCKED, CHAT, headers=ADDRESS)[0] == 403
    assert door.counted() == before


def test_strip_is_carried_out_on_answers_too(
    live: Live, tmp_path: Path, acting: Callable[[str], Path]
) -> None:
    with front("ext_proc", tmp_path, acting("strip"), keys=live.accounts) as door:
        assert door.guard is not None
        for path in BODIES:
            for stream in (False, True):
                body = aloud(path, stream)
                status, _, plain = door.ask(FREE, body, path, ADDRESS)
                assert (status, THOUGHT in plain.decode()) == (200, True), (path, stream)
                status, _, text = door.ask(BLOCKED, body, path, ADDRESS | {"accept-encoding": "gzip"})
                words = text.decode()
                assert (status, THOUGHT in words, "-0.125" in words) == (200, False, False), (path, stream)
                said = json.dumps(read(text)) if stream else words
                assert ANSWER in said or all(word in said for word in ANSWER.split())
                assert door.seen[-1]["x-stillwatch-action"] == "strip"
                assert door.seen[-1]["accept-encoding"] == "identity"
        # A stream arrives as it is written, an answer that is too long as it is.
        body = {**CHAT, "stream": True, "messages": [{"role": "user", "content": "slowly, think aloud"}]}
        begin = time.monotonic()
        with door.asked(BLOCKED, body, "/v1/chat/completions", ADDRESS) as answer:
            assert answer.readline()
            assert time.monotonic() - begin < 0.4
            assert THOUGHT not in answer.read().decode()
        long = {**CHAT, "messages": [{"role": "user", "content": "at length, think aloud"}]}
        assert len(door.ask(BLOCKED, long, headers=ADDRESS)[2]) > 9 << 20
        told = door.guard.told()["stripped"]
        assert told == {"changed": 7, "unread": 1}
        with door.guard.killed():
            assert (
                THOUGHT
                in door.ask(BLOCKED, aloud("/v1/responses", True), "/v1/responses", ADDRESS)[2].decode()
            )
        assert door.counted() == 1


def test_over_http2_it_is_the_same(live: Live, tmp_path: Path) -> None:
    if shutil.which("openssl") is None or shutil.which("curl") is None:
        missing("openssl and curl are needed: a certificate, and a client that speaks HTTP/2")
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem",
    ]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    with front("ext_proc", tmp_path, live.path, keys=live.accounts, certificate=tmp_path) as door:
        for key, status in ((BLOCKED, "403"), (FREE, "200")):
            told = subprocess.run(
                [
                    *("curl", "-s", "--http2", "--cacert", "cert.pem", "-w", "\n%{http_version} %{http_code}"),
                    *("-H", f"authorization: Bearer {key}", "-H", f"x-forwarded-for: {ADDRESS['x-forwarded-for']}"),
                    *("-H", "x-ja4: forged", "-d", json.dumps(CHAT)),
                    f"https://127.0.0.1:{door.port}/v1/chat/completions",
                ],
                cwd=tmp_path, check=True, capture_output=True, timeout=60, text=True,
            ).stdout  # fmt: skip
            assert told.endswith(f"\n2 {status}")
        assert door.counted() == 0
        rows = _rows(tmp_path, 2)
    assert all(row["ja4"].startswith("t13") for row in rows)


def _rows(folder: Path, least: int) -> list[dict[str, Any]]:
    """The rows of the exchanges, once there are so many."""
    end = time.monotonic() + 15
    while True:
        lines = (folder / "exchanges" / "exchanges.jsonl").read_bytes().splitlines()
        if len(lines) >= least or time.monotonic() > end:
            return [json.loads(line) for line in lines]
        time.sleep(0.1)


def test_each_exchange_is_one_row_that_a_scan_reads(live: Live, tmp_path: Path) -> None:
    with front("ext_proc", tmp_path, live.path, keys=live.accounts) as door:
        for key, body in (
            (FREE, CHAT),
            (BLOCKED, CHAT),
            (FREE, {**CHAT, "stream": True, "temperature": 0.5}),
        ):
            door.ask(key, body, headers=ADDRESS)
        assert door.guard is not None
        with door.guard.hung():
            assert door.ask(FREE, CHAT, headers=ADDRESS)[0] == 200
        found = _rows(tmp_path, 4)
        text = (tmp_path / "exchanges" / "exchanges.jsonl").read_text()
    assert not [word for word in ("name a colour", "terse", BLOCKED, FREE, ANSWER) if word in text]
    with open_log([str(tmp_path / "exchanges")]) as log:
        rows = [row for batch in log.batches() for row in batch.to_pylist()]
        assert not log.refusals
    assert len(rows) == len(found) == 4
    free, blocked, stream, unseen = rows
    names = {key: key_name(SECRET, key) for key in (FREE, BLOCKED)}
    assert [row["account_id"] for row in rows] == [names[FREE], names[BLOCKED], names[FREE], names[FREE]]
    assert [row["status"] for row in rows] == [200, 403, 200, 200]
    assert [row["blocked_by"] for row in rows] == [None, "stillwatch:block", None, None]
    assert len({row["exchange_id"] for row in rows}) == 4
    sketch = to_binary(sketch_text(pa.array(["name a colour"])))[0].as_py()
    assert free["prompt_sketch"] == blocked["prompt_sketch"] == stream["prompt_sketch"] == sketch
    assert (free["model"], unseen["model"]) == ("m-large", "none")
    assert (free["content_state"], unseen["content_state"]) == ("sketch", "absent")
    assert (stream["stream"], stream["temperature"]) == (True, 0.5)
    assert free["ip"] == "203.0.113.9"
    assert free["header_hash"] == blocked["header_hash"] is not None
    assert all(row["latency_ms"] > 0 for row in rows)
