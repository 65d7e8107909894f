"""The process in which a scan of the window runs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading

import msgspec

from stillwatch.guard.watch.rescan import Job, Outcome

NICE = 10
"""Scans give way to whatever else the machine does."""


class Child:
    """One job in a process of its own, from its start to its outcome."""

    def __init__(self, job: Job) -> None:
        """Starts it."""
        self.job = job
        self._output: list[bytes] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stillwatch.guard.watch.rescan"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: os.nice(NICE) and None,
        )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(msgspec.json.encode(job))
            self._process.stdin.close()
        # What it prints is read while it runs: a full pipe would stop it.
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def _drain(self) -> None:
        assert self._process.stdout is not None
        self._output.append(self._process.stdout.read())

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._end()

    def outcome(self) -> Outcome:
        """How it went, once it has ended; an outcome with an error where it told none."""
        code = self._end()
        try:
            return msgspec.json.decode(b"".join(self._output), type=Outcome)
        except msgspec.DecodeError:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            return Outcome(error=f"the scan's process ended with {how}; is there enough memory?")

    def _end(self) -> int:
        code = self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code
