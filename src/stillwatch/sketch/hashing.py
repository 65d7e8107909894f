"""The one public content hash: XXH3-64 over NFC text with a role tag.

The tag keeps a user turn and a system prompt with the same words apart. Source: xxHash,
https://github.com/Cyan4973/xxHash (XXH3, seed 0). Golden vectors stand in `tests/sketch/test_hashing.py`.
"""

from __future__ import annotations

import struct
import unicodedata

import xxhash

_PAIR = struct.Struct("<QQ").pack


def content_hash(role: str, text: str) -> int:
    """Hash `text` as a message of `role` (`system`, `user`, `assistant`, `tools`, `format`, ...).

    Returns an unsigned 64-bit integer. Text is brought to Unicode NFC first, so that two encodings of the
    same characters agree; lone surrogates are replaced by U+FFFD.
    """
    normal = text if text.isascii() else unicodedata.normalize("NFC", text)
    return xxhash.xxh3_64_intdigest(f"{role}\x1f{normal}".encode("utf-8", "replace"))


def chain_hash(previous: int, role: str, text: str) -> int:
    """Extend a running hash by one message: `XXH3(previous as 8 little-endian bytes + content_hash)`.

    Start a chain with `previous = 0`. Used for `turn_hashes` (after each user-authored turn) and
    `prefix_hash` (everything before the newest user turn, in order).
    """
    return chain_on(previous, content_hash(role, text))


def chain_on(previous: int, content: int) -> int:
    """`chain_hash` for a message whose `content_hash` is already known: one text, many chains."""
    return xxhash.xxh3_64_intdigest(_PAIR(previous, content))
