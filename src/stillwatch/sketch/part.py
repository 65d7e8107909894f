"""The sketch of one part (system prompt, prompt) of many exchanges, and its stored form."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.schema.errors import FormatError, Where
from stillwatch.schema.tables import REDACTION_MARKERS
from stillwatch.sketch.fold import basic_plane, mathematical
from stillwatch.sketch.kernel import sketch_rows
from stillwatch.sketch.rules import RulePack, default_rules

SKETCH_VERSION = 1
NO_TEXT, LATIN, CJK, CYRILLIC, ARABIC, OTHER = range(6)
_HEADER_WORDS = 5
_MOST_THREADS = 8

U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class PartSketch:
    """Sketches of n texts. A null or empty text, or one without a letter or digit, has `exact` 0, no postings."""

    exact: U64
    """Hash of the normalised token sequence: case, spacing, punctuation and look-alike letters do not alter it."""
    mask: U64
    """The same with quoted text and every token that contains a digit blanked."""
    post_offsets: npt.NDArray[np.int64]
    post: U64
    """Selected shingles in document order: row r has `post[post_offsets[r]:post_offsets[r+1]]`."""
    level: npt.NDArray[np.uint8]
    """Each shingle was kept with probability 2**-level."""
    n_tokens: npt.NDArray[np.int32]
    n_bytes: npt.NDArray[np.int32]
    script: npt.NDArray[np.uint8]
    """Class of the majority of letters: a script, not a language."""
    tags: npt.NDArray[np.uint32]
    """Capability and elicitation tags, by bit of the rule pack."""
    tags_version: int
    """Version of the rule pack."""
    untagged: int = 0
    """Texts that came as sketches with tags of another version: they have none here."""

    def __len__(self) -> int:
        return len(self.exact)


def sketch_text(texts: pa.Array | pa.ChunkedArray, rules: RulePack | None = None) -> PartSketch:
    """Sketch a string column, any Arrow string type. Redaction markers count as null. Uses all cores.

    `rules`: what tags are made with, the pack of this version by default.
    """
    pack = rules or default_rules()
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if pa.types.is_dictionary(texts.type):
        texts = texts.dictionary_decode()
    texts = texts.cast(pa.large_string()).fill_null("")
    n = len(texts)
    _, offset_buffer, data_buffer = texts.buffers()
    if n == 0 or offset_buffer is None or data_buffer is None:
        return _without_text(n, pack.version)
    offsets = np.frombuffer(offset_buffer, np.int64)[texts.offset : texts.offset + n + 1]
    data = np.frombuffer(data_buffer, np.uint8)
    lengths = np.diff(offsets)
    for marker in REDACTION_MARKERS:
        # Only rows of the marker's length are compared.
        same = np.flatnonzero(lengths == len(marker.encode()))
        hit = [i for i in same.tolist() if bytes(data[offsets[i] : offsets[i + 1]]) == marker.encode()]
        if hit:
            keep = np.ones(n, bool)
            keep[hit] = False
            return sketch_text(pa.array(texts.to_pylist(), pa.large_string(), mask=~keep), pack)
    threads = min(_MOST_THREADS, os.cpu_count() or 1, 1 + n // 2048)
    # Cut by bytes, not by rows: one 5 MB prompt must not hold up a whole half.
    cuts = np.searchsorted(offsets, np.linspace(offsets[0], offsets[-1], threads + 1)[1:-1])
    bounds = [0, *cuts.tolist(), n]
    pieces = [offsets[a : b + 1] for a, b in pairwise(bounds) if b > a]
    plane, math = basic_plane(), mathematical()
    if len(pieces) == 1:
        parts = [sketch_rows(data, pieces[0], plane, math, pack.rules)]
    else:
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(lambda piece: sketch_rows(data, piece, plane, math, pack.rules), pieces))
    exact, mask, level, tokens, script, tags = (np.concatenate([p[i] for p in parts]) for i in range(6))
    counts = np.concatenate([np.diff(p[6]) for p in parts])
    return PartSketch(
        exact,
        mask,
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.concatenate([p[7] for p in parts]),
        level,
        tokens,
        np.minimum(lengths, np.iinfo(np.int32).max).astype(np.int32),
        script,
        tags,
        pack.version,
    )


def _without_text(n: int, version: int) -> PartSketch:
    return PartSketch(
        np.zeros(n, np.uint64),
        np.zeros(n, np.uint64),
        np.zeros(n + 1, np.int64),
        np.zeros(0, np.uint64),
        np.zeros(n, np.uint8),
        np.zeros(n, np.int32),
        np.zeros(n, np.int32),
        np.zeros(n, np.uint8),
        np.zeros(n, np.uint32),
        version,
    )


def to_binary(part: PartSketch) -> pa.BinaryArray:
    """One binary per row, null where there is no text.

    Layout, little-endian 64-bit words: version | level | script | 0 | tags version (16 bit, 0: no rule pack) | 0;
    tags (32 bit) | tokens; bytes | postings; exact; mask; then the postings.
    """
    n = len(part)
    counts = np.diff(part.post_offsets)
    there = part.exact != 0
    words = np.where(there, counts + _HEADER_WORDS, 0)
    offsets = np.concatenate([[0], np.cumsum(words)])
    out = np.zeros(int(offsets[-1]), np.uint64)
    at = offsets[:-1][there]
    wide = np.uint64
    out[at] = (
        wide(SKETCH_VERSION)
        | (part.level[there].astype(wide) << wide(8))
        | (part.script[there].astype(wide) << wide(16))
        | wide(part.tags_version << 32)
    )
    out[at + 1] = part.tags[there].astype(wide) | (part.n_tokens[there].astype(wide) << wide(32))
    out[at + 2] = part.n_bytes[there].astype(wide) | (counts[there].astype(wide) << wide(32))
    out[at + 3] = part.exact[there]
    out[at + 4] = part.mask[there]
    rows = np.repeat(np.where(there, offsets[:-1] + _HEADER_WORDS, 0) - part.post_offsets[:-1], counts)
    out[rows + np.arange(len(part.post))] = part.post
    validity = pa.array(there).buffers()[1]
    data = pa.py_buffer(out.astype("<u8").tobytes())
    if offsets[-1] * 8 < 2**31:
        buffers = [validity, pa.py_buffer((offsets * 8).astype(np.int32).tobytes()), data]
        return pa.Array.from_buffers(pa.binary(), n, buffers)
    buffers = [validity, pa.py_buffer((offsets * 8).astype(np.int64).tobytes()), data]
    return pa.Array.from_buffers(pa.large_binary(), n, buffers)


def faults(values: pa.Array | pa.ChunkedArray) -> list[tuple[npt.NDArray[np.bool_], str]]:
    """What is wrong with stored sketches: (bool[rows], reason) for each kind of fault that occurs."""
    return _layout(values).faults


@dataclass(frozen=True, slots=True)
class _Layout:
    """Stored sketches as words; `at` is where each present row begins."""

    there: npt.NDArray[np.bool_]
    words: U64
    at: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    faults: list[tuple[npt.NDArray[np.bool_], str]]


def _layout(values: pa.Array | pa.ChunkedArray) -> _Layout:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    values = values.cast(pa.large_binary()).fill_null(b"")
    n = len(values)
    counts = np.zeros(n, np.int64)
    _, offset_buffer, data_buffer = values.buffers()
    if n == 0 or offset_buffer is None or data_buffer is None:
        none = np.zeros(n, bool)
        return _Layout(none, np.zeros(0, np.uint64), np.zeros(0, np.int64), counts, [])
    offsets = np.frombuffer(offset_buffer, np.int64)[values.offset : values.offset + n + 1]
    size = np.diff(offsets)
    there = size > 0
    bad = there & ((size % 8 != 0) | (size < 8 * _HEADER_WORDS))
    found = [(bad, "is truncated or not a sketch")] if bad.any() else []
    raw = np.frombuffer(data_buffer, np.uint8)[offsets[0] : offsets[-1]]
    if bad.any():
        # Rows of odd length would shift all that follow: they are taken out before words are read.
        raw = raw[np.repeat(~bad, size)]
        size = np.where(bad, 0, size)
        there = size > 0
    words = np.frombuffer(raw.tobytes(), "<u8").astype(np.uint64)
    at = np.concatenate([[0], np.cumsum(size)])[:-1][there] // 8
    counts[there] = size[there] // 8 - _HEADER_WORDS
    head = words[at]
    unknown = np.zeros(n, bool)
    unknown[there] = (head & np.uint64(0xFF)) != SKETCH_VERSION
    claimed = np.zeros(n, np.int64)
    claimed[there] = (words[at + 2] >> np.uint64(32)).astype(np.int64)
    level = _placed(there, (head >> np.uint64(8)) & np.uint64(0xFF), np.uint8)
    broken = (claimed != counts) | (level > 15)
    broken[there] |= (words[at + 3] == 0) | (counts[there] == 0) | ((words[at + 1] >> np.uint64(63)) != 0)
    if unknown.any():
        found.append((unknown, f"has another version than {SKETCH_VERSION}"))
    if (broken & ~unknown).any():
        found.append((broken & ~unknown, "contradicts its own header"))
    return _Layout(there, words, at, counts, found)


def from_binary(
    values: pa.Array | pa.ChunkedArray, rules: RulePack | None = None, *, first_row: int = 1
) -> PartSketch:
    """Read stored sketches. FormatError names the row (counted from `first_row`) that is not one.

    `rules`: only tags of its version are read, that of this version by default.
    """
    pack = rules or default_rules()
    layout = _layout(values)
    for bad, what in layout.faults:
        _refuse(bad, first_row, what)
    there, words, at, counts = layout.there, layout.words, layout.at, layout.counts
    n = len(there)
    if not there.any():
        return _without_text(n, pack.version)
    head = words[at]
    post_offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    first = np.zeros(n, np.int64)
    first[there] = at + _HEADER_WORDS
    source = np.repeat(first - post_offsets[:-1], counts) + np.arange(post_offsets[-1])
    low = np.uint64(0xFFFFFFFF)
    known = ((head >> np.uint64(32)) & np.uint64(0xFFFF)) == np.uint64(pack.version)
    return PartSketch(
        _placed(there, words[at + 3], np.uint64),
        _placed(there, words[at + 4], np.uint64),
        post_offsets,
        words[source],
        _placed(there, (head >> np.uint64(8)) & np.uint64(0xFF), np.uint8),
        _placed(there, words[at + 1] >> np.uint64(32), np.int32),
        _placed(there, np.minimum(words[at + 2] & low, np.uint64(2**31 - 1)), np.int32),
        _placed(there, (head >> np.uint64(16)) & np.uint64(0xFF), np.uint8),
        _placed(there, np.where(known, words[at + 1] & low, np.uint64(0)), np.uint32),
        pack.version,
        int((~known).sum()),
    )


def _placed(there: npt.NDArray[np.bool_], values: U64, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    out = np.zeros(len(there), dtype)
    out[there] = values.astype(dtype)
    return out


def stored_or_text(stored: pa.Array, texts: pa.Array, rules: RulePack | None = None) -> pa.Array:
    """What a part of some rows is sketched from: stored sketches if no row has text, texts if none has a sketch.

    Where a log has both, rows with text only get their sketch here, so that no row loses its text.
    """
    if stored.null_count == len(stored):
        return texts
    if texts.null_count == len(texts):
        return stored
    return pc.coalesce(
        stored.cast(pa.large_binary()), to_binary(sketch_text(texts, rules)).cast(pa.large_binary())
    )


def sketch_of(values: pa.Array, rules: RulePack | None = None) -> PartSketch:
    """The sketch of a column of texts or of stored sketches, by its type."""
    stored = pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)
    return from_binary(values, rules) if stored else sketch_text(values, rules)


def _refuse(bad: npt.NDArray[np.bool_], first_row: int, what: str) -> None:
    if bad.any():
        row = first_row + int(np.flatnonzero(bad)[0])
        raise FormatError(
            f"the sketch {what}",
            where=Where(row=row),
            hint="write the sketches again with `stillwatch sketch` of this version",
        )
