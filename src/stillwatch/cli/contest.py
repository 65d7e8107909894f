"""The scan as a method of the arena: one log judged once, concluded with every setting that is measured."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

from stillwatch.arena.board.method import Method
from stillwatch.scan import Options, Scanned, scan_each
from stillwatch.scan.run import version
from stillwatch.store.results import Results, write_results

SETTINGS = {
    "all": Options(),
    "50 references": Options(most_references=50),
    "20 references": Options(most_references=20),
    "0 references": Options(most_references=0),
    "references alone": Options(roads=("references",)),
    "direct alone": Options(roads=("direct",)),
}


def results_of(scanned: Scanned) -> Results:
    """A scan's outcome as the store keeps it."""
    return Results(
        scanned.findings,
        scanned.accounts,
        scanned.streams,
        scanned.families,
        scanned.profiles,
        scanned.waterfall,
        scanned.refusals,
        scanned.run_info,
        scoring=scanned.scoring,
    )


def _run(log: Path, out: Path, names: tuple[str, ...]) -> None:
    for name, scanned in zip(names, scan_each([str(log)], [SETTINGS[n] for n in names]), strict=True):
        write_results(out / name, results_of(scanned))


def run_all_settings(log: Path, out: Path) -> None:
    """The scan with every setting."""
    _run(log, out, tuple(SETTINGS))


def run_default(log: Path, out: Path) -> None:
    """The scan as a user runs it."""
    _run(log, out, ("all",))


def ours(*, settings: bool) -> Method:
    """The scan under test."""
    about = "this scan: found on one kind of evidence, proven on another"
    if settings:
        return Method("stillwatch", about, run_all_settings, tuple(SETTINGS))
    return Method("stillwatch", about, run_default)


def measured_version() -> str:
    """The package's version, and a digest of the source that decides what is composed, found and scored."""
    digest = hashlib.sha256()
    root = resources.files("stillwatch")
    for room in ("schema", "sketch", "ingest", "engine", "views", "detect", "campaign", "scan", "arena"):
        for path in sorted(Path(str(root.joinpath(room))).rglob("*")):
            if path.suffix in (".py", ".yaml"):
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"{version()}+{digest.hexdigest()[:12]}"
