"""Plain words and numbers for people, the same on the page and in the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date

from stillwatch.schema.results import Claim, Group

WHY = {
    "one_view": "seen by one view only",
    "found_together": "wording and links found it together, which leaves neither to confirm it",
    "few_references": "too few reference groups to decide",
    "not_harvest_like": "coordinated, not shown to be harvest",
    "openly_one_customer": "openly one customer",
    "verified_entity": "one verified organisation",
    "registered_gateway": "a registered gateway",
    "contract": "permitted by contract",
    "benchmark": "a benchmark",
    "classroom": "a class",
}
CLAIMS = {
    "coordinated": "Are these accounts coordinated?",
    "one_director": "Is there one hidden director?",
    "harvest_like": "Is it harvest-like?",
}
KINDS = {
    "FORM": "What requests look like",
    "LINK": "What accounts share",
    "TIME": "When accounts are active",
    "TRACE": "What is asked for",
    "FANOUT": "Who is behind the accounts",
    "DIRECT": "Direct test",
    "CONTEXT": "Circumstance",
    "PARTNER": "What a partner reports",
    "COUNTER": "Against",
    "ALL": "Mixture and multiplicity",
}
SIGNALS = {
    "handover": "conversations handed over",
    "replay": "reasoning replayed elsewhere",
    "fan_out": "many users behind accounts",
    "signup_batch": "sign-up in batches",
    "takeover": "accounts that take over",
    "work_split": "work shared out",
    "probing": "trying out first",
    "pivot": "pivot at a release",
    "flat_hours": "flat hours",
    "full_throttle": "new at full rate",
    "moving_load": "load that moves",
}
SHARED = {
    "prompt_family": ("prompt template", "prompt templates"),
    "system_family": ("wording of system prompts", "wordings of system prompts"),
    "system_prompt": ("exact system prompt", "exact system prompts"),
    "tool_schema": ("set of tools", "sets of tools"),
    "output_format": ("output format", "output formats"),
    "address_block": ("address block", "address blocks"),
    "payment": ("payment instrument", "payment instruments"),
    "device": ("device", "devices"),
    "mail_domain": ("mail domain", "mail domains"),
    "referral": ("referral code", "referral codes"),
    "signup_batch": ("ten-minute slot of sign-up", "ten-minute slots of sign-up"),
    "stack": ("TLS and header stack", "TLS and header stacks"),
    "co_activity": ("hours of activity", "hours of activity"),
    "other_keys": ("weaker keys together", "weaker keys together"),
    "closing": ("mixture and multiplicity", "mixture and multiplicity"),
}
STATES = {"on": "sees", "weak": "sees little", "blind": "sees nothing"}
_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def kind(name: str, count: int = 1) -> str:
    """A kind of key in words."""
    one, many = SHARED.get(name, (name.replace("_", " "),) * 2)
    return one if count == 1 else many


def p_value(p: float) -> str:
    """A probability, two significant digits: `0.012`, `2 × 10⁻¹⁵`."""
    if p <= 0:
        return "below 10⁻³⁰⁰"
    if p >= 0.001:
        return f"{p:.2g}"
    mantissa, exponent = f"{p:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def p_bits(p: float) -> float:
    """-log2 of a probability."""
    return -math.log2(max(p, 1e-300))


def bits(value: float) -> str:
    """Bits with a sign that is a minus, not a hyphen."""
    text = f"{abs(value):,.0f}" if abs(value) >= 100 else f"{abs(value):.1f}"
    return f"−{text}" if value < 0 and text != "0.0" else text


def claim_numbers(claim: Claim, *, smallest: bool = False) -> list[str]:
    """What a claim rests on: p, q, bits, references; `smallest` adds the least p that the test can reach."""
    numbers = []
    if claim.p is not None:
        numbers.append(f"p = {p_value(claim.p)}")
    if claim.q is not None:
        numbers.append(f"q = {p_value(claim.q)}")
    if claim.p is not None:
        numbers.append(f"{bits(p_bits(claim.p))} bits")
    if smallest and claim.p_min:
        numbers.append(f"smallest possible p {p_value(claim.p_min)}")
    if claim.references is not None:
        numbers.append(plural(claim.references, "reference"))
    return numbers


def share(count: int, total: int) -> str:
    """A share in per cent that never says 0 or 100 for what is neither."""
    if total <= 0 or count == 0:
        return "none"
    part = 100 * count / total
    if count == total:
        return "all"
    if part < 0.1:
        return "< 0.1 %"
    return f"{part:.1f} %" if part < 10 else f"{min(part, 99.0):.0f} %"


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 account`, `1,200 accounts`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def compact(count: int) -> str:
    """A round number for an axis: `400`, `4,000`, `40k`, `4M`."""
    for size, mark in ((1_000_000, "M"), (1_000, "k")):
        if count >= 10_000 and count >= size:
            return f"{count / size:g}{mark}"
    return f"{count:,}"


def day(ts: str, *, year: bool = False) -> str:
    """An ISO time as `20 Jun`, or `20 Jun 2026`."""
    when = date.fromisoformat(ts[:10])
    return f"{when.day} {when:%b %Y}" if year else f"{when.day} {when:%b}"


def span(first: str, last: str) -> str:
    """`20 Jun to 3 Jul 2026`."""
    if first[:10] == last[:10]:
        return day(first, year=True)
    return f"{day(first, year=first[:4] != last[:4])} to {day(last, year=True)}"


def minute(ts: str) -> str:
    """An ISO time to the minute."""
    return ts[:16].replace("T", " ")


def verdict(group: Group) -> str:
    """`campaign`, or `lead: openly one customer`."""
    return group.verdict if group.why is None else f"{group.verdict}: {WHY.get(group.why, group.why)}"


def listed(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def asked(capabilities: Sequence[str]) -> str:
    """What a group's templates ask for, by the tags of the rule pack; empty where no tag is common."""
    names = listed([name.replace("_", " ") for name in capabilities])
    return f"Its templates ask for: {names}." if names else ""
