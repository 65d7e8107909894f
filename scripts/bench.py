"""`make bench`: exchanges per second, peak memory and each stage's share, beside a notebook on the same log.

    python scripts/bench.py [--exchanges 2000000] [--accounts 20000] [--notebook-rows 200000] [--folder build/bench]

Everything runs in this order on this machine, each part in a process of its own, after one small scan that compiles
and warms the caches. The notebook (DuckDB + datasketch, an analyst's afternoon) is measured on each account's first
rows of the same log, because its cost is linear in rows and it would take most of an hour on all of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from stillwatch import arena
from stillwatch.engine.memory import peak_memory_mib

JSONL_ROWS = 500_000


def run(*args: str) -> float:
    """Wall seconds of one command line, which must succeed."""
    began = time.monotonic()
    subprocess.run([sys.executable, *args], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def scan(log: Path, out: Path) -> dict[str, Any]:
    """Scan in a fresh process; what the run recorded about itself, and its wall time from outside."""
    wall = run("-m", "stillwatch", "scan", str(log), "--out", str(out), "--force")
    info: dict[str, Any] = json.loads((out / "run.json").read_text())
    return info | {"outside_s": wall}


def notebook(log: Path, rows: int) -> dict[str, float]:
    """The baseline of the arena, in this process."""
    from stillwatch.arena.baselines.log import honest_accounts
    from stillwatch.arena.baselines.notebook import flagged

    began = time.monotonic()
    named = {account for group in flagged(log, rows) for account in group} - honest_accounts(log)
    spent = time.monotonic() - began
    truth = pq.read_table(log / "truth" / "accounts.parquet").to_pydict()
    attackers = {a for a, k in zip(truth["account_id"], truth["kind"], strict=True) if k == "attack"}
    hits = len(named & attackers)
    total = pq.ParquetFile(log / "exchanges.parquet").metadata.num_rows
    return {
        "rows_per_s": min(rows, total) / spent,
        "peak_memory_mib": peak_memory_mib(),
        "precision": hits / max(1, len(named)),
        "recall": hits / max(1, len(attackers)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--exchanges", type=int, default=2_000_000)
    parser.add_argument("--accounts", type=int, default=20_000)
    parser.add_argument("--notebook-rows", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    parser.add_argument("--notebook-only", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    log = asked.folder / f"mixed-{asked.accounts}-{asked.exchanges}"
    if asked.notebook_only:
        print(json.dumps(notebook(log, asked.notebook_rows)))
        return
    asked.folder.mkdir(parents=True, exist_ok=True)
    if not log.exists():
        print(f"composing {asked.exchanges:,} exchanges of {asked.accounts:,} accounts ...", flush=True)
        arena.make("mixed", log, seed=1, accounts=asked.accounts, exchanges=asked.exchanges)
    warm = asked.folder / "warm"
    if not warm.exists():
        arena.make("demo", warm, seed=1)
    began = time.monotonic()
    scan(warm, asked.folder / "warm-results")
    print(f"first small scan, with imports and compilation: {time.monotonic() - began:.1f} s", flush=True)
    found = scan(log, asked.folder / "results")
    rows = pq.ParquetFile(log / "exchanges.parquet").metadata.num_rows
    rate = rows / found["wall_s"]
    print(f"\nParquet to findings: {rows:,} rows in {found['wall_s']:.1f} s, {rate:,.0f} rows/s,", end=" ")
    print(f"peak memory {found['peak_memory_mib'] / 1024:.2f} GiB")
    before = 0.0
    for stage, at in sorted(found["stages_s"].items(), key=lambda item: item[1]):
        print(f"  {stage:<8} {at - before:7.1f} s  {(at - before) / found['wall_s']:5.0%}")
        before = at
    score = arena.score(asked.folder / "results", log)
    print(f"  precision {score.precision.value}, recall {score.recall.value}")
    lines = asked.folder / "exchanges.jsonl"
    if not lines.exists():
        source = log / "exchanges.parquet"
        duckdb.sql(f"copy (select * from '{source}' limit {JSONL_ROWS}) to '{lines}' (format json)")
    out = asked.folder / "canonical"
    began = time.monotonic()
    count = min(rows, JSONL_ROWS)
    subprocess.run(["rm", "-rf", str(out)], check=True)
    wall = run("-m", "stillwatch", "ingest", str(lines), "--out", str(out))
    print(f"\nJSONL to canonical tables: {count:,} rows in {wall:.1f} s, {count / wall:,.0f} rows/s")
    again = ["--exchanges", str(asked.exchanges), "--accounts", str(asked.accounts)]
    again += ["--notebook-rows", str(asked.notebook_rows), "--folder", str(asked.folder)]
    raw = subprocess.run(
        [sys.executable, __file__, "--notebook-only", *again], check=True, capture_output=True, text=True
    )
    baseline = json.loads(raw.stdout)
    print(
        f"\nnotebook on {min(rows, asked.notebook_rows):,} rows: {baseline['rows_per_s']:,.0f} rows/s,",
        end=" ",
    )
    print(f"peak memory {baseline['peak_memory_mib'] / 1024:.2f} GiB,", end=" ")
    print(f"precision {baseline['precision']:.3f}, recall {baseline['recall']:.3f}")
    print(f"ratio of rows/s, scan to notebook: {rate / baseline['rows_per_s']:.1f}")


if __name__ == "__main__":
    main()
