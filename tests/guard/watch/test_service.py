"""From a log to a snapshot: the same as a scan of the log; and a process that is killed loses and doubles nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.cli import main
from stillwatch.guard import load
from stillwatch.guard.watch.rescan import Files, Outcome
from stillwatch.guard.watch.service import Service, Settings, Source
from tests.guard.conftest import SECRET, Scanned

SECRET_TEXT = "a secret of the tests, no other"


def lines_of(path: Path) -> list[str]:
    """A canonical table as JSON lines."""
    table = pq.read_table(path)
    kinds = {field.name: field.type for field in table.schema}
    out = []
    for row in table.to_pylist():
        plain: dict[str, Any] = {}
        for name, value in row.items():
            if value is None or name == "raw_ref":
                continue
            if name == "ts":
                value = value.isoformat()
            elif pa.types.is_uint64(kinds[name]):
                value = f"{value:016x}"
            elif pa.types.is_list(kinds[name]):
                value = [f"{part:016x}" for part in value]
            plain[name] = value
        out.append(json.dumps(plain, ensure_ascii=False) + "\n")
    return out


@pytest.fixture(scope="module")
def lines(demo: Scanned) -> list[str]:
    return lines_of(demo.log / "exchanges.parquet")


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLWATCH_GUARD_SECRET", SECRET_TEXT)


def run(*args: str | Path) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    return int(stop.value.code or 0)


@pytest.mark.usefixtures("secret")
def test_a_log_read_at_once_gives_the_snapshot_of_its_scan(
    demo: Scanned, lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # In several files, the last line of one without its end, and a line that is none.
    third = len(lines) // 3
    (tmp_path / "a.jsonl").write_text("".join(lines[2 * third :]))
    (tmp_path / "b.jsonl").write_text("".join(lines[:third]) + "no JSON at all\n")
    (tmp_path / "c.jsonl").write_text("".join(lines[third : 2 * third]).rstrip("\n"))
    names = [path.stem for path in demo.log.glob("*.parquet") if path.stem != "exchanges"]
    side = [x for name in names for x in (f"--{name}", demo.log / f"{name}.parquet")]
    call = ["watch", tmp_path / "service", "--snapshot", tmp_path / "snapshot", "--once"]
    assert run(*call, "--follow", f"edge={tmp_path}/*.jsonl", *side) == 0
    assert "campaigns" in capsys.readouterr().out
    made = load(tmp_path / "snapshot", SECRET)
    for name in type(made.arrays).__slots__:
        same = getattr(demo.snapshot.arrays, name)
        assert np.array_equal(getattr(made.arrays, name), same, equal_nan=same.dtype.kind == "f"), name
    assert made.meta.groups == demo.snapshot.meta.groups
    store = tmp_path / "service" / "partitions"
    refused = [json.loads(line) for p in store.glob("refused/*") for line in p.read_text().splitlines()]
    place = sum(len(line.encode()) for line in lines[:third])
    assert [(r["file"], r["offset"]) for r in refused] == [("b.jsonl", place)]
    for path in tmp_path.glob("service/**/*"):
        if path.is_file():
            assert b"no JSON at all" not in path.read_bytes()
    # Again: nothing is new, and so nothing is read.
    settings = Settings(
        folder=tmp_path / "service", snapshot=tmp_path / "snapshot",
        sources=(Source("edge", (f"{tmp_path}/*.jsonl",)),), live=False,
    )  # fmt: skip
    service = Service(settings, print)
    assert not service.step()
    service.close()


def _service(tmp_path: Path, said: list[str], log: Path, **files: str) -> Service:
    settings = Settings(
        folder=tmp_path / "service", snapshot=tmp_path / "snapshot", every_s=0.001, files=Files(**files),
        sources=(Source("edge", (str(log),)),), live=False,
    )  # fmt: skip
    return Service(settings, said.append)


def _round(service: Service) -> Outcome | None:
    while service.step():
        pass
    return service.finish(wait=True) if service.begin() else None


@pytest.mark.usefixtures("secret")
def test_scans_go_on_failures_keep_the_snapshot_and_files_are_read_anew(
    lines: list[str], tmp_path: Path
) -> None:
    said: list[str] = []
    lines = lines[: len(lines) // 4]
    log, policy = tmp_path / "log.jsonl", tmp_path / "policy.toml"
    policy.write_text('version = 1\nmode = "shadow"\n')
    log.write_text("".join(lines[: len(lines) // 2]))
    service = _service(tmp_path, said, log, policy=str(policy))
    try:
        # A scan that is killed is told, and tried again.
        while service.step():
            pass
        assert service.begin()
        assert service._child is not None
        service._child._process.kill()
        killed = service.finish(wait=True)
        assert killed is not None
        assert "signal 9" in str(killed.error)
        assert not (tmp_path / "snapshot").exists()
        first = _round(service)
        assert first is not None
        assert (first.error, first.rows) == (None, len(lines) // 2)
        assert "of the time between two scans" in said[-1]
        before = (tmp_path / "snapshot").read_bytes()
        # Nothing new, nothing to do.
        assert _round(service) is None
        # A policy that cannot be used: told with its line, and the old snapshot stays.
        policy.write_text("version = 1\nmode = 3\n")
        assert service.due(time.monotonic())
        broken = _round(service)
        assert broken is not None
        assert "policy.toml, line 2" in said[-1]
        assert (tmp_path / "snapshot").read_bytes() == before
        assert service.counters.failed == 2
        # Another policy and more rows.
        policy.write_text('version = 1\nmode = "shadow"\nsilent_days = 9\n')
        with log.open("a") as file:
            file.writelines(lines[len(lines) // 2 :])
        second = _round(service)
        assert second is not None
        assert second.rows == len(lines)
        assert load(tmp_path / "snapshot", SECRET).policy.silent_days == 9
        # Only a file beside it changed: no scan, a new snapshot.
        policy.write_text('version = 1\nmode = "shadow"\nsilent_days = 10\n')
        third = _round(service)
        assert third is not None
        assert (third.rows, service.counters.scans) == (0, 2)
        assert service.publish(time.monotonic())
        assert load(tmp_path / "snapshot", SECRET).policy.silent_days == 10
        assert service.counters.problem is None
    finally:
        service.close()


def _start(tmp_path: Path, log: Path) -> tuple[subprocess.Popen[str], str]:
    environment = {**os.environ, "STILLWATCH_GUARD_SECRET": SECRET_TEXT}
    process = subprocess.Popen(
        [
            sys.executable, "-m", "stillwatch", "watch", str(tmp_path / "service"), "--snapshot",
            str(tmp_path / "snapshot"), "--follow", f"edge={log}", "--listen", "127.0.0.1:0", "--every", "1h",
        ],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "logs are taken at" in line:
            return process, line.split()[5].removesuffix("/ingest/litellm")
    raise AssertionError("it did not start")


def _row(name: str) -> bytes:
    found = {"exchange_id": name, "ts": "2026-09-21T10:00:00Z", "account_id": "a", "model": "m"}
    return json.dumps(found).encode() + b"\n"


def test_a_process_that_is_killed_again_and_again_loses_and_doubles_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.touch()
    sent: list[str] = []
    written: list[str] = []
    code = None
    for life in range(3):
        process, url = _start(tmp_path, log)
        try:
            for number in range(5):
                with log.open("ab") as file:
                    file.write(_row(f"file-{life}-{number}"))
                written.append(f"file-{life}-{number}")
                name = f"sent-{life}-{number}"
                request = urllib.request.Request(f"{url}/ingest/canonical", _row(name))
                with urllib.request.urlopen(request, timeout=30) as answer:
                    assert answer.status == 200
                sent.append(name)
            with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
                shown = answer.read().decode()
            assert (
                f'stillwatch_ingest_events_total{{source="http-canonical",state="kept"}} {len(sent) - 5 * life}.0'
                in shown
            )
            assert 'stillwatch_ingest_lag_seconds{source="http-canonical"}' in shown
            assert "stillwatch_scans_total 0.0" in shown
        finally:
            process.send_signal(signal.SIGTERM if life == 2 else signal.SIGKILL)
            code = process.wait(timeout=30)
            assert process.stdout is not None
            process.stdout.close()
    assert code == 0
    settings = Settings(
        folder=tmp_path / "service", snapshot=tmp_path / "snapshot", sources=(Source("edge", (str(log),)),),
        live=False,
    )  # fmt: skip
    service = Service(settings, print)
    while service.step():
        pass
    service.partitions.compact()
    store = service.partitions
    files = [store.folder / part.file for part in store.manifest.parts]
    found = Counter(n for f in files for n in pq.ParquetFile(f).read(["exchange_id"]).column(0).to_pylist())
    service.close()
    assert set(found) == set(written) | set(sent)
    assert set(found.values()) == {1}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "nothing to watch"),
        (["--follow", "log.jsonl"], "is no NAME=PATH"),
        (["--follow", "Edge=log.jsonl"], "is no NAME=PATH"),
        (["--follow", "edge=x", "--every", "0"], "is no span of time"),
        (["--follow", "edge=x", "--every", "soon"], "is no span of time"),
        (["--follow", "edge=x", "--window-days", "20", "--keep-days", "10"], "--keep-days"),
        (["--listen", "0.0.0.0:0"], "without a token"),
        (["--listen", "nowhere"], "is no HOST:PORT"),
        (["--follow", "edge=x", "--publish", "http://x"], "--publish must be"),
        (["--follow", "edge=x", "--format", "gibberish"], "unknown format"),
    ],
)
@pytest.mark.usefixtures("secret")
def test_wrong_calls_say_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], words: str
) -> None:
    assert run("watch", tmp_path / "service", "--snapshot", tmp_path / "snapshot", *args) == 2
    assert words in capsys.readouterr().err
