"""A signed feed into the store: what is new is kept, the rest is told with its reason."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from stillwatch.evidence.intel.envelope import MOST_BYTES, unseal
from stillwatch.evidence.intel.feeds import SLACK, Refused, read_feed, untimely
from stillwatch.schema.errors import FormatError, InputError, Where
from stillwatch.schema.intel import Indicator, Tlp
from stillwatch.schema.journal import Json
from stillwatch.store.events import Event
from stillwatch.store.intel import MOST_KEPT, IntelStore, Kept
from stillwatch.store.pseudonyms import KeyRing


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one feed."""

    partner: str
    pseudonym: str
    """The partner's in the transparency log."""
    feed: str
    """SHA-256 of its payload, hex."""
    serial: int
    new: int
    changed: int
    """A newer version took the place of an older one."""
    revoked: int
    """Of the new and the changed: those that take an indicator back."""
    same: int
    """Were there as they are."""
    unused: int
    """Objects of other types."""
    refused: list[Refused]

    @property
    def event(self) -> Event:
        """For the transparency log: digests and counts."""
        told: dict[str, Json] = {
            "did": "import",
            "partner": self.pseudonym,
            "feed_sha256": self.feed,
            "serial": self.serial,
            "new": self.new,
            "changed": self.changed,
            "revoked": self.revoked,
            "same": self.same,
            "refused": len(self.refused),
        }
        return "intel", told


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """A file of at most `most` bytes. InputError where it cannot be read, FormatError where it is larger."""
    try:
        with path.open("rb") as handle:
            data = handle.read(most + 1)
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror}", where=Where(path.name)) from error
    if len(data) > most:
        raise FormatError(f"it has more than {most >> 20} MiB", where=Where(path.name))
    return data


def take_feed(
    store: IntelStore,
    partner: str,
    data: bytes,
    ring: KeyRing,
    *,
    at: datetime,
    tlp: Tlp | None = None,
    name: str = "feed",
) -> Taken:
    """Take a feed of `partner` into the store.

    FormatError, and nothing changes, if the partner did not sign it, it cannot be read, or it was sent again: a plain
    feed that is not newer than the one before, a bundle that was taken. `tlp`: label of indicators that have none.
    """
    known = {names.key_id for names in ring.every("fingerprint", partner)}
    with store.change() as holding:
        of = holding.partner(partner)
        kind, payload, signer = unseal(data, of.keys, name)
        reading = read_feed(kind, payload, name, tlp)
        where = Where(name)
        digest = hashlib.sha256(payload).hexdigest()
        bundle = kind.startswith("application/stix")
        if digest in of.bundles if bundle else reading.serial <= of.serial:
            told = "it was taken before" if bundle else "it is not newer than the last one that was taken"
            raise FormatError(
                f"the feed was sent again: {told}", where=where, hint="ask the partner for its newest feed"
            )
        if bundle and reading.serial > int((at + SLACK).timestamp() * 1e6):
            raise FormatError("the feed comes from the future", where=where, hint="compare the clocks")
        if bundle:
            # A bundle is of one campaign, and several have the time of one scan: `modified` of each object counts.
            of.bundles = [*of.bundles, digest][-MOST_KEPT:]
        else:
            of.serial = reading.serial
        refused, counts = list(reading.refused), {"new": 0, "changed": 0, "revoked": 0, "same": 0}
        place = {k.indicator.id: i for i, k in enumerate(holding.kept) if k.partner == partner}
        for indicator in reading.indicators:
            old = holding.kept[place[indicator.id]].indicator if indicator.id in place else None
            why = _why_not(indicator, old, known, at, len(place))
            if why is not None:
                refused.append(Refused(indicator.id, why))
                continue
            if old == indicator:
                counts["same"] += 1
                continue
            kept = Kept(
                partner=partner, indicator=indicator, feed=digest, signer=signer, taken=at.astimezone(UTC)
            )
            counts["revoked"] += indicator.revoked
            if old is None:
                counts["new"] += 1
                place[indicator.id] = len(holding.kept)
                holding.kept.append(kept)
            else:
                counts["changed"] += 1
                holding.kept[place[indicator.id]] = kept
    return Taken(
        partner,
        ring.partner(partner),
        digest,
        reading.serial,
        **counts,
        unused=reading.unused,
        refused=refused,
    )


def _why_not(
    new: Indicator, old: Indicator | None, known: Collection[str], at: datetime, kept: int
) -> str | None:
    late = untimely(new, at)
    if late is not None:
        return late
    if any(f.key_id not in known for f in new.fingerprints):
        return "was made under a key that is not agreed on with this partner"
    if old is None:
        return f"comes after {MOST_KEPT:,} others of this partner" if kept >= MOST_KEPT else None
    if new.modified < old.modified:
        return "is older than the version that is kept"
    if new.modified == old.modified and new != old:
        return "differs from the version of the same time that is kept"
    return "was revoked before: that is for good" if old.revoked and not new.revoked else None
