"""What of a group may leave: its object in findings.json without hashes that can be guessed, and no small counts.

Keys are plain hashes there: whoever guesses an address block, a mail domain or a prompt can test the guess. A bundle
names them by pseudonyms instead. So that a stranger can still check that the finding is the one that was committed,
the transparency log commits to this form, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PARTNER = "PARTNER"
"""Kind of evidence that is a partner's word: who said it, and all that its terms are, stays here."""
WORD_OF_PARTNER = (
    "An indicator that a partner shared fits the wording. Its terms (TLP) bind whoever was told it, so that the "
    "partner is not named here. It counts beside two own kinds of evidence at most, and names nobody."
)
LEAST_HOLDERS = 5
"""Other accounts that hold something, below which their number is not said; that nobody else does is."""
FEW = f"fewer than {LEAST_HOLDERS}"


def few(count: int) -> bool:
    """Whether so many other people are too few for their number to be told."""
    return 0 < count < LEAST_HOLDERS


def public_group(group: Mapping[str, Any]) -> dict[str, Any]:
    """The public form of a group's object (plain JSON): no hashes of keys, no numbers of few outsiders, no
    partner."""
    plain = {name: value for name, value in group.items() if name != "families"}
    for name in ("evidence", "counter_evidence"):
        plain[name] = [_without_keys(part) for part in group[name]]
    plain["shared"] = [
        {**part, "background_count": None} if few(part["background_count"]) else part
        for part in group["shared"]
    ]
    return plain


def _without_keys(part: Mapping[str, Any]) -> dict[str, Any]:
    text, keys = part["text"], part["keys"]
    if part["kind"] == PARTNER:
        text = WORD_OF_PARTNER
    if keys and few(keys[0]["background_count"]):
        # As `campaign.record.evidence_of_keys` words it.
        text = text.replace(f"which {keys[0]['background_count']} of ", f"which {FEW} of ")
    return {name: value for name, value in part.items() if name != "keys"} | {"text": text}
