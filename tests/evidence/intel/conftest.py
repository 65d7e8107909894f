"""Two partners with a key in common, signed feeds, and wording that is an operation's own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stillwatch.evidence.intel.envelope import seal, written_key
from stillwatch.evidence.intel.feeds import TLP_MARKS
from stillwatch.evidence.intel.importing import Taken, take_feed
from stillwatch.evidence.keys import Key
from stillwatch.schema.intel import FEED_TYPE, FamilyFingerprint, Feed, Indicator, Tlp
from stillwatch.sketch import sketch_text
from stillwatch.sketch.keyed import U64
from stillwatch.store.intel import IntelStore
from stillwatch.store.pseudonyms import KeyRing

AMBER = next(mark for mark, tlp in TLP_MARKS.items() if tlp == "amber")
AT = datetime(2026, 5, 1, tzinfo=UTC)
SECRET = bytes(range(32))
ACME, OTHER, STRANGER = (Key(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2, 3))


def postings_of(text: str) -> U64:
    """Postings of one text."""
    return np.unique(sketch_text(pa.array([text])).post)


def fingerprint_of(key_id: str, **changes: Any) -> FamilyFingerprint:
    """A fingerprint that every reader takes."""
    plain: dict[str, Any] = {
        "key_id": key_id,
        "part": "prompt",
        "hashes": [f"{n:05x}" for n in range(8)],
        "least": 0.25,
        "accounts": 10,
        "entities": 5,
        "capabilities": ["reasoning"],
    }
    return FamilyFingerprint(**plain | changes)


@dataclass
class Side:
    """A store that knows the partners acme and other, and the ring with the keys agreed on with them."""

    store: IntelStore
    ring: KeyRing

    @classmethod
    def made(cls, folder: Path) -> Side:
        """In a folder without one."""
        store = IntelStore(folder / "intel.json")
        store.add_partner("acme", written_key(ACME.public), AT)
        store.add_partner("other", written_key(OTHER.public), AT)
        ring = KeyRing.create(folder / "ring.json")
        ring.agree("fingerprint", "acme", SECRET)
        ring.agree("fingerprint", "other", SECRET[::-1])
        return cls(store, ring)

    def key_id(self, partner: str = "acme") -> str:
        return self.ring.names("fingerprint", partner).key_id

    def indicator(self, name: str = "indicator-1", partner: str = "acme", **changes: Any) -> Indicator:
        """One that is taken."""
        plain: dict[str, Any] = {
            "id": name,
            "modified": AT - timedelta(hours=1),
            "valid_from": AT - timedelta(days=3),
            "valid_until": AT + timedelta(days=60),
            "tlp": "amber",
            "confidence": 80,
            "fingerprints": [fingerprint_of(self.key_id(partner))],
        }
        return Indicator(**plain | changes)

    def feed(self, *indicators: Indicator, serial: int = 1, key: Key = ACME) -> bytes:
        """Signed."""
        plain = Feed(serial=serial, created=AT, indicators=list(indicators))
        return seal(msgspec.json.encode(plain), FEED_TYPE, key)

    def take(self, data: bytes, partner: str = "acme", at: datetime = AT, tlp: Tlp | None = None) -> Taken:
        return take_feed(self.store, partner, data, self.ring, at=at, tlp=tlp)


def plain_feed(side: Side) -> bytes:
    """Our own feed, before it is signed."""
    feed = Feed(serial=1, created=AT, indicators=[side.indicator(), side.indicator("indicator-2")])
    return msgspec.json.encode(feed)


def plain_stix(side: Side, **changes: Any) -> bytes:
    """A bundle as our own exports write it, before it is signed."""
    return json.dumps(stix(stix_indicator(side, **changes))).encode()


def stix(*indicators: dict[str, Any]) -> dict[str, Any]:
    """A bundle of a campaign and indicators."""
    return {
        "type": "bundle",
        "id": "bundle--1",
        "objects": [{"type": "campaign", "id": "campaign--1"}, *indicators],
    }


def stix_indicator(side: Side, **changes: Any) -> dict[str, Any]:
    """An indicator with a fingerprint in an extension."""
    extension = {
        "extension_type": "property-extension",
        "fingerprints": [msgspec.to_builtins(fingerprint_of(side.key_id()))],
    }
    return {
        "type": "indicator",
        "id": "indicator--1",
        "modified": "2026-04-30T00:00:00Z",
        "valid_from": "2026-04-29T00:00:00Z",
        "valid_until": "2026-06-01T00:00:00Z",
        "confidence": 70,
        "object_marking_refs": [AMBER],
        "extensions": {"extension-definition--1": extension},
        **changes,
    }


@pytest.fixture
def side(tmp_path: Path) -> Side:
    return Side.made(tmp_path)
