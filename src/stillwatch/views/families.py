"""FORM: prompt families by containment, from the postings of the sketch.

A *family* is a set of postings (hashes of three consecutive words) that the same accounts use next to each other:
the invariant text of a template, whatever payload stands around it. The idea, in passes over the postings:

1. count the accounts that hold each posting;
2. count the accounts that hold each *pair* of neighbouring kept postings;
3. merge the two postings of a pair when most holders of the rarer one hold both side by side
   (`PAIR_SHARE`) and their holders are of one order of magnitude (`BALANCE`); the connected sets are families;
4. do the same once more with the families shorter than `LONG`: a text of everyday clauses has nothing of its own
   but the places where they meet;
5. a prompt belongs to a family when at least half of the family's postings that its selection rate lets
   through occur in it, or `ENOUGH` of them, in any order.

Whole-prompt similarity (MinHash over the entire text) loses a 150-byte template around a 4 KB payload; here the
payload only costs memory. The price is two passes over all postings, and everyday phrases become families too:
they have many unrelated holders and so weigh next to nothing in what follows.
Sources of the ingredients: FracMinHash containment (Hera et al. 2023, doi:10.1101/gr.277651.123); shingles
(Broder 1997, doi:10.1109/SEQUEN.1997.666900).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from stillwatch.engine.holders import RECENT, Holdings, count_holders, grouped, holdings, mixed, weights
from stillwatch.engine.threads import cuts, each, workers
from stillwatch.views.base import I32, I64, U64

MIN_HOLDERS = 5
"""A posting with fewer holders cannot be the template of a group worth naming."""
MAX_SHARE = 0.3
"""Postings that more than this share of all accounts use are ordinary language."""
PAIR_SHARE = 0.6
BALANCE = 0.6
ENOUGH, LEAST_ENOUGH = 6, 3
"""Postings of a family that are enough to belong to it, however large it is: all of them, in texts that keep all; and
in long texts, which keep a part. A template with interchangeable clauses is one family, of which a prompt has a part.
"""
WINDOW = 2
LONG = 3
"""Postings from which a family needs no other one: five words in a row."""
REACH = 6
"""Short families that stand at most this many others apart are pieces of one text."""
LEVELS = 16

_U = np.uint64


@dataclass(frozen=True, slots=True)
class Families:
    """Families and who holds them. `row`, `family` are parallel: row r of the log belongs to that family."""

    key: U64
    """Postings that are in a family, sorted, shape (keys,)."""
    key_family: I32
    """Family of each posting, shape (keys,)."""
    fingerprint: U64
    """Smallest posting of each family, shape (families,): its name across scans."""
    row: I64
    family: I32

    def __len__(self) -> int:
        return len(self.fingerprint)


@nb.njit(nogil=True, cache=True)
def _lookup(keys: Any, size: int) -> Any:
    """Hash table of the keys: slot s holds a key and its index in the words 2s and 2s+1; a key of 0 is none."""
    mask = _U(size - 1)
    table = np.zeros(2 * size, np.uint64)
    for i in range(len(keys)):
        s = np.int64(mixed(keys[i]) & mask)
        while table[2 * s] != _U(0):
            s = np.int64(_U(s + 1) & mask)
        table[2 * s] = keys[i]
        table[2 * s + 1] = i
    return table


@nb.njit(nogil=True, cache=True)
def _keep(first: int, end: int, offsets: Any, values: Any, table: Any, kept: Any, length: Any) -> None:
    """The kept postings of the rows first..end-1 as indices of keys, in document order.

    Row r has them in `kept[offsets[r]:offsets[r]+length[r]]`.
    """
    mask = _U(len(table) // 2 - 1)
    slots = np.empty(1 << 10, np.int64)
    there = np.empty(1 << 10, np.uint64)
    for row in range(first, end):
        begin, n = offsets[row], offsets[row + 1] - offsets[row]
        if n > len(slots):
            slots, there = np.empty(2 * n, np.int64), np.empty(2 * n, np.uint64)
        # All slots of a row are fetched before one is looked at: the cache misses wait for each other otherwise.
        for j in range(n):
            s = np.int64(mixed(values[begin + j]) & mask)
            slots[j] = s
            there[j] = table[2 * s]
        at = begin
        for j in range(n):
            value, s, found = values[begin + j], slots[j], there[j]
            while found != value and found != _U(0):
                s = np.int64(_U(s + 1) & mask)
                found = table[2 * s]
            kept[at] = np.int32(table[2 * s + 1])
            at += found != _U(0)
        length[row] = at - begin


@nb.njit(nogil=True, cache=True)
def _pairs(
    order: Any,
    starts: Any,
    first: int,
    end: int,
    offsets: Any,
    length: Any,
    kept: Any,
    holders: Any,
    window: int,
    balance: float,
) -> Any:
    """Neighbouring kept postings as one uint64 (smaller index, larger index): (ends, pairs) as in `Holdings`.

    Pairs whose holders are not balanced merge nothing and are left out, and so is most of what an account repeats.
    """
    room = 0
    longest = 0
    for i in range(starts[first], starts[end]):
        room += window * length[order[i]]
        longest = max(longest, length[order[i]])
    out = np.empty(room, np.uint64)
    ends = np.empty(end - first, np.int64)
    recent = np.zeros(2 * RECENT, np.uint64)
    held = np.empty(longest, np.float64)
    pairs = np.empty(window * longest + 1, np.uint64)
    used = 0
    for account in range(first, end):
        owner = _U(account + 1)
        for r in range(starts[account], starts[account + 1]):
            row = order[r]
            begin, n = offsets[row], length[row]
            for i in range(n):
                held[i] = holders[kept[begin + i]]
            # First all pairs of a row without a branch, then those that fit: few do, and which is anybody's guess.
            fits = 0
            for step in range(1, window + 1):
                for i in range(n - step):
                    a, b = kept[begin + i], kept[begin + i + step]
                    pairs[fits] = (_U(min(a, b) + 1) << _U(32)) | _U(max(a, b) + 1)
                    one, other = held[i], held[i + step]
                    fits += (a != b) & (one >= balance * other) & (other >= balance * one)
            for i in range(fits):
                pair = pairs[i]
                s = np.int64(mixed(pair) & _U(RECENT - 1))
                out[used] = pair
                used += (recent[2 * s] != pair) | (recent[2 * s + 1] != owner)
                recent[2 * s] = pair
                recent[2 * s + 1] = owner
        ends[account - first] = used
    return ends, out[:used]


@nb.njit(nogil=True, cache=True)
def _union(pairs: Any, together: Any, holders: Any, pair_share: float, balance: float) -> Any:
    parent = np.arange(len(holders)).astype(np.int32)
    for i in range(len(pairs)):
        a = np.int64(pairs[i] >> _U(32)) - 1
        b = np.int64(pairs[i] & _U(0xFFFFFFFF)) - 1
        low = min(holders[a], holders[b])
        high = max(holders[a], holders[b])
        if together[i] < pair_share * low or low < balance * high:
            continue
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a != b:
            parent[max(a, b)] = min(a, b)
    for i in range(len(parent)):
        root = i
        while parent[root] != root:
            root = parent[root]
        parent[i] = root
    return parent


@nb.njit(nogil=True, cache=True)
def _assign(
    first: int, end: int, offsets: Any, length: Any, kept: Any, key_family: Any, need: Any, level: Any
) -> Any:
    """(row, family) of the rows first..end-1 that hold at least `need[level, family]` of a family's postings."""
    hits = np.zeros(need.shape[1], np.int32)
    touched = np.empty(1 << 12, np.int32)
    seen = np.full(len(key_family), -1, np.int32)
    rows = np.empty(1 << 16, np.int64)
    names = np.empty(1 << 16, np.int32)
    used = 0
    for row in range(first, end):
        count = 0
        for i in range(offsets[row], offsets[row] + length[row]):
            key = kept[i]
            family = key_family[key]
            if family < 0 or seen[key] == row - first:
                continue
            seen[key] = row - first
            if hits[family] == 0:
                if count == len(touched):
                    more = np.empty(len(touched) * 2, np.int32)
                    more[:count] = touched
                    touched = more
                touched[count] = family
                count += 1
            hits[family] += 1
        if used + count > len(rows):
            more_rows = np.empty((used + count) * 2, np.int64)
            more_rows[:used] = rows[:used]
            rows = more_rows
            more_names = np.empty((used + count) * 2, np.int32)
            more_names[:used] = names[:used]
            names = more_names
        for i in range(count):
            family = touched[i]
            if hits[family] >= need[level[row], family]:
                rows[used] = row
                names[used] = family
                used += 1
            hits[family] = 0
    return rows[:used], names[:used]


@nb.njit(nogil=True, cache=True)
def _pieces(first: int, end: int, offsets: Any, length: Any, kept: Any, piece: Any) -> None:
    """Replace the kept postings of the rows first..end-1 by their pieces; `piece` is -1 for those in none."""
    for row in range(first, end):
        begin = offsets[row]
        used = begin
        for i in range(begin, begin + length[row]):
            name = piece[kept[i]]
            if name >= 0 and (used == begin or kept[used - 1] != name):
                kept[used] = name
                used += 1
        length[row] = used - begin


def selection_level(keys: U64) -> npt.NDArray[np.int64]:
    """The highest level of the sketch's selection at which a posting is still let through, 0..LEVELS-1."""
    high = (keys >> np.uint64(40)).astype(np.int64)
    level = np.zeros(len(keys), np.int64)
    for step in range(1, LEVELS):
        level[high < ((1 << 24) >> step)] = step
    return level


def needed(key: U64, key_family: I32, families: int) -> I32:
    """Postings of a family that a text must hold to belong to it, by selection level of the text.

    `key` and `key_family` (keys,): each family's postings; returns int32 (LEVELS, families).
    """
    levels = selection_level(key)
    need = np.zeros((LEVELS, families), np.int32)
    for step in range(LEVELS):
        visible = np.bincount(key_family[levels >= step], minlength=families)
        half = np.where(visible <= 1, 1, np.maximum(2, (visible + 1) // 2))
        need[step] = np.minimum(half, max(LEAST_ENOUGH, ENOUGH >> step))
    return need


def posting_table(key: U64) -> U64:
    """Hash table of distinct postings: slot s holds one and its index in the words 2s and 2s+1; 0 is none.

    A posting's first slot is its `mixed` hash modulo the number of slots, a power of two; then the next free one.
    """
    return np.asarray(_lookup(key, 1 << max(4, (2 * len(key)).bit_length())))


def find_families(
    account: I32, offsets: I64, values: npt.NDArray[np.uint64], level: npt.NDArray[np.uint8], accounts: int
) -> Families:
    """Find the families among the rows of a log.

    `account` int32 (rows,), `offsets` int64 (rows+1,) and `values` uint64: the postings of each row in
    document order, as `PartSketch` gives them; `level` uint8 (rows,): their selection level.
    """
    order, starts = grouped(account, accounts)
    weight = weights(order, starts, offsets)
    most = max(MIN_HOLDERS, int(accounts * MAX_SHARE))
    key, holders = count_holders(holdings(order, starts, weight, offsets, values), MIN_HOLDERS, most)
    rank = np.argsort(key)
    key, holders = key[rank], holders[rank]
    none = np.zeros(0, np.int64)
    if len(key) == 0:
        return Families(key, np.zeros(0, np.int32), np.zeros(0, np.uint64), none, np.zeros(0, np.int32))
    table = posting_table(key)
    # Kept postings stand where the row's postings stand, so that threads need not wait for each other.
    kept, length = np.empty(int(offsets[-1]), np.int32), np.zeros(len(account), np.int32)
    each(lambda p: _keep(*p, offsets, values, table, kept, length), cuts(offsets, workers()))

    def merged(kept: I32, length: I32, holders: I32, window: int) -> I32:
        def pairs(bounds: tuple[int, int]) -> Holdings:
            found = _pairs(order, starts, *bounds, offsets, length, kept, holders, window, BALANCE)
            return Holdings(bounds[0], *found)

        pair, together = count_holders(each(pairs, cuts(weight, workers())), MIN_HOLDERS, most)
        root: I32 = _union(pair, together, holders, PAIR_SHARE, BALANCE)
        return root

    root = merged(kept, length, holders, WINDOW)
    # What is too short to tie anybody: pieces that the same accounts use in the same text are one family.
    short = np.bincount(root, minlength=len(root))[root] < LONG
    piece, piece_length = kept.copy(), length.copy()
    short_root = np.where(short, root, -1).astype(np.int32)
    each(lambda p: _pieces(*p, offsets, piece_length, piece, short_root), cuts(offsets, workers()))
    most_held = holders.copy()
    np.maximum.at(most_held, root, holders)
    root = merged(piece, piece_length, most_held, REACH)[root]
    members = np.bincount(root, minlength=len(root))
    roots = np.flatnonzero(members >= 2)
    number = np.full(len(root), -1, np.int32)
    number[roots] = np.arange(len(roots), dtype=np.int32)
    key_family = number[root]
    inside = key_family >= 0
    need = needed(key[inside], key_family[inside], len(roots))
    level = np.minimum(level, LEVELS - 1)
    found = each(
        lambda p: _assign(*p, offsets, length, kept, key_family, need, level), cuts(offsets, workers())
    )
    row, family = (np.concatenate([part[i] for part in found]) for i in range(2))
    return Families(key[inside], key_family[inside], key[roots], row, family)
