"""Bytes of a log that is still being written -> sketched canonical rows, by the importers that scans use."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.ingest import open_log
from stillwatch.ingest.lookup import NO_LOOKUPS, Lookups
from stillwatch.ingest.textfree import text_free
from stillwatch.schema.errors import EmptyLogError, InputError
from stillwatch.schema.refusals import Refusal
from stillwatch.sketch import RulePack, default_rules
from stillwatch.store.owners import Owner


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole rows of one source."""

    name: str
    """What refusals call it; no path of somebody's machine, no query string."""
    data: bytes
    offset: int = 0
    """Where it begins in its source, in bytes."""


@dataclass(slots=True)
class Taken:
    """What became of pieces: every row is in `batches`, in `refusals`, or no exchange (`passed`)."""

    batches: list[pa.RecordBatch] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    owners: Counter[Owner] = field(default_factory=Counter)
    passed: int = 0
    newest_us: int = 0
    format: str | None = None
    """The importer that read the last piece."""
    broken: int = 0
    """Pieces that were not read to their end."""

    @property
    def rows(self) -> int:
        return sum(batch.num_rows for batch in self.batches)

    def add(self, other: Taken) -> None:
        """Take what became of other pieces in, too."""
        self.batches += other.batches
        self.refusals += other.refusals
        self.owners.update(other.owners)
        self.passed += other.passed
        self.newest_us = max(self.newest_us, other.newest_us)
        self.format = other.format or self.format
        self.broken += other.broken


@dataclass(frozen=True, slots=True)
class Intake:
    """How one input is read."""

    format: str | None = None
    """Importer; None: by the content of each piece."""
    mapping: Path | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    lookups: Lookups = NO_LOOKUPS
    rules: RulePack = field(default_factory=default_rules)

    def read(self, pieces: Sequence[Piece]) -> Taken:
        """Rows of all pieces, without text.

        Never raises for what a piece holds. UsageError where format, mapping or overrides are wrong.
        """
        taken = Taken()
        for piece in pieces:
            with _in_memory(piece.data) as path:
                self._one(path, piece, taken)
        return taken

    def _one(self, path: Path, piece: Piece, taken: Taken) -> None:
        kept: list[pa.RecordBatch] = []
        refused: list[Refusal] = []
        broken: str | None = None
        try:
            with open_log(
                [str(path)],
                format=self.format,
                mapping=self.mapping,
                overrides=self.overrides,
                lookups=self.lookups,
            ) as log:
                try:
                    for batch in log.batches():
                        kept += text_free(batch, self.rules)
                        taken.newest_us = max(taken.newest_us, _newest(batch))
                except InputError as error:
                    broken = error.what
                except Exception as error:
                    # What an importer gets wrong must not stop the others' rows; it is told as what it is.
                    broken = f"a fault of the importer ({type(error).__name__})"
                refused += log.refusals
                taken.passed += log.rows_passed
                taken.owners.update(log.owners.counts())
                taken.format = log.format
        except EmptyLogError:
            return
        except InputError as error:
            broken = error.what
        taken.batches += kept
        taken.refusals += [
            msgspec.structs.replace(
                refusal,
                file=piece.name,
                offset=None if refusal.offset is None else refusal.offset + piece.offset,
            )
            for refusal in refused
        ]
        if broken is not None:
            taken.broken += 1
            lines = piece.data.count(b"\n") + (not piece.data.endswith(b"\n"))
            reason = f"{lines:,} lines from here on, as far as they were not read: {broken}"
            taken.refusals.append(Refusal(piece.name, 1, piece.offset, None, reason))


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[Path]:
    """A file that importers can open and that is on no disk: what comes in may be text."""
    handle = os.memfd_create("stillwatch", os.MFD_CLOEXEC)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        yield Path(f"/proc/self/fd/{handle}")


def _newest(batch: pa.RecordBatch) -> int:
    return pc.max(batch.column("ts").cast(pa.int64())).as_py() or 0
