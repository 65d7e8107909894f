"""Decoded rows of one format -> batches, for the importers that turn a whole object into canonical columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, TypeVar

import msgspec
import numpy as np

from stillwatch.ingest.bodies import Columns
from stillwatch.ingest.mapping import batch_of
from stillwatch.ingest.objects import DECODE_ERRORS, Piece, collection_paused, why
from stillwatch.ingest.registry import Broken, Owner, RawBatch, ReadOptions
from stillwatch.ingest.rules import Rule, rules_from

T = TypeVar("T")


class Unfit(ValueError):
    """A member of a row that cannot be read: the row is refused. The reason never quotes the row."""

    def __init__(self, column: str | None, reason: str) -> None:
        self.column = column
        self.reason = reason
        super().__init__(reason)


def batches(
    pieces: Iterable[Piece[T]],
    options: ReadOptions,
    columns_of: Callable[[T], Columns | None],
    owner_of: Callable[[T], Owner | None],
) -> Iterator[RawBatch]:
    """One batch for each piece. `columns_of` gives a row's canonical columns, or raises Unfit; None stands for a
    row that is whole and no exchange (a span of another kind, a health check): it is passed over and counted.

    The overrides of `options` are read from the undecoded rows and win over what `columns_of` finds; one of
    the account makes void what a row says about its own account.
    """
    rules = list(rules_from(options.overrides).values())
    for piece in pieces:
        with collection_paused():
            batch = _batch(piece, options, rules, columns_of, owner_of)
        yield batch


def _batch(
    piece: Piece[T],
    options: ReadOptions,
    rules: Sequence[Rule],
    columns_of: Callable[[T], Columns | None],
    owner_of: Callable[[T], Owner | None],
) -> RawBatch:
    found: list[Columns] = []
    ruled: list[list[Any]] = []
    out: dict[int, Unfit | None] = {}
    for index, row in enumerate(piece.objects):
        try:
            columns = columns_of(row)
            if columns is None:
                out[index] = None
                continue
            if rules:
                ruled.append(_ruled(rules, piece.texts[index]))
            found.append(columns)
        except Unfit as error:
            out[index] = error
    piece = _without(piece, out) if out else piece
    values: dict[str, Sequence[Any]] = {}
    for name in sorted(set().union(*found)):
        values[name] = _column(name, found)
    for place, rule in enumerate(rules):
        values[rule.target] = [own[place] for own in ruled]
    batch = batch_of(values, piece.rows, piece.offsets, piece.broken)
    passed = sum(error is None for error in out.values())
    batch = replace(batch, passed=passed) if passed else batch
    if "account_id" not in options.overrides:
        batch.owners.extend(owner for owner in map(owner_of, piece.objects) if owner is not None)
    return batch


def _column(name: str, found: Sequence[Columns]) -> list[Any]:
    try:
        # Most columns are in every row or in none, and this never leaves C.
        return list(map(itemgetter(name), found))
    except KeyError:
        return [columns.get(name) for columns in found]


def _without(piece: Piece[T], out: dict[int, Unfit | None]) -> Piece[T]:
    more = [
        Broken(int(piece.rows[index]), error.reason, int(piece.offsets[index]), error.column)
        for index, error in out.items()
        if error is not None
    ]
    kept = [index for index in range(len(piece.objects)) if index not in out]
    places = np.array(kept, dtype=np.int64)
    return Piece(
        [piece.objects[index] for index in kept],
        [piece.texts[index] for index in kept],
        piece.rows[places],
        piece.offsets[places],
        sorted([*piece.broken, *more], key=lambda part: part.row),
    )


def _ruled(rules: Sequence[Rule], text: bytes) -> list[Any]:
    try:
        row = msgspec.json.decode(text)
    except DECODE_ERRORS as error:
        # A member that was skipped when the row was decoded.
        raise Unfit(None, why(error)) from None
    return [rule.value(row) for rule in rules]
