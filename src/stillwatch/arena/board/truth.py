"""What the composer of a log knows, read once for everything that is scored against it."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stillwatch.arena.files import exchange_files


@dataclass(frozen=True, slots=True)
class Planned:
    """One operation: its group, its name, what was drawn for it, and its accounts."""

    group: str
    name: str
    parameters: dict[str, Any]
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Truth:
    """Kind of each account, the operations that have an account in the log, and what accounts asked."""

    kinds: dict[str, str]
    operations: tuple[Planned, ...]
    asked: dict[str, int]
    """Exchanges by account."""
    harvested: dict[str, int]
    """Exchanges that are a harvest, by account."""

    def of(self, members: tuple[str, ...]) -> tuple[int, int]:
        """(exchanges, harvested exchanges) of some accounts."""
        return sum(self.asked.get(a, 0) for a in members), sum(self.harvested.get(a, 0) for a in members)


def read_truth(log: Path) -> Truth:
    """The truth of a made log, or of a log that was cut."""
    rows = pq.read_table(log / "truth" / "accounts.parquet").to_pylist()
    members: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["operation"] is not None:
            members[row["group_id"]].append(row["account_id"])
    operations = tuple(
        Planned(
            row["group_id"], row["operation"], json.loads(row["parameters"]), tuple(members[row["group_id"]])
        )
        for row in pq.read_table(log / "truth" / "groups.parquet").to_pylist()
        if row["operation"] is not None and row["group_id"] in members
    )
    # The truth about exchanges has the order of the log.
    parts = [pq.read_table(p, columns=["account_id"], partitioning=None) for p in exchange_files(log)]
    harvest = pq.read_table(log / "truth" / "exchanges.parquet", columns=["harvest"])["harvest"]
    labelled = pa.table(
        {
            "account": pa.concat_tables(parts)["account_id"].combine_chunks(),
            "harvest": pc.cast(harvest.combine_chunks(), pa.int64()),
        }
    )
    counted = labelled.group_by("account").aggregate([("harvest", "count"), ("harvest", "sum")]).to_pydict()
    return Truth(
        {row["account_id"]: row["kind"] for row in rows},
        operations,
        dict(zip(counted["account"], counted["harvest_count"], strict=True)),
        dict(zip(counted["account"], counted["harvest_sum"], strict=True)),
    )
