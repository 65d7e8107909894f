"""Wherever a writing process ends: no gap and no double, and what was acknowledged is there."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillwatch.evidence import log as log_module
from stillwatch.evidence.database import connect
from stillwatch.evidence.log import TransparencyLog
from stillwatch.evidence.read import checkpoint, entries
from stillwatch.evidence.verify import verify
from stillwatch.schema import JournalError, OutputError, StillwatchError
from tests.evidence.conftest import KEY, events_of, ticking

WRITER = """
import sys
from pathlib import Path
from tests.evidence.conftest import KEY
from stillwatch.evidence.log import TransparencyLog

with TransparencyLog(Path(sys.argv[1]), KEY) as log:
    for n in range(int(sys.argv[2]), 10**9, 3):
        log.append_all([("scan", {"n": k}) for k in range(n, n + 3)])
        print(n + 3, flush=True)
"""
ROOT = Path(__file__).parents[2]


class Killed(BaseException):
    """The process ends here."""


class Breaks:
    """A connection that fails at its `left`-th statement: before it is carried out, or after."""

    def __init__(
        self, db: sqlite3.Connection, left: int, how: Callable[[], BaseException], after: bool
    ) -> None:
        self._db, self._left, self._how, self._after = db, left, how, after
        self.used = 0

    def execute(self, *given: Any) -> Any:
        """As the connection does."""
        return self._done(self._db.execute, *given)

    def executemany(self, *given: Any) -> Any:
        """As the connection does."""
        return self._done(self._db.executemany, *given)

    def _done(self, call: Any, *given: Any) -> Any:
        self.used += 1
        mine = self.used == self._left
        if mine and not self._after:
            raise self._how()
        result = call(*given)
        if mine:
            raise self._how()
        return result

    def __getattr__(self, name: str) -> Any:
        """Everything else is the connection's."""
        return getattr(self._db, name)


BATCH = [("scan", {"n": n}) for n in range(3)]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "how", [Killed, lambda: sqlite3.OperationalError("disk I/O error")], ids=["killed", "failed"]
)
@pytest.mark.parametrize("what", ["append", "remove"])
def test_a_fault_at_any_statement_leaves_all_or_nothing(
    made: Path, how: Callable[[], BaseException], after: bool, what: str
) -> None:
    whole = made.read_bytes()
    left, done = 1, 0
    while True:
        made.write_bytes(whole)
        log = TransparencyLog(made, KEY, ticking())
        real = log._db
        breaks = Breaks(real, left, how, after)
        log._db = breaks  # type: ignore[assignment]

        def act(log: TransparencyLog = log) -> None:
            log.append_all(BATCH) if what == "append" else log.remove_payload(5)

        try:
            act()
        except (Killed, StillwatchError):
            done += 1
        else:
            assert breaks.used < left
            break
        finally:
            log._db = real
        # The same process goes on, or another one: either way it is told again, and is there once.
        if how is Killed:
            real.close()
            log = TransparencyLog(made, KEY, ticking())
        _all_or_nothing(made, what)
        act(log)
        log.close()
        proved = verify(made)
        assert (proved.entries, proved.removed) == ((16, 0) if what == "append" else (14, 1))
        left += 1
    assert done >= (15 if what == "append" else 10)


def _all_or_nothing(path: Path, what: str) -> None:
    proved = verify(path)
    if what == "append":
        assert proved.kinds["scan"] in (0, 3)
    else:
        assert (proved.removed, proved.kinds["payload_removed"]) in ((0, 0), (1, 1))


def test_a_log_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, path, left = log_module.make, tmp_path / "log", 0
    while not path.exists():
        left += 1
        assert list(tmp_path.iterdir()) == []
        monkeypatch.setattr(
            log_module, "make", lambda draft, left=left: Breaks(real(draft), left, Killed, False)
        )
        with contextlib.suppress(Killed):
            TransparencyLog.create(path, KEY, "example.com/log").close()
    assert left >= 4
    assert verify(path).entries == 1


def test_killed_at_random_times_no_gap_and_no_double(made: Path) -> None:
    rng = random.Random(os.environ.get("STILLWATCH_SEED", "11"))
    acknowledged = 0
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(made), str(max(0, acknowledged - 6))],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        told = process.stdout.read().split()
        process.stdout.close()
        process.wait()
        acknowledged = max([acknowledged, *map(int, told)])
        count = verify(made).kinds["scan"]
        assert count >= acknowledged
        # All of a batch or nothing of it, in order, each once.
        assert count % 3 == 0
        assert _numbers(made) == list(range(count))
    assert acknowledged > 30


def _numbers(path: Path) -> list[int]:
    return [json.loads(payload or b"")["n"] for _, kind, payload in events_of(path) if kind == "scan"]


def test_two_processes_that_write_the_same_at_once_write_it_once(made: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(made), "0"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        for _ in range(40):
            process.stdout.readline()
    for process in processes:
        process.kill()
        process.communicate()
    assert _numbers(made) == list(range(verify(made).kinds["scan"]))
    assert verify(made).kinds["scan"] >= 120


def test_one_that_holds_the_file_for_too_long_is_told_of(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillwatch.evidence.database.WAIT_S", 0.1)
    with (
        TransparencyLog(made, KEY) as log,
        contextlib.closing(sqlite3.connect(made, isolation_level=None)) as db,
    ):
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutputError, match="another process"):
            log.append("scan", {"n": 1})
        # Who only looks does not have to wait.
        assert verify(made).entries == 13
        db.execute("ROLLBACK")
        log.append("scan", {"n": 1})
    assert verify(made).entries == 14


def test_a_log_is_read_where_nothing_can_be_written(made: Path) -> None:
    # Root may write everywhere: then somebody else reads.
    reader = os.getuid() or 65534
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy = folder / "log"
        copy.write_bytes(made.read_bytes())
        copy.chmod(0o444)
        folder.chmod(0o555)
        try:
            os.seteuid(reader)
            assert verify(copy).entries == 13
            with pytest.raises(OutputError, match="cannot be opened"):
                TransparencyLog(copy, KEY)
        finally:
            os.seteuid(os.getuid())
            folder.chmod(0o700)
        assert [path.name for path in folder.iterdir()] == ["log"]


def test_who_reads_changes_nothing_and_leaves_nothing(made: Path) -> None:
    before = made.read_bytes()
    verify(made)
    checkpoint(made)
    assert len(list(entries(made))) == 13
    assert made.read_bytes() == before
    assert [path.name for path in made.parent.iterdir()] == ["log"]
    with contextlib.closing(connect(made, write=False)) as db, pytest.raises(sqlite3.OperationalError):
        db.execute("DELETE FROM entries")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "there is no transparency log"),
        (b"", "no transparency log"),
        (b"not a database at all " * 999, "no transparency log"),
        (b"SQLite format 3\0" + b"\xff" * 5000, "log"),
    ],
)
def test_other_files_are_no_log(tmp_path: Path, data: bytes | None, told: str) -> None:
    path = tmp_path / "log"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(JournalError, match=told):
        verify(path)
    with pytest.raises((JournalError, OutputError)):
        TransparencyLog(path, KEY)
    with pytest.raises(JournalError, match="there is no transparency log"):
        verify(tmp_path)
