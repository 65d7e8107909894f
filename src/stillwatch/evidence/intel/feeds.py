"""A partner's feed, read with suspicion: STIX 2.1 bundles and our own plain feed, into indicators and refusals.

The bytes were signed by the partner, which does not make them harmless: keys are stolen, programs err, some lie.
Everything is bounded before it is looked at, and whatever is not taken is told with its reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import msgspec

from stillwatch.schema.errors import FormatError, Where
from stillwatch.schema.intel import (
    FEED_TYPE,
    HASH_HEX,
    LEAST_ACCOUNTS,
    LEAST_ENTITIES,
    LEAST_HASHES,
    LEAST_SHARE,
    MOST_HASHES,
    PROPERTY,
    SHARED_LEVEL,
    STIX_TYPE,
    FamilyFingerprint,
    Feed,
    Indicator,
    Tlp,
)
from stillwatch.store.intel import utc

MOST_OBJECTS = 50_000
MOST_INDICATORS = 5_000
MOST_FINGERPRINTS = 8
"""Of one indicator."""
MOST_DEPTH = 24
MOST_CAPABILITIES = 32
MOST_DAYS = 730
"""From the beginning to the end of an indicator's force."""
SLACK = timedelta(days=1)
"""By which a partner's clock may be ahead."""
TLP_ORDER: tuple[Tlp, ...] = ("clear", "green", "amber", "amber+strict", "red")
TLP_MARKS: dict[str, Tlp] = {
    "marking-definition--94868c89-83c2-464b-929b-a1a8aa3c8487": "clear",
    "marking-definition--bab4a63c-aed9-4cf5-a766-dfca5abac2bb": "green",
    "marking-definition--55d920b0-5e8b-4f79-9ee9-91f868d9b421": "amber",
    "marking-definition--939a9414-2ddd-4d32-a0cd-375ea402b003": "amber+strict",
    "marking-definition--e828b379-4e03-4974-9ac4-e53a884c97c1": "red",
    "marking-definition--613f2e26-407d-48c7-9eca-b8e91df99dc9": "clear",
    "marking-definition--34098fce-860f-48ae-8e50-ebd3cc5e41da": "green",
    "marking-definition--f88d31f6-486f-44da-b317-01333bde0b82": "amber",
    "marking-definition--5e57c739-391a-4eb3-b6be-7d15ca92d5ed": "red",
}
"""TLP 2.0, and TLP 1.0 as STIX 2.1 defines it."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,127}")
_HASH = re.compile(rf"[0-9a-f]{{{HASH_HEX}}}")
_KEY = re.compile(r"[0-9a-f]{8}")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Refused:
    """Something of a feed that was not taken."""

    what: str
    """Its id, where it has one that can be printed; else its place."""
    why: str


@dataclass(slots=True)
class Reading:
    """What a feed holds."""

    serial: int
    """Grows with each feed; of a bundle, its newest `modified` in microseconds."""
    indicators: list[Indicator] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    unused: int = 0
    """Objects of other types, which are for people and other programs."""


def read_feed(kind: str, payload: bytes, name: str, tlp: Tlp | None = None) -> Reading:
    """The indicators of a feed, each checked by itself. FormatError where there is no reading it at all.

    `kind`: type that was signed with it; `tlp`: label of indicators that have none, which are refused if None.
    """
    if kind not in (FEED_TYPE, STIX_TYPE):
        raise FormatError(
            "the feed is of a type that is not read", where=Where(name), hint=f"{FEED_TYPE} or {STIX_TYPE}"
        )
    plain = _parsed(payload, name)
    if not isinstance(plain, dict):
        raise FormatError("the feed is no JSON object", where=Where(name))
    return _own_feed(plain, name) if kind == FEED_TYPE else _bundle(plain, name, tlp)


def _parsed(payload: bytes, name: str) -> Any:
    """JSON without doubled keys, without numbers that are none, and not too deep."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            # What one reader takes from it another may not.
            raise ValueError("doubled key")
        return found

    def never(text: str) -> NoReturn:
        raise ValueError("no number")

    try:
        if _depth(payload) > MOST_DEPTH:
            raise ValueError("too deep")
        return json.loads(payload.decode("utf-8"), object_pairs_hook=once, parse_constant=never)
    except (ValueError, RecursionError) as error:
        raise FormatError(
            "the feed is no plain JSON: damaged, too deep, or with doubled keys", where=Where(name)
        ) from error


def _depth(payload: bytes) -> int:
    """How deep brackets are nested, at least: those inside of strings count as well and are few."""
    depth = most = 0
    for match in re.finditer(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', payload):
        mark = match.group()
        if mark in b"[{":
            depth += 1
            most = max(most, depth)
        elif mark in b"]}":
            depth -= 1
    return most


def _own_feed(plain: dict[str, Any], name: str) -> Reading:
    items = plain.get("indicators")
    head = {key: value for key, value in plain.items() if key != "indicators"}
    try:
        if not isinstance(items, list) or len(items) > MOST_INDICATORS:
            raise ValueError
        feed = msgspec.convert({**head, "indicators": []}, Feed, strict=True)
        if feed.version != 1 or not 0 <= feed.serial < 1 << 53:
            raise ValueError
    except (msgspec.ValidationError, ValueError, OverflowError, RecursionError) as error:
        raise FormatError(
            f"the feed cannot be used: of another version, or with more than {MOST_INDICATORS:,} indicators",
            where=Where(name),
        ) from error
    reading = Reading(feed.serial)
    for place, item in enumerate(items):
        _take(reading, _label(item, place), item)
    return _settled(reading)


def _bundle(plain: dict[str, Any], name: str, tlp: Tlp | None) -> Reading:
    objects = plain.get("objects")
    if plain.get("type") != "bundle" or not isinstance(objects, list) or len(objects) > MOST_OBJECTS:
        raise FormatError(
            f"the feed is no STIX bundle, or has more than {MOST_OBJECTS:,} objects", where=Where(name)
        )
    reading = Reading(-1)
    for place, item in enumerate(objects):
        label = _label(item, place)
        if not isinstance(item, dict) or not isinstance(item.get("type"), str):
            reading.refused.append(Refused(label, "is no STIX object"))
        elif item["type"] != "indicator":
            reading.unused += 1
        elif len(reading.indicators) >= MOST_INDICATORS:
            reading.refused.append(Refused(label, f"comes after {MOST_INDICATORS:,} others"))
        else:
            _take_stix(reading, label, item, tlp)
    stamps = [_when(item["modified"]) for item in objects if isinstance(item, dict) and "modified" in item]
    known = [int(when.timestamp() * 1e6) for when in stamps if when is not None]
    reading.serial = max(known, default=-1)
    return _settled(reading)


def _take_stix(reading: Reading, label: str, item: dict[str, Any], tlp: Tlp | None) -> None:
    extensions = item.get("extensions")
    found = [
        extension[PROPERTY]
        for extension in (extensions.values() if isinstance(extensions, dict) else ())
        if isinstance(extension, dict) and PROPERTY in extension
    ]
    if not found and not item.get("revoked"):
        reading.refused.append(Refused(label, "has no fingerprint: it is for other programs"))
        return
    if len(found) > 1:
        reading.refused.append(Refused(label, "has fingerprints in more than one extension"))
        return
    marks = item.get("object_marking_refs", [])
    labels = (
        [TLP_MARKS[m] for m in marks if isinstance(m, str) and m in TLP_MARKS]
        if isinstance(marks, list)
        else []
    )
    strictest = max(labels, key=TLP_ORDER.index) if labels else tlp
    if strictest is None:
        reading.refused.append(Refused(label, "has no TLP label (--tlp names one for such indicators)"))
        return
    if "confidence" not in item or "valid_until" not in item:
        reading.refused.append(Refused(label, "has no confidence, or no end"))
        return
    plain = {key: item.get(key) for key in ("id", "modified", "valid_from", "valid_until", "confidence")}
    _take(
        reading,
        label,
        {
            **plain,
            "revoked": item.get("revoked", False),
            "tlp": strictest,
            "fingerprints": found[0] if found else [],
        },
    )


def _take(reading: Reading, label: str, item: Any) -> None:
    """One indicator, or the reason why not."""
    try:
        indicator = msgspec.convert(item, Indicator, strict=True)
    except (msgspec.ValidationError, ValueError, OverflowError, RecursionError):
        reading.refused.append(Refused(label, "has a missing, unknown or wrong field"))
        return
    dates = {name: _zoned(getattr(indicator, name)) for name in ("modified", "valid_from", "valid_until")}
    if None in dates.values():
        reading.refused.append(Refused(label, "has a date that is out of range"))
        return
    indicator = msgspec.structs.replace(indicator, **dates)
    why = next(_faults(indicator), None)
    if why is not None:
        reading.refused.append(Refused(label, why))
    else:
        reading.indicators.append(indicator)


def _faults(indicator: Indicator) -> Iterator[str]:
    if not _ID.fullmatch(indicator.id):
        yield "has an id that cannot be used"
    if not 0 <= indicator.confidence <= 100:
        yield "has a confidence that is not between 0 and 100"
    if indicator.tlp == "red":
        yield "is TLP:RED: results are read by others than its recipient"
    if indicator.valid_until <= indicator.valid_from:
        yield "ends before it begins"
    if indicator.valid_until - indicator.valid_from > timedelta(days=MOST_DAYS):
        yield f"is to be in force for more than {MOST_DAYS} days"
    if not indicator.revoked and not indicator.fingerprints:
        yield "has no fingerprint"
    if len(indicator.fingerprints) > MOST_FINGERPRINTS:
        yield f"has more than {MOST_FINGERPRINTS} fingerprints"
    for fingerprint in indicator.fingerprints:
        yield from _fingerprint_faults(fingerprint)


def _fingerprint_faults(found: FamilyFingerprint) -> Iterator[str]:
    hashes = found.hashes
    if not _KEY.fullmatch(found.key_id):
        yield "names no key"
    if not LEAST_HASHES <= len(hashes) <= MOST_HASHES:
        yield f"has a fingerprint of fewer than {LEAST_HASHES} or more than {MOST_HASHES} hashes"
    if not all(_HASH.fullmatch(h) for h in hashes) or hashes != sorted(set(hashes)):
        yield "has hashes that are none, doubled or not in order"
    if not LEAST_SHARE <= found.least <= 1:
        yield f"would match by less than {LEAST_SHARE:.0%} of its hashes"
    if not 0 <= found.level <= SHARED_LEVEL:
        yield "names a selection level that is none"
    if (
        not LEAST_ACCOUNTS <= found.accounts < 1 << 40
        or not LEAST_ENTITIES <= found.entities <= found.accounts
    ):
        yield f"comes from fewer than {LEAST_ACCOUNTS} accounts of {LEAST_ENTITIES} entities"
    if len(found.capabilities) > MOST_CAPABILITIES or not all(_WORD.fullmatch(c) for c in found.capabilities):
        yield "has capabilities that are none"


def _settled(reading: Reading) -> Reading:
    """One indicator of each id: the newest. Where two of one time differ, the feed contradicts itself: none."""
    by_id: dict[str, list[Indicator]] = {}
    for indicator in reading.indicators:
        by_id.setdefault(indicator.id, []).append(indicator)
    reading.indicators = []
    for name, found in sorted(by_id.items()):
        newest = max(i.modified for i in found)
        last = [i for i in found if i.modified == newest]
        if any(i != last[0] for i in last[1:]):
            reading.refused += [Refused(name, "contradicts itself: two versions of one time")] * len(found)
            continue
        reading.indicators.append(last[0])
        reading.refused += [Refused(name, "is there twice")] * (len(last) - 1)
        reading.refused += [Refused(name, "is older than another version in this feed")] * (
            len(found) - len(last)
        )
    return reading


def untimely(indicator: Indicator, at: datetime) -> str | None:
    """Why an indicator is not taken at a time, None if it is."""
    if indicator.modified > at + SLACK:
        return "comes from the future"
    return "has expired" if indicator.valid_until <= at and not indicator.revoked else None


def _label(item: Any, place: int) -> str:
    name = item.get("id") if isinstance(item, dict) else None
    return name if isinstance(name, str) and _ID.fullmatch(name) else f"item {place + 1}"


def _when(value: Any) -> datetime | None:
    try:
        return _zoned(msgspec.convert(value, datetime))
    except (msgspec.ValidationError, ValueError, OverflowError):
        return None


def _zoned(when: datetime) -> datetime | None:
    try:
        found = utc(when)
    except (ValueError, OverflowError):
        return None
    return found if datetime(2000, 1, 1, tzinfo=UTC) <= found < datetime(2200, 1, 1, tzinfo=UTC) else None
