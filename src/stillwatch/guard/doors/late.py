"""A guard that need not be there yet: for processes that must start whether or not there is a snapshot."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from stillwatch.guard.decide import Guard
from stillwatch.guard.doors.watched import VARIABLE, Watched
from stillwatch.guard.secret import read_secret
from stillwatch.schema.errors import StillwatchError

LOG = logging.getLogger("stillwatch.guard")
EVERY_S = 0.5


class Late:
    """Loads the snapshot at once if it can, and goes on trying where it cannot. Afterwards it is `Watched`."""

    def __init__(self, path: Path | str | None = None, *, every_s: float = EVERY_S) -> None:
        """`path`: STILLWATCH_GUARD_SNAPSHOT if not given. Raises nothing: what is wrong is logged, once each time
        that it is something else."""
        self._path, self._every_s = path, every_s
        self.watched: Watched | None = None
        self.problem: str | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if not self._load():
            self._thread = threading.Thread(target=self._try, name="stillwatch-late", daemon=True)
            self._thread.start()

    @property
    def guard(self) -> Guard | None:
        """None while no snapshot has been loaded."""
        watched = self.watched
        return None if watched is None else watched.guard

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self.watched is not None:
            self.watched.close()

    def _load(self) -> bool:
        path = self._path or os.environ.get(VARIABLE) or None
        try:
            if path is None:
                problem = f"no snapshot is named: set {VARIABLE} to the file"
            else:
                token = os.environ.get("STILLWATCH_GUARD_TOKEN") or None
                self.watched = Watched(path, read_secret(), token=token)
                self.problem = None
                known = self.watched.guard.snapshot
                # As a warning, so that it is seen: from here on requests are judged.
                LOG.warning(
                    "the guard is ready: mode %s, %d campaigns, %d accounts", known.policy.mode,
                    len(known.meta.campaigns), known.accounts,
                )  # fmt: skip
                return True
        except StillwatchError as error:
            problem = error.what
        except Exception as error:
            problem = type(error).__name__
        if problem != self.problem:
            LOG.error("the guard has no snapshot, and no request is judged: %s", problem)
        self.problem = problem
        return False

    def _try(self) -> None:
        while not self._stop.wait(self._every_s):
            if self._load():
                return
