"""A log's rows as the guard would have been asked about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillwatch.guard.sight import Sight, Sketched
from stillwatch.guard.subject import Subject
from stillwatch.schema.tables import OWN_REFUSAL
from stillwatch.sketch import from_binary

COLUMNS = (
    "ts", "account_id", "gateway_id", "end_user_id", "end_user_trust", "prompt", "system", "system_hash",
    "tools_hash", "format_hash", "ip", "blocked_by", "prompt_sketch", "system_sketch",
)  # fmt: skip
"""What is read of `exchanges`."""
_SKETCHES = ("prompt_sketch", "system_sketch")


class Logged:
    """One batch of canonical rows. A column that it lacks says nothing."""

    __slots__ = ("_columns", "_prompt_sketch", "_system_sketch", "blocked_by", "refused", "ts")

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._columns: dict[str, list[Any]] = {
            name: batch.column(name).to_pylist() if name in batch.schema.names else [None] * batch.num_rows
            for name in COLUMNS
            if name not in ("ts", *_SKETCHES)
        }
        self._prompt_sketch, self._system_sketch = (_sketches_of(batch, name) for name in _SKETCHES)
        self.ts: npt.NDArray[np.int64] = batch.column("ts").cast(pa.int64()).to_numpy(zero_copy_only=False)
        self.blocked_by: list[str | None] = self._columns["blocked_by"]
        self.refused = [(by or "").startswith(OWN_REFUSAL) for by in self.blocked_by]
        """Rows that Stillwatch refused: no evidence."""

    def subject(self, row: int) -> Subject:
        """What a door would have said of the row."""
        columns = self._columns
        return Subject(
            account=columns["account_id"][row],
            gateway=columns["gateway_id"][row],
            end_user=columns["end_user_id"][row],
            end_user_verified=columns["end_user_trust"][row] == "verified",
            prompt=columns["prompt"][row],
            system=columns["system"][row],
            system_hash=columns["system_hash"][row],
            tools_hash=columns["tools_hash"][row],
            format_hash=columns["format_hash"][row],
            ip=columns["ip"][row],
        )

    def look(self, sight: Sight, subject: Subject, row: int, places: list[int]) -> None:
        """Add the places of the row's keys; its sketches stand for texts that are not there."""
        sight.look(subject, places, self._prompt_sketch(row), self._system_sketch(row))


def _sketches_of(batch: pa.RecordBatch, name: str) -> Callable[[int], Sketched | None]:
    """Stored sketches of a column, by row."""
    if name not in batch.schema.names or batch.column(name).null_count == batch.num_rows:
        return lambda row: None
    part = from_binary(batch.column(name))
    exact, offsets, level = part.exact.tolist(), part.post_offsets.tolist(), part.level.tolist()

    def one(row: int) -> Sketched | None:
        if exact[row] == 0:
            return None
        return Sketched(exact[row], part.post[offsets[row] : offsets[row + 1]], level[row])

    return one
