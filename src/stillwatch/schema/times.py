"""Times as logs write them -> microseconds since 1970, UTC.

Read are Arrow timestamps of any unit and zone (without a zone they count as UTC), dates, ISO 8601 text
(https://www.rfc-editor.org/rfc/rfc3339 and the shorter forms of ISO 8601) and epoch counts. An epoch
count says nothing about its unit; the bands of plausible values do not overlap, so the unit is taken
from the magnitude, and only one unit is believed for a whole column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.schema.refusals import Bools, Ints

Floats = npt.NDArray[np.float64]

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
EARLIEST_LOG_US = 1_420_070_400 * SECOND_US
"""2015-01-01: no log of a language model service is older."""
EARLIEST_ACCOUNT_US = 946_684_800 * SECOND_US
"""2000-01-01: accounts may be older than the service they use now."""
LATEST_US = 7_258_118_400 * SECOND_US
"""2200-01-01: what lies beyond is a wrong unit, whatever the clock says."""
CLOCK_SKEW_US = 2 * DAY_US
"""How far ahead of "now" a time may lie: clocks of log sources differ, but not by more."""

UNITS = {"seconds": 1e6, "milliseconds": 1e3, "microseconds": 1.0, "nanoseconds": 1e-3}
"""Epoch units and how many microseconds one of them is."""

_ARROW_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_FAR_US = 4 * 10**18
_ISO = (
    r"^(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})"
    r"(?:[Tt ](?P<hour>\d{2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,12}))?)?"
    r" ?(?P<zone>Z|z|UTC|[+-]\d{2}(?::?\d{2})?)?)?$"
)
_NUMBER = r"^\d{9,19}(\.\d{1,9})?$"
_MONTH_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Times:
    """A column read as times. All arrays have one element per row."""

    us: Ints
    """Microseconds since 1970 UTC; meaningless where `null` or a trouble's mask is True."""
    null: Bools
    troubles: list[tuple[Bools, str]]
    """(rows, reason): rows whose value is there and cannot be read."""
    unit: str | None
    """The epoch unit that was recognised, where the column holds epoch counts."""


def readable_as_time(kind: pa.DataType) -> bool:
    """Whether `read_times` accepts a column of this Arrow type."""
    tests = (
        pa.types.is_timestamp,
        pa.types.is_date,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_decimal,
        pa.types.is_string,
        pa.types.is_null,
    )
    return any(test(kind) for test in tests)


def read_times(array: pa.Array, *, earliest_us: int, unit: str | None = None) -> Times:
    """Read `array` (a type that `readable_as_time` accepts; not dictionary-encoded) as times.

    `unit` is the epoch unit recognised earlier in the same column, so that a second batch of a file is
    read like its first. Fractions of a microsecond are dropped. Plausibility of the result is judged by
    `implausible`, not here.
    """
    null = array.is_null().to_numpy(zero_copy_only=False)
    kind = array.type
    if pa.types.is_null(kind):
        return Times(np.zeros(len(array), np.int64), null, [], unit)
    if pa.types.is_timestamp(kind):
        counts = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        return Times(_scale(counts, UNITS[_ARROW_UNITS[kind.unit]]), null, [], unit)
    if pa.types.is_date(kind):
        days = array.cast(pa.date32()).cast(pa.int32()).cast(pa.int64()).fill_null(0)
        return Times(_scale(days.to_numpy(zero_copy_only=False), float(DAY_US)), null, [], unit)
    if pa.types.is_string(kind):
        return _from_text(array, null, earliest_us, unit)
    if pa.types.is_unsigned_integer(kind):
        # Beyond int64 lies no plausible time in any unit; 0 is refused as such.
        array = pc.if_else(pc.greater(array.cast(pa.uint64()), pa.scalar(2**63 - 1, pa.uint64())), 0, array)
    if pa.types.is_integer(kind):
        counts = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    else:
        counts = array.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
        null = null | np.isnan(counts)
    us, troubles, unit = _from_counts(counts, ~null, earliest_us, unit)
    return Times(us, null, troubles, unit)


def implausible(
    us: Ints, present: Bools, column: str, *, earliest_us: int, latest_us: int
) -> list[tuple[Bools, str]]:
    """(rows, reason) of times outside [earliest_us, latest_us], with the unit mistake that explains them."""
    early, late = present & (us < earliest_us), present & (us > latest_us)
    if not (early.any() or late.any()):
        return []
    slips = [
        (early, 1e6, "looks like seconds read as microseconds, or milliseconds read as nanoseconds"),
        (early, 1e3, "looks like milliseconds read as microseconds, or seconds read as milliseconds"),
        (early, 1e9, "looks like seconds read as nanoseconds"),
        (late, 1e-3, "looks like milliseconds read as seconds, or microseconds read as milliseconds"),
        (late, 1e-6, "looks like microseconds read as seconds, or nanoseconds read as milliseconds"),
    ]
    found: list[tuple[Bools, str]] = []
    value = us.astype(np.float64)
    for outside, factor, text in slips:
        true = value * factor
        hit = outside & (true >= earliest_us) & (true <= LATEST_US)
        found.append((hit, f"{column} is implausible: {text}"))
    year = f"{np.datetime64(earliest_us, 'us').astype('datetime64[Y]')}"
    found.append((early, f"{column} lies before {year}: no unit of time explains it"))
    limit = f"{LATEST_US // DAY_US}" if latest_us >= LATEST_US else ""
    future = "after the year 2200" if limit else "more than two days in the future"
    found.append((late, f"{column} lies {future}: check the clock and the time zone of the log's source"))
    return [(mask, reason) for mask, reason in found if mask.any()]


def _scale(counts: Ints, factor: float) -> Ints:
    """counts * factor in integers; what would overflow becomes a time far outside any plausible range."""
    if factor < 1.0:
        return np.floor_divide(counts, round(1 / factor))
    whole = int(factor)
    reach = _FAR_US // whole
    return np.clip(counts, -reach, reach) * whole


def _from_counts(
    counts: Ints | Floats, present: Bools, earliest_us: int, unit: str | None
) -> tuple[Ints, list[tuple[Bools, str]], str | None]:
    """Epoch counts -> (microseconds, troubles, unit)."""
    bands = {
        name: present & (counts >= earliest_us / factor) & (counts <= LATEST_US / factor)
        for name, factor in UNITS.items()
    }
    sizes = {name: int(band.sum()) for name, band in bands.items()}
    if unit is None and any(sizes.values()):
        # The unit of most values; of equally many, that of the first row.
        best = max(sizes.values())
        unit = min((n for n in UNITS if sizes[n] == best), key=lambda name: int(np.argmax(bands[name])))
    if unit is None:
        units = "seconds, milliseconds, microseconds or nanoseconds since 1970"
        return (
            np.zeros(len(counts), np.int64),
            [(present, f"the number is no plausible time in {units}")],
            None,
        )
    troubles = []
    for name, band in bands.items():
        if name != unit and sizes[name]:
            troubles.append((band, f"the column counts {unit}, but this value looks like {name}"))
    factor = UNITS[unit]
    if np.issubdtype(counts.dtype, np.integer):
        return _scale(counts.astype(np.int64), factor), troubles, unit
    exact = np.nan_to_num(counts * factor, nan=0.0, posinf=_FAR_US, neginf=-_FAR_US)
    return np.rint(np.clip(exact, -_FAR_US, _FAR_US)).astype(np.int64), troubles, unit


def _from_text(array: pa.Array, null: Bools, earliest_us: int, unit: str | None) -> Times:
    """ISO 8601 text, or epoch counts written as digits."""
    text = pc.utf8_trim_whitespace(array)
    null = null | pc.equal(text, "").fill_null(False).to_numpy(zero_copy_only=False)
    us = np.zeros(len(array), dtype=np.int64)
    iso, readable = _from_iso(text)
    us[readable] = iso[readable]
    troubles: list[tuple[Bools, str]] = []
    rest = ~null & ~readable
    if rest.any():
        numeric = rest & pc.match_substring_regex(text, _NUMBER).fill_null(False).to_numpy(
            zero_copy_only=False
        )
        if numeric.any():
            where = pa.array(numeric)
            whole = not pc.any(pc.match_substring(text.filter(where), ".")).as_py()
            counts: Any = np.zeros(len(array), np.int64 if whole else np.float64)
            counts[numeric] = _digits(text.filter(where), whole)
            scaled, troubles, unit = _from_counts(counts, numeric, earliest_us, unit)
            us[numeric] = scaled[numeric]
        reason = "not a time: write ISO 8601 (2026-03-01T12:00:00Z) or a count since 1970"
        troubles.append((rest & ~numeric, reason))
    return Times(us, null, troubles, unit)


def _digits(text: pa.Array, whole: bool) -> Ints | Floats:
    """Digit strings -> numbers; what does not fit int64 becomes 0, which is refused as implausible."""
    counts: Floats = text.cast(pa.float64()).to_numpy(zero_copy_only=False)
    if not whole:
        return counts
    fits = counts < 9.2e18
    clipped = pc.if_else(pa.array(fits), text, "0")
    integers: Ints = clipped.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return integers


def _from_iso(text: pa.Array) -> tuple[Ints, Bools]:
    """(microseconds, readable) of ISO 8601 text; a time without a zone counts as UTC."""
    parts = pc.extract_regex(text, _ISO)
    readable: Bools = parts.is_valid().to_numpy(zero_copy_only=False)

    def number(name: str, default: str) -> Ints:
        field = pc.struct_field(parts, name)
        field = pc.if_else(pc.equal(field, "").fill_null(True), default, field)
        values: Ints = field.cast(pa.int64()).to_numpy(zero_copy_only=False)
        return values

    year, month, day = number("year", "2000"), number("month", "01"), number("day", "01")
    hour, minute, second = number("hour", "00"), number("minute", "00"), number("second", "00")
    fraction = pc.utf8_slice_codeunits(pc.utf8_rpad(pc.struct_field(parts, "fraction"), 6, "0"), 0, 6)
    micros = fraction.fill_null("0").cast(pa.int64()).to_numpy(zero_copy_only=False)
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    in_year = (month >= 1) & (month <= 12)
    days_in_month = _MONTH_DAYS[np.where(in_year, month, 1) - 1] + ((month == 2) & leap)
    readable &= in_year & (day >= 1) & (day <= days_in_month)
    # 23:59:60 is a leap second; 24:00 is ISO's name for the end of a day.
    readable &= (minute <= 59) & (second <= 60) & ((hour <= 23) | ((hour == 24) & (minute + second == 0)))
    shift, zone_ok = _zone_minutes(pc.struct_field(parts, "zone"))
    seconds = (_days(year, month, day) * 24 + hour) * 3600 + (minute - shift) * 60 + second
    return seconds * SECOND_US + micros, readable & zone_ok


def _zone_minutes(zone: pa.Array) -> tuple[Ints, Bools]:
    """Minutes east of UTC, and whether the offset exists (at most 23:59)."""
    compact = pc.replace_substring(zone, ":", "")
    named = pc.is_in(compact, pa.array(["", "Z", "z", "UTC"])).to_numpy(zero_copy_only=False)
    named = named | zone.is_null().to_numpy(zero_copy_only=False)
    digits = pc.if_else(pa.array(named), "+0000", pc.utf8_rpad(compact, 5, "0")).fill_null("+0000")
    hours = pc.utf8_slice_codeunits(digits, 1, 3).cast(pa.int64()).to_numpy(zero_copy_only=False)
    minutes = pc.utf8_slice_codeunits(digits, 3, 5).cast(pa.int64()).to_numpy(zero_copy_only=False)
    west = pc.starts_with(digits, "-").to_numpy(zero_copy_only=False)
    total = hours * 60 + minutes
    return np.where(west, -total, total), (hours <= 23) & (minutes <= 59)


def _days(year: Ints, month: Ints, day: Ints) -> Ints:
    """Days since 1970-01-01 of the proleptic Gregorian calendar.

    Source: H. Hinnant, "chrono-compatible low-level date algorithms", days_from_civil.
    """
    shifted = year - (month <= 2)
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * (month + np.where(month > 2, -3, 9)) + 2) // 5 + day - 1
    result: Ints = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    return result
