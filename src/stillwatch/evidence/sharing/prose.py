"""What a person reads of an export, whatever its format."""

from __future__ import annotations

from stillwatch.evidence.sharing.outgoing import Outgoing
from stillwatch.evidence.sharing.terms import stamp
from stillwatch.evidence.sharing.words import LIMITS, OBSERVED, at_least
from stillwatch.schema.intel import LEAST_ACCOUNTS


def summary(out: Outgoing) -> str:
    """One paragraph about the campaign."""
    if out.revoked:
        return "Taken back: do not rely on anything that was shared about this campaign, and undo what rested on it."
    asked = f" Its requests ask for: {', '.join(c.replace('_', ' ') for c in out.capabilities)}." * bool(
        out.capabilities
    )
    return (
        f"Unauthorised coordinated harvesting of a language model's outputs by "
        f"{at_least(out.accounts, 'accounts', LEAST_ACCOUNTS)}, {at_least(out.exchanges, 'requests')}, "
        f"{out.first_day:%Y-%m-%d} to {out.last_day:%Y-%m-%d}.{asked}"
    )


def lines(out: Outgoing) -> list[str]:
    """What a person reads: summary, claims, techniques, limits, terms."""
    terms = out.terms
    text = [summary(out)]
    if not out.revoked:
        text += [OBSERVED[claim] for claim in out.claims]
        text += [f"{s.entry.framework} {s.entry.id} {s.entry.name}: {s.because}" for s in out.techniques]
        text.append(LIMITS)
    text.append(
        f"TLP:{terms.tlp.upper()}; confidence {terms.confidence} of 100; valid until {stamp(terms.expires)}; made by "
        f"{out.generator}."
    )
    return text
