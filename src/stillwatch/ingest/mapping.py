"""Any JSON lines, JSON, CSV, Parquet or Arrow log through a mapping file (see `rules` for its language)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillwatch.ingest.bodies import conversation_columns, messages_from, request_columns
from stillwatch.ingest.columns import Bad, build
from stillwatch.ingest.objects import read_objects
from stillwatch.ingest.registry import Broken, Probe, RawBatch, ReadOptions
from stillwatch.ingest.replies import response_columns
from stillwatch.ingest.rules import BODIES, Rule, load_rules, rules_from
from stillwatch.ingest.source import Source
from stillwatch.ingest.tabular import read_tables
from stillwatch.schema.errors import UsageError
from stillwatch.schema.tables import EXCHANGES


class MappingImporter:
    """Reads what a mapping file describes."""

    name = "mapping"

    def sniff(self, probe: Probe) -> float:
        """Never claims a log by itself: what its fields mean, only the mapping can say."""
        return 0.0

    def read(self, source: Source, options: ReadOptions) -> Iterator[RawBatch]:
        """Batches with canonical names; see `Importer.read`. InputError where the mapping is wrong."""
        if options.mapping is None and not options.overrides:
            raise UsageError(
                "the format `mapping` needs a mapping file",
                hint="pass it with --mapping, or single --map rules",
            )
        rules = load_rules(options.mapping) if options.mapping is not None else {}
        yield from read_with(source, options, rules | rules_from(options.overrides))


def read_mapped(source: Source, options: ReadOptions, texts: Mapping[str, str]) -> Iterator[RawBatch]:
    """Batches by rules given as text (column -> rule). Raises UsageError for a bad rule."""
    yield from read_with(source, options, rules_from(texts))


def read_with(source: Source, options: ReadOptions, rules: Mapping[str, Rule]) -> Iterator[RawBatch]:
    """Batches by `rules`, from any container."""
    columns = options.columns
    # A body rule fills columns that nobody can tell beforehand, so it always stays.
    chosen = [
        rule for rule in rules.values() if columns is None or rule.target in columns or rule.target in BODIES
    ]
    if source.container in ("json", "jsonl"):
        yield from _read_json(source, chosen)
    else:
        yield from _read_tabular(source, options, chosen)


def mapped_values(rules: Sequence[Rule], rows: Sequence[Any]) -> dict[str, list[Any]]:
    """Column -> one value per row. A column's own rule wins over what follows from a body."""
    values: dict[str, list[Any]] = {}
    for rule in sorted(rules, key=lambda rule: rule.target):
        if rule.target not in BODIES:
            continue
        for index, row in enumerate(rows):
            for name, value in _from_body(rule.target, rule.value(row)).items():
                values.setdefault(name, [None] * len(rows))[index] = value
    for rule in rules:
        if rule.target not in BODIES:
            values[rule.target] = [rule.value(row) for row in rows]
    return values


def _from_body(target: str, body: Any) -> Mapping[str, Any]:
    if isinstance(body, str) and body[:1] in ("{", "["):
        try:
            body = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return {}
    if body is None:
        return {}
    if target == "messages":
        found = conversation_columns(messages_from(body))
        return {name: value for name, value in found.items() if value is not None}
    found = request_columns(body) if target == "request" else response_columns(body)
    return {name: value for name, value in found.items() if value is not None}


def batch_of(
    values: Mapping[str, Sequence[Any]],
    rows: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64] | None,
    broken: list[Broken],
) -> RawBatch:
    """Values -> a batch; rows with a value that does not fit its column are refused."""
    bad: Bad = {}
    table = build(values, len(rows), bad)
    keep, broken = split_bad(bad, rows, offsets, broken)
    if bad:
        table = table.filter(pa.array(keep))
        rows, offsets = rows[keep], offsets[keep] if offsets is not None else None
    return RawBatch(table, rows, offsets, broken)


def split_bad(
    bad: Bad,
    rows: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64] | None,
    broken: list[Broken],
) -> tuple[npt.NDArray[np.bool_], list[Broken]]:
    """Mask of the rows without a misfit, and `broken` with the others added, by row."""
    keep = np.ones(len(rows), dtype=bool)
    if not bad:
        return keep, broken
    keep[list(bad)] = False
    more = [
        Broken(int(rows[index]), reason, int(offsets[index]) if offsets is not None else None, column)
        for index, (column, reason) in bad.items()
    ]
    return keep, sorted([*broken, *more], key=lambda part: part.row)


def _read_json(source: Source, rules: Sequence[Rule]) -> Iterator[RawBatch]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    for piece in read_objects(source, decoder):
        values = mapped_values(rules, piece.objects)
        yield batch_of(values, piece.rows, piece.offsets, piece.broken)


def _read_tabular(source: Source, options: ReadOptions, rules: Sequence[Rule]) -> Iterator[RawBatch]:
    declared = set(source.columns or ())
    tops = {str(rule.path[0]) for rule in rules if rule.path} & declared
    deep = any(
        rule.target in BODIES or rule.format or (rule.path is not None and len(rule.path) != 1)
        for rule in rules
    )
    for slab in read_tables(source, sorted(tops), options.batch_rows):
        table = slab.table
        if deep or source.container == "csv":
            lists = {name: table.column(name).to_pylist() for name in table.column_names if name}
            count = len(slab.rows)
            rows = [{name: column[index] for name, column in lists.items()} for index in range(count)]
            yield batch_of(mapped_values(rules, rows), slab.rows, slab.offsets, slab.broken)
            continue
        # Whole columns under other names: nothing needs to become a Python object.
        columns: dict[str, pa.ChunkedArray | pa.Array] = {}
        for rule in rules:
            if rule.path is None:
                columns[rule.target] = _constant(rule, table.num_rows)
            elif str(rule.path[0]) in declared:
                columns[rule.target] = table.column(str(rule.path[0]))
        renamed = pa.table(columns) if columns else pa.table({"": pa.nulls(table.num_rows)})
        yield RawBatch(renamed, slab.rows, slab.offsets, slab.broken)


def _constant(rule: Rule, count: int) -> pa.Array:
    bad: Bad = {}
    one = build({rule.target: [rule.constant]}, 1, bad)
    if bad:
        raise UsageError(f"the constant for {rule.target!r} does not fit: {bad[0][1]}")
    kind = EXCHANGES.field(rule.target).type
    return (
        pa.repeat(one.column(rule.target)[0], count)
        if rule.target in one.column_names
        else pa.nulls(count, kind)
    )


IMPORTER = MappingImporter()
