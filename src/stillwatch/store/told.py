"""From the store of partners' indicators to what a scan and a guard compare, and back what was set aside."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from stillwatch.scan.partner import Heard, Intel, Told
from stillwatch.schema.errors import UsageError
from stillwatch.schema.intel import HASHED_AFTER
from stillwatch.sketch.keyed import KeyedHash
from stillwatch.store.intel import Holding, IntelStore, weighed
from stillwatch.store.pseudonyms import KeyRing, Pseudonyms


def keyed(names: Pseudonyms) -> KeyedHash:
    """Compiled `names.digest("posting", 8 bytes, little-endian)`. UsageError for a key of another purpose."""
    if names.prefix("posting") != HASHED_AFTER:
        raise UsageError("fingerprints are made under keys of the purpose `fingerprint` alone")
    return KeyedHash(names.secret, HASHED_AFTER)


def intel_of(
    holding: Holding, ring: KeyRing, at: datetime | None = None, *, without_aside: bool = False
) -> Intel:
    """What a scan compares: usable indicators, each with the key that was agreed on with its partner.

    `at`: when it is asked which have expired; the end of the scan's log if None. What was made under a key that was
    destroyed meanwhile is left out. `without_aside`: leave out as well what the last scan set aside.
    """
    keys = {
        (partner.name, names.key_id): keyed(names)
        for partner in holding.partners
        for names in ring.every("fingerprint", partner.name)
    }
    told = []
    for found in weighed(holding, datetime(1970, 1, 1, tzinfo=UTC)):
        if not found.usable or (without_aside and found.kept.aside is not None):
            continue
        indicator = found.kept.indicator
        for fingerprint in indicator.fingerprints:
            key = keys.get((found.kept.partner, fingerprint.key_id))
            if key is not None:
                told.append(
                    Told(
                        found.kept.partner,
                        indicator.id,
                        fingerprint.part,
                        np.array([int(h, 16) for h in fingerprint.hashes], np.uint64),
                        fingerprint.needed(),
                        indicator.tlp,
                        found.confidence,
                        _us(indicator.valid_until),
                        key,
                        fingerprint.level,
                    )
                )
    return Intel(tuple(told), None if at is None else _us(at))


def _us(when: datetime) -> int:
    return int((when - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 1_000_000


def told_in(store: Path, ring: Path, at: datetime | None = None) -> tuple[Intel, Intel]:
    """What a scan compares, and what a guard does: the latter without what the last scan set aside.

    InputError where the store or the ring cannot be read.
    """
    holding, keys = IntelStore(store).read(), KeyRing.read(ring)
    return intel_of(holding, keys, at), intel_of(holding, keys, at, without_aside=True)


def note_aside(store: Path, heard: Heard | None) -> None:
    """Keep in the store what a scan set aside: it speaks against the partner."""
    if heard is not None and heard.live:
        compared = [(told.partner, told.indicator) for told in heard.live]
        IntelStore(store).note_aside(compared, [(a.partner, a.indicator, a.why) for a in heard.aside])
