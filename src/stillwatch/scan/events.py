"""What passes between accounts, or stops them: conversation states, reasoning blocks, refusals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.views.base import I32, I64, U64, column


@dataclass(frozen=True, slots=True)
class Turns:
    """Conversation states: running hashes that an account holds after, and before, its newest turn."""

    held_hash: U64
    held_by: I64
    held_us: I64
    went_on_hash: U64
    went_on_by: I64
    went_on_us: I64


@dataclass(frozen=True, slots=True)
class Blocks:
    """Reasoning blocks: those that responses held (`out`), and those that requests carried back (`in`)."""

    out_hash: U64
    out_by: I64
    out_us: I64
    in_hash: U64
    in_by: I64
    in_us: I64


@dataclass(frozen=True, slots=True)
class Events:
    """All of them. Accounts are final numbers; `refused_*`: 429s and refusals by any control."""

    turns: Turns
    blocks: Blocks
    refused_by: I64
    refused_us: I64


class EventCollector:
    """Feeds on canonical batches; `finish` gives the events."""

    def __init__(self) -> None:
        self._parts: dict[str, list[npt.NDArray[Any]]] = {}

    def add(self, batch: pa.RecordBatch, account: I32, ts: I64) -> None:
        """Take in one batch; `account` int32 (rows,) and `ts` int64 (rows,), microseconds."""
        self._turns(batch, account, ts)
        self._blocks(batch, account, ts)
        self._refusals(batch, account, ts)

    def _put(self, name: str, values: npt.NDArray[Any]) -> None:
        self._parts.setdefault(name, []).append(values)

    def _joined(self, name: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        parts = self._parts.pop(name, [])
        return np.concatenate(parts) if parts else np.zeros(0, dtype)

    def _turns(self, batch: pa.RecordBatch, account: I32, ts: I64) -> None:
        turns = column(batch, "turn_hashes")
        if pa.types.is_null(turns.type):
            return
        if isinstance(turns, pa.ChunkedArray):
            turns = turns.combine_chunks()
        offsets = turns.offsets.to_numpy().astype(np.int64)
        values = turns.values.to_numpy(zero_copy_only=False)
        length = np.where(turns.is_valid().to_numpy(zero_copy_only=False), np.diff(offsets), 0)
        ends = offsets[1:]
        for name, least, back in (("held", 2, 1), ("went_on", 3, 2)):
            rows = np.flatnonzero(length >= least)
            self._put(f"{name}_hash", values[ends[rows] - back])
            self._put(f"{name}_by", account[rows])
            self._put(f"{name}_us", ts[rows])

    def _blocks(self, batch: pa.RecordBatch, account: I32, ts: I64) -> None:
        for name, way in (("reasoning_out", "out"), ("reasoning_in", "in")):
            lists = column(batch, name)
            if pa.types.is_null(lists.type):
                continue
            if isinstance(lists, pa.ChunkedArray):
                lists = lists.combine_chunks()
            rows = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
            self._put(f"{way}_hash", pc.fill_null(pc.list_flatten(lists), 0).to_numpy(zero_copy_only=False))
            self._put(f"{way}_by", account[rows])
            self._put(f"{way}_us", ts[rows])

    def _refusals(self, batch: pa.RecordBatch, account: I32, ts: I64) -> None:
        status, blocked = column(batch, "status"), column(batch, "blocked_by")
        refused = np.zeros(batch.num_rows, bool)
        if not pa.types.is_null(status.type):
            refused |= pc.fill_null(pc.equal(status, 429), False).to_numpy(zero_copy_only=False)
        if not pa.types.is_null(blocked.type):
            refused |= blocked.is_valid().to_numpy(zero_copy_only=False)
        self._put("refused_by", account[refused])
        self._put("refused_us", ts[refused])

    def _moves(self, way: str, rank: I32) -> tuple[U64, I64, I64]:
        """(hashes, accounts, times) of what was kept under a name."""
        return (
            self._joined(f"{way}_hash", np.uint64),
            rank[self._joined(f"{way}_by", np.int32)].astype(np.int64),
            self._joined(f"{way}_us", np.int64),
        )

    def finish(self, rank: I32) -> Events:
        """`rank` int32: final number of each account code."""
        return Events(
            Turns(*self._moves("held", rank), *self._moves("went_on", rank)),
            Blocks(*self._moves("out", rank), *self._moves("in", rank)),
            rank[self._joined("refused_by", np.int32)].astype(np.int64),
            self._joined("refused_us", np.int64),
        )
