"""HMAC-SHA-256 (RFC 2104, FIPS 180-4) of many postings under one key, compiled.

The library's costs 2.5 us a posting, most of it the call; a million are wanted in a scan, and a few dozen in each
request that the guard sees. Tests hold every value to the library's.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
BLOCK = 64
MOST_PREFIX = 47
"""Bytes before a posting that leave it in one block with the padding."""

_ROUNDS = np.array(
    [
        0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xE9B5DBA5, 0x3956C25B, 0x59F111F1, 0x923F82A4, 0xAB1C5ED5,
        0xD807AA98, 0x12835B01, 0x243185BE, 0x550C7DC3, 0x72BE5D74, 0x80DEB1FE, 0x9BDC06A7, 0xC19BF174,
        0xE49B69C1, 0xEFBE4786, 0x0FC19DC6, 0x240CA1CC, 0x2DE92C6F, 0x4A7484AA, 0x5CB0A9DC, 0x76F988DA,
        0x983E5152, 0xA831C66D, 0xB00327C8, 0xBF597FC7, 0xC6E00BF3, 0xD5A79147, 0x06CA6351, 0x14292967,
        0x27B70A85, 0x2E1B2138, 0x4D2C6DFC, 0x53380D13, 0x650A7354, 0x766A0ABB, 0x81C2C92E, 0x92722C85,
        0xA2BFE8A1, 0xA81A664B, 0xC24B8B70, 0xC76C51A3, 0xD192E819, 0xD6990624, 0xF40E3585, 0x106AA070,
        0x19A4C116, 0x1E376C08, 0x2748774C, 0x34B0BCB5, 0x391C0CB3, 0x4ED8AA4A, 0x5B9CCA4F, 0x682E6FF3,
        0x748F82EE, 0x78A5636F, 0x84C87814, 0x8CC70208, 0x90BEFFFA, 0xA4506CEB, 0xBEF9A3F7, 0xC67178F2,
    ],
    np.uint32,
)  # fmt: skip
_START = np.array(
    [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19],
    np.uint32,
)
_I = np.uint32


@nb.njit(inline="always")
def _turned(x: Any, n: int) -> Any:
    return _I((x >> _I(n)) | (x << _I(32 - n)))


@nb.njit(nogil=True, cache=True)
def _compress(state: Any, words: Any, out: Any) -> None:
    """One block: `words` uint32[64], the first 16 of them filled; `out` may be `state`."""
    for i in range(16, 64):
        x, y = words[i - 15], words[i - 2]
        s0 = _turned(x, 7) ^ _turned(x, 18) ^ (x >> _I(3))
        s1 = _turned(y, 17) ^ _turned(y, 19) ^ (y >> _I(10))
        words[i] = _I(words[i - 16] + s0 + words[i - 7] + s1)
    a, b, c, d = state[0], state[1], state[2], state[3]
    e, f, g, h = state[4], state[5], state[6], state[7]
    for i in range(64):
        s1 = _turned(e, 6) ^ _turned(e, 11) ^ _turned(e, 25)
        t1 = _I(h + s1 + ((e & f) ^ (~e & g)) + _ROUNDS[i] + words[i])
        s0 = _turned(a, 2) ^ _turned(a, 13) ^ _turned(a, 22)
        t2 = _I(s0 + ((a & b) ^ (a & c) ^ (b & c)))
        h, g, f, e, d, c, b, a = g, f, e, _I(d + t1), c, b, a, _I(t1 + t2)
    out[0], out[1] = _I(state[0] + a), _I(state[1] + b)
    out[2], out[3] = _I(state[2] + c), _I(state[3] + d)
    out[4], out[5] = _I(state[4] + e), _I(state[5] + f)
    out[6], out[7] = _I(state[6] + g), _I(state[7] + h)


@nb.njit(nogil=True, cache=True)
def keyed_into(inner: Any, outer: Any, head: Any, size: int, postings: Any, out: Any) -> None:
    """The first 64 bits of each HMAC. `head` uint8[64]: what stands before a posting, `size` bytes of it."""
    words, state = np.empty(64, np.uint32), np.empty(8, np.uint32)
    block = head.copy()
    block[size + 8] = np.uint8(0x80)
    bits = (BLOCK + size + 8) * 8
    block[62], block[63] = np.uint8(bits >> 8), np.uint8(bits & 255)
    for n in range(len(postings)):
        for i in range(8):
            block[size + i] = np.uint8((postings[n] >> np.uint64(8 * i)) & np.uint64(255))
        for i in range(16):
            words[i] = (
                (_I(block[4 * i]) << _I(24))
                | (_I(block[4 * i + 1]) << _I(16))
                | (_I(block[4 * i + 2]) << _I(8))
                | _I(block[4 * i + 3])
            )
        _compress(inner, words, state)
        for i in range(8):
            words[i] = state[i]
        words[8] = _I(0x80000000)
        for i in range(9, 15):
            words[i] = _I(0)
        words[15] = _I((BLOCK + 32) * 8)
        _compress(outer, words, state)
        out[n] = (np.uint64(state[0]) << np.uint64(32)) | np.uint64(state[1])


class KeyedHash:
    """First 64 bits of HMAC-SHA-256 over a fixed prefix and a posting (8 bytes, little-endian)."""

    def __init__(self, secret: bytes, prefix: bytes) -> None:
        """`secret` of at most 64 bytes, `prefix` of at most `MOST_PREFIX`; ValueError for more."""
        if len(secret) > BLOCK or len(prefix) > MOST_PREFIX:
            raise ValueError("the key or what stands before a posting is too long")
        padded = np.frombuffer(secret.ljust(BLOCK, b"\0"), np.uint8)
        self.inner, self.outer = self._pad(padded ^ np.uint8(0x36)), self._pad(padded ^ np.uint8(0x5C))
        self.head = np.frombuffer(prefix.ljust(BLOCK, b"\0"), np.uint8).copy()
        self.size = len(prefix)

    @staticmethod
    def _pad(block: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
        words = np.zeros(64, np.uint32)
        words[:16] = block.view(">u4")
        state = np.empty(8, np.uint32)
        _compress(_START, words, state)
        return state

    def of(self, postings: U64) -> U64:
        """Hashes of `postings`, same shape (n,)."""
        out = np.empty(len(postings), np.uint64)
        keyed_into(self.inner, self.outer, self.head, self.size, postings, out)
        return out
