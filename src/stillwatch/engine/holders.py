"""How many accounts hold each of a log's values: a count of distinct owners that never leaves the cache.

The range of the values' hashes is cut into buckets; one pass puts every value into its bucket, and each bucket is
counted in a small table of its own (radix partitioning: Manegold, Boncz and Kersten 2002, IEEE TKDE 14(4)). Rows come
in the order of their accounts, so that equal owners of a value stand next to each other.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]

BUCKET = 1 << 14
"""Values per bucket: with its table, about half a megabyte."""
MOST_AT_ONCE = 1 << 25
"""Values that are sorted into buckets at once: 12 bytes each."""

_U = np.uint64


@nb.njit(inline="always")
def mixed(h: Any) -> Any:
    h = (h ^ (h >> _U(31))) * _U(0x9E3779B97F4A7C15)
    return h ^ (h >> _U(32))


@nb.njit(nogil=True, cache=True)
def _bucket_sizes(order: Any, offsets: Any, values: Any, buckets: int) -> Any:
    """How many values fall into each bucket of the hash range."""
    sizes = np.zeros(buckets, np.int64)
    for i in range(len(order)):
        row = order[i]
        for j in range(offsets[row], offsets[row + 1]):
            sizes[np.int64(((mixed(values[j]) >> _U(32)) * _U(buckets)) >> _U(32))] += 1
    return sizes


@nb.njit(nogil=True, cache=True)
def _scatter(
    order: Any,
    account: Any,
    offsets: Any,
    values: Any,
    buckets: int,
    low: int,
    starts: Any,
    out: Any,
    by: Any,
) -> None:
    """Values of the buckets low, low+1, ... and who holds them, bucket by bucket, in the order of the rows."""
    high = low + len(starts)
    for i in range(len(order)):
        row = order[i]
        owner = account[row]
        for j in range(offsets[row], offsets[row + 1]):
            bucket = np.int64(((mixed(values[j]) >> _U(32)) * _U(buckets)) >> _U(32))
            if bucket < low or bucket >= high:
                continue
            at = starts[bucket - low]
            out[at] = values[j]
            by[at] = owner
            starts[bucket - low] = at + 1


@nb.njit(nogil=True, cache=True)
def _count_buckets(values: Any, by: Any, bounds: Any, least: int, most: int) -> Any:
    """Values with `least`..`most` holders in each bucket. Equal holders of a value stand next to each other."""
    out_key = np.empty(1 << 12, np.uint64)
    out_held = np.empty(1 << 12, np.int32)
    used = 0
    for b in range(len(bounds) - 1):
        begin, end = bounds[b], bounds[b + 1]
        size = 16
        while size < 2 * (end - begin):
            size *= 2
        keys = np.zeros(size, np.uint64)
        last = np.full(size, -1, np.int32)
        holders = np.zeros(size, np.int32)
        mask = _U(size - 1)
        for i in range(begin, end):
            value = values[i]
            if value == _U(0):
                continue
            s = mixed(value) & mask
            while keys[s] != _U(0) and keys[s] != value:
                s = (s + _U(1)) & mask
            keys[s] = value
            if last[s] != by[i]:
                last[s] = by[i]
                holders[s] += 1
        for s in range(size):
            if holders[s] >= least and holders[s] <= most:
                if used == len(out_key):
                    more_key = np.empty(used * 2, np.uint64)
                    more_key[:used] = out_key
                    out_key = more_key
                    more_held = np.empty(used * 2, np.int32)
                    more_held[:used] = out_held
                    out_held = more_held
                out_key[used] = keys[s]
                out_held[used] = holders[s]
                used += 1
    return out_key[:used], out_held[:used]


def held_values(
    order: I64, account: I32, offsets: I64, values: npt.NDArray[np.uint64], least: int, most: int
) -> tuple[U64, I32]:
    """Values with `least`..`most` holders: (value sorted, holders).

    Row r has `values[offsets[r]:offsets[r+1]]` and belongs to `account[r]`; `order`: the rows, sorted by account.

    The hash range is cut into buckets that fit the cache, and as many of them are taken at once as fit
    `MOST_AT_ONCE`: a table over all postings would miss the cache at every one of them.
    """
    buckets = max(1, int(offsets[-1]) // BUCKET)
    sizes = _bucket_sizes(order, offsets, values, buckets)
    found: list[tuple[U64, I32]] = []
    low = 0
    while low < buckets:
        high = low + max(1, int(np.searchsorted(np.cumsum(sizes[low:]), MOST_AT_ONCE, side="right")))
        bounds = np.concatenate([[0], np.cumsum(sizes[low:high])]).astype(np.int64)
        out, by = np.empty(int(bounds[-1]), np.uint64), np.empty(int(bounds[-1]), np.int32)
        _scatter(order, account, offsets, values, buckets, low, bounds[:-1].copy(), out, by)
        half = len(bounds) // 2
        pieces = [bounds[: half + 1], bounds[half:]] if half else [bounds]
        with ThreadPoolExecutor(len(pieces)) as pool:
            found += pool.map(partial(_count_buckets, out, by, least=least, most=most), pieces)
        low = high
    key = np.concatenate([k for k, _ in found])
    held = np.concatenate([h for _, h in found])
    rank = np.argsort(key)
    return key[rank], held[rank]
