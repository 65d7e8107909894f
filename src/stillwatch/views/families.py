"""FORM: prompt families by containment, from the postings of the sketch.

A *family* is a set of postings (hashes of three consecutive words) that the same accounts use next to each other:
the invariant text of a template, whatever payload stands around it. The idea, in four passes over the postings:

1. count the accounts that hold each posting;
2. count the accounts that hold each *pair* of neighbouring kept postings;
3. merge the two postings of a pair when most holders of the rarer one hold both side by side
   (`PAIR_SHARE`) and their holders are of one order of magnitude (`BALANCE`); the connected sets are families;
4. a prompt belongs to a family when at least half of the family's postings that its selection rate lets
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

from stillwatch.engine.holders import held_values, mixed
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
    mask = _U(size - 1)
    table = np.full(size, -1, np.int32)
    for i in range(len(keys)):
        s = mixed(keys[i]) & mask
        while table[s] != -1:
            s = (s + _U(1)) & mask
        table[s] = i
    return table


@nb.njit(nogil=True, cache=True)
def _find(value: Any, keys: Any, table: Any) -> int:
    mask = _U(len(table) - 1)
    s = mixed(value) & mask
    while table[s] != -1:
        if keys[table[s]] == value:
            return table[s]
        s = (s + _U(1)) & mask
    return -1


@nb.njit(nogil=True, cache=True)
def _kept_rows(offsets: Any, values: Any, keys: Any, table: Any) -> Any:
    """The kept postings of each row as indices into `keys`, in document order."""
    n = len(offsets) - 1
    out_offsets = np.zeros(n + 1, np.int64)
    out = np.empty(1 << 16, np.int32)
    used = 0
    for row in range(n):
        for j in range(offsets[row], offsets[row + 1]):
            index = _find(values[j], keys, table)
            if index >= 0:
                if used == len(out):
                    bigger = np.empty(len(out) * 2, np.int32)
                    bigger[:used] = out
                    out = bigger
                out[used] = index
                used += 1
        out_offsets[row + 1] = used
    return out_offsets, out[:used]


@nb.njit(nogil=True, cache=True)
def _pairs(offsets: Any, kept: Any, window: int) -> Any:
    """Neighbouring kept postings as one uint64 (smaller index, larger index), per row."""
    n = len(offsets) - 1
    out_offsets = np.zeros(n + 1, np.int64)
    out = np.empty(max(1, len(kept) * window), np.uint64)
    used = 0
    for row in range(n):
        for i in range(offsets[row], offsets[row + 1]):
            for step in range(1, window + 1):
                j = i + step
                if j >= offsets[row + 1]:
                    break
                a, b = kept[i], kept[j]
                if a == b:
                    continue
                if a > b:
                    a, b = b, a
                out[used] = (_U(a + 1) << _U(32)) | _U(b + 1)
                used += 1
        out_offsets[row + 1] = used
    return out_offsets, out[:used]


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
def _assign(offsets: Any, kept: Any, key_family: Any, visible: Any, level: Any) -> Any:
    """(row, family) where half of the family's visible postings occur in the row, or enough of them."""
    families = visible.shape[0]
    hits = np.zeros(families, np.int32)
    touched = np.empty(1 << 12, np.int32)
    seen = np.full(len(key_family), -1, np.int64)
    rows = np.empty(1 << 16, np.int64)
    names = np.empty(1 << 16, np.int32)
    used = 0
    for row in range(len(offsets) - 1):
        count = 0
        for i in range(offsets[row], offsets[row + 1]):
            key = kept[i]
            family = key_family[key]
            if family < 0 or seen[key] == row:
                continue
            seen[key] = row
            if hits[family] == 0:
                if count == len(touched):
                    more = np.empty(len(touched) * 2, np.int32)
                    more[:count] = touched
                    touched = more
                touched[count] = family
                count += 1
            hits[family] += 1
        for i in range(count):
            family = touched[i]
            there = visible[family, level[row]]
            need = 1 if there <= 1 else max(2, (there + 1) // 2)
            need = min(need, max(LEAST_ENOUGH, ENOUGH >> level[row]))
            if hits[family] >= need:
                if used == len(rows):
                    more_rows = np.empty(used * 2, np.int64)
                    more_rows[:used] = rows
                    rows = more_rows
                    more_names = np.empty(used * 2, np.int32)
                    more_names[:used] = names
                    names = more_names
                rows[used] = row
                names[used] = family
                used += 1
            hits[family] = 0
    return rows[:used], names[:used]


def selection_level(keys: U64) -> npt.NDArray[np.int64]:
    """The highest level of the sketch's selection at which a posting is still let through, 0..LEVELS-1."""
    high = (keys >> np.uint64(40)).astype(np.int64)
    level = np.zeros(len(keys), np.int64)
    for step in range(1, LEVELS):
        level[high < ((1 << 24) >> step)] = step
    return level


def find_families(
    account: I32, offsets: I64, values: npt.NDArray[np.uint64], level: npt.NDArray[np.uint8], accounts: int
) -> Families:
    """Find the families among the rows of a log.

    `account` int32 (rows,), `offsets` int64 (rows+1,) and `values` uint64: the postings of each row in
    document order, as `PartSketch` gives them; `level` uint8 (rows,): their selection level.
    """
    order = np.argsort(account, kind="stable")
    most = max(MIN_HOLDERS, int(accounts * MAX_SHARE))
    key, holders = held_values(order, account, offsets, values, MIN_HOLDERS, most)
    none = np.zeros(0, np.int64)
    if len(key) == 0:
        return Families(key, np.zeros(0, np.int32), np.zeros(0, np.uint64), none, np.zeros(0, np.int32))
    size = 1 << max(4, (2 * len(key)).bit_length())
    kept_offsets, kept = _kept_rows(offsets, values, key, _lookup(key, size))
    pair_offsets, pair_values = _pairs(kept_offsets, kept, WINDOW)
    pair, together = held_values(order, account, pair_offsets, pair_values, MIN_HOLDERS, most)
    root = _union(pair, together, holders, PAIR_SHARE, BALANCE)
    members = np.bincount(root, minlength=len(root))
    roots = np.flatnonzero(members >= 2)
    number = np.full(len(root), -1, np.int32)
    number[roots] = np.arange(len(roots), dtype=np.int32)
    key_family = number[root]
    levels = selection_level(key)
    visible = np.zeros((len(roots), LEVELS), np.int32)
    inside = key_family >= 0
    for step in range(LEVELS):
        chosen = inside & (levels >= step)
        visible[:, step] = np.bincount(key_family[chosen], minlength=len(roots))
    row, family = _assign(kept_offsets, kept, key_family, visible, np.minimum(level, LEVELS - 1))
    return Families(key[inside], key_family[inside], key[roots], row, family)


def invariant_postings(rows: I64, offsets: I64, values: U64, most: int = 4096) -> U64:
    """Postings that at least half of the rows have, sorted: what stands still in a template while its slots change.

    A family may hold its slots' contents too, where they are few and everybody uses them. Of more than `most` rows,
    evenly spaced ones are looked at.
    """
    rows = rows[:: max(1, len(rows) // most)]
    lengths = offsets[rows + 1] - offsets[rows]
    at = np.repeat(offsets[rows] - np.cumsum(lengths) + lengths, lengths) + np.arange(int(lengths.sum()))
    held, owner = values[at], np.repeat(np.arange(len(rows)), lengths)
    order = np.lexsort((owner, held))
    held, owner = held[order], owner[order]
    first = np.append(True, (held[1:] != held[:-1]) | (owner[1:] != owner[:-1])) if len(held) else held > 0
    names, count = np.unique(held[first], return_counts=True)
    return np.asarray(names[2 * count >= len(rows)])


@nb.njit(nogil=True, cache=True)
def _slots(rows: Any, offsets: Any, values: Any, keys: Any) -> Any:
    """Gap contents: (row position, index of the family posting before the gap + 1, hash of what stands in it)."""
    out_row = np.empty(1 << 12, np.int32)
    out_gap = np.empty(1 << 12, np.int32)
    out_hash = np.empty(1 << 12, np.uint64)
    used = 0
    for i in range(len(rows)):
        row = rows[i]
        before = 0
        content = _U(0)
        for j in range(offsets[row], offsets[row + 1] + 1):
            at = -1
            end = j == offsets[row + 1]
            if not end:
                at = np.searchsorted(keys, values[j])
                if at >= len(keys) or keys[at] != values[j]:
                    at = -1
            if at < 0 and not end:
                content = (content ^ values[j]) * _U(0x9E3779B97F4A7C15)
                content ^= content >> _U(29)
                continue
            if content != _U(0):
                if used == len(out_row):
                    grown_row = np.empty(used * 2, np.int32)
                    grown_gap = np.empty(used * 2, np.int32)
                    grown_hash = np.empty(used * 2, np.uint64)
                    grown_row[:used] = out_row
                    grown_gap[:used] = out_gap
                    grown_hash[:used] = out_hash
                    out_row, out_gap, out_hash = grown_row, grown_gap, grown_hash
                out_row[used] = i
                out_gap[used] = before
                out_hash[used] = content
                used += 1
            content = _U(0)
            before = at + 1
    return out_row[:used], out_gap[:used], out_hash[:used]


def slot_contents(
    rows: I64, offsets: I64, values: npt.NDArray[np.uint64], family_keys: U64, most: int = 6
) -> U64:
    """What stands in the slots of a template's prompts: uint64 (rows, slots), 0 where a slot is empty.

    A slot is named by the template's posting before it; the `most` slots that the most rows fill are returned,
    fullest first. `family_keys` are the template's postings, sorted.
    """
    at, gap, content = _slots(rows, offsets, values, family_keys)
    filled = np.bincount(gap, minlength=len(family_keys) + 1)
    chosen = np.argsort(-filled, kind="stable")[:most]
    chosen = chosen[filled[chosen] > 0]
    column = np.full(len(filled), -1, np.int64)
    column[chosen] = np.arange(len(chosen))
    table = np.zeros((len(rows), len(chosen)), np.uint64)
    used = column[gap] >= 0
    table[at[used], column[gap[used]]] = content[used]
    return table
