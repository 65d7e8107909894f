"""What is kept where and since when, and how what is older than a limit is deleted. The log says that it was, once.

The age is that of the data, not of the file: a scan of last year's log is a year old. What is deleted is told before
it goes, so that nothing ever goes untold; a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from stillwatch.evidence.privacy.places import Kind, Place, places_in, plain
from stillwatch.evidence.privacy.rewrite import tables_digest
from stillwatch.schema.errors import ResultError, Where, unwritable
from stillwatch.schema.journal import Journal
from stillwatch.store.files import sync_folder
from stillwatch.store.manifest import read_manifest
from stillwatch.store.partitions import Partitions
from stillwatch.store.results import results_digest

EVENTS = re.compile(r"litellm-\d+-\d+-\d+\.jsonl")
"""Requests that the guard noted inside LiteLLM. Their age is that of the file: it is only added to."""
_GOING = ".deleting"


@dataclass(frozen=True, slots=True)
class Kept:
    """Something that is kept and has an age."""

    kind: Kind
    path: Path
    first: datetime | None
    last: datetime | None
    size: int
    days: tuple[str, ...] = ()
    """Of partitions: the days that are older than the limit. They go alone."""
    in_use: bool = False
    """Results that a service goes on from: they stay."""


def kept_in(roots: Sequence[Path], before: datetime | None = None) -> list[Kept]:
    """What is kept, oldest first; only what has data before `before` alone, if given. Raises as `places_in`."""
    found = [
        kept
        for root in plain(roots)
        for place in places_in(root)
        if (kept := _kept(place, before)) is not None
    ]
    return sorted(found, key=lambda kept: (kept.first or datetime.max.replace(tzinfo=UTC), str(kept.path)))


def _kept(place: Place, before: datetime | None) -> Kept | None:
    kind, last = place.kind, place.last
    if kind == "other":
        if not EVENTS.fullmatch(place.path.name):
            return None
        kind, last = "events", datetime.fromtimestamp(place.path.stat().st_mtime, UTC)
    days: tuple[str, ...] = ()
    if kind == "partitions" and before is not None:
        manifest = read_manifest(place.path / "manifest.json")
        parts = () if manifest is None else manifest.parts
        days = tuple(sorted({part.day for part in parts if part.day < before.date().isoformat()}))
    old = before is None or bool(days) or (kind != "partitions" and last is not None and last < before)
    if not old:
        return None
    return Kept(kind, place.path, place.first or last, last, place.size, days, _in_use(place.path))


def _in_use(path: Path) -> bool:
    try:
        return (path.parent / "current").read_text().strip() == path.name
    except (OSError, UnicodeDecodeError):
        return False


def delete(roots: Sequence[Path], before: datetime, journal: Journal | None = None) -> list[Kept]:
    """Delete what `kept_in` says is older than `before`, but for what is in use; returns what went.

    UsageError where a service uses the partitions, OutputError where something cannot be deleted.
    """
    for root in plain(roots):
        for path in _left_over(root):
            shutil.rmtree(path)
    gone = []
    for kept in kept_in(roots, before):
        if kept.in_use:
            continue
        if kept.kind == "partitions":
            partitions = Partitions(kept.path, journal)
            try:
                partitions.drop_before(before.date().isoformat())
            finally:
                partitions.close()
        else:
            if journal is not None:
                journal.append("deleted", {"what": kept.kind, "sha256": _digest(kept)})
            _remove(kept.path)
        gone.append(kept)
    return gone


def _digest(kept: Kept) -> str:
    if kept.kind == "results":
        return results_digest(kept.path)
    if kept.kind == "tables":
        return tables_digest(kept.path)
    try:
        with kept.path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise ResultError("a file cannot be read", where=Where(str(kept.path))) from error


def _remove(path: Path) -> None:
    try:
        if path.is_dir():
            going = path.with_name(f".{path.name}{_GOING}")
            os.replace(path, going)
            shutil.rmtree(going)
        else:
            path.unlink()
        sync_folder(path.parent)
    except OSError as error:
        raise unwritable(error, str(path), "what is too old") from error


def _left_over(root: Path) -> Iterator[Path]:
    """Folders that an earlier run had begun to delete."""
    if root.is_symlink() or not root.is_dir():
        return
    for path in sorted([*root.iterdir(), root.with_name(f".{root.name}{_GOING}")]):
        if path.is_symlink() or not path.is_dir():
            continue
        if path.name.startswith(".") and path.name.endswith(_GOING):
            yield path
        else:
            yield from _left_over(path)
