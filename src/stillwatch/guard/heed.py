"""Partners' fingerprints in a snapshot: as arrays, where it is made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stillwatch.engine.holders import grouped
from stillwatch.guard.side import Made
from stillwatch.guard.snapshot import Heeded
from stillwatch.scan.partner import Told
from stillwatch.schema.intel import HASH_HEX

MOST_NEEDED = 4
"""Hashes that are enough in one text: it holds one wording of a template of which a fingerprint may have several."""


def heed(told: Sequence[Told]) -> tuple[tuple[Heeded, ...], Made]:
    """(the fingerprints by number, their arrays), in an order that depends on nothing but them."""
    told = sorted(told, key=lambda t: (t.partner, t.indicator, t.part, t.hashes.tolist()))
    keys = sorted({(t.key.inner.tobytes(), t.key.outer.tobytes()) for t in told})
    number = {key: i for i, key in enumerate(keys)}
    by_key = [number[t.key.inner.tobytes(), t.key.outer.tobytes()] for t in told]
    level = np.full(len(keys), 127, np.int8)
    for place, fingerprint in zip(by_key, told, strict=True):
        level[place] = min(int(level[place]), fingerprint.level)
    full = [
        (np.uint64(place) << np.uint64(4 * HASH_HEX)) | t.hashes
        for place, t in zip(by_key, told, strict=True)
    ]
    every = np.concatenate([np.zeros(0, np.uint64), *full])
    of = np.repeat(np.arange(len(told), dtype=np.int32), [len(t.hashes) for t in told])
    names, at = np.unique(every, return_inverse=True)
    order, offsets = grouped(at.astype(np.int64), len(names))
    states = [np.array([np.frombuffer(key[i], np.uint32) for key in keys], np.uint32) for i in range(2)]
    made: Made = {
        "intel_inner": states[0].reshape(-1, 8),
        "intel_outer": states[1].reshape(-1, 8),
        "intel_level": level,
        "intel_hash": names,
        "intel_offsets": offsets,
        "intel_of": of[order],
        "intel_need": np.array([min(t.needed, MOST_NEEDED) for t in told], np.int32),
    }
    return tuple(Heeded(partner=t.partner, indicator=t.indicator, until_us=t.until_us) for t in told), made
