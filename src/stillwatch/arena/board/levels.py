"""Scores beside those of accounts: operations as wholes, what was asked for, groups by their parameters."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stillwatch.arena.files import exchange_files

MOST_WRONG = 200
"""Honest accounts in campaigns that are listed one by one."""
FOUND = 0.5
"""Share of an operation's accounts in campaigns from which it counts as found."""


@dataclass(frozen=True, slots=True)
class OperationScore:
    """One operation: its accounts, those in campaigns and in leads, and the pieces that it was found in.

    `harvest` and `exchanges` are what its accounts asked; `cover` is the share of ordinary use that was drawn for it.
    """

    group: str
    operation: str
    accounts: int
    named: int
    led: int
    cleared: int
    pieces: int
    exchanges: int
    harvest: int
    cover: float | None

    @property
    def found(self) -> bool:
        """Whether most of it is in campaigns."""
        return self.named >= FOUND * self.accounts


@dataclass(frozen=True, slots=True)
class StreamScore:
    """Exchanges that results attribute to campaigns' own requests, against those that were a harvest.

    Results name a number an account, not exchanges; so hits are the smaller of the two numbers, account by account.
    """

    attributed: int
    harvested: int
    hits: int


def operation_scores(results: Path, log: Path) -> list[OperationScore]:
    """Each operation of a log, in the order of its groups."""
    verdicts = {
        g["id"]: g["verdict"] for g in json.loads((results / "findings.json").read_text("utf-8"))["groups"]
    }
    placed: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    rows = pq.read_table(
        results / "accounts.parquet", columns=["account_id", "campaign_id"], partitioning=None
    )
    for account, group in zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True):
        placed[account][verdicts[group]].add(group)
    asked, harvested = exchanges_by_account(log)
    truth = pq.read_table(log / "truth" / "accounts.parquet").to_pydict()
    members: dict[str, list[str]] = defaultdict(list)
    for account, group, operation in zip(
        truth["account_id"], truth["group_id"], truth["operation"], strict=True
    ):
        if operation is not None:
            members[group].append(account)
    groups = pq.read_table(log / "truth" / "groups.parquet").to_pydict()
    out = []
    for group, operation, plain in zip(
        groups["group_id"], groups["operation"], groups["parameters"], strict=True
    ):
        if operation is None or group not in members:
            continue
        inside = members[group]
        cover = json.loads(plain).get("cover")
        pieces = Counter(c for a in inside for c in placed[a]["campaign"])
        out.append(
            OperationScore(
                group,
                operation,
                len(inside),
                sum(bool(placed[a]["campaign"]) for a in inside),
                sum(bool(placed[a]["lead"]) for a in inside),
                sum(bool(placed[a]["cleared"]) for a in inside),
                len(pieces),
                sum(asked.get(a, 0) for a in inside),
                sum(harvested.get(a, 0) for a in inside),
                None if cover is None else float(cover),
            )
        )
    return out


def exchanges_by_account(log: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Exchanges of each account, and those that are a harvest by the truth."""
    rows = _labelled(log)
    counted = rows.group_by("account_id").aggregate([("harvest", "count"), ("harvest", "sum")]).to_pydict()
    accounts = counted["account_id"]
    return (
        dict(zip(accounts, counted["harvest_count"], strict=True)),
        dict(zip(accounts, (int(n) for n in counted["harvest_sum"]), strict=True)),
    )


def _labelled(log: Path) -> pa.Table:
    """account_id and harvest of each exchange. The truth has the order of the log."""
    parts = [pq.read_table(p, columns=["account_id"], partitioning=None) for p in exchange_files(log)]
    account = pa.concat_tables(parts)["account_id"]
    harvest = pq.read_table(log / "truth" / "exchanges.parquet", columns=["harvest"])["harvest"]
    return pa.table(
        {"account_id": account.combine_chunks(), "harvest": pc.cast(harvest.combine_chunks(), "int64")}
    )


def stream_score(results: Path, log: Path) -> StreamScore | None:
    """Attributed exchanges against the harvest; None where the results attribute nothing (a baseline)."""
    path = results / "accounts.parquet"
    names = pq.read_schema(path).names
    if "harvest_exchanges" not in names:
        return None
    table = pq.read_table(path, columns=["account_id", "verdict", "harvest_exchanges"], partitioning=None)
    attributed: dict[str, int] = defaultdict(int)
    for account, verdict, number in zip(*(table[n].to_pylist() for n in table.column_names), strict=True):
        if verdict == "campaign":
            attributed[account] += number or 0
    _, harvested = exchanges_by_account(log)
    return StreamScore(
        sum(attributed.values()),
        sum(harvested.values()),
        sum(min(number, harvested.get(account, 0)) for account, number in attributed.items()),
    )


def wrongly_named(results: Path, log: Path) -> list[dict[str, Any]]:
    """Honest accounts in campaigns: their kind, the bits of each kind of evidence, and the attackers beside them."""
    names = [n for n in pq.read_schema(results / "accounts.parquet").names if n.startswith("bits_")]
    columns = ["account_id", "campaign_id", *names]
    rows = pq.read_table(results / "accounts.parquet", columns=columns, partitioning=None).to_pylist()
    verdicts = {
        g["id"]: g["verdict"] for g in json.loads((results / "findings.json").read_text("utf-8"))["groups"]
    }
    truth = pq.read_table(log / "truth" / "accounts.parquet", columns=["account_id", "kind"]).to_pydict()
    kinds = dict(zip(truth["account_id"], truth["kind"], strict=True))
    named = [row for row in rows if verdicts[row["campaign_id"]] == "campaign"]
    attackers = Counter(row["campaign_id"] for row in named if kinds[row["account_id"]] == "attack")
    return [
        {
            "kind": kinds[row["account_id"]],
            "attackers": attackers[row["campaign_id"]],
            "bits": {n.removeprefix("bits_"): row[n] for n in names if row[n] is not None},
        }
        for row in named
        if kinds[row["account_id"]] != "attack"
    ][:MOST_WRONG]
