"""What goes wrong at a terminal: full disks, Ctrl-C, odd files. One message, one exit code, nothing half-written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch import arena
from stillwatch.cli import main
from stillwatch.detect.discover import Candidate
from stillwatch.scan import judge as judge_module
from stillwatch.scan.context import Context
from stillwatch.store.results import read_results


def _lines(count: int = 30, **more: Any) -> str:
    out = []
    for n in range(count):
        row = {
            "exchange_id": f"x{n}",
            "ts": f"2026-03-01T00:{n % 60:02d}:00Z",
            "account_id": f"a{n % 9}",
            "model": "m",
        }
        out.append(json.dumps(row | more) + "\n")
    return "".join(out)


@pytest.fixture
def log(tmp_path: Path) -> str:
    path = tmp_path / "log.jsonl"
    path.write_text(_lines())
    return str(path)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def inner(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(args)
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return inner


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("command", ["scan", "ingest", "sketch"])
def test_a_full_disk_leaves_nothing(
    command: str, log: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        # As Arrow words it: the system's number is in the text only.
        raise OSError("Error writing bytes to file. Detail: [errno 28] No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    monkeypatch.setattr(pq.ParquetWriter, "write_batch", full)
    code, _, err = run(command, log, "--out", str(tmp_path / "out"))
    assert (code, "the disk is full; nothing was kept" in err) == (4, True)
    assert str(tmp_path / "out") in err
    assert _left(tmp_path) == ["log.jsonl"]


def test_a_full_temporary_folder_says_which_one_to_name(
    log: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("stillwatch.ingest.source._write_all", full)
    with open(log) as stream:
        monkeypatch.setattr("sys.stdin", stream)
        code, _, err = run("check", "-")
    assert (code, "TMPDIR" in err) == (4, True)


def test_output_that_cannot_be_printed_is_one_message(log: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "stillwatch", "check", log],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 4
    assert b"cannot be printed" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("how", ["plain", "inside a compiled function"])
def test_ctrl_c_during_a_scan_leaves_nothing(
    how: str, log: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        if how == "plain":
            raise KeyboardInterrupt
        raise SystemError("returned a result with an exception set") from KeyboardInterrupt()

    monkeypatch.setattr("stillwatch.scan.run.judge", interrupted)
    code, out, err = run("scan", log, "--out", str(tmp_path / "out"))
    assert (code, out) == (130, "")
    assert "interrupted; nothing was written" in err
    assert _left(tmp_path) == ["log.jsonl"]


def test_ctrl_c_that_a_library_swallows_still_stops_the_scan(
    log: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = judge_module.candidates

    def swallowed(context: Context) -> list[Candidate]:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return real(context)

    monkeypatch.setattr("stillwatch.scan.judge.candidates", swallowed)
    before = signal.getsignal(signal.SIGINT)
    code, out, err = run("scan", log, "--out", str(tmp_path / "out"))
    assert (code, out) == (130, "")
    assert "interrupted; nothing was written" in err
    assert _left(tmp_path) == ["log.jsonl"]
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_in_a_real_process_leaves_no_temporary_files(tmp_path: Path) -> None:
    arena.make("demo", tmp_path / "log", accounts=300, exchanges=6_000, seed=1)
    work, out = tmp_path / "tmp", tmp_path / "out"
    work.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "stillwatch", "scan", str(tmp_path / "log"), "--out", str(out / "results")],
        env={**os.environ, "TMPDIR": str(work)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(work.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert _left(work) == []
    assert not out.exists()


def test_strict_stops_with_file_row_and_column(tmp_path: Path, run: Run) -> None:
    (tmp_path / "log.jsonl").write_text(_lines(3) + _lines(1, ts="1970-01-01T00:00:00Z"))
    for command in ("scan", "ingest", "sketch"):
        code, _, err = run(command, str(tmp_path / "log.jsonl"), "--strict", "--out", str(tmp_path / "out"))
        assert code == 3
        assert "log.jsonl, row 4, column 'ts'" in err
        assert "before 2015" in err
        assert not (tmp_path / "out").exists()


def test_times_that_cannot_be_are_told_apart(tmp_path: Path, run: Run) -> None:
    seconds = pa.array([1_772_366_400 + n for n in range(5)], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    names = [f"x{n}" for n in range(5)]
    pq.write_table(
        pa.table({"exchange_id": names, "ts": seconds, "account_id": names, "model": names}),
        tmp_path / "a.parquet",
    )
    code, out, _ = run("check", str(tmp_path / "a.parquet"))
    assert (code, "seconds read as microseconds" in out) == (0, True)
    code, _, err = run("scan", str(tmp_path / "a.parquet"), "--out", str(tmp_path / "out"))
    assert code == 3
    assert "no row of the log could be used" in err
    assert "stillwatch check" in err
    (tmp_path / "b.jsonl").write_text(_lines(2) + _lines(1, ts="2200-06-01T00:00:00Z"))
    _, out, _ = run("check", str(tmp_path / "b.jsonl"))
    assert "in the future" in out


def test_long_prompts_and_junk_columns_are_scanned(tmp_path: Path, run: Run) -> None:
    junk = {f"junk_{n}": n for n in range(1000)}
    long = {"exchange_id": "long", "ts": "2026-03-01T00:00:00Z", "account_id": "a1", "model": "m"}
    lines = _lines(20, **junk) + json.dumps(long | {"prompt": "né " * 1_700_000})
    (tmp_path / "log.jsonl").write_text(lines + "\n")
    code, _, err = run("scan", str(tmp_path / "log.jsonl"), "--out", str(tmp_path / "out"))
    assert (code, err) == (0, "")
    assert read_results(tmp_path / "out").findings.run.exchanges == 21
    code, _, _ = run("sketch", str(tmp_path / "log.jsonl"), "--out", str(tmp_path / "bare"))
    assert code == 0
    assert (tmp_path / "bare" / "exchanges.parquet").stat().st_size < 200_000


def test_a_missing_column_says_how_to_name_it(tmp_path: Path, run: Run) -> None:
    rows = [
        {"exchange_id": f"x{n}", "ts": "2026-03-01T00:00:00Z", "model": "m", "user": "u"} for n in range(3)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    log = str(tmp_path / "log.jsonl")
    code, _, err = run("scan", log, "--out", str(tmp_path / "out"))
    assert (code, "'account_id'" in err, "--map account_id=" in err) == (3, True, True)
    code, out, _ = run("check", log, "--map", "account_id=$.user")
    assert (code, "3 rows of 1 account" in out) == (0, True)


def test_results_beside_the_log_do_not_spoil_the_next_scan(tmp_path: Path, run: Run) -> None:
    (tmp_path / "day1.jsonl").write_text(_lines())
    here = str(tmp_path)
    for name in ("one", "two"):
        code, _, err = run("scan", here, "--out", str(tmp_path / name))
        assert (code, err) == (0, "")
    one, two = (read_results(tmp_path / name).findings for name in ("one", "two"))
    assert one == two
    code, _, err = run("check", str(tmp_path / "one"))
    assert (code, "a results folder, not a log" in err) == (3, True)


def test_mixed_formats_are_both_named(tmp_path: Path, run: Run) -> None:
    (tmp_path / "a.jsonl").write_text(_lines())
    event = {
        "id": "1",
        "call_type": "acompletion",
        "startTime": 1.0,
        "metadata": {"user_api_key_hash": "h"},
        "model_group": "m",
        "litellm_call_id": "c",
    }
    (tmp_path / "b.jsonl").write_text(json.dumps(event) + "\n")
    code, _, err = run("check", str(tmp_path))
    assert code == 3
    assert all(word in err for word in ("a.jsonl", "b.jsonl", "mixed formats", "stillwatch ingest"))


def test_a_pipe_is_read_to_its_end(tmp_path: Path, run: Run) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(_lines(200)))
    writer.start()
    code, out, _ = run("check", str(pipe))
    writer.join()
    assert (code, "200 rows of 9 accounts" in out) == (0, True)


def test_devices_and_unreadable_files_are_named(tmp_path: Path, run: Run) -> None:
    code, _, err = run("check", "/dev/zero")
    assert (code, "/dev/zero: neither a file nor a pipe" in err) == (3, True)
    loop = tmp_path / "loop.jsonl"
    loop.symlink_to(loop)
    code, _, err = run("check", str(loop))
    assert (code, "loop.jsonl" in err) == (3, True)
    if Path("/proc/self/mem").exists():
        code, _, err = run("check", "/proc/self/mem")
        assert (code, "/proc/self/mem: cannot be read" in err) == (3, True)
    (tmp_path / "empty").mkdir()
    code, _, err = run("check", str(tmp_path / "empty"))
    assert (code, "no log found here" in err) == (3, True)


def test_a_name_that_is_no_utf8_is_escaped_everywhere(tmp_path: Path, run: Run) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.jsonl"
    with open(path, "w") as out:
        out.write(_lines() + "broken\n")
    log = os.fsdecode(path)
    code, out_text, _ = run("check", log)
    assert (code, "\\xff.jsonl, row 31" in out_text) == (0, True)
    assert run("check", log, "--json")[0] == 0
    assert run("scan", log, "--out", str(tmp_path / "out"))[0] == 0
    assert read_results(tmp_path / "out").refusals[0].file.endswith("\\xff.jsonl")


@pytest.mark.parametrize("command", ["scan", "ingest", "sketch"])
def test_a_place_that_is_taken_is_not_touched(command: str, log: str, tmp_path: Path, run: Run) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("years of work")
    more = ["--force"] if command == "scan" else []
    code, _, err = run(command, log, "--out", str(taken), *more)
    assert (code, "already exists" in err) == (4, True)
    code, _, err = run(command, log, "--out", str(tmp_path / "log.jsonl" / "below"))
    assert (code, "part of this path is a file" in err) == (4, True)
    assert _left(tmp_path) == ["log.jsonl", "taken"]
    assert (taken / "thesis.txt").read_text() == "years of work"


def test_results_that_are_not_there_are_named(log: str, tmp_path: Path, run: Run) -> None:
    code, _, err = run("explain", log, "g-1")
    assert (code, "not a results folder" in err) == (5, True)
    code, _, err = run("explain", str(tmp_path / "no"), "g-1")
    assert (code, "no such folder" in err) == (5, True)
