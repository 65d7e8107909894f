"""One log that is scanned, its snapshot, and ways to ask about its requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.guard import Secret, Snapshot, Subject, load, parse_policy
from stillwatch.guard.build import Beside, build
from stillwatch.guard.policy import SHADOW
from stillwatch.guard.snapshot import save

SECRET = Secret(b"a secret of the tests, no other")


@dataclass(frozen=True)
class Scanned:
    """A log, its results, and the snapshot file made of them in shadow mode."""

    log: Path
    results: Path
    path: Path
    snapshot: Snapshot = field(repr=False)

    def made(self, out: Path, policy: str = SHADOW, **beside: Any) -> Path:
        """Another snapshot of the same results."""
        accounts = pq.read_table(self.log / "accounts.parquet")
        meta, arrays = build(self.results, parse_policy(policy), SECRET, Beside(accounts=accounts, **beside))
        save(out, meta, arrays, SECRET)
        return out

    def members(self, verdict: str = "campaign") -> list[dict[str, Any]]:
        """Rows of accounts.parquet."""
        rows = pq.read_table(self.results / "accounts.parquet").to_pylist()
        return [row for row in rows if row["verdict"] == verdict]

    def subjects(self) -> Iterator[Subject]:
        """The log's exchanges, in the order of time."""
        table = pq.read_table(self.log / "exchanges.parquet").sort_by("ts")
        table = table.append_column("us", table.column("ts").cast(pa.int64()))
        for row in table.drop_columns(["ts"]).to_pylist():
            yield Subject(
                account=row["account_id"], gateway=row["gateway_id"], end_user=row["end_user_id"],
                end_user_verified=row["end_user_trust"] == "verified", prompt=row["prompt"], system=row["system"],
                system_hash=row["system_hash"], tools_hash=row["tools_hash"], format_hash=row["format_hash"],
                ip=row["ip"], ts_us=row["us"],
            )  # fmt: skip


@pytest.fixture(scope="session")
def demo(scanned: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Scanned:
    log, results = scanned
    path = tmp_path_factory.mktemp("guard") / "snapshot"
    first = Scanned(log, results, path, None)  # type: ignore[arg-type]
    return Scanned(log, results, path, load(first.made(path), SECRET))
