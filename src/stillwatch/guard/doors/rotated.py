"""JSON lines in a folder, a new file when one is full: for a log that others read while it grows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from stillwatch.schema.errors import unwritable

MOST_FILE = 256 << 20
"""Bytes after which the next file begins."""


class Rotated:
    """Lines are appended to `NAME.jsonl`; a full one is renamed to `NAME-TIME.jsonl`, and never written again.

    Files have mode 0600. Lines are written whole or not at all: what a full disk cut off is taken back, and what a
    killed process left without an end is closed with a line feed, so that it is one broken line and no more.
    """

    def __init__(self, folder: Path, name: str = "exchanges", most: int = MOST_FILE) -> None:
        """OutputError where the folder cannot be written to."""
        self._folder, self._name, self._most = folder, name, most
        self.path = folder / f"{name}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._open()
        except OSError as error:
            raise unwritable(error, str(folder), "the exchanges") from error

    def _open(self) -> None:
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size
        if self._size and os.pread(self._file, 1, self._size - 1) != b"\n":
            self._size += os.write(self._file, b"\n")

    def write(self, lines: Sequence[bytes]) -> None:
        """Append the lines, given without their ends. OutputError if they could not be: then none is there."""
        if not lines:
            return
        data = b"\n".join((*lines, b""))
        try:
            if self._size and self._size + len(data) > self._most:
                self._turn()
            done = 0
            try:
                while done < len(data):
                    done += os.write(self._file, data[done:])
            except OSError:
                os.ftruncate(self._file, self._size)
                raise
            self._size += done
        except OSError as error:
            raise unwritable(error, str(self.path), "the exchanges") from error

    def _turn(self) -> None:
        os.fsync(self._file)
        now = f"{self._name}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.jsonl"
        os.rename(self.path, self._folder / now)
        os.close(self._file)
        self._open()

    def close(self) -> None:
        """On the disk, and closed."""
        os.fsync(self._file)
        os.close(self._file)
