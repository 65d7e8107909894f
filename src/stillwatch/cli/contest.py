"""The scan as a method of the arena: one log judged once, concluded with every setting that is measured."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from importlib import resources
from pathlib import Path

from stillwatch.arena.board.method import Method
from stillwatch.scan import Options, scan_each
from stillwatch.scan.conclude import ROADS
from stillwatch.scan.run import version
from stillwatch.store.results import results_of, write_results

ROADS_ALONE = {f"{road} alone": Options(roads=(road,)) for road in ROADS}
USUAL_REFERENCES = (0, 20, 50)


def _options(name: str) -> Options:
    """The setting that a results folder is named after: `all`, `N references`, or a road alone."""
    if name == "all":
        return Options()
    return ROADS_ALONE.get(name) or Options(most_references=int(name.split()[0]))


def run_settings(log: Path, out: Path, names: tuple[str, ...] = ("all",)) -> None:
    """The scan with every setting of `names`, each into the folder of its name; by default as a user runs it."""
    for name, scanned in zip(names, scan_each([str(log)], [_options(n) for n in names]), strict=True):
        write_results(out / name, results_of(scanned))


def ours(*, roads: bool = False, references: Sequence[int] = ()) -> Method:
    """The scan under test: with all references, also with at most so many, and with each road alone.

    `roads` brings `USUAL_REFERENCES` along.
    """
    about = "this scan: found on one kind of evidence, proven on another"
    counts = sorted({*references, *(USUAL_REFERENCES if roads else ())}, reverse=True)
    names = ("all", *(f"{count} references" for count in counts), *(ROADS_ALONE if roads else ()))
    return Method("stillwatch", about, partial(run_settings, names=names), names)


def measured_version() -> str:
    """The package's version, and a digest of the source that decides what is composed, found and scored."""
    digest = hashlib.sha256()
    root = resources.files("stillwatch")
    for room in ("schema", "sketch", "ingest", "engine", "views", "detect", "campaign", "scan", "arena"):
        for path in sorted(Path(str(root.joinpath(room))).rglob("*")):
            if path.suffix in (".py", ".yaml"):
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"{version()}+{digest.hexdigest()[:12]}"
