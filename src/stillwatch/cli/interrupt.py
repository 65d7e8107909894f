"""Ctrl-C that is not lost.

Python raises KeyboardInterrupt wherever the program happens to be. In a callback whose errors are ignored (a
finaliser, a hook of a just-in-time compiler) it is printed and forgotten, and the program goes on.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """While it is entered, an interrupt is remembered; `check` raises it again if it was swallowed."""

    def __init__(self) -> None:
        self.came = False
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        try:
            self._before = signal.signal(signal.SIGINT, self._note)
        except ValueError:
            # Not the main thread: whoever called us has Ctrl-C.
            self._before = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """KeyboardInterrupt if one came."""
        if self.came:
            raise KeyboardInterrupt
