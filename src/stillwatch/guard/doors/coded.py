"""Content codings of a request's body (RFC 9110, section 8.4): a client must not hide its prompt in one.

gzip and deflate are read (RFC 1952, 1950, 1951), one in another if need be. What is not read here (br, zstd) stays as
it came: it is no JSON then, and the decision says that it lacks the body.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from stillwatch.guard.sight import MOST_BODY

MOST_CODINGS = 3
MOST_MEMBERS = 8
"""Of a gzip file. Each is looked for in what is left: a body of empty ones would take time without end."""
_AUTOMATIC, _RAW = 47, -15
"""Window bits for zlib: gzip or zlib by their heads; deflate without either, as some clients send it."""
_PLAIN = frozenset({b"", b"identity"})
_READ = frozenset({b"gzip", b"x-gzip", b"deflate"})


def unpacked(codings: Sequence[bytes], body: bytes) -> bytes:
    """The body of a client's request as it was before `codings` (in the order in which they were applied).

    As it came where it cannot be unpacked: many servers heed no coding at all, and whoever names one that is not
    there must not be hidden by that.
    """
    found = unpack(codings, body, MOST_BODY)
    return body if found is None else found


def unpack(codings: Sequence[bytes], body: bytes, most: int) -> bytes | None:
    """The same, but None where it cannot be unpacked; so it is for what has more than `most` bytes then."""
    names = [name for name in (coding.strip().lower() for coding in codings) if name not in _PLAIN]
    if len(names) > MOST_CODINGS or not _READ.issuperset(names):
        return None
    out: bytes | None = body
    for name in reversed(names):
        if out is None:
            break
        data, out = out, _inflated(out, _AUTOMATIC, most)
        if out is None and name == b"deflate":
            out = _inflated(data, _RAW, most)
    return out


def _inflated(data: bytes, bits: int, most: int) -> bytes | None:
    """All members one after the other; None where it is not whole, larger than `most`, or in too many pieces."""
    parts: list[bytes] = []
    left = most
    for _ in range(MOST_MEMBERS):
        if not data:
            break
        reader = zlib.decompressobj(bits)
        try:
            part = reader.decompress(data, left + 1)
        except zlib.error:
            return None
        left -= len(part)
        if not reader.eof or left < 0:
            return None
        parts.append(part)
        data = reader.unused_data
    return None if data else b"".join(parts)
