"""The population view: risk tiers and techniques of all accounts that were acted on, month by month.

An account counts once in each month in which a decision about a campaign that names it was in force on any day
(`actioned`), or, where no decisions are given, in which it was active between its first and its last exchange of a
campaign (`active`). What is said of it is what the newest scan said that began before the month ended and names it.
Of several campaigns the one with most points counts; techniques are those of all of them. Months of which no scan
read a day are gaps, not zeros.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Literal

from stillwatch.campaign.risk import COMPONENTS, CUTS, TIERS, Observed, Risk, Tier, observed, risk
from stillwatch.campaign.techniques import CATALOGUE, techniques
from stillwatch.report.shares import Share, small, suppressed
from stillwatch.schema.anonymity import K
from stillwatch.schema.results import Group
from stillwatch.store.decisions import Span
from stillwatch.store.results import Results

Counting = Literal["actioned", "active"]
FORMAT = 1
METHOD = {
    "actioned": "An account counts once in each month in which a decision about a campaign that names it was "
    "in force.",
    "active": "An account counts once in each month between its first and its last exchange of a campaign.",
}
INTERVALS = (
    "95 % score intervals (Wilson 1927), as if each account were drawn by itself. Accounts of one campaign are "
    "alike: with few campaigns in a month the share moves more than its interval says."
)


@dataclass(frozen=True, slots=True)
class Month:
    """One month. Counts are None where they may not leave."""

    name: str
    """`2026-03`."""
    covered: float
    """Share of its days that scans read; 0: a gap, and every count is None."""
    accounts: int | None = None
    campaigns: int | None = None
    tiers: Mapping[Tier, int | None] = field(default_factory=dict)
    upper: int | None = None
    """Accounts of medium risk or more."""
    share: Share | None = None
    """Of medium risk or more."""
    techniques: Mapping[str, int | None] = field(default_factory=dict)
    """Accounts by technique, each of the catalogue."""
    points: Mapping[str, float] = field(default_factory=dict)
    """Mean points by component; only inside the house."""

    @property
    def gap(self) -> bool:
        """Whether nothing was read of it."""
        return self.covered <= 0


@dataclass(frozen=True, slots=True)
class Population:
    """All months, the first to the last, none left out."""

    counting: Counting
    internal: bool
    scans: int
    months: tuple[Month, ...]
    freed: int
    """Accounts that appeals freed: they are in no month."""
    unknown: int
    """Decisions about campaigns that no results given here name."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A results folder that was read."""

    results: Results
    digest: str


@dataclass(slots=True)
class _Member:
    """One account in one campaign of one scan."""

    group: Group
    row: Mapping[str, Any]


def population(
    scans: Sequence[Scan],
    decided: Sequence[Span] | None,
    *,
    freed: Collection[str] = (),
    internal: bool = False,
) -> Population:
    """Months of all scans, and of the decisions between them. `decided` None: by activity."""
    ordered = sorted(scans, key=lambda s: (s.results.findings.run.last_ts, s.digest))
    windows = [_window(scan) for scan in ordered]
    members = [_members(scan, freed) for scan in ordered]
    named = {campaign for scan in members for campaign in scan}
    unknown = {span.campaign for span in decided or ()} - named
    months = []
    for first, after in _months(windows):
        covered = _covered(windows, first, after)
        name = f"{first:%Y-%m}"
        if covered == 0:
            months.append(Month(name, 0.0))
            continue
        found = _of_month(windows, members, decided, first, after)
        months.append(_counted(name, covered, found, internal))
    out = {account for scan in ordered for account in _named(scan) if account in freed}
    counting: Counting = "active" if decided is None else "actioned"
    return Population(counting, internal, len(ordered), tuple(months), len(out), len(unknown))


def _window(scan: Scan) -> tuple[date, date]:
    run = scan.results.findings.run
    return date.fromisoformat(run.first_ts[:10]), date.fromisoformat(run.last_ts[:10])


def _named(scan: Scan) -> set[str]:
    table = scan.results.accounts.select(["account_id", "verdict"]).to_pydict()
    pairs = zip(table["account_id"], table["verdict"], strict=True)
    return {account for account, verdict in pairs if verdict == "campaign"}


def _members(scan: Scan, freed: Collection[str]) -> dict[str, dict[str, _Member]]:
    """Campaign -> account -> what is known of it. Users behind one gateway are its account, the busiest one's row."""
    groups = {group.id: group for group in scan.results.findings.groups if group.verdict == "campaign"}
    found: dict[str, dict[str, _Member]] = {name: {} for name in groups}
    for row in scan.results.accounts.to_pylist():
        group = groups.get(row["campaign_id"])
        if group is None or row["account_id"] in freed:
            continue
        before = found[group.id].get(row["account_id"])
        if before is None or row["exchanges"] > before.row["exchanges"]:
            found[group.id][row["account_id"]] = _Member(group, row)
    return found


def _months(windows: Sequence[tuple[date, date]]) -> list[tuple[date, date]]:
    """(first day, first day after) of each month from the first that a scan read to the last."""
    if not windows:
        return []
    at = min(first for first, _ in windows).replace(day=1)
    end = max(last for _, last in windows)
    out = []
    while at <= end:
        after = (at + timedelta(days=32)).replace(day=1)
        out.append((at, after))
        at = after
    return out


def _covered(windows: Sequence[tuple[date, date]], first: date, after: date) -> float:
    days = {
        first + timedelta(days=n)
        for begin, end in windows
        for n in range(max(0, (begin - first).days), min((after - first).days, (end - first).days + 1))
    }
    return len(days) / (after - first).days


def _of_month(
    windows: Sequence[tuple[date, date]],
    members: Sequence[Mapping[str, Mapping[str, _Member]]],
    decided: Sequence[Span] | None,
    first: date,
    after: date,
) -> dict[str, list[_Member]]:
    """Account -> its campaigns in that month, as the newest scan has them that began before the month ended."""
    known: dict[str, dict[str, _Member]] = {}
    for (begin, _), scan in zip(windows, members, strict=True):
        if begin >= after:
            continue
        for campaign, accounts in scan.items():
            for account, member in accounts.items():
                if decided is not None or _active(member, first, after):
                    known.setdefault(campaign, {})[account] = member
    if decided is not None:
        acting = {
            span.campaign for span in decided if span.begin.date() < after and _last_day(span.end) >= first
        }
        known = {campaign: accounts for campaign, accounts in known.items() if campaign in acting}
    found: dict[str, list[_Member]] = {}
    for accounts in known.values():
        for account, member in accounts.items():
            found.setdefault(account, []).append(member)
    return found


def _last_day(end: datetime) -> date:
    """A decision that ends at midnight was not in force on the day that begins."""
    return (end - timedelta(microseconds=1)).date()


def _active(member: _Member, first: date, after: date) -> bool:
    begin, end = member.row["first_ts"], member.row["last_ts"]
    return begin is not None and begin.date() < after and end.date() >= first


def _counted(name: str, covered: float, found: Mapping[str, Sequence[_Member]], internal: bool) -> Month:
    tiers = dict.fromkeys(TIERS, 0)
    shown = dict.fromkeys(CATALOGUE, 0)
    points = dict.fromkeys(COMPONENTS, 0)
    of_group: dict[int, frozenset[str]] = {}
    known: dict[Observed, Risk] = {}
    campaigns: set[str] = set()
    for members in found.values():
        best: Risk | None = None
        ids: set[str] = set()
        for member in members:
            seen = observed(member.group, member.row)
            mine = known.get(seen) or known.setdefault(seen, risk(seen))
            if best is None or mine.points > best.points:
                best = mine
            key = id(member.group)
            if key not in of_group:
                of_group[key] = frozenset(technique.id for technique in techniques(member.group))
            ids |= of_group[key]
            campaigns.add(member.group.id)
        if best is None:
            continue
        tiers[best.tier] += 1
        for part in best.parts:
            points[part.component] += part.points
        for technique in ids:
            shown[technique] += 1
    total = len(found)
    upper = total - tiers["low"]
    whole = Month(
        name=name,
        covered=covered,
        accounts=total,
        campaigns=len(campaigns),
        tiers=tiers,
        upper=upper,
        share=Share(upper, total),
        techniques=shown,
        points={part: value / total for part, value in points.items()} if total else {},
    )
    return whole if internal else leaving(whole)


def leaving(month: Month) -> Month:
    """A month as it may leave: no count of 1 to 4 accounts, none that tells one, and no count of campaigns."""
    accounts, upper = month.accounts or 0, month.upper or 0
    if small(accounts):
        return Month(
            month.name, month.covered, tiers=dict.fromkeys(TIERS), techniques=dict.fromkeys(CATALOGUE)
        )
    low, above = suppressed((accounts - upper, upper))
    parts: list[int | None] = [None] * (len(TIERS) - 1)
    if above is not None:
        parts = suppressed([month.tiers[name] or 0 for name in TIERS[1:]])
    return Month(
        name=month.name,
        covered=month.covered,
        accounts=accounts,
        tiers=dict(zip(TIERS, (low, *parts), strict=True)),
        upper=above,
        share=None if above is None else month.share,
        techniques={
            name: None if small(count or 0) or small(accounts - (count or 0)) else count
            for name, count in month.techniques.items()
        },
    )


def plain(found: Population) -> dict[str, Any]:
    """For JSON: months with counts, shares and intervals; the published points and cut-offs; how it was counted."""
    return {
        "format": FORMAT,
        "counting": found.counting,
        "method": METHOD[found.counting],
        "intervals": INTERVALS,
        "internal": found.internal,
        "suppressed_below": None if found.internal else K,
        "scans": found.scans,
        "freed_by_appeals": _shown(found, found.freed),
        "tiers": {name: {"least_points": CUTS[name]} for name in TIERS},
        "components": {
            name: {"title": title, "most_points": most} for name, (title, most) in COMPONENTS.items()
        },
        "techniques": {
            id: {"framework": entry.framework, "name": entry.name, "tactic": entry.tactic}
            for id, entry in CATALOGUE.items()
        },
        "months": [_month(month) for month in found.months],
    }


def _shown(found: Population, count: int) -> int | None:
    return None if small(count) and not found.internal else count


def _month(month: Month) -> dict[str, Any]:
    out: dict[str, Any] = {"month": month.name, "gap": month.gap, "days_read": round(month.covered, 4)}
    if month.gap:
        return out
    share = month.share
    out |= {
        "accounts": month.accounts,
        "tiers": dict(month.tiers),
        "medium_or_higher": month.upper,
        "share": None if share is None or share.value is None else round(share.value, 6),
        "interval": None
        if share is None or share.interval is None
        else [round(x, 6) for x in share.interval],
        "techniques": dict(month.techniques),
    }
    if month.campaigns is not None:
        out["campaigns"] = month.campaigns
    if month.points:
        out["mean_points"] = {name: round(value, 4) for name, value in month.points.items()}
    return out
