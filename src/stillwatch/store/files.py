"""One file, written beside its place and moved there in one step; and one writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from stillwatch.schema.errors import unwritable


def write_whole(path: Path, parts: Iterable[bytes | memoryview], what: str) -> None:
    """Write `parts` one after the other to `path` (mode 0600), replacing what is there, or leave it as it was.

    OutputError if the place cannot be written; `what` is the thing's name in it. Readers see the old file or the
    new one, never half of one.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise unwritable(error, str(path), what) from error
    finally:
        if temporary is not None:
            os.unlink(temporary)


def sync_folder(folder: Path) -> None:
    """A rename is durable once its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Nobody else changes the file meanwhile. OutputError where it cannot be written; `what` is its name in it."""
    place = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # For nobody else: whoever could open it could hold it for ever.
        handle = os.fdopen(os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "a")
    except OSError as error:
        raise unwritable(error, str(path), what) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
