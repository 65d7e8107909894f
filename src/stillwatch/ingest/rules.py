"""Mapping rules: which value of a foreign row becomes which canonical column.

account_id = "$.auth.customer"        a path into the row: names, [0], ["a name with dots"]
provider   = "=acme"                  the same text for every row
messages   = "$.request.messages"     a list of messages in any of the three public APIs' shapes
request    = "$.request"              a whole request body; `reply` likewise for a response body

[formats]
ts = "%d/%b/%Y:%H:%M:%S %z"           or seconds, milliseconds, microseconds, nanoseconds
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from stillwatch.ingest.columns import UNREADABLE
from stillwatch.schema.errors import InputError, StillwatchError, UsageError, Where
from stillwatch.schema.tables import EXCHANGES
from stillwatch.schema.times import UNITS

BODIES = ("messages", "request", "reply")
"""Targets that are no columns themselves: many columns follow from them."""

Steps = tuple[str | int, ...]

_STEP = re.compile(r"""\.([^.\[\]"']+)|\[(\d+)\]|\["([^"]+)"\]|\['([^']+)'\]""")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a mapping."""

    target: str
    path: Steps | None
    """Steps into the row; None for a constant."""
    constant: str | None = None
    format: str | None = None
    """For times: a unit of `UNITS` or a `strptime` pattern."""

    def value(self, row: Any) -> Any:
        """The value in a decoded row, None where the path leads nowhere."""
        if self.path is None:
            return self.constant
        for step in self.path:
            if isinstance(row, str) and row[:1] in ("{", "["):
                row = _embedded(row)
            if isinstance(row, Mapping) and isinstance(step, str):
                row = row.get(step)
            elif isinstance(row, list) and isinstance(step, int):
                row = row[step] if step < len(row) else None
            else:
                return None
        return row if self.format is None else in_format(row, self.format)


def _embedded(text: str) -> Any:
    """JSON written as text inside a cell, as table exports do; None if it is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def in_format(value: Any, format: str) -> Any:
    """A time in the stated format -> microseconds since 1970; UNREADABLE for what does not fit it."""
    if value is None:
        return None
    try:
        if format in UNITS:
            scaled = float(value) * UNITS[format]
            exact = isinstance(value, int) and UNITS[format] >= 1
            return value * int(UNITS[format]) if exact else round(scaled)
        if isinstance(value, str):
            moment = datetime.strptime(value.strip(), format)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
            return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    except (ValueError, TypeError, OverflowError):
        pass
    return UNREADABLE


def parse_rule(target: str, text: Any, where: Where, format: str | None = None) -> Rule:
    """One rule; raises InputError at `where` for an unknown column, a bad path or a bad format."""
    if target not in BODIES and (target not in EXCHANGES.names or target == "raw_ref"):
        raise InputError(
            f"{target!r} is no canonical column",
            where=where,
            hint=f"besides the canonical columns there are {', '.join(BODIES)}",
        )
    if not isinstance(text, str) or not text.startswith(("$", "=")):
        raise InputError(
            f"the rule for {target!r} is neither a path nor a constant",
            where=where,
            hint='write a path as "$.a.b[0]" and a constant as "=value"',
        )
    if text.startswith("="):
        return Rule(target, None, text[1:], None)
    steps: list[str | int] = []
    at = 1
    while at < len(text):
        step = _STEP.match(text, at)
        if step is None:
            raise InputError(
                f"the path for {target!r} breaks off at character {at + 1}",
                where=where,
                hint='steps are .name, [0] and ["any name"]',
            )
        name, index, double, single = step.groups()
        steps.append(int(index) if index is not None else name or double or single)
        at = step.end()
    return Rule(target, tuple(steps), None, format)


def rules_from(overrides: Mapping[str, str]) -> dict[str, Rule]:
    """Rules of `--map column=rule` options. Raises UsageError."""
    rules = {}
    for target, text in overrides.items():
        try:
            rules[target] = parse_rule(target, text, Where())
        except StillwatchError as error:
            raise UsageError(error.what, hint=error.hint) from None
    return rules


def load_rules(path: Path) -> dict[str, Rule]:
    """Rules of a mapping file. Raises InputError with the file's name and line."""
    file = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the mapping cannot be read: {error.strerror or 'I/O error'}", where=Where(file)
        ) from error
    except UnicodeDecodeError as error:
        raise InputError("the mapping is not UTF-8", where=Where(file)) from error
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        line = re.search(r"at line (\d+)", str(error))
        row = int(line.group(1)) if line else text.count("\n") + 1
        raise InputError("the mapping is not valid TOML", where=Where(file, row)) from error
    formats = found.pop("formats", {})
    formats = formats if isinstance(formats, dict) else {"formats": formats}
    for target, format in formats.items():
        where = Where(file, _line(text, target, after="[formats]"))
        if target != "ts":
            raise InputError(f"{target!r} takes no format", where=where, hint="formats are for ts")
        if not isinstance(format, str) or (format not in UNITS and "%" not in format):
            raise InputError(
                "an unknown time format",
                where=where,
                hint=f"write one of {', '.join(UNITS)}, or a pattern such as %Y-%m-%d %H:%M:%S",
            )
    rules = {
        target: parse_rule(target, rule, Where(file, _line(text, target)), formats.get(target))
        for target, rule in found.items()
    }
    if not rules:
        raise InputError(
            "the mapping has no rules", where=Where(file), hint='write lines such as ts = "$.time"'
        )
    return rules


def _line(text: str, key: str, after: str | None = None) -> int | None:
    """Line number of a key in the file, from 1."""
    start = text.find(after) if after else 0
    found = re.compile(rf"^[ \t]*[\"']?{re.escape(key)}[\"']?[ \t]*=|^\[{re.escape(key)}\]", re.M).search(
        text, max(start, 0)
    )
    return text.count("\n", 0, found.start()) + 1 if found else None
