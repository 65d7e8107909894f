"""What a folder or file that Stillwatch wrote is, how old its data are, and how much there is of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.schema.errors import ResultError, Where
from stillwatch.store.manifest import read_manifest
from stillwatch.store.results import read_findings

Kind = Literal["results", "tables", "partitions", "events", "other"]


@dataclass(frozen=True, slots=True)
class Place:
    """One of them."""

    kind: Kind
    path: Path
    first: datetime | None
    """Time of the oldest exchange in it, UTC; None where it has none."""
    last: datetime | None
    size: int
    """Bytes."""


def plain(roots: Sequence[Path]) -> list[Path]:
    """The same folders by their whole names: `.` has no name beside which anything could be written."""
    return [Path(os.path.abspath(root)) for root in roots]


def places_in(root: Path) -> Iterator[Place]:
    """What is in a folder, and in the folders in it. ResultError where something of Stillwatch's cannot be read.

    Links are not followed. A folder that holds none of Stillwatch's own is searched; its files are `other`.
    """
    if not root.is_dir() or root.is_symlink():
        raise ResultError("there is no such folder", where=Where(str(root)))
    if (root / "findings.json").exists():
        run = read_findings(root).run
        yield Place("results", root, _time(run.first_ts), _time(run.last_ts), _size(root))
    elif (root / "manifest.json").exists() and (root / "days").is_dir():
        manifest = read_manifest(root / "manifest.json")
        parts = () if manifest is None else manifest.parts
        first = min((part.first_us for part in parts), default=None)
        last = max((part.last_us for part in parts), default=None)
        yield Place("partitions", root, _of_us(first), _of_us(last), _size(root))
    elif (root / "exchanges.parquet").exists():
        yield Place("tables", root, *_span(root / "exchanges.parquet"), _size(root))
    else:
        for path in sorted(root.iterdir()):
            if path.is_symlink():
                continue
            if path.is_dir():
                yield from places_in(path)
            elif path.is_file():
                yield Place("other", path, None, None, path.stat().st_size)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _of_us(us: int | None) -> datetime | None:
    return None if us is None else datetime.fromtimestamp(us / 1e6, UTC)


def _span(path: Path) -> tuple[datetime | None, datetime | None]:
    """From the statistics that every row group has."""
    try:
        found = pq.read_metadata(path)
        place = found.schema.to_arrow_schema().get_field_index("ts")
        groups = [found.row_group(i).column(place).statistics for i in range(found.num_row_groups)]
    except (OSError, pa.ArrowException, IndexError) as error:
        raise ResultError("a table is damaged", where=Where(str(path))) from error
    known = [group for group in groups if group is not None and group.has_min_max]
    if not known:
        return None, None
    first, last = min(group.min for group in known), max(group.max for group in known)
    return first.astimezone(UTC), last.astimezone(UTC)
