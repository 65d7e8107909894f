"""A snapshot as one file: a fixed head, a JSON header, arrays that are mapped. Sealed with a keyed digest.

Head, little-endian, 128 bytes: magic (8) | version u32 | 0 u32 | size of the file u64 | size of the header u64 |
mark of the secret (8) | seal (32) | zeros. The seal covers everything but itself. Arrays begin at multiples of 64.
"""

from __future__ import annotations

import mmap
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import numpy.typing as npt

from stillwatch.guard.secret import Secret
from stillwatch.schema.errors import SnapshotError, Where
from stillwatch.store.files import write_whole

MAGIC = b"STLWGRD\x00"
VERSION = 2
HEAD = 128
_FIXED = struct.Struct("<8sIIQQ8s")
_SEAL = slice(_FIXED.size, _FIXED.size + 32)
_AGAIN = "make it again with `stillwatch guard snapshot`"

Array = npt.NDArray[Any]


class _Place(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    at: int


class _Header(msgspec.Struct):
    meta: msgspec.Raw
    arrays: dict[str, _Place]


def write_snapshot(path: Path, meta: Any, arrays: Mapping[str, Array], secret: Secret) -> None:
    """Write `arrays` and `meta` (anything msgspec encodes) to `path` in one step. Same content, same bytes."""
    places: dict[str, _Place] = {}
    body: list[bytes | memoryview] = []
    at = 0
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        places[name] = _Place(array.dtype.str, array.shape, at)
        data = array.tobytes()
        body += [data, bytes(-len(data) % 64)]
        at += len(data) + (-len(data) % 64)
    encode = msgspec.json.Encoder(order="deterministic").encode
    header = encode(_Header(msgspec.Raw(encode(meta)), places))
    header += b" " * (-len(header) % 64)
    fixed = _FIXED.pack(MAGIC, VERSION, 0, HEAD + len(header) + at, len(header), secret.check())
    rest = bytes(HEAD - _FIXED.size - 32)
    seal = secret.seal([fixed, rest, header], body)
    write_whole(path, [fixed, seal, rest, header, *body], "the snapshot")


def map_snapshot(path: Path, secret: Secret, meta: type[Any]) -> tuple[Any, dict[str, Array]]:
    """(meta, read-only arrays over a copy of the file). Everything is checked before anything is returned.

    The copy is a nameless temporary file. Mapped itself, a snapshot that somebody writes over in place (`cp`, `scp`)
    would change under the requests, and kill the process where it becomes shorter.

    SnapshotError: no snapshot, truncated, of another version, of another secret, or changed since it was written.
    """
    where = Where(str(path))
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, 2)
            handle.seek(0)
            head = handle.read(HEAD)
            length = _checked(head, size, secret, where)
            with tempfile.TemporaryFile(prefix="stillwatch-snapshot-") as copy:
                copy.write(head)
                rest = _copied(handle, copy)
                if secret.seal([head[: _SEAL.start], head[_SEAL.stop :]], rest) != head[_SEAL]:
                    raise SnapshotError(
                        "the snapshot is damaged: its seal does not match", where=where, hint=_AGAIN
                    )
                copy.flush()
                data = mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        reason = error.strerror or "it cannot be opened"
        raise SnapshotError(
            f"the snapshot cannot be read, or not copied to {tempfile.gettempdir()}: {reason}", where=where
        ) from error
    view = memoryview(data)
    try:
        header = msgspec.json.decode(view[HEAD : HEAD + length], type=_Header)
        arrays = {}
        for name, place in header.arrays.items():
            count = int(np.prod(place.shape, dtype=np.int64))
            start = HEAD + length + place.at
            arrays[name] = np.frombuffer(data, np.dtype(place.dtype), count, start).reshape(place.shape)
        return msgspec.json.decode(header.meta, type=meta), arrays
    except (ValueError, TypeError, msgspec.DecodeError) as error:
        # Sealed by the right secret, and still not what this version writes.
        raise SnapshotError("the snapshot's header cannot be used", where=where, hint=_AGAIN) from error


def header_in(data: bytes, where: Where, meta: type[Any]) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """(meta, shapes of the arrays) of a snapshot's bytes; nobody who lacks the secret can tell whether they are true.

    SnapshotError where they are no snapshot of this version.
    """
    try:
        magic, version, _, whole, length, _ = _FIXED.unpack_from(data)
        if (magic, version, whole) == (MAGIC, VERSION, len(data)):
            header = msgspec.json.decode(data[HEAD : HEAD + length], type=_Header)
            shapes = {name: place.shape for name, place in header.arrays.items()}
            return msgspec.json.decode(header.meta, type=meta), shapes
    except (ValueError, struct.error, msgspec.DecodeError) as error:
        raise SnapshotError("the snapshot's header cannot be used", where=where, hint=_AGAIN) from error
    raise SnapshotError("this is no snapshot of this version", where=where, hint=_AGAIN)


def _copied(handle: IO[bytes], copy: IO[bytes]) -> Iterator[bytes]:
    while part := handle.read(1 << 20):
        copy.write(part)
        yield part


def _checked(head: bytes, size: int, secret: Secret, where: Where) -> int:
    """Size of the JSON header, as the fixed head says it; SnapshotError where the head does not fit."""
    if len(head) < HEAD:
        raise SnapshotError("this is no snapshot: it is too short", where=where, hint=_AGAIN)
    magic, version, _, whole, length, mark = _FIXED.unpack_from(head)
    if magic != MAGIC:
        raise SnapshotError("this is no snapshot", where=where, hint=_AGAIN)
    if version != VERSION:
        raise SnapshotError(
            f"the snapshot has version {version}, this program reads {VERSION}", where=where, hint=_AGAIN
        )
    if whole != size:
        raise SnapshotError(
            f"the snapshot is truncated or has grown: {size:,} bytes instead of {whole:,}",
            where=where,
            hint=_AGAIN,
        )
    if mark != secret.check():
        raise SnapshotError(
            "the snapshot was made with another secret",
            where=where,
            hint="give the secret that `stillwatch guard snapshot` had, or make the snapshot again",
        )
    return int(length)
