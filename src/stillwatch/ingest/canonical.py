"""The canonical tables themselves, as Parquet, Arrow, CSV, JSON lines or JSON arrays."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from stillwatch.ingest.columns import Bad, build, text_times, to_column
from stillwatch.ingest.mapping import read_mapped, split_bad
from stillwatch.ingest.objects import read_objects
from stillwatch.ingest.registry import Probe, RawBatch, ReadOptions
from stillwatch.ingest.source import Source
from stillwatch.ingest.tabular import Slab, read_tables
from stillwatch.schema.tables import EXCHANGES, required

NAMES = frozenset(EXCHANGES.names) - {"raw_ref"}
KEY_COLUMNS = frozenset(required(EXCHANGES)) - {"exchange_id"}
"""What a log must have to be read at all; ids can be derived."""

EXTRAS = "extras"
"""Column that carries the unknown keys of JSON rows, as text by name."""

_TIMES = frozenset(field.name for field in EXCHANGES if pa.types.is_timestamp(field.type))


_KEY = re.compile(rb'"([a-z_0-9]{1,40})"\s*:')


class CanonicalImporter:
    """Reads logs whose columns already have the canonical names."""

    name = "canonical"

    def sniff(self, probe: Probe) -> float:
        """High where the required columns are there, low where some canonical names are."""
        names = set(probe.columns or ())
        for found in probe.objects:
            names.update(found)
        if not probe.objects and probe.container in ("json", "jsonl"):
            # The first row is longer than the head: its first keys are all there is to see.
            names.update(key.decode() for key in _KEY.findall(probe.head))
        if names >= KEY_COLUMNS:
            return 0.9
        known = len(names & NAMES)
        return 0.4 if known >= 3 else 0.25 if known else 0.0

    def read(self, source: Source, options: ReadOptions) -> Iterator[RawBatch]:
        """Batches with canonical names; see `Importer.read`."""
        if options.overrides:
            identity = {name: f"$.{name}" for name in sorted(NAMES)}
            yield from read_mapped(source, options, identity | dict(options.overrides))
        elif source.container in ("jsonl", "json"):
            yield from _read_json(source, options)
        else:
            yield from _read_tabular(source, options)


def _read_tabular(source: Source, options: ReadOptions) -> Iterator[RawBatch]:
    wanted = None if options.extras else sorted(options.columns or NAMES)
    for slab in read_tables(source, wanted, options.batch_rows, options.rows):
        if source.container == "csv":
            yield _typed(slab)
        else:
            yield RawBatch(_without_raw_ref(slab.table), slab.rows, None, slab.broken)


def _without_raw_ref(table: pa.Table) -> pa.Table:
    return table.drop_columns(["raw_ref"]) if "raw_ref" in table.column_names else table


def _typed(slab: Slab) -> RawBatch:
    """CSV text -> the canonical types, refusing rows whose cells do not fit."""
    bad: Bad = {}
    columns: dict[str, pa.Array] = {}
    for name, column in zip(slab.table.column_names, slab.table.columns, strict=True):
        array = column.combine_chunks()
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        if name == "raw_ref" or (array.null_count == len(array) and name not in KEY_COLUMNS):
            continue
        columns[name] = _typed_column(name, array, bad) if name in NAMES else array
    keep, broken = split_bad(bad, slab.rows, slab.offsets, slab.broken)
    table = pa.table(columns) if columns else pa.table({"exchange_id": pa.nulls(len(slab.rows), pa.string())})
    offsets = slab.offsets
    if bad:
        table = table.filter(pa.array(keep))
        offsets = offsets[keep] if offsets is not None else None
    return RawBatch(table, slab.rows[keep], offsets, broken)


def _typed_column(name: str, array: pa.Array, bad: Bad) -> pa.Array:
    kind = EXCHANGES.field(name).type
    if name in _TIMES:
        return text_times(array)
    if kind == pa.string():
        return array
    if not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or kind == pa.uint64()):
        try:
            return array.cast(kind)
        except pa.ArrowInvalid:
            pass
    return to_column(name, kind, array.to_pylist(), bad)


def _read_json(source: Source, options: ReadOptions) -> Iterator[RawBatch]:
    names = sorted(options.columns & NAMES) if options.columns is not None else sorted(NAMES)
    row_type = msgspec.defstruct("Row", [(name, Any, None) for name in names], gc=False)
    decoder = msgspec.json.Decoder(row_type)
    for piece in read_objects(source, decoder):
        count = len(piece.objects)
        # One pass for all columns: zip over the rows' tuples is far cheaper than one getattr per cell.
        columns: Sequence[Sequence[Any]] = list(
            zip(*map(msgspec.structs.astuple, piece.objects), strict=True)
        )
        values: Mapping[str, Sequence[Any]] = dict(zip(names, columns, strict=True)) if count else {}
        bad: Bad = {}
        table = build(values, count, bad)
        if options.extras and count:
            table = _with_extras(table, piece.texts)
        keep, broken = split_bad(bad, piece.rows, piece.offsets, piece.broken)
        table = table.filter(pa.array(keep)) if bad else table
        yield RawBatch(table, piece.rows[keep], piece.offsets[keep], broken)


def _with_extras(table: pa.Table, texts: list[bytes]) -> pa.Table:
    """Unknown keys as a map column: text as it is, anything else as JSON."""
    decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
    maps: list[list[tuple[str, str]] | None] = []
    for text in texts:
        pairs = [(key, _plain(raw)) for key, raw in sorted(decoder.decode(text).items()) if key not in NAMES]
        maps.append(pairs or None)
    return table.append_column(EXTRAS, pa.array(maps, pa.map_(pa.string(), pa.string())))


def _plain(raw: msgspec.Raw) -> str:
    data = bytes(raw)
    if data.startswith(b'"'):
        try:
            return msgspec.json.decode(data, type=str)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
    return data.decode("utf-8", "replace")


IMPORTER = CanonicalImporter()
