"""Hash aggregation of (group, key) rows, in numba: the reduce step of the embedded engine.

Rows arrive in any order; the result is sorted, so it does not depend on the order of rows, files or batches.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from stillwatch.engine.holders import grouped, weights
from stillwatch.engine.threads import cuts, each, workers

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


@nb.njit(nogil=True, cache=True)
def _tally(
    order: Any, starts: Any, first: int, end: int, row_names: Any, names: Any, times: Any, distinct: int
) -> Any:
    """(account, name, count, first, last) of the accounts first..end-1, names in the order in which they are met."""
    count = np.zeros(distinct, np.int32)
    early = np.zeros(distinct, np.int64)
    late = np.zeros(distinct, np.int64)
    touched = np.empty(distinct, np.int32)
    account = np.empty(1 << 12, np.int32)
    name = np.empty(1 << 12, np.int32)
    many = np.empty(1 << 12, np.int32)
    since = np.empty(1 << 12, np.int64)
    until = np.empty(1 << 12, np.int64)
    used = 0
    for a in range(first, end):
        met = 0
        for i in range(starts[a], starts[a + 1]):
            row = order[i]
            t = times[row]
            for j in range(row_names[row], row_names[row + 1]):
                k = names[j]
                if count[k] == 0:
                    touched[met] = k
                    met += 1
                    early[k] = t
                    late[k] = t
                count[k] += 1
                early[k] = min(early[k], t)
                late[k] = max(late[k], t)
        if used + met > len(account):
            room = 2 * (used + met)
            account, name, many = (
                _more32(account, used, room),
                _more32(name, used, room),
                _more32(many, used, room),
            )
            since, until = _more64(since, used, room), _more64(until, used, room)
        for i in range(met):
            k = touched[i]
            account[used] = a
            name[used] = k
            many[used] = count[k]
            since[used] = early[k]
            until[used] = late[k]
            used += 1
            count[k] = 0
    return account[:used], name[:used], many[:used], since[:used], until[:used]


@nb.njit(nogil=True, cache=True)
def _more32(old: Any, used: int, room: int) -> Any:
    out = np.empty(room, np.int32)
    out[:used] = old[:used]
    return out


@nb.njit(nogil=True, cache=True)
def _more64(old: Any, used: int, room: int) -> Any:
    out = np.empty(room, np.int64)
    out[:used] = old[:used]
    return out


def tally(
    account: npt.NDArray[np.int32],
    times: npt.NDArray[np.int64],
    row: npt.NDArray[np.int64],
    name: npt.NDArray[np.int32],
    accounts: int,
    names: int,
) -> tuple[npt.NDArray[Any], ...]:
    """(account, name, count, first, last) of each pair that occurs, accounts in order, names in no order.

    Row r of the log is `account[r]`'s and came at `times[r]`; `row`, `name` are parallel, `row` sorted: what the rows
    carry, as dense codes. Faster than an `Aggregate`, for an account's rows are read one after the other.
    """
    order, starts = grouped(account, accounts)
    row_names = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(account)))])
    parts = each(
        lambda p: _tally(order, starts, *p, row_names, name, times, names),
        cuts(weights(order, starts, row_names), workers()),
    )
    return tuple(np.concatenate([part[i] for part in parts]) for i in range(5))


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
