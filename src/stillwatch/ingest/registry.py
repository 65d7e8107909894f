"""Importers: what one is, where they come from, and which one reads a given input.

A package adds a format with an entry point in the group `stillwatch.importers` that names an object of the
`Importer` protocol. The built-in ones are there without any installed metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillwatch.ingest.source import Container, Source
from stillwatch.schema.errors import FormatError, InputError, UsageError, Where

GROUP = "stillwatch.importers"

BUILT_IN = {
    "bedrock": "stillwatch.ingest.bedrock:IMPORTER",
    "bodies": "stillwatch.ingest.envelope:IMPORTER",
    "canonical": "stillwatch.ingest.canonical:IMPORTER",
    "envoy": "stillwatch.ingest.envoy:IMPORTER",
    "litellm": "stillwatch.ingest.litellm:IMPORTER",
    "mapping": "stillwatch.ingest.mapping:IMPORTER",
    "otlp": "stillwatch.ingest.otlp:IMPORTER",
}

SURE_ENOUGH = 0.2
"""Below this confidence no importer claims an input."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What an importer may look at before anything is read."""

    head: bytes
    """The first 64 KiB, decompressed."""
    container: Container
    columns: tuple[str, ...] | None = None
    """Column names, where the container declares them."""
    objects: tuple[Mapping[str, Any], ...] = ()
    """The complete JSON objects in the head, at most sixteen."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a log is to be read; the same for all its inputs."""

    batch_rows: int = 65_536
    columns: frozenset[str] | None = None
    """Canonical columns that are wanted, or all; an importer may deliver more."""
    extras: bool = False
    """Carry unknown columns along (`stillwatch ingest`); a scan has no use for them."""
    mapping: Path | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    """Column -> `$.path` or `=constant`; wins over what the importer finds."""
    rows: npt.NDArray[np.int64] | None = None
    """Row numbers that are wanted, or all; an importer may deliver more, and skips what is cheap to skip."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that did not become one: where it stands and why. Row numbers start at 1."""

    row: int
    reason: str
    offset: int | None = None
    column: str | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    """What a log says about who holds an account."""

    account_id: str
    entity_id: str | None = None
    email_domain: str | None = None


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Rows as an importer found them: canonical names, types not yet checked."""

    table: pa.Table
    rows: npt.NDArray[np.int64]
    """Row number of each row of `table`, from 1, rising."""
    offsets: npt.NDArray[np.int64] | None = None
    """Byte offset of each row in the decompressed file, where rows have one."""
    broken: list[Broken] = field(default_factory=list)
    owners: list[Owner] = field(default_factory=list)
    """One entry per row at most; the reader counts and settles contradictions."""
    passed: int = 0
    """Rows that are whole and no exchange (spans of other kinds, health checks): neither in `table` nor broken."""


@runtime_checkable
class Importer(Protocol):
    """One log format."""

    name: str

    def sniff(self, probe: Probe) -> float:
        """Confidence in [0, 1] that an input is of this format. Never raises."""
        ...

    def read(self, source: Source, options: ReadOptions) -> Iterator[RawBatch]:
        """Batches of bounded size. Raises FormatError when the file cannot be read any further."""
        ...


def load_importers() -> dict[str, Importer]:
    """All importers by name; an installed one replaces a built-in one of the same name.

    Raises InputError when an installed importer cannot be loaded: silence would read its logs wrongly.
    """
    found: dict[str, Importer] = {}
    for target in BUILT_IN.values():
        module, attribute = target.split(":")
        importer: Importer = getattr(import_module(module), attribute)
        found[importer.name] = importer
    for point in metadata.entry_points(group=GROUP):
        if BUILT_IN.get(point.name) == point.value:
            continue
        try:
            loaded = point.load()
        except Exception as error:
            raise InputError(
                f"the importer {point.name!r} cannot be loaded: {type(error).__name__}",
                hint="update or uninstall the package that brings it",
            ) from error
        if not isinstance(loaded, Importer):
            raise InputError(
                f"the entry point {point.name!r} in {GROUP} is not an importer",
                hint="it needs the attributes name, sniff and read",
            )
        found[point.name] = loaded
    return found


def choose(
    sources: Sequence[Source], probes: Sequence[Probe], wanted: str | None, importers: Mapping[str, Importer]
) -> Importer:
    """The one importer for all inputs of a scan.

    Raises UsageError (`wanted` is unknown), FormatError (nobody recognises an input, or two inputs are of
    two formats; both are named).
    """
    if wanted is not None:
        if wanted not in importers:
            raise UsageError(
                f"unknown format {wanted!r}", hint=f"known formats: {', '.join(sorted(importers))}"
            )
        return importers[wanted]
    first: tuple[Source, Importer] | None = None
    for source, probe in zip(sources, probes, strict=True):
        if source.container == "empty":
            continue
        importer = _best(source, probe, importers.values())
        if first is None:
            first = (source, importer)
        elif first[1].name != importer.name:
            raise FormatError(
                f"mixed formats: this is {importer.name}, {first[0].path} is {first[1].name}",
                where=Where(source.path),
                hint="bring each log to the canonical form with `stillwatch ingest`, then scan them together",
            )
    return first[1] if first is not None else importers["canonical"]


def _best(source: Source, probe: Probe, importers: Iterable[Importer]) -> Importer:
    ranked = sorted(((importer.sniff(probe), importer.name, importer) for importer in importers), key=_rank)
    confidence, _, importer = ranked[0]
    if confidence < SURE_ENOUGH:
        raise FormatError(
            f"no importer recognises this {probe.container} file",
            where=Where(source.path),
            hint="say what it is with --format, or write a mapping file and pass it with --mapping",
        )
    return importer


def _rank(entry: tuple[float, str, Importer]) -> tuple[float, str]:
    return (-entry[0], entry[1])
