"""Circumstances in words: they fit a campaign, and honest people too."""

from __future__ import annotations

UNUSUAL = {
    "probing": "Trying out came first: {a:.0f} % of the early requests were declined, {b:.0f} % of the later.",
    "pivot": "On the day after a release {a:.0f} % of the active members asked the new model, {b:.0f} % of others.",
    "flat_hours": "Hours are flat: the quietest eight in a row hold {a:.0f} % of a member's requests, {b:.0f} % of "
    "those of others who are as busy.",
    "full_throttle": "New members begin at full rate: {a:.0f} % of them on their first day, {b:.0f} % of other new "
    "accounts.",
    "moving_load": "Load moves between members while their sum stays flat: the sum varies {a:.0f} % as much as that "
    "of independent members would, with members' days shuffled {b:.0f} %.",
}
USUAL = {
    "probing": "No sign of trying out: {a:.0f} % of the early requests were declined, {b:.0f} % of the later.",
    "pivot": "No pivot at a release: on the day after, {a:.0f} % of the active members asked the new model, "
    "{b:.0f} % of others.",
    "flat_hours": "Hours are like other people's: the quietest eight in a row hold {a:.0f} % of a member's requests, "
    "{b:.0f} % of those of others who are as busy.",
    "full_throttle": "New members begin as others do: {a:.0f} % at full rate on their first day, {b:.0f} % of other "
    "new accounts.",
    "moving_load": "No sign that load moves between members: their sum varies {a:.0f} % as much as that of "
    "independent members would, with members' days shuffled {b:.0f} %.",
}


def circumstance_text(name: str, observed: float, expected: float, *, unusual: bool) -> str:
    """One comparison in words; both numbers are shares."""
    return (UNUSUAL if unusual else USUAL)[name].format(a=100 * observed, b=100 * expected)
