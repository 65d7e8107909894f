"""Appeals by month: how many, how many were right, and how long they waited. A row of a transparency report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from statistics import median
from typing import Any

from stillwatch.report import words
from stillwatch.report.shares import Share, small
from stillwatch.schema.anonymity import K
from stillwatch.store.appeals import Case

COUNTS = ("appeals", "decided", "reversed", "open")
FOLLOWS = ("reversal_rate", "interval")
HEAD = ("month", "appeals", "decided", "reversed", "rate", "95 % interval", "days", "open")
"""`rate`: reversed of decided; `days`: the median from receipt to ruling."""


def by_month(cases: Sequence[Case], *, internal: bool) -> list[dict[str, Any]]:
    """One row a month in which appeals came in, and one for all of them; each appeal counts in its month of receipt.

    `internal`: with counts from 1 to 4. Otherwise these are None, and so is whatever would tell them.
    """
    months: dict[str, list[Case]] = {}
    for case in cases:
        months.setdefault(f"{case.received:%Y-%m}", []).append(case)
    rows = [_row(month, months[month], internal) for month in sorted(months)]
    if not rows:
        return []
    total = _row("all", cases, internal)
    if not internal:
        exact = [_row(month, months[month], True) for month in sorted(months)]
        for name in COUNTS:
            hidden = [whole[name] for row, whole in zip(rows, exact, strict=True) if row[name] is None]
            # The total less the months that are shown would tell them.
            if hidden and (len(hidden) < 2 or sum(hidden) < K):
                total |= dict.fromkeys((name, *FOLLOWS))
    return [*rows, total]


def _row(month: str, cases: Sequence[Case], internal: bool) -> dict[str, Any]:
    decided = [case for case in cases if case.decided is not None]
    turned = sum(case.outcome == "reversed" for case in decided)
    waited = [(case.decided - case.received).total_seconds() / 86_400 for case in decided if case.decided]
    share = Share(turned, len(decided))
    row: dict[str, Any] = {
        "month": month,
        "appeals": len(cases),
        "decided": len(decided),
        "reversed": turned,
        "reversal_rate": share.value,
        "interval": None if share.interval is None else list(share.interval),
        "median_days": median(waited) if waited else None,
        "open": len(cases) - len(decided),
    }
    if internal:
        return row
    if small(len(cases)):
        return {name: month if name == "month" else None for name in row}
    if small(len(decided)) or small(row["open"]):
        row |= dict.fromkeys(("decided", "open", "reversed", *FOLLOWS, "median_days"))
    elif small(turned) or small(len(decided) - turned):
        row |= dict.fromkeys(("reversed", *FOLLOWS))
    return row


def months_table(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The rows in words, under `HEAD`."""
    return [
        (
            row["month"],
            _count(row["appeals"]),
            _count(row["decided"]),
            _count(row["reversed"]),
            "-" if row["reversal_rate"] is None else f"{100 * row['reversal_rate']:.1f} %",
            "-"
            if row["interval"] is None
            else "{:.1f} to {:.1f}".format(*(100 * x for x in row["interval"])),
            "-" if row["median_days"] is None else f"{row['median_days']:.1f}",
            _count(row["open"]),
        )
        for row in rows
    ]


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def waiting(cases: Sequence[Case], at: datetime) -> list[tuple[str, str, str]]:
    """Open appeals, the oldest first: account, campaign, how long."""
    return [
        (case.account, case.campaign or "-", words.plural(max(0, (at - case.received).days), "day"))
        for case in cases
        if case.decided is None
    ]
