"""Opening logs: files of any recognised format in, checked canonical batches out.

Nothing is lost: a row comes out in a batch, or it is in `Log.refusals` with its place and reason.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.ingest.ids import IDENTITY, Ordinals, derived_ids, row_hashes
from stillwatch.ingest.lookup.use import NO_LOOKUPS, Lookups
from stillwatch.ingest.objects import first_objects
from stillwatch.ingest.owners import Owners
from stillwatch.ingest.refused import with_bytes
from stillwatch.ingest.registry import Importer, Probe, RawBatch, ReadOptions, choose, load_importers
from stillwatch.ingest.side import read_side_and_digest
from stillwatch.ingest.source import InputInfo, Source, digest, discover, inspect, refuse_empty
from stillwatch.schema.checks import Checked, DuplicateIds, TimeUnit, check_exchanges
from stillwatch.schema.errors import InputError, UsageError, Where
from stillwatch.schema.refusals import Refusal, RefusalLedger, raise_first
from stillwatch.schema.tables import EXCHANGES, SIDE_TABLES, required
from stillwatch.sketch import faults

_NEEDED = frozenset(required(EXCHANGES))


def open_log(
    paths: Sequence[str],
    *,
    format: str | None = None,
    mapping: Path | None = None,
    overrides: Mapping[str, str] | None = None,
    side: Mapping[str, str] | None = None,
    columns: Sequence[str] | None = None,
    extras: bool = False,
    strict: bool = False,
    batch_rows: int = 65_536,
    lookups: Lookups = NO_LOOKUPS,
) -> Log:
    """Find, recognise and prepare the logs at `paths` (files, globs, directories, `-`).

    `format` names an importer, else the content decides. `mapping` is a TOML mapping file; `overrides` maps a
    column to `$.path` or `=constant` and wins over everything. `side` gives side tables by name and wins over
    those found in directories. `columns` restricts what is read to these canonical columns (the required ones
    are always there). `extras` carries unknown columns along. `lookups` fills `asn` where the log has none.

    Raises UsageError, InputError, FormatError, EmptyLogError; reading rows starts with `Log.batches`.
    """
    if batch_rows < 1:
        raise UsageError("batch_rows must be at least 1")
    unknown = sorted(set(columns or ()) | set(overrides or ()))
    unknown = [name for name in unknown if name not in EXCHANGES.names]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is no canonical column", hint="SCHEMA lists the columns")
    importers = load_importers()
    if mapping is not None and format not in (None, "mapping"):
        raise UsageError(
            f"a mapping file and the format {format!r} exclude each other",
            hint="leave out one of the two; single columns are changed with --map",
        )
    if mapping is not None:
        format = "mapping"
    if format is not None and format not in importers:
        known = ", ".join(sorted(importers))
        raise UsageError(f"unknown format {format!r}", hint=f"known formats: {known}")
    found = discover(paths)
    if not found.logs:
        raise InputError(
            "no log found here",
            where=Where(", ".join(paths[:3])),
            hint="logs end in .parquet, .arrow, .jsonl, .json, .log or .csv, each also with .gz or .zst",
        )
    tables = {**found.side, **(side or {})}
    wrong = sorted(set(tables) - set(SIDE_TABLES))
    if wrong:
        raise UsageError(
            f"unknown side table {wrong[0]!r}", hint=f"side tables: {', '.join(sorted(SIDE_TABLES))}"
        )
    folder = Path(tempfile.mkdtemp(prefix="stillwatch-"))
    try:
        sources = [inspect(path, number, folder) for number, path in enumerate(found.logs)]
        refuse_empty(sources)
        probes = [_probe(source) for source in sources]
        importer = choose(sources, probes, format, importers)
        given = {name: read_side_and_digest(name, tables[name]) for name in sorted(tables)}
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    wanted = None if columns is None else frozenset(columns) | _NEEDED
    if wanted is not None and "asn" in wanted and "asn_ipv4" in lookups:
        wanted |= {"ip"}
    options = ReadOptions(
        batch_rows=batch_rows, columns=wanted, extras=extras, mapping=mapping, overrides=dict(overrides or {})
    )
    return Log(
        sources,
        importer,
        options,
        {name: table for name, (table, _) in given.items()},
        {name: told for name, (_, told) in given.items()},
        strict=strict,
        folder=folder,
        skipped=found.skipped,
        lookups=lookups,
    )


def _probe(source: Source) -> Probe:
    objects = first_objects(source.head) if source.container in ("json", "jsonl") else ()
    return Probe(source.head, source.container, source.columns, objects)


@dataclass(slots=True)
class _Progress:
    """State of one pass over the log."""

    duplicates: DuplicateIds
    ordinals: Ordinals
    units: list[TimeUnit]
    """Per input: one unit of time holds for a whole file."""


class Log:
    """An opened log. `batches` may be called again: every pass starts from the beginning."""

    side: dict[str, pa.Table]
    """Checked side tables by name."""
    side_digests: dict[str, str]
    """SHA-256 of each side table's file, hex."""
    refusals: list[Refusal]
    """Refused rows of the pass that is under way or was last; complete once its batches are exhausted."""
    rows_read: int
    """Rows seen by that pass: delivered plus refused."""
    rows_passed: int
    """Rows of that pass beside them that are no exchanges (spans of other kinds, health checks)."""
    owners: Owners
    """What the log itself says about who holds the accounts, as far as that pass has come."""
    skipped: list[str]
    """Files inside named directories that are no logs."""
    lookups: Lookups
    schema: pa.Schema
    """Of every batch: canonical columns in canonical order; unknown columns may follow under `extras`."""

    def __init__(
        self,
        sources: Sequence[Source],
        importer: Importer,
        options: ReadOptions,
        side: dict[str, pa.Table],
        side_digests: dict[str, str],
        *,
        strict: bool,
        folder: Path,
        skipped: list[str],
        lookups: Lookups = NO_LOOKUPS,
    ) -> None:
        self._sources = list(sources)
        self._importer = importer
        self._options = options
        self._strict = strict
        self.side = side
        self.side_digests = side_digests
        self.skipped = skipped
        self.lookups = lookups
        wanted = options.columns
        self.schema = pa.schema(
            [column for column in EXCHANGES if wanted is None or column.name in wanted | {"raw_ref"}]
        )
        self._reset()
        self._cleanup = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove temporary copies (standard input, unpacked Parquet). Dropping the log does it too."""
        self._cleanup()

    @property
    def format(self) -> str:
        """Name of the importer that reads this log."""
        return self._importer.name

    @cached_property
    def inputs(self) -> list[InputInfo]:
        """The inputs in reading order. The first access reads every file once for its digest."""
        infos = []
        for source in self._sources:
            packed = "" if source.packing == "plain" else f"+{source.packing}"
            label = f"{self._importer.name}/{source.container}{packed}"
            infos.append(InputInfo(source.path, source.number, source.size, digest(source.original), label))
        return infos

    def refusals_with_bytes(self) -> list[Refusal]:
        """`refusals` with the bytes of each row, for whoever asked for them. Reads the inputs again."""
        return with_bytes(self.refusals, self._sources)

    def _reset(self) -> None:
        self.refusals = []
        self.rows_read = 0
        self.rows_passed = 0
        self.owners = Owners()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Checked batches of at most `batch_rows` rows, `raw_ref` filled.

        Raises FormatError where a file cannot be read further, ColumnError for a missing required column,
        RowError under strict for the first refused row.
        """
        self._reset()
        progress = _Progress(DuplicateIds(), Ordinals(), [TimeUnit() for _ in self._sources])
        for source in self._sources:
            if source.container == "empty":
                continue
            yield from self._read(source, progress)

    def again(
        self, wanted: Mapping[int, npt.NDArray[np.int64]], columns: Sequence[str]
    ) -> Iterator[tuple[int, npt.NDArray[np.int64], pa.Table]]:
        """Single rows once more: (input, raw rows, table), as the importer gives them, unchecked.

        `wanted` are raw rows by input (`raw_ref`). Inputs without one are not opened, and reading an input stops
        at the last one. Meant for the few rows whose text a result quotes: nothing is counted or refused here.
        """
        for source in self._sources:
            rows = wanted.get(source.number)
            if rows is None or len(rows) == 0 or source.container == "empty":
                continue
            options = replace(self._options, columns=frozenset(columns) | _NEEDED, extras=False, rows=rows)
            for raw in self._importer.read(source, options):
                keep = np.isin(raw.rows, rows)
                if keep.any():
                    yield source.number, raw.rows[keep], raw.table.filter(pa.array(keep))
                if len(raw.rows) and raw.rows[-1] >= rows.max():
                    break

    def _read(self, source: Source, progress: _Progress) -> Iterator[pa.RecordBatch]:
        options = self._options
        if options.columns is not None and "exchange_id" not in (source.columns or ()):
            # Ids will be derived: the columns they cover are read as well, so that ids do not depend on
            # which columns the caller wants.
            options = ReadOptions(
                options.batch_rows, options.columns | set(IDENTITY), options.extras, options.mapping,
                options.overrides,
            )  # fmt: skip
        seen: set[str] = set()
        for raw in self._importer.read(source, options):
            broken = [
                Refusal(source.path, part.row, part.offset, part.column, part.reason) for part in raw.broken
            ]
            self.rows_read += raw.table.num_rows + len(broken)
            self.rows_passed += raw.passed
            self.owners.add(raw.owners)
            seen.update(raw.table.column_names)
            if raw.table.num_rows:
                batch, refused = self._check(source, raw, seen, progress)
                self._refuse(broken + refused)
                for start in range(0, batch.num_rows, options.batch_rows):
                    yield batch.slice(start, options.batch_rows)
            else:
                self._refuse(broken)

    def _refuse(self, refused: list[Refusal]) -> None:
        if self._strict:
            raise_first(refused)
        self.refusals.extend(sorted(refused, key=lambda refusal: refusal.row))

    def _check(
        self, source: Source, raw: RawBatch, seen: set[str], progress: _Progress
    ) -> tuple[pa.RecordBatch, list[Refusal]]:
        table, nameless = _with_ids(raw.table, seen)
        checked = check_exchanges(
            table, file=source.path, rows=raw.rows, offsets=raw.offsets, unit=progress.units[source.number]
        )
        checked = _with_sound_sketches(checked, source.path, raw)
        batch, rows, refused = checked.batch, checked.rows, list(checked.refusals)
        if nameless is not None:
            batch = _name(batch, nameless[checked.kept], progress.ordinals)
        again = progress.duplicates.add(batch.column("exchange_id"))
        if again.any():
            offsets = None if raw.offsets is None else raw.offsets[checked.kept]
            for index in np.flatnonzero(again).tolist():
                offset = None if offsets is None else int(offsets[index])
                refused.append(Refusal(source.path, int(rows[index]), offset, "exchange_id", _DUPLICATE))
            batch, rows = batch.filter(pa.array(~again)), rows[~again]
        if "asn" in self.schema.names and "asn_ipv4" in self.lookups:
            batch = _with_networks(batch, self.lookups)
        return _shaped(batch, self.schema, source.number, rows, self._options.extras), refused


def _with_networks(batch: pa.RecordBatch, lookups: Lookups) -> pa.RecordBatch:
    """Fill `asn` from the address where the log itself does not say it."""
    names = batch.schema.names
    if "ip" not in names or ("asn" in names and batch.column("asn").null_count == 0):
        return batch
    found = lookups.asn(batch.column("ip"))
    if "asn" not in names:
        return batch.append_column(EXCHANGES.field("asn"), found)
    at = names.index("asn")
    return batch.set_column(at, EXCHANGES.field("asn"), pc.coalesce(batch.column(at), found))


def _with_sound_sketches(checked: Checked, file: str, raw: RawBatch) -> Checked:
    """Refuse rows whose sketch cannot be read: one damaged cell must not stop a scan."""
    ledger = RefusalLedger(checked.batch.num_rows)
    for name in ("system_sketch", "prompt_sketch", "response_sketch"):
        if name in checked.batch.schema.names:
            for bad, what in faults(checked.batch.column(name)):
                ledger.refuse(bad, name, f"the sketch {what}")
    sound = ledger.kept
    if sound.all():
        return checked
    offsets = None if raw.offsets is None else raw.offsets[checked.kept]
    refused = [*checked.refusals, *ledger.refusals(file, checked.rows, offsets)]
    kept = checked.kept.copy()
    kept[np.flatnonzero(kept)[~sound]] = False
    return Checked(checked.batch.filter(pa.array(sound)), refused, checked.rows[sound], kept)


_DUPLICATE = "this exchange_id occurred before"


def _with_ids(table: pa.Table, seen: set[str]) -> tuple[pa.Table, npt.NDArray[np.bool_] | None]:
    """A stand-in for missing ids, so that the checks find every required column; and where it stands.

    A required column that earlier rows of the file had, and these do not, is null for these rows.
    """
    for name in sorted((_NEEDED - {"exchange_id"}) & seen - set(table.column_names)):
        table = table.append_column(name, pa.nulls(table.num_rows, EXCHANGES.field(name).type))
    if "exchange_id" not in table.column_names:
        stand_in = pa.nulls(table.num_rows, pa.string()).fill_null("?")
        return table.append_column("exchange_id", stand_in), np.ones(table.num_rows, dtype=bool)
    index = table.column_names.index("exchange_id")
    column = table.column(index)
    if column.null_count == 0:
        return table, None
    missing = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_null(column.type):
        column = column.cast(pa.string())
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    filled = (
        column.fill_null("?") if pa.types.is_string(column.type) else column.cast(pa.string()).fill_null("?")
    )
    return table.set_column(index, "exchange_id", filled), missing


def _name(batch: pa.RecordBatch, nameless: npt.NDArray[np.bool_], ordinals: Ordinals) -> pa.RecordBatch:
    """Derived ids where the log has none."""
    hashes = row_hashes(batch)[nameless]
    made = derived_ids(hashes, ordinals.next(hashes))
    index = batch.schema.get_field_index("exchange_id")
    column = batch.column(index)
    column = made if nameless.all() else pc.replace_with_mask(column, pa.array(nameless), made)
    return batch.set_column(index, batch.schema.field(index), column)


def _shaped(
    batch: pa.RecordBatch,
    schema: pa.Schema,
    number: int,
    rows: npt.NDArray[np.int64],
    extras: bool,
) -> pa.RecordBatch:
    """Exactly the columns of `schema` (then unknown ones, if carried), missing ones as null."""
    count = batch.num_rows
    have = set(batch.schema.names)
    fields: list[pa.Field] = []
    arrays: list[pa.Array] = []
    for column in schema:
        fields.append(column)
        if column.name == "raw_ref":
            inputs = pa.array(np.full(count, number, dtype=np.int32))
            arrays.append(pa.StructArray.from_arrays([inputs, pa.array(rows)], names=["input", "row"]))
        elif column.name in have:
            arrays.append(batch.column(column.name))
        else:
            arrays.append(pa.nulls(count, column.type))
    for column in batch.schema if extras else ():
        if column.name and column.name not in EXCHANGES.names:
            fields.append(column)
            arrays.append(batch.column(column.name))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
