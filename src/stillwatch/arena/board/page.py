"""The scoreboard as one self-contained page: pictures first, every number in a table below."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any

from stillwatch.arena.board.adversary import HEAD, search_rows
from stillwatch.arena.board.tables import Board, number, of, spread


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a chart: filled spans on a scale from 0 to 1, and an interval over them."""

    title: str
    text: str
    spans: tuple[tuple[float, str], ...]
    """Lengths one after the other, each with its class."""
    interval: tuple[float, float] | None
    shown: str


def chart(rows: Sequence[Bar], head: str, unit: str) -> str:
    """Bars side by side with their numbers."""
    cells = [
        f"<div class='head'></div><div class='n head'>{escape(unit)}</div><div class='draw head'>{head}</div>"
    ]
    for row in rows:
        marks = [
            f"<line class='rule' vector-effect='non-scaling-stroke' x1='{x}' x2='{x}' y2='100'/>"
            for x in (0, 50, 100)
        ]
        left = 0.0
        for length, kind in row.spans:
            marks.append(
                f"<rect class='bar {kind}' x='{100 * left:.2f}' y='25' width='{100 * length:.2f}' height='50'/>"
            )
            left += length
        if row.interval is not None:
            low, high = (100 * max(0.0, min(1.0, v)) for v in row.interval)
            marks.append(
                f"<line class='reach' vector-effect='non-scaling-stroke' x1='{low:.2f}' x2='{high:.2f}' "
                "y1='50' y2='50'/>"
            )
        cells.append(
            f"<div class='what'><b>{escape(row.title)}</b>{escape(row.text)}</div>"
            f"<div class='n num'>{escape(row.shown)}</div><div class='draw'><svg viewBox='0 0 100 100' "
            f"preserveAspectRatio='none' aria-hidden='true'>{''.join(marks)}</svg></div>"
        )
    return f"<div class='rows chart'>{''.join(cells)}</div>"


def render(board: Board) -> str:
    """The whole page."""
    css = "".join(
        resources.files(room).joinpath(name).read_text(encoding="utf-8")
        for room, name in (("stillwatch.report", "report.css"), ("stillwatch.arena.board", "board.css"))
    )
    sections = [
        ("Beside other methods", _methods(board)),
        ("Precision against the size of the population", _curve(board)),
        ("Recall by operation", _operations(board)),
        ("Recall by harvest share", _shares(board)),
        ("When an operation is found", _found(board)),
        ("Honest accounts in campaigns", _lookalikes(board)),
        ("False groups: promised and achieved", _false_groups(board)),
        ("What it costs to get past", _adversaries(board)),
        ("Runs that failed", _failures(board)),
    ]
    body = "".join(f"<h2>{escape(title)}</h2>{text}" for title, text in sections if text)
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' "
        "content='width=device-width, initial-scale=1'><title>Stillwatch scoreboard</title>"
        f"<style>{css}</style></head><body><main>{_head(board)}{body}</main></body></html>\n"
    )


def _head(board: Board) -> str:
    mine = [line for line in board["lines"] if line["method"] == board["main"] and line["setting"] == "all"]
    logs = sum(len(line["seeds"]) for line in mine)
    honest = next((row for row in board["lookalikes"] if row["kind"] == "all"), None)
    facts = [(f"{logs}", "made logs"), (f"{sum(line['operations'] for line in mine)}", "operations")]
    if honest is not None:
        facts.append((f"{honest['hits']:,}", f"of {honest['total']:,} honest accounts in a campaign"))
    facts.append((str(sum(line["false_campaigns"] for line in mine)), "false campaigns"))
    versions = ", ".join(escape(name) for name in board["versions"])
    return (
        "<h1>Scoreboard</h1><p class='soft'>Detection on synthetic logs with known truth. Every log is composed "
        "by the arena; each number is over the seeds that are named.</p>"
        f"<div class='facts'>{''.join(f'<div><b>{a}</b>{escape(b)}</div>' for a, b in facts)}</div>"
        f"<p class='soft small'>Measured with <code>{versions}</code></p>"
    )


def _clipped(value: float | None) -> float:
    return 0.0 if value is None else max(0.0, min(1.0, value))


def _interval(mean: dict[str, Any]) -> tuple[float, float] | None:
    return None if mean["low"] is None else (mean["low"], mean["high"])


def _methods(board: Board) -> str:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in board["lines"]:
        if line["operations"]:
            groups[line["group"]].append(line)
    out = []
    for lines in groups.values():
        first = lines[0]
        ranked = sorted(
            lines, key=lambda x: (x["method"] != board["main"], x["setting"] != "all", x["method"])
        )
        for measure in ("precision", "recall"):
            rows = [
                Bar(
                    line["method"],
                    "" if line["setting"] == "all" else line["setting"],
                    ((_clipped(line[measure]["value"]), "" if line["method"] == board["main"] else "other"),),
                    _interval(line[measure]),
                    number(line[measure]["value"]),
                )
                for line in ranked
            ]
            what = first["operation"] or "all operations"
            seeds = len(first["seeds"])
            out.append(
                f"<h3>{measure.capitalize()}: {escape(first['scenario'])}, {first['accounts']:,} accounts, "
                f"{escape(what)}, {seeds} seed{'s' if seeds != 1 else ''}</h3>"
                + chart(rows, "share of accounts, lines at 0, half and all", measure)
            )
    about = "".join(f"<li><b>{escape(k)}</b>: {escape(v)}</li>" for k, v in board["about"].items())
    return (
        "".join(out) + (f"<ul class='list small'>{about}</ul>" if len(board["about"]) > 1 else "")
        if out
        else ""
    )


def _operations(board: Board) -> str:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in board["operations"]:
        groups[row["group"]].append(row)
    out = []
    for group, rows in groups.items():
        bars = [
            Bar(
                row["operation"].replace("_", " "),
                f"found {row['found']} of {row['of']}",
                (
                    (_clipped(row["named"]["value"]), ""),
                    (min(row["led"] / row["named"]["total"], 1 - _clipped(row["named"]["value"])), "lead"),
                ),
                (row["named"]["low"], row["named"]["high"]),
                f"{row['named']['hits']}/{row['named']['total']}",
            )
            for row in sorted(rows, key=lambda r: (-(r["named"]["value"] or 0), r["operation"]))
        ]
        out.append(f"<h3>{escape(group)}</h3>" + chart(bars, "share of its accounts", "accounts"))
    legend = (
        "<div class='legend'><span><i class='key'></i>in a campaign</span><span><i class='key' "
        "style='background:var(--lead);opacity:.55'></i>in a lead</span><span>line: 95 % interval</span></div>"
    )
    return "".join(out) + legend if out else ""


def _shares(board: Board) -> str:
    bars, before = [], 0.0
    for row in board["shares"]:
        named = row["named"]
        bars.append(
            Bar(
                f"{before:.0%} to {row['up_to']:.0%} harvest",
                f"found {row['found']} of {row['operations']}",
                ((_clipped(named["value"]), ""),),
                (named["low"], named["high"]),
                number(named["value"]),
            )
        )
        before = row["up_to"]
    return chart(bars, "share of the accounts, lines at 0, half and all", "recall") if bars else ""


def _curve(board: Board) -> str:
    if not board["curve"]:
        return ""
    out = []
    for scenario in dict.fromkeys(row["scenario"] for row in board["curve"]):
        rows = [row for row in board["curve"] if row["scenario"] == scenario]
        for measure in ("precision", "recall"):
            out.append(
                f"<h3>{measure.capitalize()}, {escape(scenario)}</h3>{_plot(rows, measure, board['main'])}"
            )
    return "".join(out)


def _plot(rows: Sequence[dict[str, Any]], measure: str, main: str) -> str:
    """A measure against the number of accounts (logarithmic), a line a method."""
    sizes = sorted({row["accounts"] for row in rows})
    low, high = math.log(sizes[0]), math.log(sizes[-1])
    span = max(high - low, 1e-9)
    marks = [
        f"<line class='rule' vector-effect='non-scaling-stroke' x2='100' y1='{y}' y2='{y}'/>" for y in (0, 50)
    ]
    points, labels = [], []
    for method in sorted({row["method"] for row in rows}, key=lambda name: name == main):
        mine = sorted((r for r in rows if r["method"] == method), key=lambda r: r["accounts"])
        kind = "" if method == main else " rest"
        spots = [
            (100 * (math.log(r["accounts"]) - low) / span, 100 - 100 * r[measure]["value"], r)
            for r in mine
            if r[measure]["value"] is not None
        ]
        if not spots:
            continue
        marks.append(
            f"<polyline class='trace{kind}' vector-effect='non-scaling-stroke' "
            f"points='{' '.join(f'{x:.2f},{y:.2f}' for x, y, _ in spots)}'/>"
        )
        for x, y, r in spots:
            title = f"{method}, {r['accounts']:,} accounts: {spread(r[measure])}"
            points.append(
                f"<i class='point{kind}' style='left:{x:.2f}%;top:{y:.2f}%' title='{escape(title)}'></i>"
            )
        labels.append((spots[-1][1], f"{method} {spots[-1][2][measure]['value']:.3f}", spots[-1][0]))
    placed, last = [], -20.0
    for y, text, x in sorted(labels):
        last = max(y, last + 9)
        placed.append(f"<span class='tag-at' style='left:{x:.2f}%;top:{last:.2f}%'>{escape(text)}</span>")
    ys = "".join(f"<span class='y' style='bottom:{y}%'>{y / 100:g}</span>" for y in (0, 50, 100))
    xs = "".join(
        f"<span class='x' style='left:{100 * (math.log(s) - low) / span:.2f}%'>{s:,}</span>" for s in sizes
    )
    return (
        f"<div class='plot wide' role='img' aria-label='{measure} against accounts'><svg viewBox='0 0 100 100' "
        f"preserveAspectRatio='none'>{''.join(marks)}</svg>{ys}{''.join(points)}{''.join(placed)}</div>"
        f"<div class='axis' style='margin-right:8.5rem'>{xs}</div>"
    )


def _found(board: Board) -> str:
    rows = sorted(board["found"], key=lambda r: (r["share"] is None, r["share"] or 0, r["operation"]))
    if not rows:
        return ""
    bars = [
        Bar(
            row["operation"].replace("_", " "),
            f"{row['cell']}, {row['accounts']:,} accounts, {row['exchanges']:,} exchanges",
            ((0.0 if row["share"] is None else row["share"], ""),),
            None,
            "not found" if row["found"] is None else f"day {row['found']['days']}, {row['share']:.0%}",
        )
        for row in rows
    ]
    return (
        "<p class='soft'>Share of an operation's exchanges that was taken when most of its accounts so far were "
        "first in a campaign; the log was cut after 1, 2, 3, 4, 5, 7, 10 and 14 days.</p>"
        + chart(bars, "share taken", "")
    )


def _lookalikes(board: Board) -> str:
    rows = board["lookalikes"]
    if not rows:
        return ""
    most = max(row["upper_bound"] for row in rows)
    bars = [
        Bar(
            row["kind"].replace("_", " "),
            of(row),
            ((_clipped((row["value"] or 0) / most), "" if row["kind"] != "all" else "other"),),
            (0.0, row["upper_bound"] / most),
            f"≤ {row['upper_bound']:.5f}",
        )
        for row in rows
    ]
    return (
        "<p class='soft'>Bars: the share seen; lines: up to the one-sided 95 % bound, which is wide where few "
        "accounts of a kind were composed.</p>" + chart(bars, f"0 to {most:.4f}", "bound")
    )


def _false_groups(board: Board) -> str:
    bars = []
    for row in board["false_groups"]:
        a = row["achieved"]
        bars.append(
            Bar(
                row["setting"],
                f"{of(a)} campaigns false, {row['logs']} logs; promised {row['nominal']:.0%} at most",
                ((_clipped(a["value"]), ""),),
                (a["low"], a["high"]),
                number(a["value"], 4),
            )
        )
    return chart(bars, "share of the campaigns named", "achieved") if bars else ""


def _adversaries(board: Board) -> str:
    out = []
    for found in board.get("adversaries", ()):
        lines = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in search_rows(found)
        )
        head = "".join(f"<th>{escape(name)}</th>" for name in HEAD)
        out.append(
            f"<h3>Past the verdict {escape(found['past'])}: {len(found['trials'])} operations tried, "
            f"{found['accounts']:,} accounts a log</h3><div class='scroll'>"
            f"<table><tr>{head}</tr>{lines}</table></div>"
        )
    note = (
        "<p class='soft'>Accounts times days for a million harvested exchanges of accounts that nobody acted on. "
        "The adversary knew the detector and chose size, intensity, cover, wordings and what to buy.</p>"
    )
    return note + "".join(out) if out else ""


def _failures(board: Board) -> str:
    rows = "".join(
        f"<tr><td>{escape(r['cell'])}</td><td>{escape(r['method'])}</td><td>{escape(r['failure'])}</td></tr>"
        for r in board["failures"]
    )
    head = "<tr><th>log</th><th>method</th><th>what went wrong</th></tr>"
    return f"<div class='scroll'><table>{head}{rows}</table></div>" if rows else ""
