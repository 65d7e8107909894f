"""Whether a secret text is anywhere in files or output: as it is, encoded, hashed without a key, or packed away."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import html
import io
import json
import lzma
import re
import tarfile
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

_HASHES = ("md5", "sha1", "sha256", "sha512", "blake2b")


def forms(secret: str) -> dict[str, bytes]:
    """The ways in which a text may leak, by name. Hashes: an unkeyed one is as good as the text for who can guess."""
    raw = secret.encode()
    found = {
        "plain": raw,
        "utf-16": secret.encode("utf-16-le"),
        "utf-16, big": secret.encode("utf-16-be"),
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "percent": urllib.parse.quote(secret, safe="").encode(),
        "percent, all": "".join(f"%{byte:02X}" for byte in raw).encode(),
        "entities": "".join(f"&#{ord(sign)};" for sign in secret).encode(),
        "html": html.escape(secret).encode(),
        "json": json.dumps(secret)[1:-1].encode(),
        "json, all": "".join(f"\\u{ord(sign):04x}" for sign in secret).encode(),
        "base32": base64.b32encode(raw)[: len(raw) // 5 * 8],
        "reversed": raw[::-1],
        "capitals": secret.upper().encode(),
    }
    for shift in range(3):
        # What stands before decides how the bytes fall into groups of three.
        text = base64.b64encode(b"\0" * shift + raw)
        inner = text[(shift * 8 + 5) // 6 : (shift + len(raw)) * 8 // 6]
        found[f"base64, {shift}"] = inner
        found[f"base64url, {shift}"] = inner.replace(b"+", b"-").replace(b"/", b"_")
    for name in _HASHES:
        digest = hashlib.new(name, raw)
        found[name] = digest.hexdigest().encode()[:32]
        found[f"{name}, base64"] = base64.b64encode(digest.digest())[:20]
        found[f"{name}, bytes"] = digest.digest()[:16]
    found["xxh3"] = xxhash.xxh3_64_hexdigest(raw).encode()
    return found


def leaks(places: Iterable[tuple[str, bytes]], secrets: Iterable[str]) -> list[tuple[str, str, str]]:
    """(place, secret, form) of everything that was found."""
    wanted = {(secret, name): form for secret in secrets for name, form in forms(secret).items()}
    pattern = re.compile(
        b"|".join(re.escape(form) for form in sorted(set(wanted.values()), key=len, reverse=True))
    )
    found = []
    for place, data in places:
        hits = {match.group() for match in pattern.finditer(data)}
        found += [(place, secret, name) for (secret, name), form in wanted.items() if form in hits]
    return sorted(set(found))


def everything_in(root: Path) -> Iterator[tuple[str, bytes]]:
    """Every file in a folder, its name too, and what is packed inside."""
    for path in [root, *sorted(root.rglob("*"))]:
        yield f"name of {path.name}", path.name.encode()
        if path.is_file() and not path.is_symlink():
            yield from unpacked(path.name, path.read_bytes())


def unpacked(name: str, data: bytes, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """The bytes, and those of members of archives, cells of tables, compressed streams, base64 in JSON."""
    yield name, data
    if depth > 4:
        return
    for inner, more in _inside(data):
        yield from unpacked(f"{name} > {inner}", more, depth + 1)


def _inside(data: bytes) -> Iterator[tuple[str, bytes]]:
    if data[:4] == b"PAR1":
        for column in pq.read_table(io.BytesIO(data)).columns:
            yield "cells", b"\n".join(_cells(column))
        yield "footer", repr(pq.read_schema(io.BytesIO(data)).metadata).encode()
    elif data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                yield member.filename, member.filename.encode() + b"\n" + archive.read(member)
    elif data[:2] == b"\x1f\x8b":
        yield "gzip", gzip.decompress(data)
    elif data[:6] == b"\xfd7zXZ\0":
        yield "xz", lzma.decompress(data)
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for entry in archive:
                held = archive.extractfile(entry)
                yield entry.name, b"" if held is None else held.read()
    elif data[:5] == b"%PDF-":
        for number, stream in enumerate(re.findall(rb"stream\r?\n(.*?)endstream", data, re.DOTALL)):
            with contextlib.suppress(zlib.error):
                yield f"stream {number}", zlib.decompressobj().decompress(stream)
    elif data[:1] in (b"{", b"["):
        for number, text in enumerate(re.findall(rb'"([A-Za-z0-9+/_-]{64,}={0,2})"', data)[:1000]):
            with contextlib.suppress(ValueError):
                padded = text.rstrip(b"=") + b"=" * (-len(text.rstrip(b"=")) % 4)
                yield (
                    f"base64 {number}",
                    base64.b64decode(padded, b"-_" if b"-" in text or b"_" in text else None),
                )


def _cells(column: Any) -> Iterator[bytes]:
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield from (cell.encode() for cell in column.unique().to_pylist() if cell is not None)
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        yield from (cell for cell in column.unique().to_pylist() if cell is not None)
    elif pa.types.is_nested(kind):
        yield from (repr(cell).encode() for cell in column.to_pylist() if cell is not None)
