"""Files of JSON lines to which rows are only added, each with the hash of the row before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from stillwatch.schema.errors import DecisionError, Where

FIRST = "0" * 64
"""What stands for the row before the first."""
MOST_BYTES = 64 << 20


class Chained(Protocol):
    """One line."""

    @property
    def number(self) -> int:
        """From 0."""
        ...

    @property
    def before(self) -> str:
        """Hash of the row before."""
        ...

    @property
    def hash(self) -> str:
        """Its own."""
        ...


R = TypeVar("R", bound=Chained)


def read_chain(path: Path, kind: type[R], what: str, sound: Callable[[R], bool]) -> list[R]:
    """All rows of the file of `what`, none where there is no file. DecisionError names the line that was altered.

    `sound`: whether a row's hash is its own.
    """
    try:
        with path.open("rb") as handle:
            data = handle.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DecisionError(f"the {what} cannot be read: {error.strerror}", where=Where(path.name)) from error
    if len(data) > MOST_BYTES:
        raise DecisionError(
            f"the file of {what} is larger than {MOST_BYTES >> 20} MiB", where=Where(path.name)
        )
    rows: list[R] = []
    for number, line in enumerate(data.splitlines()):
        where = Where(path.name, line=number + 1)
        try:
            row = msgspec.json.decode(line, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DecisionError(f"this is no row of {what}", where=where) from error
        if row.number != number or row.before != head_of(rows) or not sound(row):
            raise DecisionError(
                f"the {what} were altered here: the row does not follow from those before it",
                where=where,
                hint="restore the file from a copy; nothing in it counts as it is",
            )
        rows.append(row)
    return rows


def head_of(rows: Sequence[Chained]) -> str:
    """Hash of the last row."""
    return rows[-1].hash if rows else FIRST


def has(rows: Sequence[Chained], head: str | None) -> bool:
    """Whether the row that somebody noted is there; a file that was cut off, or is another one, lacks it."""
    return head is None or head == FIRST or any(row.hash == head for row in rows)
