"""Where a made log keeps its exchanges: one file, or numbered parts where a log is large."""

from __future__ import annotations

from pathlib import Path

from stillwatch.schema.errors import ResultError, Where


def exchange_files(log: Path) -> list[Path]:
    """The files of the exchanges, in the order of the truth. ResultError where there are none."""
    found = sorted(log.glob("exchanges*.parquet"))
    if not found:
        raise ResultError("the folder holds no made log", where=Where(file=log.name))
    return found
