"""The terms under which something is shared: for whom, how sure, until when, by whom."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from stillwatch.schema.errors import UsageError
from stillwatch.schema.intel import Tlp

TLP: tuple[Tlp, ...] = ("clear", "green", "amber", "amber+strict", "red")
"""Traffic Light Protocol 2.0 (FIRST), from the widest circle to the narrowest."""
MOST_NAME = 100
_ODD = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Terms:
    """What every export carries. All times are UTC."""

    tlp: Tlp
    confidence: int
    """0 to 100, the sharer's own judgement."""
    expires: datetime
    """From when on nobody may rely on it."""
    at: datetime | None = None
    """When it is shared; the end of the scan's log if None."""
    sharer: str = ""
    """Name of the organisation that shares; empty: it is not named."""


def terms(
    tlp: str, confidence: int, expires: datetime, at: datetime | None = None, sharer: str = ""
) -> Terms:
    """Checked terms. UsageError says what is wrong; a time without a zone is UTC."""
    wanted = tlp.strip().lower().removeprefix("tlp:")
    label = next((known for known in TLP if known == wanted), None)
    if label is None:
        raise UsageError(f"{tlp!a} is no TLP 2.0 label", hint=f"one of: {', '.join(TLP)}")
    if not 0 <= confidence <= 100:
        raise UsageError("the confidence must be between 0 and 100")
    if len(sharer) > MOST_NAME or _ODD.search(sharer):
        raise UsageError(f"the sharer's name must be one line of at most {MOST_NAME} characters")
    return Terms(label, confidence, _utc(expires), None if at is None else _utc(at), sharer)


def moment(text: str, option: str) -> datetime:
    """A date or a time in ISO 8601, UTC if it has no zone. UsageError names `option`."""
    try:
        return _utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{option}: {text[:40]!a} is no date", hint="as in 2026-12-31 or 2026-12-31T08:00:00Z"
        ) from error


def stamp(when: datetime) -> str:
    """A time as STIX and others write it: `2026-12-31T08:00:00Z`, with fractions only where there are any."""
    exact = "microseconds" if when.microsecond % 1000 else "milliseconds" if when.microsecond else "seconds"
    return when.astimezone(UTC).isoformat(timespec=exact).replace("+00:00", "Z")


def _utc(when: datetime) -> datetime:
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
