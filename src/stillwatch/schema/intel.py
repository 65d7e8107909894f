"""What partners tell each other of confirmed campaigns: keyed fingerprints of their wording, never wording.

A fingerprint holds short keyed hashes of some of the postings (hashes of three words in a row, `sketch`) that the own
families of a confirmed campaign consist of. The key is agreed on between two partners (purpose `fingerprint` of the
key ring): only they can compare it with anything, and a third who collects feeds cannot join them.

In STIX 2.1 an Indicator carries them in an extension (`extension_type` `property-extension`), in the property
`fingerprints`: a list of `FamilyFingerprint` as JSON. Our own plain feed is `Feed`. Both travel in a DSSE envelope.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Literal

import msgspec

HASH_HEX = 5
"""Hex digits of one keyed hash, 20 bits: enough for a dozen of them together, too few for one of them alone."""
LEAST_HASHES, MOST_HASHES = 8, 64
"""Hashes of one fingerprint: fewer match by chance, more tell too much."""
SHARED_LEVEL = 2
"""Only postings that the sketch keeps at this selection level (one in four) are shared, where there are enough: all
texts but the longest keep them, and few of them overlap, so that one that is guessed hardly helps with the next."""
LEAST_ACCOUNTS, LEAST_ENTITIES = 5, 2
LEAST_SHARE, LEAST_HITS = 0.2, 3
"""Share of a fingerprint, and number of its hashes, below which nothing matches, whatever `least` says."""
HASHED_AFTER = b"fingerprint\0posting\0"
"""What stands before a posting (8 bytes, little-endian) in the HMAC: purpose of the key, and kind."""
PROPERTY = "fingerprints"
"""Name of the property in a STIX extension."""
FEED_TYPE = "application/vnd.stillwatch.intel+json"
STIX_TYPE = "application/stix+json;version=2.1"
"""Payload types of the envelopes."""

Tlp = Literal["clear", "green", "amber", "amber+strict", "red"]


class FamilyFingerprint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keyed hashes of the wording that the accounts of one confirmed campaign share, in prompts or system prompts.

    A template with slots falls into several families with the same holders; they are one fingerprint.
    """

    key_id: str
    """Of the `fingerprint` key agreed on with the partner."""
    part: Literal["prompt", "system"]
    hashes: list[str]
    """`HASH_HEX` hex digits each, sorted, all different."""
    least: float
    """Share of them that wording must hold to match."""
    accounts: int
    """Holders, rounded down to 5, 10, 20, 50, 100, ..."""
    entities: int
    """Different holders that nothing known ties to each other, at least 2; rounded down to 2, 5, 10, ..."""
    capabilities: list[str]
    level: int = SHARED_LEVEL
    """Every posting behind the hashes is one that the sketch keeps at this selection level, or a higher one."""

    def needed(self) -> int:
        """How many of the hashes wording must hold to match."""
        return max(LEAST_HITS, math.ceil(max(self.least, LEAST_SHARE) * len(self.hashes)))


class Indicator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that a partner says, with its terms."""

    id: str
    modified: datetime
    valid_from: datetime
    valid_until: datetime
    tlp: Tlp
    confidence: int
    """0..100."""
    revoked: bool = False
    fingerprints: list[FamilyFingerprint] = []


class Feed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Our own plain feed: everything that a partner stands by at one time."""

    format: Literal["stillwatch-intel"] = "stillwatch-intel"
    version: int = 1
    serial: int
    """Grows with each feed of one partner."""
    created: datetime
    indicators: list[Indicator]


def rounded_down(count: int) -> int:
    """The largest of 1, 2, 5, 10, 20, 50, ... that is at most `count`; 0 for none."""
    best, step = 0, 1
    while step <= count:
        best = max(value for value in (step, 2 * step, 5 * step) if value <= count)
        step *= 10
    return best
