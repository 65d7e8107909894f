"""Files of the arena: where a made log keeps its exchanges, and writing in one step."""

from __future__ import annotations

import os
from pathlib import Path

from stillwatch.schema.errors import ResultError, Where, unwritable


def exchange_files(log: Path) -> list[Path]:
    """The files of the exchanges, in the order of the truth: one, or numbered parts where a log is large.

    ResultError where there are none.
    """
    found = sorted(log.glob("exchanges*.parquet"))
    if not found:
        raise ResultError("the folder holds no made log", where=Where(file=log.name))
    return found


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step. OutputError where the place cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise unwritable(error, str(path.parent), path.name) from error
