"""One pass over a log that counts: how much of each column is filled, and what looks odd, for `stillwatch check`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.ingest.lookup.use import ipv4_numbers
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
    volumes: dict[str, int]
    """Exchanges of each account."""
    top_block: int
    """Rows from the IPv4 /24 with the most rows."""
    hosted: int
    """Rows from addresses in hosting networks or listed ranges, as far as the lookup tables tell."""
    redacted: int
    """Rows whose text was replaced by a marker."""

    def percent(self, column: str) -> float:
        """Share of accepted rows with a value in `column`, 0 to 100."""
        return 100.0 * self.filled[column] / self.rows if self.rows else 0.0


def coverage(log: Log) -> Coverage:
    """Stream the log once and count. Leaves `log.refusals` complete; raises what `Log.batches` raises."""
    filled = {field.name: 0 for field in log.schema if field.name != "raw_ref"}
    volumes: dict[str, int] = {}
    blocks: dict[int, int] = {}
    rows = hosted = redacted = 0
    first: int | None = None
    last: int | None = None
    for batch in log.batches():
        rows += batch.num_rows
        for name in filled:
            column = batch.column(name)
            filled[name] += len(column) - column.null_count
        if not batch.num_rows:
            continue
        times = batch.column("ts").cast(pa.int64()).to_numpy(zero_copy_only=False)
        low, high = int(np.min(times)), int(np.max(times))
        first = low if first is None else min(first, low)
        last = high if last is None else max(last, high)
        counts = pc.value_counts(batch.column("account_id"))
        for name, count in zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True):
            volumes[name] = volumes.get(name, 0) + count
        if "content_state" in filled:
            redacted += pc.sum(pc.equal(batch.column("content_state"), "redacted")).as_py() or 0
        if filled.get("ip"):
            addresses = batch.column("ip")
            number = ipv4_numbers(addresses)
            for block, count in zip(*np.unique(number[number >= 0] >> 8, return_counts=True), strict=True):
                blocks[int(block)] = blocks.get(int(block), 0) + int(count)
            hosted += int(log.lookups.hosted(addresses).sum())
    return Coverage(
        rows,
        len(log.refusals),
        log.rows_passed,
        filled,
        first,
        last,
        volumes,
        max(blocks.values(), default=0),
        hosted,
        redacted,
    )
