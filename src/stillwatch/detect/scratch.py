"""Arrays that the draws of stage 4 write to, kept from one candidate to the next."""

from __future__ import annotations

import threading

import numpy as np

from stillwatch.detect.population import I32

MOST_SIZES = 4
"""Indexes of one log that are tested side by side, and one more; what an earlier log needed is let go."""


class Scratch(threading.local):
    """A thread's own: to clear them anew for every candidate costs more than most tests of a large log."""

    def __init__(self) -> None:
        self._keys: dict[int, tuple[I32, I32]] = {}
        self._used = np.zeros(0, np.int32)
        self._mark = 1

    def of_keys(self, n_keys: int) -> tuple[I32, I32]:
        """(zeros int32 (keys,), to be left so; int32 (keys + 1,) of no meaning)."""
        if n_keys not in self._keys:
            if len(self._keys) == MOST_SIZES:
                self._keys.clear()
            self._keys[n_keys] = np.zeros(n_keys, np.int32), np.empty(n_keys + 1, np.int32)
        return self._keys[n_keys]

    def marks(self, accounts: int, draws: int) -> tuple[I32, int]:
        """(int32 (accounts,); the first of `draws` whole numbers above 0 in a row that are not in it)."""
        if len(self._used) != accounts or self._mark + draws >= np.iinfo(np.int32).max:
            self._used, self._mark = np.zeros(accounts, np.int32), 1
        first, self._mark = self._mark, self._mark + draws
        return self._used, first
