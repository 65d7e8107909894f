"""The guard's own faults: snapshots that go bad, clocks, forks, logs that cannot be written, made-up keys."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import shutil
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from stillwatch.guard import Guard, Secret, Snapshot, Subject
from stillwatch.guard.doors import http
from stillwatch.guard.doors.asgi import StillwatchMiddleware
from stillwatch.guard.doors.check import CheckService
from stillwatch.guard.doors.http import Identity
from stillwatch.guard.doors.watched import Watched
from stillwatch.guard.layout import VERSION
from stillwatch.guard.snapshot import save
from stillwatch.schema.errors import SnapshotError
from stillwatch.schema.times import DAY_US
from tests.guard.conftest import SECRET, Scanned
from tests.guard.test_decide import _now, _strong

LOG = "stillwatch.guard"
YEAR_US = 365 * DAY_US


@pytest.fixture
def watched(demo: Scanned, tmp_path: Path) -> Iterator[Watched]:
    path = tmp_path / "snapshot"
    shutil.copy(demo.path, path)
    found = Watched(path, SECRET, every_s=3600)
    yield found
    found.close()


def _garbage(good: bytes, demo: Scanned, path: Path) -> bytes:
    return b"\xa5" * len(good)


def _other_version(good: bytes, demo: Scanned, path: Path) -> bytes:
    return good[:8] + (VERSION + 1).to_bytes(4, "little") + good[12:]


def _other_secret(good: bytes, demo: Scanned, path: Path) -> bytes:
    arrays = {name: getattr(demo.snapshot.arrays, name) for name in type(demo.snapshot.arrays).__slots__}
    save(path, demo.snapshot.meta, arrays, Secret(b"another secret of the tests"))
    return path.read_bytes()


BAD: dict[str, tuple[Callable[[bytes, Scanned, Path], bytes], str]] = {
    "empty": (lambda good, demo, path: b"", "too short"),
    "garbage": (_garbage, "no snapshot"),
    "cut off": (lambda good, demo, path: good[: len(good) // 2], "truncated"),
    "one bit": (lambda good, demo, path: good[:-9] + bytes([good[-9] ^ 1]) + good[-8:], "seal"),
    "another version": (_other_version, "version 3, this program reads 2"),
    "another secret": (_other_secret, "another secret"),
}


@pytest.mark.parametrize("in_place", [False, True], ids=["replaced", "written over"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_snapshot_changes_no_decision(
    demo: Scanned,
    watched: Watched,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    in_place: bool,
) -> None:
    make, told = BAD[name]
    path, other = tmp_path / "snapshot", tmp_path / "other"
    bad = make(path.read_bytes(), demo, other)
    subjects = [Subject(account=row["account_id"], ts_us=_now(demo)) for row in _strong(demo)[:3]]
    before = [watched.guard.decide(subject).would for subject in subjects]
    guard = watched.guard
    if in_place:
        # As `cp` does: the very bytes that a mapped file would have shown to the running guard.
        path.write_bytes(bad)
    else:
        other.write_bytes(bad)
        other.replace(path)
    assert not watched.look()
    assert watched.guard is guard
    assert (watched.swaps, watched.failed) == (0, 1)
    assert told in str(watched.problem)
    assert told in caplog.text
    assert [watched.guard.decide(subject).would for subject in subjects] == before
    assert float(guard.snapshot.arrays.key_share.sum()) == float(demo.snapshot.arrays.key_share.sum())
    assert guard.faults == 0
    # And a good one is taken again.
    shutil.copy(demo.path, other)
    other.replace(path)
    assert watched.look()
    assert (watched.swaps, watched.problem) == (1, None)


@pytest.mark.parametrize("name", BAD)
def test_nothing_starts_with_a_bad_snapshot(demo: Scanned, tmp_path: Path, name: str) -> None:
    make, told = BAD[name]
    path = tmp_path / "snapshot"
    path.write_bytes(make(demo.path.read_bytes(), demo, tmp_path / "other"))
    with pytest.raises(SnapshotError, match=told):
        Watched(path, SECRET)


def test_the_watch_outlives_whatever_happens(
    watched: Watched, demo: Scanned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: Any) -> Any:
        raise MemoryError("acct-of-somebody")

    with monkeypatch.context() as patch:
        patch.setattr("stillwatch.guard.doors.watched.load", fails)
        os.utime(tmp_path / "snapshot", (1, 1))
        assert not watched.look()
    assert (watched.failed, watched.problem) == (1, "MemoryError")
    os.utime(tmp_path / "snapshot", (2, 2))
    assert watched.look()


@pytest.mark.parametrize(
    ("years", "reason"), [(0, "shadow"), (3, "snapshot_expired"), (-3, "clock_behind"), (-80, "clock_behind")]
)
def test_a_clock_that_jumps_opens(demo: Scanned, years: int, reason: str) -> None:
    at = _now(demo)
    guard = Guard(demo.snapshot, clock=lambda: at + years * YEAR_US)
    member = _strong(demo)[0]["account_id"]
    decision = guard.decide(Subject(account=member))
    assert decision.reason == reason
    assert (decision.would == "allow") == (years != 0)
    assert guard.idle(at + years * YEAR_US) == (reason if years else None)
    # A request that has its own time does not depend on the clock.
    assert guard.decide(Subject(account=member, ts_us=at)).reason == "shadow"
    assert guard.faults == 0


def test_a_clock_that_fails_is_a_fault(demo: Scanned) -> None:
    guard = Guard(demo.snapshot, clock=lambda: 1 // 0)
    assert guard.decide(Subject(account="a")).reason == "fault"
    assert guard.faults == 1


def test_faults_are_told_without_words_of_the_caller_and_without_a_flood(
    demo: Scanned, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> Any:
        raise ValueError("name a colour")

    guard = Guard(demo.snapshot)
    monkeypatch.setattr(guard.sight, "look", fails)
    for _ in range(1000):
        assert guard.decide(Subject(account="a")).action == "allow"
    assert guard.faults == 1000
    lines = [record.getMessage() for record in caplog.records if record.name == LOG]
    assert lines[:2] == ["fault 1 of the guard: ValueError", "fault 2 of the guard: ValueError"]
    assert len(lines) == 10


def _ask(app: Any, path: str = "/v1/check", scope: Any = None) -> tuple[int, bytes]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b'{"messages": []}', "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asked = {"type": "http", "method": "POST", "path": path, "headers": [], "client": ("192.0.2.1", 1)}
    asyncio.run(app(asked | (scope or {}), receive, send))
    return sent[0]["status"], b"".join(m.get("body", b"") for m in sent)


async def _model(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": (await receive())["body"]})


def test_a_door_that_fails_before_it_asks_lets_the_request_go_on(
    demo: Scanned, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard: Any = SimpleNamespace(guard=Guard(demo.snapshot))
    middleware, service = StillwatchMiddleware(_model, guard, Identity()), CheckService(guard, Identity())
    monkeypatch.setattr("stillwatch.guard.doors.ask.subject_of", lambda *_: 1 // 0)
    monkeypatch.setattr("stillwatch.guard.doors.check.litellm_subject", lambda *_: 1 // 0)
    assert _ask(middleware) == (299, b'{"messages": []}')
    assert _ask(service)[0] == 200
    assert _ask(service, "/beta/litellm_basic_guardrail_api") == (200, b'{"action":"NONE"}')
    assert (guard.guard.faults, guard.guard.requests) == (3, 3)


def test_a_log_that_cannot_be_written_breaks_no_request_and_is_counted(demo: Scanned) -> None:
    class Full(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError(28, "No space left on device")

    guard: Any = SimpleNamespace(guard=Guard(demo.snapshot, clock=lambda: _now(demo)))
    middleware = StillwatchMiddleware(_model, guard, Identity("x-account"))
    member = _strong(demo)[0]["account_id"].encode()
    full, log = Full(), logging.getLogger(LOG)
    before = http.UNTOLD
    log.addHandler(full)
    try:
        assert _ask(middleware, scope={"headers": [(b"x-account", member)]})[0] == 299
    finally:
        log.removeHandler(full)
    assert http.UNTOLD - before == 1


def test_no_other_methods_and_kinds_of_connection_are_held_up(demo: Scanned) -> None:
    guard: Any = SimpleNamespace(guard=Guard(demo.snapshot))
    middleware = StillwatchMiddleware(_model, guard, Identity())
    for scope in ({"method": "GET"}, {"method": "OPTIONS"}, {"method": "HEAD"}, {"type": "websocket"}):
        assert _ask(middleware, scope=scope)[0] == 299
    assert guard.guard.requests == 0


def test_a_client_that_goes_away_is_nobody_s_fault(demo: Scanned) -> None:
    guard: Any = SimpleNamespace(guard=Guard(demo.snapshot))
    heard: list[str] = []

    async def model(scope: Any, receive: Any, send: Any) -> None:
        while not heard or heard[-1] != "http.disconnect":
            heard.append((await receive())["type"])

    parts = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(parts)

    middleware: Any = StillwatchMiddleware(model, guard, Identity())
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "client": None}
    asyncio.run(middleware(scope, receive, None))
    assert heard == ["http.request", "http.disconnect"]
    assert guard.guard.faults == 0


def test_a_body_does_not_stay_in_memory_while_its_answer_is_streamed(demo: Scanned) -> None:
    class Message(dict[str, Any]):
        pass

    guard: Any = SimpleNamespace(guard=Guard(demo.snapshot))
    left: list[Any] = []

    async def receive() -> Any:
        message = Message(type="http.request", body=b"{}", more_body=len(left) < 2)
        left.append(weakref.ref(message))
        return message

    async def model(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(3):
            await receive()
        gc.collect()
        assert [ref() for ref in left] == [None] * 3

    middleware: Any = StillwatchMiddleware(model, guard, Identity())
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "client": None}
    asyncio.run(middleware(scope, receive, None))
    assert len(left) == 3


def test_paths_of_the_check_service(demo: Scanned) -> None:
    service = CheckService(SimpleNamespace(guard=Guard(demo.snapshot)), Identity())  # type: ignore[arg-type]
    for path in ("/v1/check", "/v1/check/", "/v1/check/../healthz", "/v1/check/\udcff漢", "/v1/check*"):
        assert _ask(service, path)[0] == 200
    for path in ("/v1/checks", "/v1/check\x00", "/V1/CHECK", "//v1/check", ""):
        assert _ask(service, path)[0] == 404


def test_made_up_keys_take_bounded_memory_and_drive_out_nobody_known(demo: Scanned) -> None:
    guard = Guard(demo.snapshot, most_accounts=4_000)
    members = _strong(demo)[:3]
    for row in members:
        guard.decide(Subject(account=row["account_id"], ts_us=_now(demo)))
    known = dict(guard._accounts)
    for number in range(20_000):
        guard.decide(Subject(api_key=f"sk-made-up-{number}", ip="192.0.2.1", ts_us=_now(demo)))
    assert guard._accounts == known
    assert len(guard._strangers) == 1_000
    assert guard.forgotten == 19_000
    assert all(len(cache) <= 1 << 14 for cache in (guard.sight._addresses, guard.sight._hashes))


def test_a_process_that_was_forked_goes_on_watching(demo: Scanned, tmp_path: Path) -> None:
    """As gunicorn's --preload does: loaded and warmed once, then forked. The lock is held at that moment."""
    path = tmp_path / "snapshot"
    shutil.copy(demo.path, path)
    watched = Watched(path, SECRET, every_s=0.05)
    read, write = os.pipe()
    with watched.guard._lock:
        child = os.fork()
    if child == 0:
        out = b"failed"
        try:
            watched.guard.decide(Subject(account="a"))
            os.utime(path, (5, 5))
            until = time.monotonic() + 20
            while watched.swaps == 0 and time.monotonic() < until:
                time.sleep(0.02)
            out = msgspec.json.encode([watched.swaps, watched.failed, watched.guard.faults])
        finally:
            os.write(write, out)
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    watched.close()
    assert msgspec.json.decode(told) == [1, 0, 0]


def test_an_expired_snapshot_is_told_once(
    demo: Scanned, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    path = tmp_path / "snapshot"
    meta = msgspec.structs.replace(demo.snapshot.meta, expires_us=demo.snapshot.meta.last_us + 1)
    arrays = {name: getattr(demo.snapshot.arrays, name) for name in type(demo.snapshot.arrays).__slots__}
    save(path, meta, arrays, SECRET)
    watched = Watched(path, SECRET, every_s=0.01)
    until = time.monotonic() + 10
    while watched.reason is None and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)
    watched.close()
    assert watched.reason == "snapshot_expired"
    assert caplog.text.count("nothing is acted on: snapshot_expired") == 1


def test_a_snapshot_is_a_copy(demo: Scanned) -> None:
    assert isinstance(demo.snapshot, Snapshot)
    assert not [line for line in Path("/proc/self/maps").read_text().splitlines() if str(demo.path) in line]
