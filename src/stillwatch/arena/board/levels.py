"""Scores beside those of accounts: operations as wholes, what was asked for, honest accounts one by one."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stillwatch.arena.board.truth import Truth
from stillwatch.arena.score import verdicts_of

MOST_WRONG = 200
"""Honest accounts in campaigns that are listed one by one."""


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


@dataclass(frozen=True, slots=True)
class StreamScore:
    """Exchanges that results attribute to campaigns' own requests, against those that were a harvest.

    Results name a number an account, not exchanges; so hits are the smaller of the two numbers, account by account.
    """

    attributed: int
    harvested: int
    hits: int


def operation_scores(results: Path, truth: Truth) -> list[OperationScore]:
    """Each operation of a log, in the order of its groups."""
    verdicts = verdicts_of(results)
    placed: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in _rows(results, ["account_id", "campaign_id"]):
        placed[row["account_id"]][verdicts[row["campaign_id"]]].add(row["campaign_id"])
    out = []
    for planned in truth.operations:
        cover = planned.parameters.get("cover")
        inside = planned.members
        named, led, cleared = (
            sum(bool(placed[a][verdict]) for a in inside) for verdict in ("campaign", "lead", "cleared")
        )
        exchanges, harvest = truth.of(inside)
        out.append(
            OperationScore(
                planned.group,
                planned.name,
                len(inside),
                named,
                led,
                cleared,
                len({campaign for a in inside for campaign in placed[a]["campaign"]}),
                exchanges,
                harvest,
                None if cover is None else float(cover),
            )
        )
    return out


def stream_score(results: Path, truth: Truth) -> StreamScore | None:
    """Attributed exchanges against the harvest; None where the results attribute nothing (a baseline)."""
    if "harvest_exchanges" not in pq.read_schema(results / "accounts.parquet").names:
        return None
    attributed: Counter[str] = Counter()
    for row in _rows(results, ["account_id", "verdict", "harvest_exchanges"]):
        if row["verdict"] == "campaign":
            attributed[row["account_id"]] += row["harvest_exchanges"] or 0
    return StreamScore(
        attributed.total(),
        sum(truth.harvested.values()),
        sum(min(number, truth.harvested.get(account, 0)) for account, number in attributed.items()),
    )


def wrongly_named(results: Path, truth: Truth) -> list[dict[str, Any]]:
    """Honest accounts in campaigns: their kind, the bits of each kind of evidence, and the attackers beside them."""
    names = [n for n in pq.read_schema(results / "accounts.parquet").names if n.startswith("bits_")]
    verdicts = verdicts_of(results)
    named = [
        row
        for row in _rows(results, ["account_id", "campaign_id", *names])
        if verdicts[row["campaign_id"]] == "campaign"
    ]
    attackers = Counter(r["campaign_id"] for r in named if truth.kinds[r["account_id"]] == "attack")
    return [
        {
            "kind": truth.kinds[row["account_id"]],
            "attackers": attackers[row["campaign_id"]],
            "bits": {n.removeprefix("bits_"): row[n] for n in names if row[n] is not None},
        }
        for row in named
        if truth.kinds[row["account_id"]] != "attack"
    ][:MOST_WRONG]


def _rows(results: Path, columns: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(
        results / "accounts.parquet", columns=columns, partitioning=None
    ).to_pylist()
    return rows
