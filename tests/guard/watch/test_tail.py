"""Following files: every line once, whatever happens to the files."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from stillwatch.guard.watch import tail as module
from stillwatch.guard.watch.tail import Tail


def drained(tail: Tail, *, final: bool = False) -> list[str]:
    """All lines that a tail has to give, kept piece by piece."""
    lines: list[str] = []
    while True:
        polled = tail.poll(final=final)
        for piece in polled.pieces:
            lines += piece.data.decode().splitlines()
        tail.advance(polled.state)
        if not polled.pieces:
            return lines


def test_a_line_that_is_not_whole_waits(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"a": 1}\n{"a"')
    tail = Tail([str(log)])
    assert drained(tail) == ['{"a": 1}']
    with log.open("a") as file:
        file.write(': 2}\n{"a": 3}')
    assert drained(tail) == ['{"a": 2}']
    assert drained(tail, final=True) == ['{"a": 3}']


def test_what_is_not_kept_is_read_again_also_after_a_restart(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("1\n2\n")
    tail = Tail([str(log)])
    first = tail.poll()
    assert [piece.data for piece in first.pieces] == [piece.data for piece in tail.poll().pieces]
    tail.advance(first.state)
    assert drained(tail) == []
    with log.open("a") as file:
        file.write("3\n")
    assert drained(Tail([str(log)], first.state)) == ["3"]


@pytest.mark.parametrize("seed", range(6))
def test_every_line_comes_once_through_rotations_and_restarts(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    log = tmp_path / "log.jsonl"
    log.touch()
    state: dict[str, Any] | None = None
    tail = Tail([str(log)])
    written: list[str] = []
    seen: list[str] = []
    for step in range(120):
        what = draw.random()
        if what < 0.6:
            lines = [f"{step}-{i}-{'x' * draw.randrange(900)}" for i in range(draw.randrange(1, 4))]
            written += lines
            with log.open("a") as file:
                file.write("".join(f"{line}\n" for line in lines))
        elif what < 0.7:
            # As logrotate does: older ones move on by one.
            for number in range(40, 0, -1):
                old = tmp_path / f"log.jsonl.{number}"
                if old.exists():
                    old.rename(tmp_path / f"log.jsonl.{number + 1}")
            log.rename(tmp_path / "log.jsonl.1")
            log.touch()
        elif what < 0.8 and state is not None:
            tail = Tail([str(log)], state)
        else:
            polled = tail.poll(draw.choice((300, 1 << 20)))
            seen += [line for piece in polled.pieces for line in piece.data.decode().splitlines()]
            tail.advance(polled.state)
            state = polled.state
    seen += drained(tail if state is None else Tail([str(log)], state))
    assert sorted(seen) == sorted(written)


def test_a_file_that_is_cut_off_begins_anew_and_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("one\ntwo\nthree\n")
    tail = Tail([str(log)])
    assert drained(tail) == ["one", "two", "three"]
    # copytruncate: the copy is a new file under a name that is followed too, with lines that were read.
    os.truncate(log, 0)
    with log.open("a") as file:
        file.write("four\n")
    polled = tail.poll()
    assert polled.truncated == 1
    assert [piece.data for piece in polled.pieces] == [b"four\n"]
    tail.advance(polled.state)
    # Written over with something longer: as long as before is not the same.
    log.write_text("another beginning, longer than all of it before\n")
    assert drained(tail) == ["another beginning, longer than all of it before"]


def test_patterns_take_files_that_appear_later_and_leave_packed_ones(tmp_path: Path) -> None:
    tail = Tail([str(tmp_path / "*.jsonl*")])
    assert drained(tail) == []
    (tmp_path / "a.jsonl").write_text("a\n")
    (tmp_path / "b.jsonl").write_text("b\n")
    (tmp_path / "a.jsonl.1.gz").write_bytes(b"\x1f\x8b packed\n")
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "a.jsonl")
    assert sorted(drained(tail)) == ["a", "b"]
    shutil.rmtree(tmp_path)
    assert drained(tail) == []


def test_a_line_without_end_is_passed_over_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_LINE", 4096)
    monkeypatch.setattr(module, "CHUNK", 1024)
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"before\n" + b"x" * 20_000 + b"\nafter\n")
    tail = Tail([str(log)])
    lines: list[bytes] = []
    refused = 0
    for _ in range(60):
        polled = tail.poll(1024)
        lines += [piece.data for piece in polled.pieces]
        refused += len(polled.refusals)
        tail.advance(polled.state)
    assert b"".join(lines) == b"before\nafter\n"
    assert refused == 1
