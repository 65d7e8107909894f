"""How many accounts hold each of a log's values: a count of distinct owners that never leaves the cache.

Values come account by account, so that equal owners of a value stand next to each other, and most of what an account
repeats is left out before anything is counted: a template's words stand in every one of its requests. Then the range
of the values' hashes is cut into buckets; one pass puts every value into its bucket, and each bucket is counted in a
small table of its own (radix partitioning: Manegold, Boncz and Kersten 2002, IEEE TKDE 14(4)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from stillwatch.engine.threads import cuts, each, workers

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]

BUCKET = 1 << 15
"""Values per bucket: with its table, about half a megabyte."""
MOST_AT_ONCE = 1 << 25
"""Values that are sorted into buckets at once: 12 bytes each."""
RECENT = 1 << 14
"""Values of an account that are remembered while its rows are read, to leave out repeats: 16 bytes each."""

_U = np.uint64


@dataclass(frozen=True, slots=True)
class Holdings:
    """Values of neighbouring accounts: `values[ends[i-1]:ends[i]]` are those of account `first` + i."""

    first: int
    ends: I64
    values: U64


@nb.njit(inline="always")
def mixed(h: Any) -> Any:
    h = (h ^ (h >> _U(31))) * _U(0x9E3779B97F4A7C15)
    return h ^ (h >> _U(32))


@nb.njit(nogil=True, cache=True)
def grouped(code: Any, groups: int) -> Any:
    """(places of the codes in order, where each group starts): a stable counting sort; codes below 0 are left out."""
    offsets = np.zeros(groups + 1, np.int64)
    for c in code:
        if c >= 0:
            offsets[c + 1] += 1
    for g in range(groups):
        offsets[g + 1] += offsets[g]
    at = offsets.copy()
    order = np.empty(offsets[groups], np.int64)
    for i in range(len(code)):
        c = code[i]
        if c >= 0:
            order[at[c]] = i
            at[c] += 1
    return order, offsets


@nb.njit(nogil=True, cache=True)
def weights(order: Any, starts: Any, offsets: Any) -> Any:
    """Values before each account, int64 (accounts+1,)."""
    out = np.zeros(len(starts), np.int64)
    for account in range(len(starts) - 1):
        total = out[account]
        for i in range(starts[account], starts[account + 1]):
            total += offsets[order[i] + 1] - offsets[order[i]]
        out[account + 1] = total
    return out


@nb.njit(nogil=True, cache=True)
def _holdings(order: Any, starts: Any, first: int, end: int, offsets: Any, values: Any, room: int) -> Any:
    """(ends, values) of the accounts first..end-1, without most of what an account repeats."""
    out = np.empty(room, np.uint64)
    ends = np.empty(end - first, np.int64)
    recent = np.zeros(2 * RECENT, np.uint64)
    used = 0
    for account in range(first, end):
        owner = _U(account + 1)
        for i in range(starts[account], starts[account + 1]):
            row = order[i]
            for j in range(offsets[row], offsets[row + 1]):
                # Without a branch: whether a value is a repeat is anybody's guess.
                value = values[j]
                s = np.int64(mixed(value) & _U(RECENT - 1))
                out[used] = value
                used += (value != _U(0)) & ((recent[2 * s] != value) | (recent[2 * s + 1] != owner))
                recent[2 * s] = value
                recent[2 * s + 1] = owner
        ends[account - first] = used
    return ends, out[:used]


@nb.njit(nogil=True, cache=True)
def _bucket_sizes(values: Any, buckets: int) -> Any:
    """How many values fall into each bucket of the hash range."""
    sizes = np.zeros(buckets, np.int64)
    for value in values:
        sizes[np.int64(((mixed(value) >> _U(32)) * _U(buckets)) >> _U(32))] += 1
    return sizes


@nb.njit(nogil=True, cache=True)
def _scatter(first: int, ends: Any, values: Any, buckets: int, low: int, at: Any, out: Any, by: Any) -> None:
    """Put values of the buckets low, low+1, ... and who holds them in place; `at`: where each bucket begins."""
    high = low + len(at)
    j = 0
    for i in range(len(ends)):
        while j < ends[i]:
            value = values[j]
            j += 1
            bucket = np.int64(((mixed(value) >> _U(32)) * _U(buckets)) >> _U(32))
            if bucket < low or bucket >= high:
                continue
            place = at[bucket - low]
            out[place] = value
            by[place] = first + i
            at[bucket - low] = place + 1


@nb.njit(nogil=True, cache=True)
def _doubled(table: Any, size: int) -> Any:
    """The first `size` slots of a table in one of twice the size."""
    out = np.zeros(4 * size, np.uint64)
    mask = _U(2 * size - 1)
    for slot in range(size):
        if table[2 * slot] != _U(0):
            s = np.int64(mixed(table[2 * slot]) & mask)
            while out[2 * s] != _U(0):
                s = np.int64(_U(s + 1) & mask)
            out[2 * s], out[2 * s + 1] = table[2 * slot], table[2 * slot + 1]
    return out


@nb.njit(nogil=True, cache=True)
def _count_buckets(values: Any, by: Any, bounds: Any, least: int, most: int) -> Any:
    """Values with `least`..`most` holders in each bucket. Equal holders of a value stand next to each other."""
    out_key = np.empty(1 << 12, np.uint64)
    out_held = np.empty(1 << 12, np.int32)
    used = 0
    # A slot is two words, so that it lies in one line of the cache: the value; its last holder + 1 and its count.
    table = np.zeros(32, np.uint64)
    for b in range(len(bounds) - 1):
        begin, end = bounds[b], bounds[b + 1]
        # Most values have several holders: the table begins small and grows where they do not.
        size = 16
        while 8 * size < end - begin:
            size *= 2
        if len(table) < 2 * size:
            table = np.empty(2 * size, np.uint64)
        table[: 2 * size] = _U(0)
        mask = _U(size - 1)
        filled = 0
        for i in range(begin, end):
            value = values[i]
            s = np.int64(mixed(value) & mask)
            while table[2 * s] != _U(0) and table[2 * s] != value:
                s = np.int64(_U(s + 1) & mask)
            if table[2 * s] == _U(0):
                if 2 * filled >= size:
                    table = _doubled(table, size)
                    size *= 2
                    mask = _U(size - 1)
                    s = np.int64(mixed(value) & mask)
                    while table[2 * s] != _U(0):
                        s = np.int64(_U(s + 1) & mask)
                table[2 * s] = value
                filled += 1
            held = table[2 * s + 1]
            owner = _U(by[i] + 1)
            if (held >> _U(32)) != owner:
                table[2 * s + 1] = (owner << _U(32)) | ((held & _U(0xFFFFFFFF)) + _U(1))
        for slot in range(size):
            holders = np.int64(table[2 * slot + 1] & _U(0xFFFFFFFF))
            if holders >= least and holders <= most:
                if used == len(out_key):
                    more_key = np.empty(used * 2, np.uint64)
                    more_key[:used] = out_key
                    out_key = more_key
                    more_held = np.empty(used * 2, np.int32)
                    more_held[:used] = out_held
                    out_held = more_held
                out_key[used] = table[2 * slot]
                out_held[used] = holders
                used += 1
    return out_key[:used], out_held[:used]


def holdings(order: I64, starts: I64, weight: I64, offsets: I64, values: U64) -> list[Holdings]:
    """The values that each account holds, in as many pieces as there are threads.

    Row r has `values[offsets[r]:offsets[r+1]]`; account a has the rows `order[starts[a]:starts[a+1]]` (`grouped`) and
    `weight[a+1] - weight[a]` values (`weights`).
    """

    def piece(bounds: tuple[int, int]) -> Holdings:
        first, end = bounds
        room = int(weight[end] - weight[first])
        return Holdings(first, *_holdings(order, starts, first, end, offsets, values, room))

    return each(piece, cuts(weight, workers()))


def count_holders(pieces: Sequence[Holdings], least: int, most: int) -> tuple[U64, I32]:
    """Values with `least` (at least 1) to `most` holders, in no order that means anything: (value, holders).

    The hash range is cut into buckets that fit the cache, and as many of them are taken at once as fit
    `MOST_AT_ONCE`: a table over all values would miss the cache at every one of them. No value is 0.
    """
    buckets = max(1, sum(len(p.values) for p in pieces) // BUCKET)
    sizes = np.stack([np.zeros(buckets, np.int64), *each(lambda p: _bucket_sizes(p.values, buckets), pieces)])
    ends = np.cumsum(sizes, axis=0)
    found: list[tuple[U64, I32]] = []
    low = 0
    while low < buckets:
        total = np.cumsum(ends[-1, low:])
        high = low + max(1, int(np.searchsorted(total, MOST_AT_ONCE, side="right")))
        bounds = np.concatenate([[0], total[: high - low]]).astype(np.int64)
        out, by = np.empty(int(bounds[-1]), np.uint64), np.empty(int(bounds[-1]), np.int32)

        def place(
            number: int, low: int = low, high: int = high, into: tuple[Any, ...] = (bounds, out, by)
        ) -> None:
            piece, at = pieces[number], into[0][:-1] + ends[number, low:high]
            _scatter(piece.first, piece.ends, piece.values, buckets, low, at, *into[1:])

        each(place, range(len(pieces)))
        parts = [bounds[a : b + 1] for a, b in cuts(bounds, workers())]
        found += each(partial(_count_buckets, out, by, least=least, most=most), parts)
        low = high
    key = np.concatenate([np.zeros(0, np.uint64), *(k for k, _ in found)])
    held = np.concatenate([np.zeros(0, np.int32), *(h for _, h in found)])
    return key, held
