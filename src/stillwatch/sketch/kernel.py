"""The compiled part of the sketch: UTF-8 bytes -> tokens -> shingles -> selected postings.

A token is a run of letters and digits; in scripts without spaces (Han, kana, hangul) it is a pair of neighbouring
characters. A shingle is three successive tokens. A posting is a selected shingle: selections nest, so that a short
text keeps all its shingles and a long one a fixed fraction (FracMinHash, Hera et al. 2023,
doi:10.1101/gr.277651.123), and two texts of different length can still be compared. Postings stay in the order of
the text.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from stillwatch.sketch.fold import CJK, DIGIT, DROP, MATH_FIRST, MATH_LAST, POINT, QUOTE, SEPARATOR
from stillwatch.sketch.match import tags_of

_U = np.uint64
_START = _U(0xCBF29CE484222325)
_PRIME = _U(0x100000001B3)
_A = _U(0x9E3779B97F4A7C15)
_B = _U(0xC2B2AE3D27D4EB4F)
_C = _U(0x165667B19E3779F9)
_BLANK = _U(0xB1A9CB1A9CB1A9C1)
SELECT_SHIFT = 40
"""Selection reads the top 24 bits of a posting; tables index by others."""


@nb.njit(inline="always")
def _stir(h: Any) -> Any:
    h ^= h >> _U(33)
    h *= _U(0xFF51AFD7ED558CCD)
    h ^= h >> _U(33)
    h *= _U(0xC4CEB9FE1A85EC53)
    return h ^ (h >> _U(33))


@nb.njit(nogil=True, cache=True)
def level_for(shingles: int) -> int:
    """Selection level for a text of that many shingles: a shingle is kept with probability 2**-level."""
    if shingles <= 64:
        return 0
    if shingles <= 256:
        return 1
    if shingles <= 4096:
        return 2
    level = 2
    while (shingles >> level) > 1024:
        level += 1
    return min(level, 15)


@nb.njit(nogil=True, cache=True)
def shingle(first: Any, second: Any, third: Any) -> Any:
    """Hash of three successive token hashes; never 0."""
    h = _stir(first * _A + (second ^ (second >> _U(31))) * _B + (third ^ (third >> _U(29))) * _C)
    return h if h != _U(0) else _U(1)


@nb.njit(inline="always")
def _decode(data: Any, at: int, end: int) -> Any:
    """One code point: (point, bytes taken). Broken sequences give a space, one byte at a time."""
    lead = np.int64(data[at])
    if lead < 0x80:
        return lead, 1
    if lead < 0xC2:
        return np.int64(32), 1
    if lead < 0xE0:
        if at + 1 < end:
            return ((lead & 0x1F) << 6) | (np.int64(data[at + 1]) & 0x3F), 2
        return np.int64(32), 1
    if lead < 0xF0:
        if at + 2 < end:
            return (
                ((lead & 0x0F) << 12)
                | ((np.int64(data[at + 1]) & 0x3F) << 6)
                | (np.int64(data[at + 2]) & 0x3F)
            ), 3
        return np.int64(32), 1
    if at + 3 < end:
        return (
            ((lead & 0x07) << 18)
            | ((np.int64(data[at + 1]) & 0x3F) << 12)
            | ((np.int64(data[at + 2]) & 0x3F) << 6)
            | (np.int64(data[at + 3]) & 0x3F)
        ), 4
    return np.int64(32), 1


@nb.njit(inline="always")
def _fold(point: int, plane: Any, math: Any) -> Any:
    if point < 0x10000:
        return np.int64(plane[point])
    if MATH_FIRST <= point <= MATH_LAST:
        return np.int64(math[point - MATH_FIRST])
    if 0x20000 <= point <= 0x3FFFF:
        return np.int64((point & POINT) | CJK)
    if point >= 0xE0000:
        return np.int64(0)
    return np.int64(SEPARATOR)


@nb.njit(nogil=True, cache=True)
def tokens_of(
    data: Any, begin: int, stop: int, plane: Any, math: Any, out: Any, spans: Any, want: bool
) -> Any:
    """Token hashes of one text into `out`; (count, mask hash, letters by script). Byte spans if `want`."""
    count = 0
    h = _START
    length = 0
    digits = False
    start = begin
    previous = np.int64(0)
    previous_at = begin
    run = 0
    quoted = False
    mask = _U(0)
    blank = False
    script = np.zeros(6, np.int64)
    at = begin
    while at <= stop:
        ended = False
        if run == 0 and at < stop and data[at] < 0x80 and (plane[data[at]] & POINT) > SEPARATOR:
            # Nearly every character is a plain letter or digit inside a word; the rest of the loop would do the same.
            if length == 0:
                start = at
            first = at
            numbers = 0
            folded = np.int64(plane[data[at]])
            while (folded & POINT) > SEPARATOR:
                h = (h ^ _U(folded & POINT)) * _PRIME
                numbers += (folded & DIGIT) != 0
                at += 1
                if at == stop:
                    break
                if data[at] >= 0x80:
                    folded = np.int64(DROP)
                    break
                folded = np.int64(plane[data[at]])
            length += at - first
            digits |= numbers > 0
            script[1] += at - first - numbers
            if at < stop and folded != SEPARATOR:
                continue
            ended = True
        if ended:
            folded, taken = np.int64(SEPARATOR), 1
        elif at < stop:
            point, taken = _decode(data, at, stop)
            folded = _fold(point, plane, math)
        else:
            folded, taken = np.int64(SEPARATOR), 1
        if folded == 0:
            at += taken
            continue
        is_cjk = (folded & CJK) != 0
        ends_word = is_cjk or (folded & POINT) == SEPARATOR
        if ends_word and length > 0:
            token = _stir(h + _U(length))
            out[count] = token
            if want:
                spans[count, 0], spans[count, 1] = start, at
            count += 1
            if digits or quoted:
                if not blank:
                    mask = _stir(mask * _A + _BLANK)
                blank = True
            else:
                mask = _stir(mask * _A + token)
                blank = False
            h, length, digits = _START, 0, False
        if run > 0 and not is_cjk:
            if run == 1:
                token = _stir(_U(previous) * _B)
                out[count] = token
                if want:
                    spans[count, 0], spans[count, 1] = previous_at, at
                count += 1
                mask = _stir(mask * _A + (_BLANK if quoted else token))
            run = 0
        if (folded & QUOTE) != 0:
            quoted = not quoted
        elif is_cjk:
            value = folded & POINT
            if run > 0:
                token = _stir(_U(previous) * _A + _U(value) * _B)
                out[count] = token
                if want:
                    spans[count, 0], spans[count, 1] = previous_at, at + taken
                count += 1
                if not quoted:
                    mask = _stir(mask * _A + token)
            run += 1
            previous, previous_at = value, at
            script[2] += 1
        elif not ends_word:
            if length == 0:
                start = at
            value = folded & POINT
            h = (h ^ _U(value)) * _PRIME
            length += 1
            if (folded & DIGIT) != 0:
                digits = True
            elif value < 0x250:
                script[1] += 1
            elif 0x400 <= value < 0x530:
                script[3] += 1
            elif 0x590 <= value < 0x780:
                script[4] += 1
            else:
                script[5] += 1
        at += taken
    return count, mask, script


@nb.njit(inline="always")
def select(tokens: Any, count: int, post: Any, used: int) -> Any:
    """Selected shingles of one text's tokens into `post`, from `used` on: (where they end, hash of all, level).

    `post` must have room for `count` more. A text without tokens has hash 0.
    """
    depth = 0
    if count == 0:
        return used, _U(0), depth
    h = _U(count)
    if count < 3:
        for i in range(count):
            h = _stir(h * _A + tokens[i])
        post[used] = shingle(tokens[0], tokens[count - 1] if count > 1 else _U(0), _U(count))
        used += 1
    else:
        depth = level_for(count - 2)
        limit = _U((1 << 24) >> depth)
        for i in range(count - 2):
            h = _stir(h * _A + tokens[i])
            p = shingle(tokens[i], tokens[i + 1], tokens[i + 2])
            post[used] = p
            used += (p >> _U(SELECT_SHIFT)) < limit
        h = _stir(_stir(h * _A + tokens[count - 2]) * _A + tokens[count - 1])
    return used, h if h != _U(0) else _U(1), depth


@nb.njit(nogil=True, cache=True)
def sketch_rows(data: Any, offsets: Any, plane: Any, math: Any, rules: Any) -> Any:
    """All rows of a string column: exact, mask, level, tokens, script, tags, posting offsets, postings."""
    n = len(offsets) - 1
    exact = np.zeros(n, np.uint64)
    mask = np.zeros(n, np.uint64)
    level = np.zeros(n, np.uint8)
    tokens = np.zeros(n, np.int32)
    script = np.zeros(n, np.uint8)
    tags = np.zeros(n, np.uint32)
    seen_at, seen_in = np.zeros(len(rules.rule_of), np.int64), np.full(len(rules.rule_of), -1)
    post_offsets = np.zeros(n + 1, np.int64)
    post = np.empty(max(1024, 64 * n), np.uint64)
    scratch = np.empty(1 << 12, np.uint64)
    spans = np.empty((1, 2), np.int64)
    used = 0
    for row in range(n):
        begin, stop = offsets[row], offsets[row + 1]
        if stop - begin + 2 > len(scratch):
            scratch = np.empty(2 * (stop - begin) + 2, np.uint64)
        count, masked, letters = tokens_of(data, begin, stop, plane, math, scratch, spans, False)
        tokens[row] = count
        if count > 0:
            best = 1
            for s in range(2, 6):
                if letters[s] > letters[best]:
                    best = s
            script[row] = best if letters[best] > 0 else 0
            tags[row] = tags_of(scratch, count, rules, seen_at, seen_in, row)
            mask[row] = masked if masked != _U(0) else _U(1)
            if used + count + 1 > len(post):
                bigger = np.empty(2 * (used + count + 1), np.uint64)
                bigger[:used] = post[:used]
                post = bigger
            used, exact[row], level[row] = select(scratch, count, post, used)
        post_offsets[row + 1] = used
    return exact, mask, level, tokens, script, tags, post_offsets, post[:used].copy()
