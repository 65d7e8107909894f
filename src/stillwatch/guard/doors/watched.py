"""The guard of a snapshot file that is replaced from time to time, while requests go on."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path

from stillwatch.guard.decide import Guard
from stillwatch.guard.doors.fetch import Fetched
from stillwatch.guard.doors.journal import told
from stillwatch.guard.secret import Secret, read_secret
from stillwatch.guard.snapshot import load
from stillwatch.schema.errors import StillwatchError, UsageError

VARIABLE = "STILLWATCH_GUARD_SNAPSHOT"
EVERY_S = 0.5
LOG = logging.getLogger("stillwatch.guard")


class Watched:
    """`guard` is always one that is whole and warm: the new one is made beside the old one, then takes its place.

    A snapshot that cannot be loaded changes nothing: it is counted, and the old one goes on until it expires. The new
    guard goes on from what the old one counted after the new snapshot's scan.
    """

    def __init__(
        self, source: Path | str, secret: Secret, *, every_s: float = EVERY_S, token: str | None = None
    ) -> None:
        """Loads the snapshot, compiles, and begins to watch. Raises what `load` raises.

        `source`: a file, or an address that `fetch.Fetched` follows, with `token`.
        """
        self._secret, self._lock = secret, threading.Lock()
        self.fetched: Fetched | None = None
        """The source, where it is no file; its failures are counted there."""
        if isinstance(source, str) and "://" in source:
            self.fetched = Fetched(source, secret, token=token)
            self._path = self.fetched.path
            # Before the first snapshot is loaded nobody is told anything: `look` finds the mark unchanged.
            self._ready = threading.Event()
            self.fetched.start(lambda: self._ready.wait() and self.look())
        else:
            self._path = Path(source)
        self._mark = self._now()
        self.guard = Guard(load(self._path, secret))
        self.guard.warm()
        self.swaps = 0
        self.failed = 0
        """Snapshots that could not be loaded."""
        self.problem: str | None = None
        """What was wrong with the last one, None once one is loaded."""
        self.reason: str | None = None
        """Why no request meets anything but `allow`: `snapshot_expired` or `clock_behind`."""
        self._every_s = every_s
        if self.fetched is not None:
            self._ready.set()
        self._stop = threading.Event()
        self._start()
        # Threads do not survive a fork (gunicorn's --preload), and a lock may be held by one of them.
        me = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _again(me()))

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._watch, name="stillwatch-guard", daemon=True)
        self._thread.start()

    def forked(self) -> None:
        """Go on in a process that was just forked from the one that made this."""
        if not self._stop.is_set():
            self._stop = threading.Event()
            self.guard.forked()
            self._start()

    def close(self) -> None:
        """Stop watching."""
        if self.fetched is not None:
            self.fetched.close()
        self._stop.set()
        self._thread.join()

    def look(self) -> bool:
        """Load the snapshot if the file is another one than before; whether a new guard took over."""
        with self._lock:
            return self._look()

    def _look(self) -> bool:
        mark = self._now()
        if mark == self._mark:
            return False
        self._mark = mark
        try:
            guard = Guard(load(self._path, self._secret))
            guard.warm()
            # Twice: the first time takes long, and requests come meanwhile.
            number = guard.follow(self.guard)
            guard.succeed(self.guard, number)
        except Exception as error:
            # Out of memory, say. This thread must go on, whatever it was.
            self.failed += 1
            self.problem = error.what if isinstance(error, StillwatchError) else type(error).__name__
            told("snapshot_failed", problem=self.problem, failed=self.failed)
            return False
        self.guard, self.problem = guard, None
        self.swaps += 1
        told(
            "snapshot_swapped",
            level=logging.INFO,
            swaps=self.swaps,
            mode=guard.snapshot.policy.mode,
            expires_us=guard.snapshot.meta.expires_us,
        )
        return True

    def _now(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _watch(self) -> None:
        stop = self._stop
        while not stop.wait(self._every_s):
            self.look()
            reason = self.guard.idle(time.time_ns() // 1000)
            if reason is not None and reason != self.reason:
                LOG.error("nothing is acted on: %s", reason)
            self.reason = reason


def _again(watched: Watched | None) -> None:
    if watched is not None:
        watched.forked()


def watched(environment: Mapping[str, str] | None = None) -> Watched:
    """By the environment: STILLWATCH_GUARD_SNAPSHOT and the secret. UsageError where it names no snapshot."""
    env = os.environ if environment is None else environment
    if not env.get(VARIABLE):
        raise UsageError("the guard has no snapshot", hint=f"set {VARIABLE} to the file, or to its address")
    token = env.get("STILLWATCH_GUARD_TOKEN") or None
    return Watched(env[VARIABLE], read_secret(None, env), token=token)
