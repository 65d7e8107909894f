"""Following files of lines while they are written: rotation by renaming, by truncation, files that appear later.

A file is known by device, inode and the hash of how it begins, so that a renamed one is read to its end and a new one
of the same name from its beginning, also after a restart. What was read but not kept is read again.
"""

from __future__ import annotations

import glob
import hashlib
import os
import stat
import time
from dataclasses import dataclass, field
from typing import Any

from stillwatch.guard.watch.intake import Piece
from stillwatch.schema.refusals import Refusal

CHUNK = 16 << 20
"""Bytes of one file that are taken at a time."""
MOST_LINE = 64 << 20
"""A longer line is passed over, and counted."""
HEAD = 512
"""Bytes at a file's beginning that it is known by, besides its inode."""
MOST_FILES = 10_000
"""Files that one pattern may have; more are told and left."""
QUIET_S = 60.0
"""A last line without its end is taken when the file was not touched for so long."""
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
"""Rotated and packed: their lines were read before that."""


@dataclass(slots=True)
class _File:
    """A file and how far it has been read."""

    offset: int
    head: str
    """SHA-256 of the first `length` bytes, hex."""
    length: int
    skipping: bool = False
    """Inside a line that is too long."""


@dataclass(slots=True)
class Polled:
    """What a poll found. `state` is to be kept with the rows that come of `pieces`, and given to the next `Tail`."""

    pieces: list[Piece] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    truncated: int = 0
    """Files that were cut off behind our back: what was written between two polls is lost."""
    behind: int = 0
    """Bytes that are there and not yet read."""


class Tail:
    """The files that match `patterns`. `poll`, then `advance` once the rows are kept."""

    def __init__(self, patterns: list[str], state: dict[str, Any] | None = None) -> None:
        self._patterns = patterns
        self._files: dict[str, _File] = {
            key: _File(*entry) for key, entry in (state or {}).get("files", {}).items()
        }

    def poll(self, most: int = CHUNK, *, final: bool = False) -> Polled:
        """Whole lines that came since, of as many files as fit into `most` bytes. Changes nothing.

        `final`: nobody writes any more, so that a last line without its end is whole.
        """
        out = Polled()
        after: dict[str, _File] = {}
        left = most
        for path in self._paths():
            try:
                handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                os.close(handle)
                continue
            with os.fdopen(handle, "rb", buffering=0) as file:
                key = f"{found.st_dev}:{found.st_ino}"
                if key in after:
                    continue
                entry = self._entry(key, file, found.st_size, out)
                if left > 0 and found.st_size > entry.offset:
                    ended = final or time.time() - found.st_mtime > QUIET_S
                    left -= _lines(file, os.path.basename(path), entry, found.st_size, left, ended, out)
                out.behind += max(0, found.st_size - entry.offset)
                after[key] = entry
        # A file that is gone is remembered no longer: its inode may come again.
        out.state = {"files": {k: [e.offset, e.head, e.length, e.skipping] for k, e in sorted(after.items())}}
        return out

    def advance(self, state: dict[str, Any]) -> None:
        """The rows of a poll are kept: go on from there."""
        self._files = {key: _File(*entry) for key, entry in state["files"].items()}

    def _paths(self) -> list[str]:
        """Oldest first: what was renamed is read before what took its place."""
        found: dict[str, tuple[int, str]] = {}
        for pattern in self._patterns:
            # What a plain name is renamed to when it is rotated.
            names = [pattern, *glob.glob(f"{glob.escape(pattern)}.*")]
            for name in glob.glob(pattern) if glob.has_magic(pattern) else names:
                if name.endswith(COMPRESSED):
                    continue
                try:
                    found[name] = (os.stat(name).st_mtime_ns, name)
                except OSError:
                    continue
        return sorted(found, key=lambda name: found[name])[:MOST_FILES]

    def _entry(self, key: str, file: Any, size: int, out: Polled) -> _File:
        """The file as it was left; from the beginning where it is another one, or was cut off."""
        known = self._files.get(key)
        if known is not None and size >= known.offset and _head(file, known.length) == known.head:
            length = min(size, HEAD)
            if known.length < length:
                return _File(known.offset, _head(file, length), length, known.skipping)
            return _File(known.offset, known.head, known.length, known.skipping)
        if known is not None:
            out.truncated += 1
        length = min(size, HEAD)
        return _File(0, _head(file, length), length)


def _head(file: Any, length: int) -> str:
    return hashlib.sha256(os.pread(file.fileno(), length, 0)).hexdigest()


def _lines(file: Any, name: str, entry: _File, size: int, most: int, ended: bool, out: Polled) -> int:
    """Take whole lines; returns the bytes. A line longer than `MOST_LINE` is passed over.

    `ended`: what stands at the file's end is a whole line although it is not closed.
    """
    file.seek(entry.offset)
    data = file.read(min(most, size - entry.offset))
    taken = 0
    if entry.skipping:
        end = data.find(b"\n")
        cut = len(data) if end < 0 else end + 1
        entry.offset += cut
        taken += cut
        data = data[cut:]
        if end < 0:
            return taken
        entry.skipping = False
    end = data.rfind(b"\n")
    while end < 0 and len(data) < min(MOST_LINE, size - entry.offset):
        more = file.read(min(CHUNK, size - entry.offset - len(data)))
        if not more:
            break
        data += more
        end = data.rfind(b"\n")
    if end < 0 and len(data) >= MOST_LINE:
        out.refusals.append(
            Refusal(name, 1, entry.offset, None, f"a line of more than {MOST_LINE >> 20} MiB")
        )
        entry.offset += len(data)
        entry.skipping = True
        return taken + len(data)
    if ended and entry.offset + len(data) == size:
        end = len(data) - 1
    if end < 0:
        return taken
    data = data[: end + 1]
    out.pieces.append(Piece(name, data, entry.offset))
    entry.offset += len(data)
    return taken + len(data)
