"""How much risk an account of a campaign is: points that add up, each with its reason, and four fixed tiers.

The number of techniques says little: every campaign extracts a model. So points are given for what was taken and how
hard it was made to stop: exchanges harvested, by the account and by its operation; which abilities were asked for;
what it cost to look unrelated; accounts that stand by; breadth; persistence. Each component only ever adds, and more
of what it looks at never gives fewer points. The cut-offs are fixed and published, so that months can be compared.

A tier ranks what is known about an account. It is no evidence that the account belongs to the campaign, and it
decides nothing: what may be done follows from the verdict and from people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from stillwatch.schema.results import Group

Tier = Literal["low", "medium", "high", "critical"]
TIERS: tuple[Tier, ...] = ("low", "medium", "high", "critical")
CUTS: dict[Tier, int] = {"low": 0, "medium": 5, "high": 10, "critical": 15}
"""The least points of each tier."""

HARVESTED = ((10, 1), (100, 2), (1_000, 3), (10_000, 4))
"""(at least so many exchanges, points): of the account."""
OPERATION = ((1_000, 1), (10_000, 2), (100_000, 3), (1_000_000, 4))
"""The same of its operation."""
WORTH = {
    "elicit_reasoning": 3,
    "clean_traces": 3,
    "grade_answers": 2,
    "make_training_data": 2,
    "agents_tools": 2,
    "policy_rewrite": 2,
    "coding": 1,
    "reasoning": 1,
    "data_analysis": 1,
    "vision": 1,
    "security": 1,
}
"""Points of each ability that is asked for, by its tag: most where the answers themselves are training material."""
MOST_TAKEN = 6
LITTLE = ((0, 2), (10, 4), (100, MOST_TAKEN))
"""(exchanges of the account, most points for abilities): a handful of exchanges takes little of anything."""
EVASION = ((0.5, 1), (0.75, 2), (0.9, 3))
"""(evasion cost paid, points), where one hidden director is shown. 1 less the largest share behind one payer, site or
mail domain."""
STANDBY = {"handover": 2, "takeover": 2, "replay": 1}
MOST_STANDBY = 4
BREADTH = ((3, 1), (6, 2))
"""(different abilities, points)."""
DAYS = ((3, 1), (10, 2))
"""(days from the account's first to its last exchange, points)."""
AFTER_BANS = 2
COMPONENTS: dict[str, tuple[str, int]] = {
    "harvested": ("exchanges that the account took", HARVESTED[-1][1]),
    "operation": ("exchanges that its operation took", OPERATION[-1][1]),
    "taken": ("abilities that were asked for", MOST_TAKEN),
    "evasion": ("cost paid to look unrelated", EVASION[-1][1]),
    "standby": ("accounts that take over", MOST_STANDBY),
    "breadth": ("different abilities", BREADTH[-1][1]),
    "persistence": ("how long, and in spite of bans", DAYS[-1][1] + AFTER_BANS),
}
"""Each component in words, and the most points that it can give."""
ABILITY_WORDS = {
    "elicit_reasoning": "reasoning written out",
    "clean_traces": "cleaning of traces",
    "grade_answers": "grading of answers",
    "make_training_data": "training data in bulk",
    "agents_tools": "agents and tools",
    "policy_rewrite": "rewrites that avoid policy",
}


@dataclass(frozen=True, slots=True)
class Observed:
    """What the points follow from."""

    harvested: int = 0
    """Exchanges of the account in the campaign's own templates; all of its exchanges where it has no template."""
    operation: int = 0
    """The same of the whole campaign."""
    abilities: frozenset[str] = frozenset()
    """Tags of what the campaign asks for: capabilities, and the elicitation that TRACE evidence tells of."""
    evasion: float = 0.0
    """0 to 1; 0 where no hidden director is shown."""
    standby: frozenset[str] = frozenset()
    """Direct tests of `STANDBY` that fired."""
    days: int = 0
    after_bans: bool = False
    """Whether the campaign went on for a day or more after members were banned."""


@dataclass(frozen=True, slots=True)
class Points:
    """What one component gives, and why."""

    component: str
    points: int
    because: str


@dataclass(frozen=True, slots=True)
class Risk:
    """Points, the sum of `parts`, and the tier that they make."""

    points: int
    tier: Tier
    parts: tuple[Points, ...]
    """One for each of `COMPONENTS`, in that order, also where it gives none."""


def observed(group: Group, row: Mapping[str, Any]) -> Observed:
    """What the results say of one account (a row of `accounts.parquet`) of a campaign."""
    director = next((claim for claim in group.claims if claim.name == "one_director" and claim.holds), None)
    templated = group.harvest_exchanges > 0
    first, last = row["first_ts"], row["last_ts"]
    return Observed(
        harvested=int((row["harvest_exchanges"] if templated else row["exchanges"]) or 0),
        operation=group.harvest_exchanges or group.exchanges,
        abilities=frozenset(group.capabilities)
        | {part.signal for part in group.evidence if part.kind == "TRACE" and part.signal in WORTH},
        evasion=0.0 if director is None or director.statistic is None else float(director.statistic),
        standby=frozenset(
            part.signal for part in group.evidence if part.signal in STANDBY and part.kind != "CONTEXT"
        ),
        days=0 if first is None else (last.date() - first.date()).days + 1,
        after_bans=_after_bans(group),
    )


def _after_bans(group: Group) -> bool:
    bans = [event.ts for event in group.timeline if event.kind == "sanction"]
    if not bans:
        return False
    return (datetime.fromisoformat(group.last_ts) - datetime.fromisoformat(min(bans))).days >= 1


def risk(seen: Observed) -> Risk:
    """Points of every component, their sum, and the tier."""
    limit = _steps(LITTLE, seen.harvested)
    worth = sum(WORTH.get(name, 0) for name in seen.abilities)
    standing = sum(STANDBY[name] for name in seen.standby)
    parts = (
        Points("harvested", _steps(HARVESTED, seen.harvested), _count(seen.harvested, "exchange")),
        Points("operation", _steps(OPERATION, seen.operation), _count(seen.operation, "exchange")),
        Points("taken", min(limit, worth), _abilities(seen.abilities, limit < min(MOST_TAKEN, worth))),
        Points("evasion", _steps(EVASION, seen.evasion), _evasion(seen.evasion)),
        Points("standby", min(MOST_STANDBY, standing), _standby(seen.standby)),
        Points("breadth", _steps(BREADTH, len(seen.abilities)), _kinds(len(seen.abilities))),
        Points(
            "persistence",
            _steps(DAYS, seen.days) + (AFTER_BANS if seen.after_bans else 0),
            _persistence(seen.days, seen.after_bans),
        ),
    )
    points = sum(part.points for part in parts)
    return Risk(points, tier(points), parts)


def tier(points: int) -> Tier:
    """The tier of so many points."""
    return next(name for name in reversed(TIERS) if points >= CUTS[name])


def _steps(steps: tuple[tuple[float, int], ...], value: float) -> int:
    return max((points for least, points in steps if value >= least), default=0)


def _count(count: int, one: str) -> str:
    return f"{count:,} {one}{'' if count == 1 else 's'} taken."


def _abilities(names: frozenset[str], few: bool) -> str:
    if not names:
        return "No ability stands out in what was asked for."
    said = sorted(names, key=lambda name: (-WORTH.get(name, 0), name))
    text = f"Asked for: {', '.join(ABILITY_WORDS.get(name, name.replace('_', ' ')) for name in said)}"
    return f"{text}; its few exchanges take little of it." if few else f"{text}."


def _evasion(value: float) -> str:
    if value <= 0:
        return "No hidden director is shown."
    return f"At most {100 * (1 - value):.0f} % of the members stand behind one payer, site or mail domain."


def _standby(names: frozenset[str]) -> str:
    known = {
        "handover": "conversations are handed over",
        "takeover": "accounts begin when others end or are banned",
        "replay": "reasoning blocks come back under other accounts",
    }
    if not names:
        return "No sign of accounts that take over."
    text = ", ".join(known[name] for name in sorted(names))
    return f"{text[0].upper()}{text[1:]}."


def _kinds(count: int) -> str:
    return f"{count} different {'ability' if count == 1 else 'abilities'} asked for."


def _persistence(days: int, after_bans: bool) -> str:
    text = f"{days} day{'' if days == 1 else 's'} from its first to its last exchange"
    return f"{text}; the operation went on after bans." if after_bans else f"{text}."
