"""Hash aggregation of (group, key) rows, in numba: the reduce step of the embedded engine.

Rows arrive in any order; the result is sorted, so it does not depend on the order of rows, files or batches.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

_U = np.uint64
_C1 = _U(0x9E3779B97F4A7C15)
_C2 = _U(0xD6E8FEB86659FD93)
_EMPTY = np.int32(-1)


@nb.njit(inline="always")
def _slot(group: Any, key: Any, mask: int) -> Any:
    h = (_U(key) ^ (_U(group) * _C2)) * _C1
    h ^= h >> _U(32)
    h *= _C2
    h ^= h >> _U(29)
    return np.int64(h & _U(mask))


@nb.njit(nogil=True, cache=True)
def _insert(
    groups: Any,
    keys: Any,
    times: Any,
    start: int,
    tg: Any,
    tk: Any,
    tc: Any,
    tf: Any,
    tl: Any,
    used: int,
    limit: int,
) -> tuple[int, int]:
    """Insert rows from `start`; stop when the table is `limit` full. Returns (next row, used slots)."""
    mask = len(tg) - 1
    n = len(groups)
    for i in range(start, n):
        key = keys[i]
        if key == _U(0):
            continue
        if used >= limit:
            return i, used
        group = groups[i]
        t = times[i]
        s = _slot(group, key, mask)
        while True:
            if tg[s] == -1:
                tg[s] = group
                tk[s] = key
                tc[s] = 1
                tf[s] = t
                tl[s] = t
                used += 1
                break
            if tg[s] == group and tk[s] == key:
                tc[s] += 1
                if t < tf[s]:
                    tf[s] = t
                if t > tl[s]:
                    tl[s] = t
                break
            s = (s + 1) & mask
    return n, used


@nb.njit(nogil=True, cache=True)
def _rehash(og: Any, ok: Any, oc: Any, of: Any, ol: Any, tg: Any, tk: Any, tc: Any, tf: Any, tl: Any) -> None:
    mask = len(tg) - 1
    for i in range(len(og)):
        if og[i] == -1:
            continue
        s = _slot(og[i], ok[i], mask)
        while tg[s] != -1:
            s = (s + 1) & mask
        tg[s] = og[i]
        tk[s] = ok[i]
        tc[s] = oc[i]
        tf[s] = of[i]
        tl[s] = ol[i]


class Aggregate:
    """Counts rows by (group, key), with the first and last time of each pair.

    `group` is a non-negative int32 (an account code), `key` a uint64 other than 0 (0 means "no key" and is
    skipped), times are int64 microseconds.
    """

    def __init__(self, capacity: int = 1 << 14) -> None:
        size = 1 << max(4, (capacity - 1).bit_length())
        self._used = 0
        self._arrays = self._empty(size)

    @staticmethod
    def _empty(size: int) -> tuple[npt.NDArray[Any], ...]:
        return (
            np.full(size, _EMPTY, np.int32),
            np.zeros(size, np.uint64),
            np.zeros(size, np.int32),
            np.zeros(size, np.int64),
            np.zeros(size, np.int64),
        )

    def __len__(self) -> int:
        return self._used

    def add(
        self, groups: npt.NDArray[np.int32], keys: npt.NDArray[np.uint64], times: npt.NDArray[np.int64]
    ) -> None:
        """Add rows; the three arrays have one shape (rows,)."""
        row = 0
        while row < len(groups):
            limit = len(self._arrays[0]) * 5 // 8
            row, self._used = _insert(groups, keys, times, row, *self._arrays, self._used, limit)
            if row < len(groups):
                bigger = self._empty(len(self._arrays[0]) * 2)
                _rehash(*self._arrays, *bigger)
                self._arrays = bigger

    def rows(
        self,
    ) -> tuple[
        npt.NDArray[np.int32],
        npt.NDArray[np.uint64],
        npt.NDArray[np.int32],
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
    ]:
        """Return (group, key, count, first, last), sorted by (group, key)."""
        filled = np.flatnonzero(self._arrays[0] >= 0)
        groups, keys, counts, first, last = (a[filled] for a in self._arrays)
        order = np.lexsort((keys, groups))
        return groups[order], keys[order], counts[order], first[order], last[order]
