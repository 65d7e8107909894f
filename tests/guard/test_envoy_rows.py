"""Envoy's messages without an Envoy: what the sink makes of entries, hostile ones too, and the files it writes."""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from stillwatch.guard.config import Setup, render
from stillwatch.guard.doors import access_log
from stillwatch.guard.doors import envoy_messages as pb
from stillwatch.guard.doors.access_log import AccessLog
from stillwatch.guard.doors.ext_proc import ExternalProcessor, long
from stillwatch.guard.doors.http import Identity
from stillwatch.guard.doors.rotated import Rotated
from stillwatch.guard.subject import Decision
from stillwatch.ingest.envoy import EnvoyImporter
from stillwatch.schema.errors import OutputError, UsageError
from tests.guard.conftest import SECRET

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "name a colour"}]}).encode()


def _entry(
    exchange: str = "x1", key: str = "sk-1", path: str = "/v1/chat/completions", details: str = ""
) -> Any:
    message = pb.StreamAccessLogsMessage()
    entry = message.http_logs.log_entry.add()
    entry.common_properties.start_time.seconds = 1_790_000_000
    entry.common_properties.duration.nanos = 2_500_000
    entry.request.path, entry.request.user_agent, entry.request.forwarded_for = (
        path,
        "sdk/1",
        "6.6.6.6,203.0.113.9",
    )
    for name, value in (("authorization", f"Bearer {key}"), ("x-stillwatch-exchange", exchange)):
        if value not in ("", "Bearer "):
            entry.request.request_headers.add(key=name, value=value)
    entry.response.response_code.value, entry.response.response_code_details = 200, details
    return message


def _log(folder: Path) -> AccessLog:
    return AccessLog(Rotated(folder / "rows"), Identity(None, 1), SECRET)


def _written(log: AccessLog, folder: Path) -> list[dict[str, Any]]:
    log.close()
    return [json.loads(line) for line in (folder / "rows" / "exchanges.jsonl").read_bytes().splitlines()]


def test_an_entry_and_its_request_are_one_row_without_text(tmp_path: Path) -> None:
    log = _log(tmp_path)
    log.note("x1", [(b":path", b"/"), (b"user-agent", b"sdk/1")], BODY)
    log.take(_entry().SerializeToString())
    (row,) = _written(log, tmp_path)
    assert (row["model"], row["status"], row["latency_ms"], row["ip"]) == ("m", 200, 2.5, "203.0.113.9")
    assert row["ts"] == "2026-09-21T14:13:20+00:00"
    assert "colour" not in json.dumps(row)
    assert "prompt" not in row
    assert row["prompt_sketch"]
    assert oct((tmp_path / "rows" / "exchanges.jsonl").stat().st_mode)[-3:] == "600"


def test_what_is_no_row_and_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    log = _log(tmp_path)
    log.note("bad", [], b'{"model": [1], "messages": 7, "temperature": "hot", "stop": {"a": [[]]}}')
    log.note("deep", [], b"[" * 100_000)
    for message in (
        _entry("bad"), _entry("deep"), _entry("", ""), _entry("none", path="/healthz"), pb.StreamAccessLogsMessage(),
    ):  # fmt: skip
        log.take(message.SerializeToString())
    rows = _written(log, tmp_path)
    assert [row["exchange_id"] for row in rows] == ["bad", "deep"]
    assert {name: log.told[name] for name in ("rows", "nameless", "other", "dropped")} == {
        "rows": 2, "nameless": 1, "other": 1, "dropped": 0,
    }  # fmt: skip


def test_bodies_that_wait_are_bounded_and_a_full_queue_drops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "MOST_NOTED_BYTES", 3 * len(BODY))
    log = _log(tmp_path)
    for i in range(10):
        log.note(f"x{i}", [], BODY)
    assert list(log._notes) == ["x7", "x8", "x9"]
    with log._lock:
        # The writer waits for the lock: one message is with it, the others in the queue.
        for _ in range(access_log.MOST_WAITING + 10):
            log.take(_entry("x9").SerializeToString())
    dropped = log.told["dropped"]
    assert 0 < dropped <= 10
    assert len(_written(log, tmp_path)) == access_log.MOST_WAITING + 10 - dropped


def test_files_turn_and_what_broke_off_is_one_broken_line(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "exchanges.jsonl").write_bytes(b'{"whole": 1}\n{"half')
    out = Rotated(tmp_path / "rows", most=60)
    for i in range(6):
        out.write([b'{"number": %d}' % i] * 2)
    out.close()
    files = sorted((tmp_path / "rows").iterdir())
    assert len(files) == 4
    lines = [line for path in files for line in path.read_bytes().splitlines()]
    assert len(lines) == 14
    assert b'{"half' in lines
    assert all(path.read_bytes().endswith(b"\n") for path in files)
    with pytest.raises(OutputError):
        Rotated(tmp_path / "rows" / "exchanges.jsonl")


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    out = Rotated(tmp_path)
    out.write([b"1" * 100])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, before[1]))
        with pytest.raises(OutputError):
            out.write([b"2" * 100])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, heard)
    out.write([b"3"])
    out.close()
    assert out.path.read_bytes() == b"1" * 100 + b"\n3\n"
    assert os.stat(out.path).st_size == 103


def test_strip_is_carried_out_on_the_request_where_somebody_can() -> None:
    def decide(_: Any) -> Decision:
        return Decision(action="strip", would="strip", shadow=False, reason="named")

    asked = json.dumps({**json.loads(BODY), "logprobs": True}).encode()
    data, action = ExternalProcessor(decide, Identity()).answer([], asked, body_phase=True)
    answer = pb.ProcessingResponse.FromString(data)
    assert action == "strip"
    assert json.loads(answer.request_body.response.body_mutation.body) == json.loads(BODY)
    told = {
        o.header.key: o.header.raw_value for o in answer.request_body.response.header_mutation.set_headers
    }
    assert told["x-stillwatch-action"] == b"strip"


def test_what_need_not_be_sent() -> None:
    assert long([(b"content-length", b"8388609")])
    assert long([(b"content-length", b"9" * 40)])
    assert not long([(b"content-length", b"8388608"), (b"content-encoding", b"br")])


def test_the_importer_knows_our_own_refusals() -> None:
    from stillwatch.ingest.envoy import _blocker

    assert _blocker({"response_code_details": "stillwatch_throttle:0a"}) == "stillwatch:throttle"
    assert _blocker({"response_code_details": "ext_authz_denied"}) == "ext_authz"
    assert EnvoyImporter.name == "envoy"


def test_options_that_do_not_go_together() -> None:
    for wrong in ({"filter": "wasm"}, {"exchanges": True}, {"grpc": "nowhere", "filter": "ext_proc"}):
        with pytest.raises(UsageError):
            Setup(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        render("nginx", Setup(filter="ext_proc"))
