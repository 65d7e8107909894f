"""Live replay of composed logs, scored against what their composer knows. Prints one JSON object per log.

    python -m scripts.live_replay --scenario mixed --seed 71 --every 1d

Per operation: exchanges that it had before the first of its accounts was acted on, and before half of them were; as a
share of its own and of a campaign of 16 million. And how many honest accounts were acted on, with the upper bound of
their share (Clopper-Pearson, 95 %).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import beta

from stillwatch import arena
from stillwatch.arena.board.truth import read_truth
from stillwatch.cli.options import seconds
from stillwatch.guard import Secret, parse_policy
from stillwatch.guard.live import Operation, live
from stillwatch.guard.policy import SHADOW
from stillwatch.ingest import open_log

WHOLE = 16_000_000


def measured(log: Path, how: Operation) -> dict[str, object]:
    """Replay one log and score it."""
    truth = read_truth(log)
    began = time.monotonic()
    with open_log([str(log)]) as opened:
        found = live(
            opened, parse_policy(SHADOW), Secret(b"a secret of the measurement"), how,
            told=lambda step, steps, words: print(f"{step} of {steps}: {words}", file=sys.stderr, flush=True),
        )  # fmt: skip
    first: dict[str, str] = {}
    for touched in found.touched:
        first[touched.account_id] = min(touched.first, first.get(touched.account_id, touched.first))
    table = pq.read_table(log / "exchanges.parquet", columns=["account_id", "ts"])
    ids = table.column("account_id").to_pylist()
    ts = table.column("ts").cast(pa.int64()).to_numpy()
    who = {name: i for i, name in enumerate(sorted(set(ids)))}
    code = np.array([who[name] for name in ids])
    operations = []
    attackers: set[str] = set()
    for planned in truth.operations:
        attackers |= set(planned.members)
        mine = np.isin(code, [who[m] for m in planned.members if m in who])
        cut = sorted(_us(first[m]) for m in planned.members if m in first)
        half = cut[(len(planned.members) + 1) // 2 - 1] if len(cut) * 2 >= len(planned.members) else None
        total = int(mine.sum())

        def before(at: int | None, mine: np.ndarray = mine, total: int = total) -> int:
            return total if at is None else int((mine & (ts < at)).sum())

        operations.append(
            {
                "operation": planned.name, "accounts": len(planned.members), "exchanges": total,
                "accounts_cut": len(cut), "before_first": before(cut[0] if cut else None), "cut": bool(cut),
                "before_half": before(half), "half_cut": half is not None,
                "share_of_16M": round(before(cut[0] if cut else None) / WHOLE, 6),
                "days_to_first": None if not cut else round((cut[0] - int(ts[mine].min())) / 86_400e6, 2),
            }
        )  # fmt: skip
    honest = [name for name in truth.kinds if name not in attackers]
    hit = [name for name in first if name not in attackers]
    return {
        "exchanges": found.exchanges, "accounts": found.accounts, "scans": found.scans, "scan_s": found.scan_s,
        "wall_s": round(time.monotonic() - began, 1), "operations": operations, "honest": len(honest),
        "honest_touched": len(hit), "upper_95": float(beta.ppf(0.95, len(hit) + 1, max(1, len(honest) - len(hit)))),
        "touched_kinds": dict(Counter(truth.kinds.get(name, "?") for name in hit)),
    }  # fmt: skip


def _us(text: str) -> int:
    return int(np.datetime64(text.rstrip("Z"), "us").astype(np.int64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, help="a log that is there already")
    parser.add_argument("--scenario", default="mixed")
    parser.add_argument("--seed", type=int, default=71)
    parser.add_argument("--accounts", type=int)
    parser.add_argument("--operation")
    parser.add_argument("--every", default="1d")
    parser.add_argument("--set", help='parameters of the operation, as in "size=120 cover=0.5"')
    parser.add_argument("--scan-after", default="0s")
    parser.add_argument("--scan-takes", default="10m")
    parser.add_argument("--decision-after", default="0s")
    asked = parser.parse_args()
    how = Operation(
        every_us=int(seconds(asked.every) * 1e6),
        takes_us=int(seconds(asked.scan_takes, 0.0) * 1e6),
        decided_us=int(seconds(asked.decision_after, 0.0) * 1e6),
        after_us=int(seconds(asked.scan_after, 0.0) * 1e6),
    )
    with tempfile.TemporaryDirectory() as folder:
        log = asked.log or Path(folder) / "log"
        if asked.log is None:
            arena.make(
                asked.scenario,
                log,
                seed=asked.seed,
                accounts=asked.accounts,
                operation=asked.operation,
                settings=dict(pair.split("=", 1) for pair in (asked.set or "").split()) or None,
            )
        found = {key: str(value) for key, value in vars(asked).items() if value is not None}
        print(json.dumps(found | measured(log, how)), flush=True)


if __name__ == "__main__":
    main()
