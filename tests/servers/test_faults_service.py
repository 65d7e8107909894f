"""`stillwatch guard serve` as a process: short of memory, its snapshot written over, stopped, talked to slowly."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.conftest import ADDRESS, BLOCKED, CHAT, FREE, Live
from tests.servers.guarded import GuardService, front
from tests.servers.programs import missing

pytestmark = pytest.mark.server

BODY = json.dumps(CHAT).encode()


@pytest.fixture(scope="module")
def service(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GuardService, Path]]:
    folder = tmp_path_factory.mktemp("service")
    path = folder / "snapshot"
    shutil.copy(live.path, path)
    found = GuardService(path, folder, 0, None, None)
    try:
        found.start()
        yield found, path
    finally:
        found.close()


def _check(port: int, key: str, body: bytes = BODY, **headers: str) -> tuple[int, str]:
    """(status, lacked) of one question."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", "/v1/check", body, {"authorization": f"Bearer {key}", **headers})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("x-stillwatch-lacked") or ""
    finally:
        connection.close()


def test_a_snapshot_that_is_written_over_under_a_running_guard(
    live: Live, service: tuple[GuardService, Path]
) -> None:
    guard, path = service
    good = live.path.read_bytes()
    failed = guard.told()["failed"]
    for number, bad in enumerate((good[:1000], b"", b"\xa5" * len(good), good[: len(good) // 2])):
        path.write_bytes(bad)
        assert [_check(guard.port, key)[0] for key in (BLOCKED, FREE)] == [403, 200]
        until = time.monotonic() + 20
        while guard.told()["failed"] <= failed + number and time.monotonic() < until:
            time.sleep(0.1)
        assert [_check(guard.port, key)[0] for key in (BLOCKED, FREE)] == [403, 200]
    told = guard.told()
    assert (told["failed"], told["faults"]) == (failed + 4, 0)
    assert "truncated" in told["problem"]
    path.write_bytes(good)
    until = time.monotonic() + 20
    while guard.told()["problem"] is not None and time.monotonic() < until:
        time.sleep(0.1)
    assert guard.told()["problem"] is None


def test_a_guard_without_memory_refuses_nobody_and_comes_back(service: tuple[GuardService, Path]) -> None:
    guard, _ = service
    assert guard._process is not None
    pid = guard._process.pid
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    big = json.dumps({"messages": [{"role": "user", "content": "a b " * (1 << 20)}]}).encode()
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize() + (6 << 20), before[1]))
    statuses = set()
    try:
        for _ in range(4):
            try:
                statuses.add(_check(guard.port, FREE, big)[0])
            except (OSError, http.client.HTTPException):
                # As from a guard that is away: gateways go on, and count it.
                statuses.add(0)
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, before)
    assert statuses <= {0, 200, 500}
    assert statuses != {200}
    assert guard._process.poll() is None
    assert [_check(guard.port, key)[0] for key in (BLOCKED, FREE)] == [403, 200]
    assert _check(guard.port, FREE, big)[0] == 200


def test_clients_that_drip_hold_up_nobody(service: tuple[GuardService, Path]) -> None:
    guard, _ = service
    head = b"POST /v1/check HTTP/1.1\r\nhost: a\r\nauthorization: Bearer sk-slow\r\n"
    slow = []
    try:
        for number in range(200):
            connection = socket.create_connection(("127.0.0.1", guard.port), timeout=20)
            connection.sendall(head[:40] if number % 2 else head + b"content-length: 1000\r\n\r\n{")
            slow.append(connection)
        begin = time.monotonic()
        for _ in range(20):
            assert _check(guard.port, FREE)[0] == 200
        assert time.monotonic() - begin < 5
        # Some go away in the middle, without a word.
        for connection in slow[:100]:
            connection.close()
        assert _check(guard.port, BLOCKED)[0] == 403
    finally:
        for connection in slow:
            connection.close()
    assert guard.told()["faults"] == 0


@pytest.mark.parametrize(
    ("headers", "body", "lacked"),
    [
        ({"content-encoding": "gzip"}, gzip.compress(BODY), False),
        ({"content-encoding": "gzip"}, gzip.compress(bytes(100 << 20)), True),
        ({"content-encoding": "zstd"}, b"\x28\xb5\x2f\xfd\x00", True),
        ({}, b" " * (100 << 20), True),
        ({}, b"\xff" * 1000, True),
        ({}, b"[" * 1_000_000, True),
        ({"expect": "100-continue"}, BODY, False),
    ],
)
def test_bodies_that_it_cannot_read_are_named(
    service: tuple[GuardService, Path], headers: dict[str, str], body: bytes, lacked: bool
) -> None:
    guard, _ = service
    try:
        status, told = _check(guard.port, FREE, body, **headers)
    except ConnectionError:
        # It answers what is too large before it has read it all, and hangs up.
        assert len(body) > 8 << 20
        return
    assert (status, "body" in told.split(",")) == (200, lacked)


def test_a_guard_that_is_told_to_stop_answers_what_it_was_asked(live: Live, tmp_path: Path) -> None:
    with front("envoy", tmp_path, live.path, hops=0) as door:
        assert door.guard is not None
        assert door.guard._process is not None
        statuses: list[int] = []
        threads = [
            threading.Thread(
                target=lambda: statuses.extend(door.ask(FREE, CHAT, headers=ADDRESS)[0] for _ in range(40))
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        door.guard._process.send_signal(signal.SIGTERM)
        assert door.guard._process.wait(20) in (0, -signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert statuses == [200] * 160
        # Every one of them reached the model, and each is a line of the log.
        assert len(door.seen) == 160
        until = time.monotonic() + 10
        while time.monotonic() < until and door.log.read_text().count("/v1/chat/completions") < 160:
            time.sleep(0.1)
        assert door.log.read_text().count("/v1/chat/completions") == 160


@pytest.mark.parametrize(
    "name", [*(pytest.param(n, marks=pytest.mark.slow) for n in ("nginx", "caddy")), "envoy"]
)
def test_over_http_2_it_is_the_same(name: str, live: Live, tmp_path: Path) -> None:
    for needed in ("openssl", "curl"):
        if shutil.which(needed) is None:
            missing(f"{needed} is not installed")
    if "HTTP2" not in subprocess.run(["curl", "-V"], capture_output=True, text=True, check=True).stdout:
        missing("curl speaks no HTTP/2 here")
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem",
    ]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)

    def asked(key: str, *more: str) -> str:
        line = [
            "curl", "-s", "--http2", "--cacert", str(tmp_path / "cert.pem"), "--noproxy", "*", "-o", os.devnull,
            "-w", "%{http_version} %{http_code}", "-H", f"authorization: Bearer {key}", *more,
            f"https://127.0.0.1:{door.port}/v1/chat/completions",
        ]  # fmt: skip
        return subprocess.run(line, capture_output=True, text=True, timeout=60, input=BODY.decode()).stdout

    with front(name, tmp_path, live.path, hops=0, certificate=tmp_path) as door:
        send = ("-H", "content-type: application/json", "--data-binary", "@-")
        assert asked(FREE, *send) == "2 200"
        assert asked(BLOCKED, *send) == "2 403"
        # Names are in lower case in HTTP/2, and a forged one is removed as well.
        assert asked(FREE, *send, "-H", f"x-account-id: {live.accounts[BLOCKED]}") == "2 200"
        assert "x-account-id" not in door.seen[-1]
        before = len(door.seen)
        for _ in range(3):
            assert asked(BLOCKED, *send, "-H", "x-odd: " + "a" * 7_000).startswith("2 4")
        assert len(door.seen) == before
        assert door.counted() == 0
