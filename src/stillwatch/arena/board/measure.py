"""Runs every method on every cell, and keeps the numbers of each in a file: a run that was stopped goes on."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stillwatch.arena.board.cells import Cell
from stillwatch.arena.board.cut import DAY_US, DAYS, bounds_us, cut
from stillwatch.arena.board.levels import operation_scores, stream_score, wrongly_named
from stillwatch.arena.board.method import Method, run_apart
from stillwatch.arena.board.truth import read_truth
from stillwatch.arena.files import write_text
from stillwatch.arena.score import score
from stillwatch.schema.errors import OutputError, Where

FORMAT = 1
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a scoreboard lives and what it was told about its logs."""

    out: Path
    corpora: Path | None = None
    traces: Path | None = None
    logs: Path | None = None
    """Folder of made logs that are used, and kept; by default they are made below `out` and removed."""
    version: str = ""
    """What the numbers are of: the version of the package, and a digest of its source."""

    @property
    def cells(self) -> Path:
        """Folder of the numbers."""
        return self.out / "cells"

    def log(self, cell: Cell) -> Path:
        """Folder of a cell's log."""
        return (self.logs or self.out / "logs") / cell.name


def numbers(place: Place) -> list[dict[str, Any]]:
    """Everything measured so far, in the order of file names. OutputError for a damaged file."""
    return [_read(path) for path in sorted(place.cells.glob("*.json"))]


def _read(path: Path) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if row["format"] != FORMAT:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            "numbers of an earlier run cannot be read",
            where=Where(file=path.name),
            hint="remove this file; it is measured again",
        ) from error
    return row


def measure(
    place: Place,
    cells: Sequence[Cell],
    methods: Sequence[Method],
    *,
    dated: Method | None = None,
    say: Say = print,
) -> int:
    """Measure what is not measured yet; returns how many runs failed. Failures are recorded, and tried again.

    `dated`: also see with this method when each operation is found.
    """
    place.cells.mkdir(parents=True, exist_ok=True)
    failed = 0
    for number, cell in enumerate(cells, 1):
        missing = [m for m in methods if not _done(place, cell, m.name, m.settings)]
        undated = dated if dated is not None and not _done(place, cell, f"{dated.name}@found") else None
        if not missing and undated is None:
            continue
        log = place.log(cell)
        say(f"[{number}/{len(cells)}] {cell.name}: composing")
        cell.compose(log, place.corpora, place.traces)
        for method in missing:
            row = one(log, method)
            row["settings"] = _settings_so_far(place, cell, method.name) | row["settings"]
            failed += row["failure"] is not None
            _keep(place, cell, method.name, row)
            say(f"[{number}/{len(cells)}] {cell.name}: {method.name}: {_brief(row)}")
        if undated is not None:
            row = when_found(log, undated)
            failed += row["failure"] is not None
            _keep(place, cell, f"{undated.name}@found", row)
            say(f"[{number}/{len(cells)}] {cell.name}: found: {len(row['cuts'])} cuts")
        if place.logs is None:
            shutil.rmtree(log)
    return failed


def one(log: Path, method: Method) -> dict[str, Any]:
    """One method on one log: how it ran, and the scores of every setting that it wrote."""
    with tempfile.TemporaryDirectory(prefix="stillwatch-board-") as folder:
        outcome = run_apart(method, log, Path(folder))
        row: dict[str, Any] = {**asdict(outcome), "about": method.about, "settings": {}}
        if outcome.failure is None:
            truth = read_truth(log)
            for results in sorted(Path(folder).iterdir()):
                streams = stream_score(results, truth)
                row["settings"][results.name] = {
                    "score": score(results, log).as_dict(),
                    "operations": [asdict(o) for o in operation_scores(results, truth)],
                    "wrong": wrongly_named(results, truth) if results.name == "all" else [],
                    "streams": None if streams is None else asdict(streams),
                }
            absent = sorted(set(method.settings) - set(row["settings"]))
            if absent:
                row["failure"] = f"it wrote no results folder {', '.join(absent)}"
        return row


def when_found(log: Path, method: Method) -> dict[str, Any]:
    """The log cut at several days: what of each operation was named by then, and what it had taken."""
    first, last = bounds_us(log)
    moments = [first + days * DAY_US for days in DAYS if first + (days - 1) * DAY_US < last]
    cuts: list[dict[str, Any]] = []
    failure = None
    with tempfile.TemporaryDirectory(prefix="stillwatch-board-") as folder:
        for days, moment in zip(DAYS, moments, strict=False):
            part, out = Path(folder) / "log", Path(folder) / "out"
            if not cut(log, part, moment):
                continue
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            outcome = run_apart(method, part, out)
            if outcome.failure is not None:
                failure = outcome.failure
                break
            found = operation_scores(out / "all", read_truth(part))
            cuts.append({"days": days, "operations": [asdict(o) for o in found]})
    return {"failure": failure, "about": method.about, "cuts": cuts, "settings": {}}


def _path(place: Place, cell: Cell, name: str) -> Path:
    return place.cells / f"{cell.name}--{name}.json"


def _done(place: Place, cell: Cell, name: str, settings: tuple[str, ...] = ()) -> bool:
    """Whether a run that did not fail is on record, with every setting that is asked for."""
    path = _path(place, cell, name)
    if not path.exists():
        return False
    row = _read(path)
    return row["failure"] is None and set(settings) <= set(row["settings"])


def _settings_so_far(place: Place, cell: Cell, name: str) -> dict[str, Any]:
    """Settings that the same version has measured on this log before: they stay."""
    path = _path(place, cell, name)
    row = _read(path) if path.exists() else None
    return {} if row is None or row["version"] != place.version else dict(row["settings"])


def _keep(place: Place, cell: Cell, name: str, row: dict[str, Any]) -> None:
    whole = {
        "format": FORMAT,
        "cell": {**asdict(cell), "settings": dict(cell.settings), "group": cell.group, "name": cell.name},
        "method": name,
        "version": place.version,
        **row,
    }
    write_text(_path(place, cell, name), json.dumps(whole, sort_keys=True) + "\n")


def _brief(row: dict[str, Any]) -> str:
    if row["failure"] is not None:
        return f"failed: {row['failure']}"
    first = row["settings"].get("all") or next(iter(row["settings"].values()))
    values = [first["score"][name]["value"] for name in ("precision", "recall")]
    shown = ["n/a" if v is None else f"{v:.3f}" for v in values]
    return f"precision {shown[0]}, recall {shown[1]}, {row['wall_s']:.0f} s, {row['peak_memory_mib']} MiB"


def forget(place: Place, cells: Sequence[Cell]) -> None:
    """Remove the numbers of these cells that another version has measured."""
    names = {cell.name for cell in cells}
    for path in place.cells.glob("*.json"):
        row = _read(path)
        if row["cell"]["name"] in names and row["version"] != place.version:
            path.unlink()
