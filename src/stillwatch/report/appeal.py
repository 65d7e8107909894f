"""What there is about one account that appeals: the facts of a results folder, and how near it is to being unnamed.

`Facts` is for the reviewer and holds everything. `told_of` takes from it what the account itself may be told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow.compute as pc

from stillwatch.report.appeal_told import KINDS, Letter, Told
from stillwatch.scan.assign import HALF_WAY
from stillwatch.schema.results import Group
from stillwatch.schema.tables import SEPARATOR
from stillwatch.store.appeals import Row as Appeal
from stillwatch.store.decisions import Row as Decided
from stillwatch.store.decisions import standing
from stillwatch.store.results import Results

VIEWS = ("FORM", "LINK", "TIME")
Plain = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Margin:
    """How far an account is from not being named."""

    strongest: str
    """The kind that does not count, because nobody is named for one kind alone."""
    besides: float
    """Bits of the others."""
    needed: float
    """Bits that they need: half of the way from the base rate. About: the scan counted members before it "
    "named them."""
    hangs_on: tuple[tuple[str, str, str | None, float], ...] = ()
    """(view, kind of key, key, bits) without any one of which the account would not be named."""

    @property
    def over(self) -> float:
        """Bits to spare; negative where it is short of them."""
        return self.besides - self.needed


@dataclass(frozen=True, slots=True)
class Membership:
    """The account in one group."""

    group: Group
    row: Plain
    steps: tuple[Plain, ...]
    """Its rows of the waterfall."""
    streams: tuple[Plain, ...]
    """Its prompt families that belong to the group, most exchanges first."""
    profile: Mapping[str, Plain]
    """The group's keys by their hash."""
    margin: Margin


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the reviewer sees of one account."""

    account: str
    results: Results
    digest: str
    """Of the results folder."""
    memberships: tuple[Membership, ...]
    """The strongest first: campaigns, then leads, then cleared groups."""
    campaign: str | None
    """The campaign that the action rests on; None where there is none."""
    found: bool = False
    """Whether only the guard connects the account with it (by reference), and no scan names it."""
    spoken_for: bool = False
    """Whether the operator's word stands for it (owner, contract, reference), or it is a gateway: never acted on."""
    known: bool = True
    """Whether the scan's log has such an account, as far as the results tell."""
    reference: str | None = None
    measured: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Bits by campaign (FORM, LINK, TIME, all) as the guard would measure the account now; empty if not asked for."""
    owner: Plain | None = None
    """Its row of the accounts table; None where no table was given or the table lacks it."""
    decisions: tuple[Decided, ...] = ()
    appeals: tuple[Appeal, ...] = ()
    """Earlier rows about this account."""
    free: bool = False
    families: Mapping[str, Plain] = field(default_factory=dict)

    @property
    def named(self) -> Membership | None:
        """The membership in the campaign that the action rests on."""
        return next((m for m in self.memberships if m.group.id == self.campaign), None)


def memberships(results: Results, account: str) -> tuple[Membership, ...]:
    """The groups that an account is in, campaigns first, then by its bits."""
    rows = _rows(results.accounts, account)
    steps, streams = _rows(results.waterfall, account), _rows(results.streams, account)
    by_id = {group.id: group for group in results.findings.groups}
    out = []
    for row in rows:
        group = by_id[row["campaign_id"]]
        mine = tuple(step for step in steps if step["campaign_id"] == group.id)
        own = [s for s in streams if s["campaign_id"] == group.id]
        own.sort(key=lambda s: (-s["exchanges"], s["family_id"]))
        held = results.profiles.filter(pc.equal(results.profiles.column("campaign_id"), group.id)).to_pylist()
        out.append(
            Membership(
                group,
                row,
                mine,
                tuple(own),
                {key["key"]: key for key in held},
                _margin(results, group, row, mine),
            )
        )
    order = ("campaign", "lead", "cleared")
    out.sort(key=lambda m: (order.index(m.group.verdict), -(m.row["e_bits"] or 0.0), m.group.id))
    return tuple(out)


def _rows(table: Any, account: str) -> list[dict[str, Any]]:
    return table.filter(pc.equal(table.column("account_id"), account)).to_pylist()


def _margin(results: Results, group: Group, row: Plain, steps: Sequence[Plain]) -> Margin:
    bits = {view: row[f"bits_{view.lower()}"] or 0.0 for view in VIEWS}
    needed = HALF_WAY * math.log2(max(1.0, results.findings.run.accounts / max(1, group.accounts)))
    besides = sum(bits.values()) - max(bits.values())
    hangs = []
    for step in steps:
        view = step["view"]
        if view not in bits or step["bits"] <= 0:
            continue
        without = bits | {view: bits[view] - step["bits"]}
        if besides >= needed > sum(without.values()) - max(without.values()):
            hangs.append((view, step["key_kind"], step["key"], step["bits"]))
    hangs.sort(key=lambda entry: (-entry[3], entry[0], entry[1], entry[2] or ""))
    return Margin(max(bits, key=lambda view: bits[view]), besides, needed, tuple(hangs))


def in_force(decisions: Sequence[Decided], campaign: str | None, at: datetime) -> str:
    """The strongest action that a standing decision allows against a campaign; empty: none."""
    found = [d.order.action for d in standing(decisions, at) if d.order.campaign == campaign]
    order = ("challenge", "throttle", "strip", "mark", "block")
    return max(found, key=lambda action: order.index(action) if action in order else -1, default="")


def told_of(facts: Facts, letter: Letter, action: str | None) -> Told:
    """What the account may be told. Leads, cleared groups and strangers are all told that nothing is held against
    them: only an action has to be explained, and a lead must never act.
    """
    if facts.campaign is None or facts.free:
        return Told(account=_shown(facts.account), acted=False, letter=letter)
    named = facts.named
    if named is None:
        bits = facts.measured.get(facts.campaign, ())
        kinds = tuple(view for view, value in zip(VIEWS, bits, strict=False) if value > 0)
        first = last = None
    else:
        row = named.row
        kinds = tuple(view for view in KINDS if (row[f"bits_{view.lower()}"] or 0.0) > 0)
        first, last = (
            None if row[name] is None else row[name].date().isoformat() for name in ("first_ts", "last_ts")
        )
    return Told(
        account=_shown(facts.account),
        acted=True,
        kinds=kinds,
        first=first,
        last=last,
        action=action,
        reference=facts.reference,
        letter=letter,
    )


def _shown(account: str) -> str:
    """A user behind a gateway is told their own name, as the gateway gave it."""
    return account.partition(SEPARATOR)[2] or account
