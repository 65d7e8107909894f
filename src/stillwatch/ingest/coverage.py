"""How much of each canonical column a log fills, for `stillwatch check`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stillwatch.ingest.read import Log


@dataclass(frozen=True, slots=True)
class Coverage:
    """Counts over one whole pass."""

    rows: int
    """Rows accepted."""
    refused: int
    passed: int
    """Rows that are no exchanges: spans of other kinds, health checks."""
    filled: dict[str, int]
    """Canonical column -> rows with a value, in canonical order."""
    first_us: int | None
    """Earliest and latest `ts`, microseconds since 1970; None in a log without accepted rows."""
    last_us: int | None

    def percent(self, column: str) -> float:
        """Share of accepted rows with a value in `column`, 0 to 100."""
        return 100.0 * self.filled[column] / self.rows if self.rows else 0.0


def coverage(log: Log) -> Coverage:
    """Stream the log once and count. Leaves `log.refusals` complete; raises what `Log.batches` raises."""
    filled = {field.name: 0 for field in log.schema if field.name != "raw_ref"}
    rows = 0
    first: int | None = None
    last: int | None = None
    for batch in log.batches():
        rows += batch.num_rows
        for name in filled:
            column = batch.column(name)
            filled[name] += len(column) - column.null_count
        if batch.num_rows:
            times = batch.column("ts").cast(pa.int64()).to_numpy(zero_copy_only=False)
            low, high = int(np.min(times)), int(np.max(times))
            first = low if first is None else min(first, low)
            last = high if last is None else max(last, high)
    return Coverage(rows, len(log.refusals), log.rows_passed, filled, first, last)
