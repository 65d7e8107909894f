"""Packages that others have published, called as their documentation says."""

from __future__ import annotations

import contextlib
import csv
import os
import sqlite3
import tempfile
from pathlib import Path
from types import SimpleNamespace

from stillwatch.arena.baselines.log import components, first_rows, missing, write_groups

ABOUT_HONEYPOT = (
    "honeypotllm 0.1.3, its suspicion score per key with its defaults (rate, sequential prompts, no pauses, volume), "
    "flagged once above .75; marks on answers are not part of this comparison"
)
ABOUT_NETWORK = (
    "coordination-network-toolkit 1.5: accounts that send the same text, or texts with a Jaccard similarity of .9, "
    "within 60 seconds of each other, twice or more; connected components of 5 or more"
)
LEAST = 5
WITHIN_S = 60
EDGE = 2
NETWORK_ROWS = 150_000
"""Rows for the toolkit, whose cost is one call of Python for every two messages within a minute of each other."""


def run_honeypotllm(log: Path, out: Path) -> None:
    """See `ABOUT_HONEYPOT`. The package reads the clock of the machine: here it reads that of the log."""
    try:
        from honeypotllm import scoring
        from honeypotllm.config import ScoringConfig
    except ModuleNotFoundError as error:
        raise missing("honeypotllm") from error
    rows = first_rows(log, "account_id, prompt, epoch_us(ts) / 1e6 as at")
    accounts, prompts, times = (rows[name].to_pylist() for name in ("account_id", "prompt", "at"))
    now = 0.0
    scoring.time = SimpleNamespace(time=lambda: now)
    scoring._MAX_TRACKED_KEYS = len(set(accounts)) + 1
    scorer = scoring.SuspicionScorer(ScoringConfig())
    flagged = set()
    for account, prompt, at in zip(accounts, prompts, times, strict=True):
        now = at
        if account not in scorer._states:
            # Its default would be the machine's clock, and the score would decay backwards.
            scorer._states[account] = scoring.ScoringState(key_hash=account, last_seen=at)
        if scorer.score_request(account, prompt=prompt or "").should_honeypot:
            flagged.add(account)
    write_groups(log, out, {"flagged": flagged})


def run_coordination_network(log: Path, out: Path) -> None:
    """See `ABOUT_NETWORK`."""
    try:
        from coordination_network_toolkit import compute_networks, preprocess
    except ModuleNotFoundError as error:
        raise missing("coordination-network-toolkit") from error
    rows = first_rows(
        log,
        "exchange_id, account_id, prompt, (epoch_us(ts) // 1000000)::bigint as at",
        NETWORK_ROWS,
        where="prompt is not null and len(prompt) >= 20",
    ).to_pylist()
    with tempfile.TemporaryDirectory(prefix="stillwatch-network-") as folder:
        messages, database = Path(folder) / "messages.csv", str(Path(folder) / "network.db")
        with messages.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["message_id", "user_id", "username", "repost_id", "reply_id", "message", "timestamp", "urls"]
            )
            for row in rows:
                text = row["prompt"][:2_000].replace("\x00", " ")
                writer.writerow([row["exchange_id"], row["account_id"], "", "", "", text, row["at"], ""])
        with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence):
            preprocess.preprocess_csv_files(database, [str(messages)])
            compute_networks.compute_co_tweet_network(
                database, WITHIN_S, min_edge_weight=EDGE, n_threads=os.cpu_count() or 1
            )
            compute_networks.compute_co_similar_tweet(
                database, WITHIN_S, min_edge_weight=EDGE, n_threads=os.cpu_count() or 1
            )
        with contextlib.closing(sqlite3.connect(database)) as connection:
            edges = [
                (str(a), str(b))
                for network in ("co_tweet_network", "co_similar_tweet_network")
                for a, b in connection.execute(f"select user_1, user_2 from {network} where user_1 <> user_2")
            ]
    write_groups(log, out, components(edges, LEAST))
