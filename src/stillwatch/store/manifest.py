"""Which files of partitions count, how far each input has come, and which days a window holds."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec

from stillwatch.schema.errors import InputError, Where
from stillwatch.schema.journal import Json
from stillwatch.store.rows import day_of

VERSION = 1
LEAST_OF_WINDOW = 0.01


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a day and input."""

    day: str
    input: str
    file: str
    rows: int
    digest: str
    """SHA-256, hex."""
    first_us: int
    last_us: int


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What the journal is to be told of a file."""

    kind: Literal["partition", "partition_deleted"]
    part: Part

    @property
    def payload(self) -> dict[str, Json]:
        """As the journal has it."""
        part = self.part
        told: dict[str, Json] = {"file": part.file, "rows": part.rows, "sha256": part.digest}
        return told | {"input": part.input} if self.kind == "partition" else told


class Through(msgspec.Struct, frozen=True, kw_only=True):
    """How far an input has come."""

    segment: int = -1
    position: Any = None
    """Whatever the input's reader needs to go on."""
    rows: int = 0
    refused: int = 0
    doubled: int = 0
    """Rows that had come before under the same id."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What counts. Everything else in the folder is left over from something that broke off."""

    version: int = VERSION
    number: int = 0
    parts: tuple[Part, ...] = ()
    inputs: dict[str, Through] = {}
    owners: str | None = None
    unannounced: tuple[Event, ...] | msgspec.UnsetType = msgspec.UNSET
    """What this manifest did and the journal may not know yet; unset where there is nothing."""

    @property
    def newest_us(self) -> int:
        """Event time of the newest row, 0 without one."""
        return max((part.last_us for part in self.parts), default=0)

    def window(self, days: int, until_us: int | None = None) -> list[Part]:
        """The files of the last `days` days, up to `end` or the day of `until_us`."""
        end = self.end(days) if until_us is None else day_of(until_us)
        begin = (date.fromisoformat(end) - timedelta(days=days - 1)).isoformat()
        return [part for part in self.parts if begin <= part.day <= end]

    def end(self, days: int) -> str:
        """The last day of a window: the newest one whose window holds `LEAST_OF_WINDOW` of the fullest one's rows.

        A few rows with a wrong date must not empty the window, or delete what is older than they are.
        """
        rows: Counter[str] = Counter()
        for part in self.parts:
            rows[part.day] += part.rows
        held: dict[str, int] = {}
        for day in rows:
            begin = (date.fromisoformat(day) - timedelta(days=days - 1)).isoformat()
            held[day] = sum(count for other, count in rows.items() if begin <= other <= day)
        enough = LEAST_OF_WINDOW * max(held.values(), default=0)
        return max((day for day, count in held.items() if count >= enough), default=day_of(0))


def read_manifest(path: Path) -> Manifest | None:
    """The manifest at `path`, None where there is none. InputError if it is damaged or of another version."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(
            "the manifest of the partitions is damaged",
            where=Where(str(path)),
            hint="restore it from a backup: it says which files count",
        ) from error
    if found.version != VERSION:
        raise InputError(
            f"these partitions have version {found.version}, this program writes {VERSION}",
            where=Where(str(path)),
            hint="name another folder",
        )
    return found
