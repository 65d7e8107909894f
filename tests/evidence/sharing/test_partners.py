"""What is shared is what a partner's Stillwatch takes in: signed, read, kept, taken back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from stillwatch.evidence.intel.feeds import read_feed
from stillwatch.evidence.sharing.stix import stix
from stillwatch.schema.intel import STIX_TYPE
from tests.evidence.sharing.kit import record


def test_the_bundle_is_a_feed_that_is_read_whole() -> None:
    out = record()
    read = read_feed(STIX_TYPE, stix(out), "feed.json")
    assert read.refused == []
    assert [i.fingerprints for i in read.indicators] == [[f] for f in out.fingerprints]
    for indicator in read.indicators:
        assert (indicator.tlp, indicator.confidence, indicator.revoked) == ("amber", 80, False)
        assert (indicator.valid_from, indicator.valid_until) == (out.valid_from, out.terms.expires)
        assert indicator.modified == out.modified


def test_what_is_taken_back_is_taken_back_there() -> None:
    before = read_feed(STIX_TYPE, stix(record()), "feed.json")
    back = replace(record(), revoked=True, modified=datetime(2026, 1, 20, tzinfo=UTC))
    after = read_feed(STIX_TYPE, stix(back), "feed.json")
    assert [i.id for i in after.indicators] == [i.id for i in before.indicators]
    assert all(i.revoked for i in after.indicators)
    assert after.serial > before.serial
