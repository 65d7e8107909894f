"""The log that the guard inside LiteLLM writes: nothing is lost silently, nothing is left half-written."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stillwatch.guard.doors import events
from stillwatch.guard.doors.events import EventLog, lines
from tests.ingest.conftest import read_all

EVENT = {
    "id": "chatcmpl-1", "call_type": "acompletion", "startTime": 1_772_366_400.5, "status": "success", "model": "d-7",
    "model_group": "m-large", "messages": [{"role": "user", "content": "name a colour"}], "prompt_tokens": 3,
    "completion_tokens": 2, "requester_ip_address": "6.6.6.6, 203.0.113.9",
    "response": {"choices": [{"message": {"content": "a deep blue"}, "finish_reason": "stop"}]},
    "metadata": {"user_api_key_user_id": "alice", "user_api_key_hash": "ab" * 32, "requester_ip_address": "6.6.6.6"},
    "hidden_params": {"a price table": ["of seven kilobytes"]},
}  # fmt: skip


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    made = EventLog(tmp_path / "events", most_file=3000)
    yield made
    made.close()


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "events").iterdir(), key=lambda path: int(path.stem.rsplit("-", 1)[1]))


def test_rows_are_canonical_and_hold_no_text(log: EventLog, tmp_path: Path) -> None:
    for number in range(20):
        log.note({**EVENT, "id": f"call-{number}"}, "203.0.113.9")
        _until(lambda number=number: log.written == number + 1)  # type: ignore[misc]
    log.close()
    files = _files(tmp_path)
    assert len(files) > 1
    assert all(path.stat().st_size <= 3000 and path.stat().st_mode & 0o777 == 0o600 for path in files)
    table, found = read_all(*map(str, files))
    assert (found.format, found.refusals) == ("canonical", [])
    assert table.column("exchange_id").to_pylist() == [f"call-{n}" for n in range(20)]
    row = table.to_pylist()[0]
    assert (row["account_id"], row["model"], row["status"], row["ip"]) == (
        "alice",
        "m-large",
        200,
        "203.0.113.9",
    )
    assert (row["prompt"], row["content_state"], row["input_tokens"]) == (None, "sketch", 3)
    assert row["prompt_sketch"]
    text = b"".join(path.read_bytes() for path in files)
    assert not [w for w in (b"colour", b"deep blue", b"6.6.6.6", b"price table") if w in text]


def test_odd_events_are_counted_or_written_and_never_raise(log: EventLog, tmp_path: Path) -> None:
    odd: list[Any] = [
        None, 3, "text", [], {}, {"messages": object()},
        {**EVENT, "messages": "\ud83d", "model_parameters": {1: set()}},
        {**EVENT, "metadata": [1]}, {**EVENT, "startTime": float("nan"), "response": b"bytes"},
    ]  # fmt: skip
    for event in odd:
        log.note(event, None)
    log.note(EVENT, None)
    log.close()
    assert log.written + log.broken == len(odd) + 1
    assert log.dropped == 0
    for line in b"".join(path.read_bytes() for path in _files(tmp_path)).splitlines():
        assert isinstance(json.loads(line), dict)


def test_what_finds_no_room_is_dropped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    log = EventLog(tmp_path / "events", most_waiting=3000)
    log.note(EVENT, None)
    _until(lambda: log.written == 1)
    before = _files(tmp_path)[0].read_bytes()
    half = [100]

    def some(handle: int, data: Any) -> int:
        if not half:
            return full(handle, data)
        return os.pwrite(handle, bytes(data[: half.pop()]), os.fstat(handle).st_size)

    with monkeypatch.context() as patched:
        patched.setattr(events.os, "write", some)
        for number in range(50):
            log.note({**EVENT, "id": f"call-{number}"}, None)
        _until(lambda: not half)
        time.sleep(0.1)
        # What was half-written is taken back.
        assert _files(tmp_path)[0].read_bytes() == before
        assert 0 < log.dropped < 50
        dropped = log.dropped
    # The disk has room again: what waited is written.
    _until(lambda: log.written == 1 + 50 - dropped)
    log.close()
    rows = [json.loads(line) for line in _files(tmp_path)[0].read_bytes().splitlines()]
    assert [row["exchange_id"] for row in rows[1:]] == [f"call-{n}" for n in range(50 - dropped)]


def test_what_still_waits_at_the_end_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(handle: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    log = EventLog(tmp_path / "events")
    with monkeypatch.context() as patched, caplog.at_level(logging.ERROR):
        patched.setattr(events.os, "write", full)
        log.note(EVENT, None)
        log.close()
    assert (log.dropped, log.written) == (1, 0)
    assert "1 events were not written" in caplog.text
    assert "colour" not in caplog.text


def test_an_event_that_is_no_json_is_counted() -> None:
    found, broken = lines([b"{", b"[]", b"[" * 100_000, json.dumps(EVENT).encode()])
    assert (len(found), broken) == (1, 3)
