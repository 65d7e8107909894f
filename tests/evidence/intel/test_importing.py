"""Feeds from outside: what is taken, what is refused and why, and that nothing is lost or half done."""

from __future__ import annotations

import contextlib
import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillwatch.evidence.intel.envelope import seal, unseal, written_key
from stillwatch.evidence.intel.feeds import MOST_DEPTH, MOST_FINGERPRINTS, read_feed
from stillwatch.evidence.intel.importing import read_bytes
from stillwatch.schema.errors import FormatError, StillwatchError, UsageError
from stillwatch.schema.intel import FEED_TYPE, STIX_TYPE
from stillwatch.store.intel import LEAST_CONFIDENCE, MOST_KEPT, IntelStore, weighed
from stillwatch.store.told import intel_of
from tests.evidence.intel.conftest import (
    ACME,
    AMBER,
    AT,
    OTHER,
    STRANGER,
    Side,
    fingerprint_of,
    stix,
    stix_indicator,
)


def test_a_feed_is_taken_once_and_kept_with_its_origin(side: Side) -> None:
    data = side.feed(side.indicator())
    taken = side.take(data)
    assert (taken.new, taken.refused) == (1, [])
    kept = side.store.read().kept[0]
    assert (kept.partner, kept.signer, kept.feed) == ("acme", written_key(ACME.public), taken.feed)
    assert side.store.path.stat().st_mode & 0o777 == 0o600
    before = side.store.path.read_bytes()
    with pytest.raises(FormatError, match="sent again"):
        side.take(data)
    assert side.store.path.read_bytes() == before
    again = side.take(side.feed(side.indicator(), serial=2))
    assert (again.new, again.same) == (0, 1)


def test_what_is_told_to_the_log_is_digests_and_counts(side: Side) -> None:
    kind, told = side.take(side.feed(side.indicator())).event
    assert kind == "intel"
    assert "acme" not in json.dumps(told)
    assert all(type(v) is int or name in ("did", "partner") or len(str(v)) == 64 for name, v in told.items())


def test_only_the_partners_own_key_signs(side: Side) -> None:
    for key in (STRANGER, OTHER):
        with pytest.raises(FormatError, match="not signed by this partner"):
            side.take(side.feed(side.indicator(), key=key))
    envelope = json.loads(side.feed(side.indicator()))
    changed = b64decode(envelope["payload"]).replace(b"80", b"99")
    envelope["payload"] = b64encode(changed).decode()
    with pytest.raises(FormatError, match="changed since"):
        side.take(json.dumps(envelope).encode())
    # The type is signed too: nobody can have a feed read as something else.
    envelope = json.loads(side.feed(side.indicator()))
    envelope["payloadType"] = STIX_TYPE
    with pytest.raises(FormatError, match="changed since"):
        side.take(json.dumps(envelope).encode())
    assert side.store.read().kept == []


def test_a_second_key_of_a_partner_is_good_too_and_nobody_has_two_names(side: Side) -> None:
    side.store.add_partner("acme", written_key(STRANGER.public), AT)
    assert side.take(side.feed(side.indicator(), key=STRANGER)).new == 1
    with pytest.raises(UsageError, match="has this key already"):
        side.store.add_partner("third", written_key(ACME.public), AT)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"tlp": "red"}, "TLP:RED"),
        ({"confidence": 101}, "between 0 and 100"),
        ({"confidence": -1}, "between 0 and 100"),
        ({"confidence": 1 << 60}, "between 0 and 100"),
        ({"valid_until": AT - timedelta(days=1)}, "expired"),
        ({"valid_until": AT - timedelta(days=9)}, "ends before it begins"),
        ({"valid_until": AT + timedelta(days=900)}, "more than 730 days"),
        ({"modified": AT + timedelta(days=2)}, "from the future"),
        ({"fingerprints": []}, "no fingerprint"),
        ({"id": "../../etc/passwd"}, "id that cannot be used"),
        ({"id": "x\x1b[2J"}, "id that cannot be used"),
    ],
)
def test_an_indicator_is_refused_with_its_reason(side: Side, changes: dict[str, Any], why: str) -> None:
    taken = side.take(side.feed(side.indicator("good"), side.indicator(**changes)))
    assert (taken.new, len(taken.refused)) == (1, 1)
    assert why in taken.refused[0].why
    assert "\x1b" not in taken.refused[0].what


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"key_id": "ffffffff"}, "not agreed on"),
        ({"key_id": "../key"}, "names no key"),
        ({"hashes": [f"{n:05x}" for n in range(7)]}, "fewer than 8"),
        ({"hashes": [f"{n:05x}" for n in range(65)]}, "more than 64"),
        ({"hashes": ["00000"] * 8}, "doubled"),
        ({"hashes": [f"{n:05x}" for n in range(8)][::-1]}, "not in order"),
        ({"hashes": [f"{n:05X}" for n in range(10, 18)]}, "none"),
        ({"hashes": ["9" * 100_000] * 8}, "none"),
        ({"least": 0.01}, "less than 20%"),
        ({"least": 7.0}, "less than 20%"),
        ({"accounts": 4}, "fewer than 5 accounts"),
        ({"accounts": 1 << 50}, "fewer than 5 accounts"),
        ({"entities": 1}, "fewer than 5 accounts"),
        ({"level": 9}, "level"),
        ({"capabilities": ["<script>"]}, "capabilities"),
    ],
)
def test_a_fingerprint_that_would_match_anything_or_tell_of_few_is_refused(
    side: Side, changes: dict[str, Any], why: str
) -> None:
    bad = fingerprint_of(**{"key_id": side.key_id(), **changes})
    taken = side.take(side.feed(side.indicator(fingerprints=[bad])))
    assert (taken.new, [why in r.why for r in taken.refused]) == (0, [True])


def test_too_many_fingerprints_or_indicators_are_refused(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [fingerprint_of(side.key_id())] * (MOST_FINGERPRINTS + 1)
    assert "more than 8" in side.take(side.feed(side.indicator(fingerprints=many))).refused[0].why
    assert MOST_KEPT >= 1000
    monkeypatch.setattr("stillwatch.evidence.intel.importing.MOST_KEPT", 3)
    taken = side.take(side.feed(*(side.indicator(f"i{n}") for n in range(5)), serial=2))
    assert (taken.new, len(taken.refused)) == (3, 2)


def test_a_feed_that_contradicts_itself_has_neither_version(side: Side) -> None:
    taken = side.take(side.feed(side.indicator(), side.indicator(revoked=True, fingerprints=[])))
    assert (taken.new, len(taken.refused)) == (0, 2)
    assert "contradicts itself" in taken.refused[0].why
    newer = side.indicator(modified=AT, confidence=60)
    taken = side.take(side.feed(side.indicator(), side.indicator(), newer, serial=2))
    assert (taken.new, len(taken.refused)) == (1, 2)
    assert side.store.read().kept[0].indicator.confidence == 60


def test_what_was_revoked_stays_revoked_and_older_versions_do_not_come_back(side: Side) -> None:
    side.take(side.feed(side.indicator()))
    gone = side.take(side.feed(side.indicator(modified=AT, revoked=True, fingerprints=[]), serial=2))
    assert (gone.changed, gone.revoked) == (1, 1)
    for serial, changes, why in (
        (3, {}, "older"),
        (4, {"modified": AT, "confidence": 99}, "same time"),
        (5, {"modified": AT + timedelta(hours=1)}, "revoked before"),
    ):
        assert why in side.take(side.feed(side.indicator(**changes), serial=serial)).refused[0].why
    assert intel_of(side.store.read(), side.ring).told == ()


def test_where_partners_contradict_each_other_the_lower_weight_counts_and_both_are_shown(side: Side) -> None:
    side.take(side.feed(side.indicator("shared")))
    side.take(side.feed(side.indicator("shared", "other", confidence=55), key=OTHER), "other")
    both = weighed(side.store.read(), AT)
    assert [(w.confidence, w.state) for w in both] == [(55, "valid")] * 2
    assert [w.disputed for w in both] == [["other"], []]
    lower = side.indicator("shared", "other", modified=AT, confidence=LEAST_CONFIDENCE - 1)
    side.take(side.feed(lower, key=OTHER, serial=2), "other")
    assert [w.state for w in weighed(side.store.read(), AT)] == ["unsure"] * 2
    revoked = side.indicator("shared", "other", modified=AT + timedelta(minutes=1), revoked=True)
    side.take(side.feed(revoked, key=OTHER, serial=3), "other", AT + timedelta(hours=1))
    assert [w.state for w in weighed(side.store.read(), AT)] == ["disputed", "revoked"]
    assert intel_of(side.store.read(), side.ring).told == ()


def test_a_bundle_of_stix_is_read_by_its_extension(side: Side) -> None:
    plain = stix_indicator(side)
    bundle = stix(plain, plain | {"id": "indicator--2", "extensions": {}, "pattern": "[x:y = 1]"})
    taken = side.take(seal(json.dumps(bundle).encode(), STIX_TYPE, ACME))
    assert (taken.new, taken.unused, len(taken.refused)) == (1, 1, 1)
    assert "other programs" in taken.refused[0].why
    kept = side.store.read().kept[0].indicator
    assert (kept.tlp, kept.confidence) == ("amber", 70)
    with pytest.raises(FormatError, match="sent again"):
        side.take(seal(json.dumps(bundle).encode(), STIX_TYPE, ACME))


def test_bundles_of_two_campaigns_of_one_scan_are_both_taken_beside_a_plain_feed(side: Side) -> None:
    side.take(side.feed(side.indicator(), serial=1 << 52))
    first, second = (
        seal(json.dumps(stix(stix_indicator(side, id=f"indicator--{n}"))).encode(), STIX_TYPE, ACME)
        for n in (1, 2)
    )
    assert [side.take(data).new for data in (first, second)] == [1, 1]
    side.store.remove("acme", "indicator--1")
    # Whoever carries files must not be able to bring back what was removed.
    for data in (first, second):
        with pytest.raises(FormatError, match="sent again"):
            side.take(data)
    assert len(side.store.read().kept) == 2


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"object_marking_refs": []}, "no TLP label"),
        (
            {"object_marking_refs": [AMBER, "marking-definition--5e57c739-391a-4eb3-b6be-7d15ca92d5ed"]},
            "TLP:RED",
        ),
        ({"object_marking_refs": 7}, "no TLP label"),
        ({"confidence": "high"}, "wrong field"),
        ({"valid_until": "9999-12-31T23:59:59-23:59"}, "out of range"),
        ({"valid_until": "soon"}, "wrong field"),
        ({"extensions": {"a": {"fingerprints": []}, "b": {"fingerprints": []}}}, "more than one extension"),
        ({"extensions": {"a": {"fingerprints": [{"x": 1}]}}}, "wrong field"),
        ({"extensions": [1]}, "other programs"),
        ({"revoked": "yes"}, "wrong field"),
        ({"type": 5}, "no STIX object"),
    ],
)
def test_a_stix_indicator_is_refused_with_its_reason(side: Side, changes: dict[str, Any], why: str) -> None:
    taken = side.take(seal(json.dumps(stix(stix_indicator(side, **changes))).encode(), STIX_TYPE, ACME))
    assert (taken.new, [why in r.why for r in taken.refused]) == (0, [True])


def test_indicators_without_a_label_have_the_one_that_was_named(side: Side) -> None:
    data = seal(json.dumps(stix(stix_indicator(side, object_marking_refs=[]))).encode(), STIX_TYPE, ACME)
    side.take(data, tlp="green")
    assert side.store.read().kept[0].indicator.tlp == "green"


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b"", FEED_TYPE),
        (b"\xff\xfe", FEED_TYPE),
        (b"[]", FEED_TYPE),
        (b"{}", FEED_TYPE),
        (b'{"serial": 1}', "text/html"),
        (b"[" * 100_000 + b"]" * 100_000, STIX_TYPE),
        (b'{"type": "bundle", "objects": ' + b"[" * MOST_DEPTH + b"]" * MOST_DEPTH + b"}", STIX_TYPE),
        (b'{"type": "bundle", "objects": [], "objects": [1]}', STIX_TYPE),
        (b'{"type": "bundle", "objects": [{"type": "indicator", "confidence": NaN}]}', STIX_TYPE),
        (b'{"type": "bundle", "objects": [{"type": "x", "confidence": ' + b"9" * 5000 + b"}]}", STIX_TYPE),
        (b'{"format":"stillwatch-intel","version":2,"serial":1,"created":"2026-01-01T00:00:00Z","indicators":[]}',
         FEED_TYPE),
        (b'{"format":"stillwatch-intel","serial":' + str(1 << 63).encode()
         + b',"created":"2026-01-01T00:00:00Z","indicators":[]}', FEED_TYPE),
    ],
)  # fmt: skip
def test_what_is_no_feed_changes_nothing(side: Side, payload: bytes, kind: str) -> None:
    before = side.store.path.read_bytes()
    with pytest.raises(FormatError):
        side.take(seal(payload, kind, ACME))
    assert side.store.path.read_bytes() == before


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "feed").write_bytes(b"x" * 2000)
    with pytest.raises(FormatError, match="more than"):
        read_bytes(tmp_path / "feed", 1000)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([FEED_TYPE, STIX_TYPE]),
    place=st.sampled_from(["id", "modified", "valid_until", "confidence", "revoked", "extensions", "fingerprints",
                           "object_marking_refs", "tlp", "type", "valid_from", "more"]),
    value=JSON,
)  # fmt: skip
def test_whatever_stands_in_a_field_ends_in_an_indicator_or_a_refusal(
    side: Side, kind: str, place: str, value: object
) -> None:
    if kind == FEED_TYPE:
        item = {**msgspec.to_builtins(side.indicator()), place: value}
        whole: dict[str, Any] = {"format": "stillwatch-intel", "serial": 1, "created": "2026-05-01T00:00:00Z",
                                 "indicators": [item]}  # fmt: skip
    else:
        whole = stix({**stix_indicator(side), place: value})
    try:
        reading = read_feed(kind, json.dumps(whole).encode(), "feed", "amber")
    except FormatError:
        return  # NaN is no JSON
    assert len(reading.indicators) + len(reading.refused) + reading.unused == len(
        whole.get("objects", [item] if kind == FEED_TYPE else [])
    )


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200) | JSON.map(lambda v: json.dumps(v).encode()))
def test_any_bytes_end_in_an_error_of_ours(data: bytes) -> None:
    readers: list[Callable[[], object]] = [
        lambda: unseal(data, [written_key(ACME.public)], "feed"),
        lambda: read_feed(FEED_TYPE, data, "feed"),
        lambda: read_feed(STIX_TYPE, data, "feed"),
    ]
    for read in readers:
        with contextlib.suppress(StillwatchError):
            read()


def test_a_damaged_store_is_told_and_kept(side: Side) -> None:
    side.take(side.feed(side.indicator()))
    good = side.store.path.read_bytes()
    for bad in (
        b"",
        b"{}x",
        good.replace(b"ed25519:", b"rsa:"),
        good.replace(b'"acme"', b'"nobody"', 1),
        good[:-30],
    ):
        side.store.path.write_bytes(bad)
        with pytest.raises(StillwatchError, match=r"store|damaged"):
            side.take(side.feed(side.indicator("other"), serial=9))
        assert side.store.path.read_bytes() == bad
    assert IntelStore(side.store.path.with_name("none")).path.exists() is False
