"""The record of one group: claims, evidence and counter-evidence in plain words and in bits, timeline, action.

Built from plain numbers, so that nothing here knows how they were computed or where they are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import xxhash

from stillwatch.schema.results import Evidence, EvidenceKey, Group, TimelineEvent, Verdict

ACTIONS = {
    "campaign": "Review by a person, then act on all members at once; banning them one by one makes the pool rotate.",
    "lead": "For an analyst: look, do not act. What is missing is named in the claims.",
    "cleared": "None: the coordination has a legitimate cause.",
}

KIND_WORDS = {
    "prompt_family": "prompt template",
    "system_family": "wording in system prompts",
    "tool_schema": "set of tools",
    "output_format": "output format",
    "system_prompt": "system prompt",
    "address_block": "address block",
    "stack": "TLS and header stack",
    "payment": "payment instrument",
    "device": "device",
    "mail_domain": "mail domain",
    "referral": "referral code",
    "signup_batch": "ten-minute slot of sign-up",
}

DIRECT_WORDS = {
    "work_split": "Items of one template are shared out: {observed} pairs of requests of different accounts repeat "
    "an item where {expected:.1f} would by chance.",
    "handover": "{observed} pairs of accounts continued each other's conversations where {expected:.2g} would by "
    "chance.",
    "replay": "{observed} pairs of accounts where one sent back reasoning blocks that the other was given, where "
    "{expected:.2g} would by chance.",
    "signup_batch": "{observed} sign-ups came within five minutes of the one before, with one class of mail address, "
    "where {expected:.1f} would on those days; the busiest day is left out.",
    "fan_out": "{observed} accounts have more {detail} than 98 % of equally busy ones, where {expected:.1f} would by "
    "chance.",
    "takeover": "{observed} accounts began within two minutes of another's end or ban, where {expected:.1f} would by "
    "chance.",
}

TEAMS_WORDS = (
    "Sign-ups are all that points at one director: besides them, {:.0f} % of the members, at most, hang together by "
    "addresses, cards, devices or mail. People who came together, for an event, look like that."
)

FREED_WORDS = (
    "The evidence would name one more account, which an appeal freed: it is not named. If it is to be, a person "
    "has to decide so on this evidence.",
    "The evidence would name {:,} more accounts, which appeals freed: they are not named. If they are to be, a "
    "person has to decide so on this evidence.",
)

VIEW_WORDS = {
    "FORM": "what requests look like",
    "LINK": "what accounts share",
    "TIME": "when accounts are active",
    "HANDOVER": "what passes between accounts",
    "FORM AND LINK": "what requests look like and what accounts share, together",
}
DIRECT_NAMES = {
    "work_split": "one set of items shared out",
    "handover": "conversations handed over",
    "replay": "reasoning blocks replayed under another account",
    "signup_batch": "sign-up in batches",
    "takeover": "accounts that take over when others end",
    "fan_out": "more users behind accounts than one has",
}
ROAD_WORDS = {"references": "comparison with honest groups", "direct": "tests that need no honest groups"}


def coordinated_text(found: str, tested: Sequence[str], level: str, candidate: int) -> str:
    """What the claim `coordinated` rests on: tests of the `candidate` accounts that the group grew from."""
    views = " and ".join(VIEW_WORDS.get(view, view) for view in tested)
    alike = "" if level == "none" else f" that are alike in {' and '.join(level.rsplit(', ', 1))}"
    grew = f" The group grew from these {candidate:,} accounts." if candidate else ""
    found = VIEW_WORDS.get(found, found)
    return f"Found by {found}; tested on {views}, against random groups of accounts{alike}.{grew}"


def together_text(wordings: int, holders: int, ties: int, expected: float) -> str:
    """What the claim `coordinated` rests on where wording and links found a group at once."""
    surest = "that wording" if wordings == 1 else f"the surest of {wordings:,} such wordings"
    return (
        f"Found where one rare wording and rare addresses, instruments or sign-up runs have the same holders: among "
        f"the {holders:,} accounts that use {surest} are {ties} ties, {expected:.2g} would be chance among accounts "
        "that write, connect and live alike. Both kinds of evidence are used up by that."
    )


def director_text(
    fired: Sequence[str], openness: float, kind: str, known: bool, together: bool, web: float | None
) -> str:
    """What the claim `one_director` rests on. `known`: the log says enough about payers, sites and mail; `together`:
    sign-ups are all there is; `web`: share of the members that one stock of keys ties, None where there is none.
    """
    names = "; ".join(DIRECT_NAMES.get(name, name) for name in fired)
    seen = f"Direct tests that fired: {names}." if fired else "No direct test of one director fired."
    if fired and together:
        seen += " That alone shows no director: people who come together sign up together."
    if web is not None:
        seen += (
            f" {100 * web:.0f} % of the members hang together by one stock of addresses, cards, devices or mail, "
            "with no owner in sight."
        )
    if not known:
        return f"{seen} The log does not say enough about payers, sites and mail to tell whether control is hidden."
    if openness <= 0:
        return f"{seen} No payer, address block or mail domain is common to the members."
    return f"{seen} {100 * openness:.0f} % of the members, at most, stand behind one {KIND_WORDS.get(kind, kind)}."


def harvest_text(
    roads: Sequence[str], references: int, as_high: int | None, items: int, space: float, relayed: bool
) -> str:
    """What the claim `harvest_like` rests on. `as_high`: references that score as high; None: not compared;
    `relayed`: there is no template, and `items` are all requests.
    """
    named = " and ".join(ROAD_WORDS.get(road, road) for road in roads)
    parts = [
        f"Named by {named}." if roads else "Neither comparison with honest groups nor direct tests name it."
    ]
    if references and as_high is None:
        parts.append("It was not compared with honest groups: no direct test singles it out.")
    elif references:
        verb = "scores" if as_high == 1 else "score"
        parts.append(f"{as_high or 'None'} of {references} honest coordinated groups {verb} as high.")
    if items:
        whose = "requests (it has no template of its own)" if relayed else "requests in its own templates"
        parts.append(
            f"By how often they repeat, {items:,} {whose} draw on about "
            f"{_round(10**space):,} different things."
        )
    return " ".join(parts)


LEAST_REPEATS = 5.0
"""Repeats to be expected below which the absence of repeats says nothing."""


def _round(value: float) -> int:
    """Two significant digits: more would not be known."""
    return max(1, int(float(f"{value:.1e}")))


def not_fired(name: str, observed: int, expected: float) -> str:
    """A direct test that found nothing, as counter-evidence."""
    if name == "work_split":
        if expected < LEAST_REPEATS:
            return "Too few requests repeat an item to tell whether items of one template are shared out."
        return (
            "No sign that items of one template are shared out: requests of different accounts repeat an item "
            f"{observed:,} times, {expected:,.0f} would be chance."
        )
    what = f"No sign of {DIRECT_NAMES.get(name, name)}"
    if observed == 0 and expected < 1:
        return f"{what}."
    return f"{what}: {observed:,} seen, {expected:.2g} would be chance."


def iso(us: int) -> str:
    """Microseconds since 1970 as ISO 8601, UTC, to the second."""
    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def group_id(oldest_keys: Sequence[int]) -> str:
    """Name of a group: a hash of its oldest core keys, so that the same operation keeps its name across scans."""
    data = b"".join(int(key).to_bytes(8, "little") for key in oldest_keys)
    return f"g-{xxhash.xxh3_64_hexdigest(data)[:12]}"


@dataclass(frozen=True, slots=True)
class SharedKey:
    """A key that members share, with the bits that its sharing is worth."""

    view: str
    kind: str
    key: int
    inside: int
    members: int
    outside: int
    others: int
    bits: float


def evidence_of_keys(view: str, keys: Sequence[SharedKey]) -> Evidence | None:
    """One line for the strongest keys of a view, or None where members share nothing rare."""
    if not keys:
        return None
    best = keys[0]
    text = (
        f"{best.inside:,} of {best.members:,} members share one {KIND_WORDS.get(best.kind, best.kind)}, "
        f"which {best.outside:,} of {best.others:,} other accounts have."
    )
    if len(keys) > 1:
        text += f" {len(keys) - 1} more rare keys are shared."
    return Evidence(
        kind=view,
        signal=best.kind,
        bits=sum(key.bits for key in keys),
        text=text,
        keys=[
            EvidenceKey(
                key=f"{key.key:016x}",
                key_kind=key.kind,
                group_count=key.inside,
                group_total=key.members,
                background_count=key.outside,
                background_total=key.others,
            )
            for key in keys
        ],
    )


def timeline(
    first_us: int, last_us: int, bans: Sequence[int], releases: Sequence[TimelineEvent]
) -> list[TimelineEvent]:
    """First and last activity, waves of bans by day, and the releases in between."""
    events = [TimelineEvent(ts=iso(first_us), kind="first", text="First exchange of a member.")]
    by_day: dict[int, list[int]] = {}
    for us in bans:
        by_day.setdefault(us // 86_400_000_000, []).append(us)
    for day in sorted(by_day):
        count = len(by_day[day])
        text = f"{count} member{'s' if count > 1 else ''} banned on this day."
        events.append(TimelineEvent(ts=iso(min(by_day[day])), kind="sanction", text=text))
    events += [r for r in releases if iso(first_us) <= r.ts <= iso(last_us)]
    events.append(TimelineEvent(ts=iso(last_us), kind="last", text="Last exchange of a member."))
    return sorted(events, key=lambda event: (event.ts, event.kind))


_RANK = {"campaign": 0, "lead": 1, "cleared": 2}


def ranked(groups: Sequence[Group]) -> list[Group]:
    """Campaigns first, then leads, then cleared groups; inside a verdict by evidence, then size."""

    def order(group: Group) -> tuple[int, float, int, str]:
        bits = sum(part.bits for part in group.evidence if part.kind == "DIRECT")
        return (_RANK[group.verdict], -bits, -group.accounts, group.id)

    return sorted(groups, key=order)


def action(verdict: Verdict) -> str:
    """What to do, in one sentence."""
    return ACTIONS[verdict]
