"""The compiled HMAC is the library's."""

from __future__ import annotations

import hmac

import numpy as np
import pytest

from stillwatch.sketch.keyed import BLOCK, MOST_PREFIX, KeyedHash


@pytest.mark.parametrize("size", [0, 1, 20, MOST_PREFIX])
@pytest.mark.parametrize("key", [b"", b"k", bytes(range(32)), b"\xff" * BLOCK])
def test_every_hash_is_the_librarys(key: bytes, size: int) -> None:
    rng = np.random.default_rng(size)
    prefix = rng.bytes(size)
    postings = np.append(rng.integers(0, 2**64, 50, np.uint64), np.array([0, 1, 2**64 - 1], np.uint64))
    found = KeyedHash(key, prefix).of(postings)
    for posting, value in zip(postings.tolist(), found.tolist(), strict=True):
        whole = hmac.digest(key, prefix + posting.to_bytes(8, "little"), "sha256")
        assert value == int.from_bytes(whole[:8], "big")


def test_what_does_not_fit_one_block_is_refused() -> None:
    with pytest.raises(ValueError):
        KeyedHash(b"k" * (BLOCK + 1), b"")
    with pytest.raises(ValueError):
        KeyedHash(b"k", b"p" * (MOST_PREFIX + 1))
