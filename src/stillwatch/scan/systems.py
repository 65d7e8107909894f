"""System prompts on their way through the reduction: each kept once for each account, for they repeat."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillwatch.engine.spool import Spool
from stillwatch.sketch import PartSketch, RulePack, sketch_of, stored_or_text
from stillwatch.views.base import I32, I64, U64, column
from stillwatch.views.families import Families, find_families


@dataclass(frozen=True, slots=True)
class Systems:
    """Different system prompts of each account, and their families. Row r of `families` is element r here."""

    families: Families
    account: I32
    first_us: I64
    offsets: I64
    postings: npt.NDArray[np.uint64]
    rows: dict[int, list[int]]
    """Counted exchanges that carry the prompt first: several only where they came at one time."""
    tags: npt.NDArray[np.uint32]
    of_row: I32
    """System prompt of each counted exchange, as a place in the arrays above; -1 for none."""


class SystemPrompts:
    """Feeds on canonical batches; `finish` gives the prompts and their families."""

    def __init__(self, folder: Path, rules: RulePack | None = None) -> None:
        self._rules = rules
        self._tags: list[int] = []
        self._spool = Spool(folder / "system.u64")
        self._number: dict[tuple[int, int], int] = {}
        self._account: list[int] = []
        self._us: list[int] = []
        self._level: list[int] = []
        self._rows: dict[int, list[int]] = {}
        self._of_row: list[I32] = []

    def close(self) -> None:
        """Delete the spooled postings."""
        self._spool.close()

    def add(self, batch: pa.RecordBatch, account: I32, ts: I64, start: int) -> None:
        """Take in one batch; its first row is the counted row `start`. Each prompt is sketched once a batch."""
        # The reader gives every column of the schema; one without a value says nothing.
        values = stored_or_text(column(batch, "system_sketch"), column(batch, "system"), self._rules)
        of_row = np.full(len(account), -1, np.int32)
        self._of_row.append(of_row)
        if pa.types.is_null(values.type) or values.null_count == len(values):
            return
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        encoded = values.dictionary_encode()
        part = sketch_of(encoded.dictionary, self._rules)
        index = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        there = np.flatnonzero(index >= 0)
        order = there[np.lexsort((ts[there], index[there], account[there]))]
        pairs = np.stack([account[order], index[order]], axis=1)
        first = np.append(True, np.any(pairs[1:] != pairs[:-1], axis=1))
        at = order[first]
        fresh: list[int] = []
        numbers = np.full(len(at), -1, np.int32)
        for place, ((who, which), us, row) in enumerate(
            zip(pairs[first].tolist(), ts[at].tolist(), (at + start).tolist(), strict=True)
        ):
            exact = int(part.exact[which])
            if not exact:
                continue
            number = self._number.setdefault((who, exact), len(self._account))
            numbers[place] = number
            if number == len(self._account):
                self._account.append(who)
                self._us.append(us)
                self._level.append(int(part.level[which]))
                self._tags.append(int(part.tags[which]))
                self._rows[number] = [row]
                fresh.append(which)
            elif us < self._us[number]:
                self._us[number], self._rows[number] = us, [row]
            elif us == self._us[number]:
                self._rows[number].append(row)
        of_row[order] = numbers[np.cumsum(first) - 1]
        if fresh:
            self._spool.append(*_postings(part, np.array(fresh, np.int64)))

    def finish(self, rank: I32, accounts: int) -> Systems:
        """`rank` int32: final number of each account code."""
        offsets, postings = self._spool.read()
        account = rank[np.array(self._account, np.int32)]
        of_row = np.concatenate(self._of_row) if self._of_row else np.zeros(0, np.int32)
        found = find_families(account, offsets, postings, np.array(self._level, np.uint8), accounts)
        us, tags = np.array(self._us, np.int64), np.array(self._tags, np.uint32)
        return Systems(found, account, us, offsets, postings, self._rows, tags, of_row)


def _postings(part: PartSketch, rows: I64) -> tuple[I64, U64]:
    """Postings of the chosen rows: (offsets, values)."""
    length = np.diff(part.post_offsets)[rows]
    offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    source = np.repeat(part.post_offsets[rows] - offsets[:-1], length) + np.arange(offsets[-1])
    return offsets, part.post[source]
