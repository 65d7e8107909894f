"""Options that several commands have."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from stillwatch.schema.errors import UsageError

Logs = Annotated[list[str], typer.Argument(help="Files, globs, directories, or - for standard input.")]
Format = Annotated[
    str | None, typer.Option("--format", help="Log format; recognised by content if not given.")
]
Mapping = Annotated[Path | None, typer.Option("--mapping", help="TOML file that maps any log's columns.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--map", help="Column from elsewhere, e.g. account_id=$.auth.customer.")
]
SideTable = Annotated[Path | None, typer.Option(help="Side table (Parquet, JSONL or CSV).")]
Appeals = Annotated[
    Path | None,
    typer.Option("--appeals", help="File of appeals: whom they freed is named in no campaign or lead."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def pairs(given: list[str] | None) -> dict[str, str]:
    """`--map` options as column -> path. UsageError for what is none."""
    out = {}
    for text in given or []:
        name, mark, path = text.partition("=")
        if not mark or not name:
            raise UsageError(
                f"--map {text!r} is no COLUMN=PATH", hint="for example --map account_id=$.user.id"
            )
        out[name] = path
    return out


_SPAN = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)?")
_UNITS = {None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds(text: str, least: float = 1.0) -> float:
    """`90`, `90s`, `5m`, `6h`, `1d` in seconds. UsageError for what is none, or out of [least, 366 days]."""
    found = _SPAN.fullmatch(text.strip())
    value = float(found[1]) * _UNITS[found[2]] if found else -1.0
    if not least <= value <= 366 * 86_400:
        raise UsageError(f"{text!r} is no span of time", hint="for example 90s, 5m or 6h")
    return value


def time_of(text: str | None, option: str = "--at") -> datetime | None:
    """An ISO 8601 time or day, in UTC; without a zone it is UTC. None stays None, UsageError for what is none."""
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{option}: {text!a} is no time", hint="for example 2026-03-01 or 2026-03-01T12:00:00Z"
        ) from error


def now_or(text: str | None, option: str = "--at") -> datetime:
    """The time that an option names, now (to the second) where it names none. Raises as `time_of`."""
    return time_of(text, option) or datetime.now(UTC).replace(microsecond=0)
