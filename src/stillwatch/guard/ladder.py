"""From what is known about an account to what is done: the policy's rules, and what keeps them from acting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import xxhash

from stillwatch.guard.policy import KINDS, MILDEST_ACTING, STRENGTH, Action, Rule, microseconds
from stillwatch.guard.snapshot import Listed, Snapshot
from stillwatch.guard.subject import LACKED, TIME, Decision
from stillwatch.schema.times import DAY_US

NEVER = 1 << 62


class Fact(NamedTuple):
    """What connects an account with a group."""

    group: int
    campaign: int
    """Number of the campaign, -1 where its bits are not measured (leads, cleared groups)."""
    role: str
    bits: tuple[float, ...]
    """FORM, LINK, TIME, all; nan where unknown."""


@dataclass(frozen=True, slots=True)
class _Rung:
    """A rule, ready to be asked."""

    rule: Rule
    line: int
    strength: int
    until_us: int
    evidence: tuple[int, ...]
    tiers: frozenset[str]
    roles: frozenset[str]
    campaigns: frozenset[str]


class Ladder:
    """The policy of a snapshot, applied. Remembers when each campaign was last heard of."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        policy = snapshot.policy
        self._rungs = tuple(
            _Rung(
                rule,
                line,
                STRENGTH[rule.action],
                NEVER if rule.until is None else microseconds(rule.until),
                tuple(KINDS.index(kind) for kind in dict.fromkeys(rule.evidence)),
                frozenset(rule.tiers),
                frozenset(rule.roles),
                frozenset(rule.campaigns),
            )
            for rule, line in zip(policy.rules, policy.lines, strict=True)
        )
        self._silent_us = int(policy.silent_days * DAY_US)
        self._heard = [group.last_us for group in snapshot.meta.groups]
        self._allows: dict[tuple[str, int], Decision] = {}
        self._exempt = (frozenset(policy.exempt.contracts), frozenset(policy.exempt.owners))
        self._gateways = frozenset(policy.exempt.gateways)
        open_ = policy.on_fault == "open" or policy.mode == "shadow"
        closed: Action = "block" if policy.on_fault == "closed" else "allow"
        self.fault = Decision(action="allow" if open_ else closed, would=closed, shadow=open_, reason="fault")
        """What a request meets that the guard could not decide about."""

    def allow(self, reason: str, lacked: int) -> Decision:
        """The decision that nothing is to be done."""
        found = self._allows.get((reason, lacked))
        if found is None:
            found = Decision(
                action="allow", would="allow", shadow=False, reason=reason, lacked=LACKED[lacked]
            )
            self._allows[reason, lacked] = found
        return found

    def told(self, decision: Decision, fits: tuple[int, ...], now_us: int) -> Decision:
        """The decision with a tag for the partners whose fingerprints (by number) the request fits; the same action.

        Where nothing else is known of the account, the reason says so.
        """
        meta = self._snapshot.meta
        if now_us > meta.expires_us:
            return decision
        names = tuple(sorted({meta.intel[f].partner for f in fits if now_us < meta.intel[f].until_us}))
        if not names:
            return decision
        reason = "partner_wording" if decision.reason in ("nothing_known", "no_rule") else decision.reason
        return msgspec.structs.replace(decision, reason=reason, partners=names)

    def heard(self, facts: Iterable[Fact], now_us: int) -> None:
        """Somebody of these groups sent something: a campaign that is being refused is not over."""
        for fact in facts:
            if self._heard[fact.group] < now_us <= self._heard[fact.group] + self._silent_us:
                self._heard[fact.group] = now_us

    def inherit(self, other: Ladder) -> None:
        """Know of each group when the ladder of an older snapshot last heard of it."""
        heard = dict(zip((g.id for g in other._snapshot.meta.groups), other._heard, strict=True))
        self._heard = [
            max(mine, heard.get(group.id, 0))
            for mine, group in zip(self._heard, self._snapshot.meta.groups, strict=True)
        ]

    def choose(
        self, account: Any, places: list[int], gateway: str | None, now_us: int, lacked: int
    ) -> Decision:
        """The strongest of what the rules say about each of the account's facts."""
        meta = self._snapshot.meta
        idle = self.idle(now_us, lacked)
        if idle is not None:
            return self.allow(idle, lacked)
        exempt = self._exempted(account.row, gateway)
        best: Decision | None = None
        reason = "no_rule"
        for fact in account.facts:
            group = meta.groups[fact.group]
            if now_us > self._heard[fact.group] + self._silent_us:
                reason = "campaign_over"
                continue
            if exempt:
                reason = "exempt"
                continue
            rung = self._rung(fact, group, account.row, places, now_us)
            if rung is None:
                continue
            found = self._decision(rung, fact, group, account.hash, now_us, lacked)
            if best is None or _order(found) > _order(best):
                best = found
        self.heard(account.facts, now_us)
        return best if best is not None else self.allow(reason, lacked)

    def idle(self, now_us: int, lacked: int) -> str | None:
        """Why nothing is acted on at this time. By a clock behind the log nothing would end when it should."""
        meta = self._snapshot.meta
        if now_us > meta.expires_us:
            return "snapshot_expired"
        return "clock_behind" if lacked & TIME and now_us < meta.last_us - DAY_US else None

    def _exempted(self, row: int, gateway: str | None) -> bool:
        if gateway is not None and gateway in self._gateways:
            return True
        if row < 0:
            return False
        meta, a = self._snapshot.meta, self._snapshot.arrays
        contract, owner = int(a.account_contract[row]), int(a.account_owner[row])
        return (contract >= 0 and meta.contracts[contract] in self._exempt[0]) or (
            owner >= 0 and meta.owners[owner] in self._exempt[1]
        )

    def _rung(self, fact: Fact, group: Listed, row: int, places: list[int], now_us: int) -> _Rung | None:
        """The first rule that fits."""
        tier = int(self._snapshot.arrays.account_tier[row]) if row >= 0 else -1
        bits = fact.bits
        for rung in self._rungs:
            rule = rung.rule
            if rule.verdict != group.verdict or fact.role not in rung.roles or now_us >= rung.until_us:
                continue
            if rung.campaigns and group.id not in rung.campaigns:
                continue
            if rung.tiers and (tier < 0 or self._snapshot.meta.tiers[tier] not in rung.tiers):
                continue
            # A missing number never passes: comparisons with nan are false.
            if rung.strength >= MILDEST_ACTING and not bits[3] >= rule.min_bits:
                continue
            if sum(bits[view] > 0 for view in rung.evidence) < rule.kinds:
                continue
            if rule.scope == "stream" and not any(
                fact.campaign in self._snapshot.streams.get(place, ()) for place in places
            ):
                continue
            return rung
        return None

    def _decision(
        self, rung: _Rung, fact: Fact, group: Listed, account: int, now_us: int, lacked: int
    ) -> Decision:
        rule, policy = rung.rule, self._snapshot.policy
        would: Action = rule.action
        action: Action = would
        reason = "named" if fact.role != "found" else "found"
        expires = min(
            self._snapshot.meta.expires_us, rung.until_us, self._heard[fact.group] + self._silent_us
        )
        if group.verdict != "campaign":
            reason = group.verdict
        if rung.strength >= MILDEST_ACTING:
            order = self._snapshot.enforced.get(group.id)
            if policy.mode == "shadow":
                action, reason = "observe", "shadow"
            elif order is None or order.expires_us <= now_us or order.strength < rung.strength:
                action, reason = "observe", "not_ordered"
            elif policy.hold_until_mapped and not order.mapped:
                action, reason = "observe", "held"
            elif _share(account, group.id) >= rule.rollout_percent:
                action, reason = "observe", "rollout"
            else:
                expires = min(expires, order.expires_us)
        return Decision(
            action=action,
            would=would,
            shadow=action != would,
            reason=reason,
            campaign=group.id,
            rule=rule.name,
            line=rung.line,
            retry_after_s=rule.retry_after_s if would == "throttle" else None,
            expires_us=expires,
            appeal=self._snapshot.secret.appeal(account, group.id),
            bits=fact.bits[3],
            lacked=LACKED[lacked],
        )


def _order(decision: Decision) -> tuple[int, int]:
    return STRENGTH[decision.action], STRENGTH[decision.would]


def _share(account: int, campaign: str) -> float:
    """A fixed number in [0, 100) of an account and campaign: whom a partial rollout reaches."""
    return xxhash.xxh3_64_intdigest(campaign.encode(), account) % 10_000 / 100
