"""A folder is replaced by another one in one step, so that there is always a whole one in its place."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from pathlib import Path

from stillwatch.store.files import sync_folder

_AT_FDCWD, _EXCHANGE = -100, 2
"""Of Linux' renameat2(2); macOS calls its own RENAME_SWAP, also 2."""


def replace_folder(new: Path, old: Path) -> None:
    """Put `new` in the place of `old`, both in one folder, and delete what was there. OSError where it cannot.

    Where the system cannot exchange two names at once, there is a moment in which only `aside(old)` is there;
    `restore` puts it back.
    """
    gone = aside(old)
    for path in new.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
    if _exchange(new, old):
        sync_folder(old.parent)
        shutil.rmtree(new)
    else:
        os.replace(old, gone)
        os.replace(new, old)
        sync_folder(old.parent)
        shutil.rmtree(gone)
    sync_folder(old.parent)


def aside(folder: Path) -> Path:
    """Where the old content waits while it is replaced."""
    return folder.with_name(f".{folder.name}-replaced")


def fresh(folder: Path) -> Path:
    """A new empty folder beside `folder` (mode 0700), in which its new content is written. Removes an earlier one."""
    restore(folder)
    made = folder.with_name(f".{folder.name}-replacing")
    made.mkdir(mode=0o700)
    return made


def restore(folder: Path) -> None:
    """Tidy up what was broken off: the old content is in its place then, or the new one, and nothing beside it."""
    gone, made = aside(folder), folder.with_name(f".{folder.name}-replacing")
    if gone.exists() and not folder.exists():
        os.replace(gone, folder)
    for path in (gone, made):
        if path.exists():
            shutil.rmtree(path)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or the disk cannot."""
    names = os.fsencode(one.absolute()), os.fsencode(other.absolute())
    try:
        system = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            return system.renamex_np(*names, _EXCHANGE) == 0
        return system.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE) == 0
    except (OSError, AttributeError, TypeError):
        return False
