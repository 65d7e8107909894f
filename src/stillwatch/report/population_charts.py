"""The pictures of the population view: tiers as shares of each month, techniques as rows of small bars."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from stillwatch.campaign.risk import TIERS
from stillwatch.report.population import Month

WORDS = {"upper": "medium or higher"}
SPACE = 0.16
"""Between bars, as a share of a month."""


def shares(months: Sequence[Month]) -> str:
    """Tiers as parts of each month, the highest at the bottom; the share of medium or higher with its interval."""
    if not months:
        return ""
    count = len(months)
    marks, said = [], []
    for i, month in enumerate(months):
        left, middle = i + SPACE, 100 * (i + 0.5) / count
        if month.gap or not month.accounts:
            words = "no<br>scan" if month.gap else "none" if month.accounts == 0 else "fewer<br>than 5"
            marks.append(
                f"<rect x='{left:.2f}' y='0' width='{1 - 2 * SPACE:.2f}' height='100' fill='var(--gap)'/>"
            )
            said.append(f"<span class='none' style='left:{middle:.2f}%'>{words}</span>")
            continue
        if month.share is None or month.share.value is None or month.share.interval is None:
            marks.append(
                f"<rect x='{left:.2f}' y='0' width='{1 - 2 * SPACE:.2f}' height='100' fill='var(--gap)'/>"
            )
            said.append(f"<span class='none' style='left:{middle:.2f}%'>not<br>shown</span>")
            continue
        marks += _bar(month, left)
        low, high = (100 * value for value in month.share.interval)
        x = i + 0.5
        marks.append(
            f"<path class='whisker' vector-effect='non-scaling-stroke' d='M{x} {100 - low:.2f}V{100 - high:.2f}"
            f"M{x - 0.09:.2f} {100 - low:.2f}H{x + 0.09:.2f}M{x - 0.09:.2f} {100 - high:.2f}H{x + 0.09:.2f}'/>"
        )
        said.append(
            f"<span class='said' style='left:{middle:.2f}%;bottom:calc(100% + .3rem)'>"
            f"{100 * month.share.value:.0f} %</span>"
        )
    rules = "".join(
        f"<line class='rule' vector-effect='non-scaling-stroke' x2='{count}' y1='{y}' y2='{y}'/>"
        for y in (0, 50)
    )
    ys = "".join(f"<span class='y' style='bottom:{y}%'>{y} %</span>" for y in (0, 50, 100))
    return (
        f"<figure style='margin:0' role='img' aria-label='{escape(_label(months))}'><div class='shares'>"
        f"<svg viewBox='0 0 {count} 100' preserveAspectRatio='none'>{rules}{''.join(marks)}</svg>{ys}"
        f"{''.join(said)}</div><div class='months'>{_names(months)}</div>"
        f"<figcaption class='legend'>{_legend()}<span>above: share of medium or higher, with its 95 % interval</span>"
        "</figcaption></figure>"
    )


def _bar(month: Month, left: float) -> list[str]:
    total, bottom = month.accounts or 1, 100.0
    out = []
    known: list[tuple[str, int | None]] = [(name, month.tiers[name]) for name in reversed(TIERS)]
    if any(count is None for _, count in known[:-1]):
        # Which of the upper tiers it is may not be told: they are drawn as one.
        known = [("upper", month.upper), ("low", month.tiers["low"])]
    for name, count in known:
        height = 100 * (count or 0) / total
        bottom -= height
        if count:
            out.append(
                f"<rect class='tier-{name}' x='{left:.2f}' y='{bottom:.2f}' width='{1 - 2 * SPACE:.2f}' "
                f"height='{height:.2f}'><title>{month.name}: {count:,} {WORDS.get(name, name)}</title></rect>"
            )
    return out


def _label(months: Sequence[Month]) -> str:
    told = [
        f"{m.name} {100 * m.share.value:.0f} %"
        for m in months
        if m.share is not None and m.share.value is not None
    ]
    return f"Share of accounts of medium or higher risk by month: {', '.join(told) or 'none is shown'}."


def _names(months: Sequence[Month]) -> str:
    count = len(months)
    every = max(1, -(-count // 12))
    return "".join(
        f"<span style='left:{100 * (i + 0.5) / count:.2f}%'>{_short(month.name, i == 0)}</span>"
        for i, month in enumerate(months)
        if i % every == 0
    )


NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _short(name: str, first: bool) -> str:
    year, _, number = name.partition("-")
    text = NAMES[int(number) - 1]
    return f"{text}<br>{year}" if first or number == "01" else text


def _legend() -> str:
    return "".join(f"<span><i class='swatch tier-{name}'></i>{name}</span>" for name in reversed(TIERS))


def row(months: Sequence[Month], id: str) -> str:
    """One technique: its share of each month's accounts."""
    marks = []
    for i, month in enumerate(months):
        count = month.techniques.get(id)
        if month.gap or count is None or not month.accounts:
            marks.append(f"<rect x='{i + 0.1}' y='0' width='.8' height='100' fill='var(--gap)'/>")
            continue
        height = 100 * count / month.accounts
        marks.append(
            f"<rect class='bar' x='{i + 0.1}' y='{100 - height:.1f}' width='.8' height='{height:.1f}'/>"
        )
    return (
        f"<svg viewBox='0 0 {max(1, len(months))} 100' preserveAspectRatio='none' aria-hidden='true'>"
        f"{''.join(marks)}</svg>"
    )


SIZE = (760, 380)
PLOT = (56, 40, 740, 310)
"""Left, top, right and bottom of the bars."""
LIGHT = ("#fffefb", "#1b211f", "#56605c", "#dcdcd3", "#cfd3cc", "#a9c4d8", "#2f6690", "#a3271c", "#e6e5dd")
DARK = ("#191e1c", "#e7ebe8", "#a0aba6", "#303836", "#3d4643", "#3c637d", "#74aed6", "#ff9184", "#20262a")
PARTS = ("page", "ink", "soft", "line", "low", "medium", "high", "critical", "gap")


def picture(months: Sequence[Month], title: str) -> str:
    """The same picture as a file of its own (SVG), for both themes."""
    left, top, right, bottom = PLOT
    high = bottom - top
    step = (right - left) / max(1, len(months))
    out = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {SIZE[0]} {SIZE[1]}' width='{SIZE[0]}' "
        f"height='{SIZE[1]}' font-family='system-ui,sans-serif' font-size='13' role='img'>",
        f"<title>{escape(title)}. {escape(_label(months))}</title><style>{_colours(LIGHT)}"
        f"@media (prefers-color-scheme:dark){{{_colours(DARK)}}}</style>",
        f"<rect class='page' width='{SIZE[0]}' height='{SIZE[1]}'/>",
        f"<text class='ink' x='{left}' y='18' font-weight='600'>{escape(title)}</text>",
    ]
    for y, text in ((0, "0 %"), (50, "50 %"), (100, "100 %")):
        at = bottom - high * y / 100
        out.append(f"<path class='stroke' d='M{left} {at:.1f}H{right}'/>")
        out.append(f"<text class='soft' x='{left - 8}' y='{at + 4:.1f}' text-anchor='end'>{text}</text>")
    for i, month in enumerate(months):
        begin, wide = left + step * (i + SPACE), step * (1 - 2 * SPACE)
        middle = left + step * (i + 0.5)
        every = max(1, -(-len(months) // 12))
        if i % every == 0:
            out.append(
                f"<text class='soft' x='{middle:.1f}' y='{bottom + 18}' text-anchor='middle'>"
                f"{_short(month.name, False).partition('<')[0]}</text>"
            )
            if i == 0 or month.name.endswith("-01"):
                out.append(
                    f"<text class='soft' x='{middle:.1f}' y='{bottom + 34}' "
                    f"text-anchor='middle'>{month.name[:4]}</text>"
                )
        share = month.share
        if month.gap or not month.accounts or share is None or share.value is None or share.interval is None:
            words = "no scan" if month.gap else "none" if month.accounts == 0 else "not shown"
            out.append(f"<rect class='gap' x='{begin:.1f}' y='{top}' width='{wide:.1f}' height='{high}'/>")
            out.append(
                f"<text class='soft' x='{middle:.1f}' y='{top + high / 2:.0f}' text-anchor='middle' font-size='11'>"
                f"{words}</text>"
            )
            continue
        for mark in _bar(month, 0.0):
            name = mark.split("tier-")[1].split("'")[0]
            above, height = (float(mark.split(f" {key}='")[1].split("'")[0]) for key in ("y", "height"))
            out.append(
                f"<rect class='{name}' x='{begin:.1f}' y='{top + high * above / 100:.1f}' width='{wide:.1f}' "
                f"height='{high * height / 100:.1f}'/>"
            )
        ends = [bottom - high * value for value in share.interval]
        out.append(
            f"<path class='whisk' d='M{middle:.1f} {ends[0]:.1f}V{ends[1]:.1f}M{middle - 5:.1f} {ends[0]:.1f}h10"
            f"M{middle - 5:.1f} {ends[1]:.1f}h10'/>"
        )
        out.append(
            f"<text class='ink' x='{middle:.1f}' y='{top - 6}' text-anchor='middle' font-weight='600'>"
            f"{100 * share.value:.0f} %</text>"
        )
    at_key = float(left)
    for name in reversed(TIERS):
        out.append(f"<rect class='{name}' x='{at_key:.0f}' y='352' width='12' height='12'/>")
        out.append(f"<text class='soft' x='{at_key + 17:.0f}' y='363'>{name}</text>")
        at_key += 82
    out.append(
        f"<text class='soft' x='{right}' y='363' text-anchor='end' font-size='11'>medium or higher, 95 % "
        "interval</text>"
    )
    return "".join(out) + "</svg>\n"


def _colours(values: Sequence[str]) -> str:
    named = dict(zip(PARTS, values, strict=True))
    named["upper"] = named["medium"]
    rules = "".join(f".{name}{{fill:{value}}}" for name, value in named.items())
    return (
        f"{rules}.stroke{{stroke:{named['line']};fill:none}}"
        f".whisk{{stroke:{named['ink']};stroke-width:1.5;fill:none}}"
    )
