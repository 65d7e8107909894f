"""The charts: inline SVG for the marks, HTML for every word, so that labels stay readable at any width.

Each function takes plain numbers and returns markup; all text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from html import escape

from stillwatch.report.words import bits, compact, day, plural, share

LONGEST_STEP = 60.0
"""Bits beyond which a bar is cut: 60 bits is one in a billion billion, and more says nothing more."""
MOST_BINS = 62
DENSE = 31
"""Bins beyond which days carry no numbers of their own."""


@dataclass(frozen=True, slots=True)
class Step:
    """One bar of a waterfall."""

    title: str
    text: str
    bits: float


def waterfall(steps: Sequence[Step], label: str, *, sums: bool = False) -> str:
    """A staircase of bits: each bar begins where the one before ends; what speaks against goes back.

    `sums`: the steps are those of one account, and their sum is its bits.
    """
    if not steps:
        return "<p class='small'>Nothing was found.</p>"
    drawn = [math.copysign(min(abs(s.bits), LONGEST_STEP), s.bits) for s in steps]
    ends = [sum(drawn[: i + 1]) for i in range(len(drawn))]
    low, high = min(0.0, *ends), max(1.0, *ends)

    def at(value: float) -> float:
        return 100 * (value - low) / (high - low)

    rows = ["<div class='head'></div><div class='n head'>bits</div><div class='draw head'></div>"]
    for i, (step, end) in enumerate(zip(steps, ends, strict=True)):
        begin = ends[i - 1] if i else 0.0
        left, right = sorted((at(begin), at(end)))
        marks = [
            f"<line class='rule' vector-effect='non-scaling-stroke' x1='{at(0):.2f}' x2='{at(0):.2f}' y2='100'/>"
        ]
        if i:
            marks.append(_thin(at(begin), 0, 30))
        if i + 1 < len(steps):
            marks.append(_thin(at(end), 70, 100))
        if right - left < 0.4:
            marks.append(_thin(at(end), 30, 70))
        kind = " against" if step.bits < 0 else ""
        marks.append(
            f"<rect class='bar{kind}' x='{left:.2f}' y='30' width='{right - left:.2f}' height='40'/>"
        )
        if abs(step.bits) > LONGEST_STEP:
            middle = (left + right) / 2
            marks.append(
                f"<line class='cut' vector-effect='non-scaling-stroke' x1='{middle + 1:.2f}' "
                f"x2='{middle - 1:.2f}' y1='22' y2='78'/>"
            )
        rows.append(
            f"<div class='what'><b>{escape(step.title)}</b>{escape(step.text)}</div>"
            f"<div class='n num'>{bits(step.bits)}<i class='unit'>bits</i></div>{_draw(marks)}"
        )
    cut = " Bars beyond 60 bits are cut." if any(abs(s.bits) > LONGEST_STEP for s in steps) else ""
    return (
        f"<div class='rows steps' role='group' aria-label='{escape(label)}'>{''.join(rows)}</div>"
        "<p class='soft small'>Each bar begins where the one above it ends. 10 bits: one chance in a thousand; 20 "
        f"bits: one in a million.{cut}{'' if sums else ' The kinds are not independent, so no total is claimed.'}</p>"
    )


def _thin(x: float, top: float, bottom: float) -> str:
    return (
        f"<line class='step' vector-effect='non-scaling-stroke' x1='{x:.2f}' x2='{x:.2f}' "
        f"y1='{top:.0f}' y2='{bottom:.0f}'/>"
    )


def _draw(marks: Sequence[str]) -> str:
    inside = "".join(marks)
    return (
        f"<div class='draw'><svg viewBox='0 0 100 100' preserveAspectRatio='none' aria-hidden='true'>{inside}"
        "</svg></div>"
    )


@dataclass(frozen=True, slots=True)
class Sharing:
    """Who holds one kind of key: members and others."""

    title: str
    text: str
    inside: int
    members: int
    outside: int
    others: int


def sharing(kinds: Sequence[Sharing]) -> str:
    """For each kind of key, the share of members and of everybody else that holds one."""
    rows = [
        "<div class='head'></div><div class='n head'>others</div><div class='draw head'>share of the members</div>"
    ]
    for kind in kinds:
        inside = 100 * kind.inside / max(1, kind.members)
        outside = 100 * kind.outside / max(1, kind.others)
        marks = [
            *(
                f"<line class='rule' vector-effect='non-scaling-stroke' x1='{x}' x2='{x}' y2='100'/>"
                for x in (0, 50, 100)
            ),
            f"<rect class='bar' y='24' width='{inside:.2f}' height='34'/>",
            f"<rect class='bar other' y='62' width='{max(outside, 0.4 if kind.outside else 0):.2f}' height='16'/>",
        ]
        rows.append(
            f"<div class='what'><b>{escape(kind.title)}</b>{escape(kind.text)}</div>"
            f"<div class='n num'>{share(kind.outside, kind.others)}<i class='unit'>of others</i></div>{_draw(marks)}"
        )
    return (
        f"<div class='rows'>{''.join(rows)}</div><div class='legend'><span><i class='key'></i>members</span>"
        "<span><i class='key other'></i>all other accounts</span><span>lines at 0, half and all</span></div>"
    )


def spark(activity: Sequence[int]) -> str:
    """A group's activity in the size of a word."""
    values, _ = _binned(activity)
    top = max(*values, 1)
    bars = "".join(
        f"<rect class='bar' x='{i + 0.1}' y='{100 - 100 * n / top:.1f}' width='.8' height='{100 * n / top:.1f}'/>"
        for i, n in enumerate(values)
    )
    return (
        f"<svg viewBox='0 0 {len(values)} 100' preserveAspectRatio='none' role='img' aria-label='At most "
        f"{top:,} exchanges a {'day' if _width(len(activity)) == 1 else 'bar'}'>{bars}</svg>"
    )


def _width(days: int) -> int:
    """Days in one bar."""
    return 1 if days <= MOST_BINS else 7 if days <= 7 * MOST_BINS else -(-days // MOST_BINS)


def _binned(activity: Sequence[int]) -> tuple[list[int], int]:
    width = _width(len(activity))
    return [sum(activity[i : i + width]) for i in range(0, max(1, len(activity)), width)], width


def activity(
    values: Sequence[int],
    first_ts: str,
    releases: Sequence[tuple[str, str]],
    bans: Sequence[tuple[str, int]],
) -> str:
    """Exchanges of the members over time; releases (time, text) as flags, banned members (time, number) below.

    `values` are exchanges per day of the log, from the day of `first_ts`.
    """
    if not values:
        return ""
    bars, width = _binned(values)
    count, start = len(bars), date.fromisoformat(first_ts[:10])
    top = _nice(max(*bars, 1))

    def place(ts: str) -> int:
        return (date.fromisoformat(ts[:10]) - start).days // width

    marks = [
        f"<line class='rule' vector-effect='non-scaling-stroke' x2='{count}' y1='{y}' y2='{y}'/>"
        for y in (0, 50)
    ]
    unit = "day" if width == 1 else f"{width} days"
    for i, n in enumerate(bars):
        when = start + timedelta(days=i * width)
        marks.append(
            f"<rect class='bar' x='{i + 0.14:.2f}' y='{100 - 100 * n / top:.2f}' width='.72' "
            f"height='{100 * n / top:.2f}'><title>{when.day} {when:%b}: {plural(n, 'exchange')}</title></rect>"
        )
    flags, names = [], []
    seen = [(place(ts), ts, text) for ts, text in releases if 0 <= place(ts) < count]
    for number, (at, ts, text) in enumerate(seen, 1):
        x = at + 0.5
        marks.append(
            f"<line class='release' vector-effect='non-scaling-stroke' x1='{x}' x2='{x}' y1='0' y2='100'/>"
        )
        flags.append(f"<span class='flag' style='left:{100 * x / count:.2f}%'>R{number}</span>")
        names.append(
            f"<span><i class='key release'></i>R{number} {escape(text.rstrip('.'))}, {day(ts)}</span>"
        )
    banned: dict[int, int] = {}
    for ts, members in bans:
        if 0 <= place(ts) < count:
            banned[place(ts)] = banned.get(place(ts), 0) + members
    dense = " dense" if count > DENSE else ""
    pills = "".join(
        f"<span class='ban{dense}' style='left:{100 * (i + 0.5) / count:.2f}%' "
        f"title='{plural(n, 'member')} banned'>{n}</span>"
        for i, n in sorted(banned.items())
    )
    lane = f"<div class='lane'><span class='label'>bans</span>{pills}</div>" if banned else ""
    if banned:
        names.append("<span><i class='key stop'></i>members banned</span>")
    label = (
        f"Exchanges of the members per {unit}, at most {max(bars):,}. {plural(len(seen), 'release')} and "
        f"{plural(sum(banned.values()), 'ban')} of members are marked."
    )
    ys = "".join(f"<span class='y' style='bottom:{y}%'>{compact(top * y // 100)}</span>" for y in (50, 100))
    return (
        f"<figure style='margin:0' role='img' aria-label='{escape(label)}'><div class='plot'>"
        f"<svg viewBox='0 0 {count} 100' preserveAspectRatio='none'>{''.join(marks)}</svg>{ys}{''.join(flags)}</div>"
        f"<div class='axis'>{_ticks(start, count, width)}</div>{lane}<figcaption class='legend'>"
        f"<span><i class='key'></i>exchanges per {unit}</span>{''.join(names)}</figcaption></figure>"
    )


def _ticks(start: date, count: int, width: int) -> str:
    """At most five dates under the axis, the first and the last among them."""
    steps = min(4, count - 1)
    chosen = sorted({round(i * (count - 1) / steps) for i in range(steps + 1)}) if steps else [0]
    out = []
    for i in chosen:
        when = start + timedelta(days=i * width)
        out.append(f"<span class='x' style='left:{100 * (i + 0.5) / count:.2f}%'>{when.day} {when:%b}</span>")
    return "".join(out)


def _nice(top: int) -> int:
    """The next even round number, for an axis that is halved once."""
    size = 10 ** int(math.log10(top))
    for factor in (1, 2, 4, 6, 8, 10):
        if top <= factor * size and factor * size >= 2:
            return factor * size
    return max(2, top)
