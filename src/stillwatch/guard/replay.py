"""A log, decided about as if it came now: what each rule would have done, when each campaign would have been cut.

Event time throughout. The log is looked at once and kept as keys (about 60 bytes an exchange), then put in the order
of time and weighed as the guard weighs requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from stillwatch.campaign.record import iso
from stillwatch.guard.decide import Guard
from stillwatch.guard.logged import Logged
from stillwatch.guard.policy import MILDEST_ACTING, STRENGTH
from stillwatch.guard.snapshot import Snapshot
from stillwatch.ingest import Log


class RuleResult(msgspec.Struct, kw_only=True):
    """What one rule would have done."""

    rule: str
    line: int
    action: str
    exchanges: int
    accounts: int


class CampaignResult(msgspec.Struct, kw_only=True):
    """What one campaign would have met. Its exchanges are those of the accounts that the scan names in it."""

    campaign: str
    exchanges: int
    cut: int
    """Exchanges that would have been acted on."""
    first_cut: str | None
    """When the first one would have been."""
    before_first_cut: int
    let_through: int
    accounts_named: int
    accounts_cut: int
    others_touched: int
    """Accounts that would have been acted on for this campaign and that the scan names in none."""
    known_honest_touched: int


class Touched(msgspec.Struct, kw_only=True):
    """An account that would have been acted on."""

    account_id: str
    campaign: str
    rule: str
    named: bool
    """Whether the scan names it in a campaign."""
    known_honest: bool
    first: str
    exchanges: int


class Replay(msgspec.Struct, kw_only=True):
    """The whole of it."""

    exchanges: int
    accounts: int
    refused_before: int
    """Exchanges that Stillwatch had refused already: no evidence."""
    first: str | None
    last: str | None
    rules: list[RuleResult]
    campaigns: list[CampaignResult]
    touched: list[Touched]


@dataclass(slots=True)
class _Seen:
    """The log as keys: row r has the places `places[starts[r]:starts[r+1]]`."""

    ids: list[str] = field(default_factory=list)
    number: list[int] = field(default_factory=list)
    """Keyed hash of each id."""
    account: list[np.ndarray] = field(default_factory=list)
    ts: list[np.ndarray] = field(default_factory=list)
    refused: list[np.ndarray] = field(default_factory=list)
    gateway: list[str | None] = field(default_factory=list)
    places: list[np.ndarray] = field(default_factory=list)
    lengths: list[np.ndarray] = field(default_factory=list)


def replay(
    log: Log,
    snapshot: Snapshot,
    *,
    names: bool = True,
    history: bool = False,
    honest: Iterable[str] = (),
    progress: Callable[[int], None] = lambda rows: None,
) -> Replay:
    """Decide about every exchange of a log.

    `names`: the accounts that the scan names are known from the start; False: only the campaigns' profiles are, so
    that it is told what would be found of members that no scan has seen. `history`: go on from what the scan had
    seen; not for the scan's own log, which would count twice. `honest`: accounts known to be honest.
    """
    guard = Guard(snapshot, history=history, names=names, clock=lambda: 1, most_accounts=1 << 42)
    guard.warm()
    seen = _look(log, guard, progress)
    return _weigh(seen, guard, snapshot, frozenset(honest))


def _look(log: Log, guard: Guard, progress: Callable[[int], None]) -> _Seen:
    seen = _Seen()
    code: dict[tuple[str, str | None, str | None, bool], int] = {}
    rows = 0
    for batch in log.batches():
        logged = Logged(batch)
        account = np.empty(batch.num_rows, np.int64)
        lengths = np.zeros(batch.num_rows, np.int64)
        places: list[int] = []
        for i in range(batch.num_rows):
            subject = logged.subject(i)
            name = str(subject.account)
            key = (name, subject.gateway, subject.end_user, subject.end_user_verified)
            which = code.get(key)
            if which is None:
                which = code[key] = len(seen.ids)
                seen.ids.append(name)
                seen.number.append(guard.principal(subject))
                seen.gateway.append(subject.gateway)
            account[i] = which
            before = len(places)
            logged.look(guard.sight, subject, i, places)
            lengths[i] = len(places) - before
        seen.account.append(account)
        seen.ts.append(logged.ts)
        seen.refused.append(np.array(logged.refused, bool))
        seen.places.append(np.array(places, np.int32))
        seen.lengths.append(lengths)
        rows += batch.num_rows
        progress(rows)
    return seen


def _joined(parts: Sequence[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, kind), *parts])


def _weigh(seen: _Seen, guard: Guard, snapshot: Snapshot, honest: frozenset[str]) -> Replay:
    account, ts = _joined(seen.account, np.int64), _joined(seen.ts, np.int64)
    refused, places = _joined(seen.refused, np.bool_), _joined(seen.places, np.int32)
    starts = np.concatenate([[0], np.cumsum(_joined(seen.lengths, np.int64))]).tolist()
    named = _named(snapshot, seen.number)
    campaigns = {
        c.id: CampaignResult(
            campaign=c.id, exchanges=0, cut=0, first_cut=None, before_first_cut=0, let_through=0,
            accounts_named=0, accounts_cut=0, others_touched=0, known_honest_touched=0,
        )
        for c in snapshot.meta.campaigns
    }  # fmt: skip
    policy = snapshot.policy
    rules = {
        rule.name: RuleResult(rule=rule.name, line=line, action=rule.action, exchanges=0, accounts=0)
        for rule, line in zip(policy.rules, policy.lines, strict=True)
    }
    touched: dict[tuple[int, str], Touched] = {}
    by_rule: dict[str, set[int]] = {name: set() for name in rules}
    by_campaign: dict[str, set[int]] = {name: set() for name in campaigns}
    for row in np.lexsort((account, ts)).tolist():
        who, now = int(account[row]), int(ts[row])
        mine = None if refused[row] else places[starts[row] : starts[row + 1]].tolist()
        decision = guard.weigh(seen.number[who], mine, 0, seen.gateway[who], now)
        if mine is None:
            continue
        acted = STRENGTH[decision.would] >= MILDEST_ACTING
        if decision.rule is not None:
            rules[decision.rule].exchanges += 1
            by_rule[decision.rule].add(who)
        if acted and decision.campaign in campaigns:
            campaign = decision.campaign
            first = touched.setdefault(
                (who, campaign),
                Touched(
                    account_id=seen.ids[who],
                    campaign=campaign,
                    rule=decision.rule or "",
                    named=bool(named[who]),
                    known_honest=seen.ids[who] in honest,
                    first=iso(now),
                    exchanges=0,
                ),
            )
            first.exchanges += 1
            if campaigns[campaign].first_cut is None:
                campaigns[campaign].first_cut = iso(now)
        for name in named[who]:
            result = campaigns[name]
            result.exchanges += 1
            by_campaign[name].add(who)
            if acted and decision.campaign == name:
                result.cut += 1
            else:
                result.let_through += 1
                result.before_first_cut += result.first_cut is None
    for name, members in by_rule.items():
        rules[name].accounts = len(members)
    for name, members in by_campaign.items():
        campaigns[name].accounts_named = len(members)
    for (who, name), entry in touched.items():
        campaigns[name].accounts_cut += name in named[who]
        campaigns[name].others_touched += not named[who]
        campaigns[name].known_honest_touched += entry.known_honest
    return Replay(
        exchanges=int((~refused).sum()),
        accounts=len(set(seen.number)),
        refused_before=int(refused.sum()),
        first=iso(int(ts.min())) if len(ts) else None,
        last=iso(int(ts.max())) if len(ts) else None,
        rules=list(rules.values()),
        campaigns=list(campaigns.values()),
        touched=sorted(touched.values(), key=lambda t: (t.campaign, t.first, t.account_id)),
    )


def _named(snapshot: Snapshot, numbers: Sequence[int]) -> list[frozenset[str]]:
    """Campaigns in which the scan names each account."""
    a, groups = snapshot.arrays, snapshot.meta.groups
    wanted = np.array(numbers, np.uint64)
    row = np.minimum(np.searchsorted(a.account_hash, wanted), max(0, snapshot.accounts - 1))
    out = []
    for number, at in zip(numbers, row.tolist(), strict=True):
        there = snapshot.accounts > 0 and int(a.account_hash[at]) == number
        found = a.named_group[a.named_offsets[at] : a.named_offsets[at + 1]].tolist() if there else []
        out.append(frozenset(groups[g].id for g in found if groups[g].verdict == "campaign"))
    return out
