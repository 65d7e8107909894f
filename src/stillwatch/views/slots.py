"""FORM: what stands still in the prompts of a template, and what its slots hold."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from stillwatch.views.base import I64, U64

_U = np.uint64


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
    held = held[first]
    start = np.flatnonzero(np.append(True, held[1:] != held[:-1])) if len(held) else np.zeros(0, np.int64)
    count = np.diff(np.append(start, len(held)))
    return np.asarray(held[start[2 * count >= len(rows)]])


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
