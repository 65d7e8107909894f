"""The compiled part of a decision: text -> families, and keys -> bits. Both call the scan's own functions.

Nothing here lets go of the interpreter's lock, so that two threads never share the scratch arrays.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from stillwatch.detect.members import SMOOTH, account_bits, account_ratios, combined
from stillwatch.engine.holders import mixed
from stillwatch.sketch.kernel import SELECT_SHIFT, select, tokens_of
from stillwatch.sketch.keyed import keyed_into
from stillwatch.views.families import LEVELS

_U = np.uint64


@nb.njit(cache=True)
def families_of(
    data: Any,
    plane: Any,
    math: Any,
    tokens: Any,
    spans: Any,
    post: Any,
    table: Any,
    family: Any,
    place: Any,
    need: Any,
    seen: Any,
    call: int,
    hits: Any,
    touched: Any,
    out: Any,
    size: Any,
) -> int:
    """Places of the families that one text belongs to, into `out`; how many. -1 for a text without a token.

    As `sketch.sketch_rows` and `views.families` do it. Scratch: `tokens` and `post` have room for two more than
    `data`; `seen` int64 (postings,), by `call`, a number that no two calls share; `hits` int32 (families,), zeros and
    left so; `touched`, `out` int32 (families,). `size` int64 (1,): how many postings `post` holds then.
    """
    size[0] = 0
    count, _, _ = tokens_of(data, 0, len(data), plane, math, tokens, spans, False)
    if count == 0:
        return -1
    used, _, depth = select(tokens, count, post, 0)
    size[0] = used
    return families_in(
        post[:used], np.int64(depth), table, family, place, need, seen, call, hits, touched, out
    )


@nb.njit(cache=True)
def families_in(
    post: Any,
    depth: int,
    table: Any,
    family: Any,
    place: Any,
    need: Any,
    seen: Any,
    call: int,
    hits: Any,
    touched: Any,
    out: Any,
) -> int:
    """The same of a text's postings (uint64) and their selection level."""
    level = min(depth, LEVELS - 1)
    mask = _U(len(table) // 2 - 1)
    n = 0
    for i in range(len(post)):
        value = post[i]
        s = np.int64(mixed(value) & mask)
        while table[2 * s] != value and table[2 * s] != _U(0):
            s = np.int64(_U(s + 1) & mask)
        if table[2 * s] == _U(0):
            continue
        key = np.int64(table[2 * s + 1])
        if seen[key] == call:
            continue
        seen[key] = call
        f = family[key]
        if hits[f] == 0:
            touched[n] = f
            n += 1
        hits[f] += 1
    found = 0
    for i in range(n):
        f = touched[i]
        if hits[f] >= need[level, f]:
            out[found] = place[f]
            found += 1
        hits[f] = 0
    return found


@nb.njit(cache=True)
def _hit(at: int, seen: Any, call: int, offsets: Any, of: Any, hits: Any, touched: Any, n: int) -> int:
    """Count hash `at` for its fingerprints, once in a call; how many are touched then."""
    if at < 0 or seen[at] == call:
        return n
    seen[at] = call
    for j in range(offsets[at], offsets[at + 1]):
        if hits[of[j]] == 0:
            touched[n] = of[j]
            n += 1
        hits[of[j]] += 1
    return n


@nb.njit(cache=True)
def partners_in(
    post: Any,
    levels: Any,
    inner: Any,
    outer: Any,
    head: Any,
    prefix: int,
    bits: int,
    hashes: Any,
    offsets: Any,
    of: Any,
    need: Any,
    seen: Any,
    call: int,
    hits: Any,
    touched: Any,
    chosen: Any,
    short: Any,
    known: Any,
    known_at: Any,
    out: Any,
) -> int:
    """Fingerprints of partners that a text's postings fit, into `out`; how many.

    By key k: `inner`, `outer` uint32 (keys, 8) as `sketch.keyed` has them, `levels` (keys,) the selection level of
    its postings. `hashes` uint64, sorted: key and short hash (`bits` of it) of every fingerprint; hash i is in the
    fingerprints `of[offsets[i]:offsets[i+1]]`. Scratch: `seen` (hashes,) by `call`; `hits` (fingerprints,), zeros and
    left so; `touched`, `out` (fingerprints,); `chosen`, `short` uint64: as many postings as are looked at, and one.
    `known` uint64, `known_at` int32 (keys, a power of two): postings that were hashed before, by their low bits, and
    which hash each has, -1 for none. A slot that is free holds a posting of another slot.
    """
    slots = _U(known.shape[1] - 1)
    n = 0
    for k in range(len(levels)):
        limit = (1 << 24) >> levels[k]
        m, looked = 0, 0
        for i in range(len(post)):
            if looked == len(chosen) - 1:
                break
            if np.int64(post[i] >> _U(SELECT_SHIFT)) >= limit:
                continue
            looked += 1
            slot = np.int64(post[i] & slots)
            if known[k, slot] == post[i]:
                n = _hit(known_at[k, slot], seen, call, offsets, of, hits, touched, n)
            else:
                chosen[m] = post[i]
                m += 1
        keyed_into(inner[k], outer[k], head, prefix, chosen[:m], short)
        for i in range(m):
            value = (_U(k) << _U(bits)) | (short[i] >> _U(64 - bits))
            at = np.searchsorted(hashes, value)
            if at == len(hashes) or hashes[at] != value:
                at = -1
            slot = np.int64(chosen[i] & slots)
            known[k, slot], known_at[k, slot] = chosen[i], at
            n = _hit(at, seen, call, offsets, of, hits, touched, n)
    found = 0
    for i in range(n):
        f = touched[i]
        if hits[f] >= need[f]:
            out[found] = f
            found += 1
        hits[f] = 0
    return found


@nb.njit(cache=True)
def find(values: Any, first: int, end: int, value: Any) -> int:
    """Place of `value` in the sorted `values[first:end]`, -1 where it is not there. `value` is np.uint64.

    Hashes are spread evenly: the search begins where the value should be, and so touches little memory.
    """
    if end <= first:
        return -1
    guess: Any = first + np.int64(((value >> _U(32)) * _U(end - first)) >> _U(32))
    low: Any = guess
    high: Any = guess
    step = 16
    if values[guess] < value:
        while high < end and values[high] < value:
            low, high, step = high + 1, high + step, 2 * step
        high = min(high, end)
    else:
        while low > first and values[low] >= value:
            low, high, step = low - step, low, 2 * step
        low = max(low, first)
    while low < high:
        middle = (low + high) // 2
        if values[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low if low < end and values[low] == value else -1


@nb.njit(cache=True)
def measure(
    places: Any,
    split: int,
    campaigns: Any,
    variants: Any,
    time: Any,
    share: Any,
    niche_offsets: Any,
    niche_group: Any,
    niche_share: Any,
    profile_offsets: Any,
    profile_place: Any,
    profile_null: Any,
    profile_share: Any,
    niches: int,
    variants_each: int,
    out: Any,
) -> None:
    """Bits of one account for some campaigns: FORM, LINK, TIME and all together, into `out` (campaigns, 4).

    `places` int32: the account's keys, sorted; the first `split` are FORM's. `variants`: by which of a campaign's
    profiles the account is judged; `time`: its bits in TIME.
    """
    n = len(places)
    null, alternative, ratio = np.empty(n), np.empty(n), np.empty(n)
    bits, stake = np.zeros(1), np.zeros(1)
    begins = np.zeros(2, np.int64)
    three, total = np.zeros((3, 1)), np.zeros(1)
    for c in range(len(campaigns)):
        for view in range(2):
            first, end = (0, split) if view == 0 else (split, n)
            p = (campaigns[c] * 2 + view) * variants_each + variants[c]
            low, high = profile_offsets[p], profile_offsets[p + 1]
            for r in range(first, end):
                key = places[r]
                null[r], alternative[r] = share[key], SMOOTH * share[key]
                a, b = low, high
                while a < b:
                    middle = (a + b) // 2
                    if profile_place[middle] < key:
                        a = middle + 1
                    else:
                        b = middle
                if a < high and profile_place[a] == key:
                    null[r], alternative[r] = profile_null[a], profile_share[a]
            begins[1] = end - first
            account_ratios(
                begins,
                places[first:end],
                null[first:end],
                alternative[first:end],
                niche_offsets,
                niche_group,
                niche_share,
                niches,
                ratio[first:end],
            )
            account_bits(begins, ratio[first:end], bits, stake)
            three[view, 0] = bits[0]
        three[2, 0] = time[c]
        combined(three, total)
        for view in range(3):
            out[c, view] = three[view, 0]
        out[c, 3] = total[0]
