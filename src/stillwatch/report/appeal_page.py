"""The dossier as text for the terminal, as pages, and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from html import escape
from typing import Any

from stillwatch.report import words
from stillwatch.report.appeal import Facts
from stillwatch.report.appeal_review import Part, review
from stillwatch.report.appeal_told import Told, told_html
from stillwatch.report.charts import waterfall
from stillwatch.report.explain import printable
from stillwatch.report.group import marked
from stillwatch.report.html import style

WIDTH = 100
STYLE = """
.dossier td{min-width:7rem}
.dossier td:last-child{overflow-wrap:anywhere}
.dossier th,.dossier td{vertical-align:top}
@media (max-width:40rem){
.dossier tr:first-child{display:none}
.dossier tr{display:block;padding:.5rem 0;border-bottom:1px solid var(--line)}
.dossier td{display:block;border:0;padding:.1rem 0}
.dossier td:first-child{font-weight:600}
.dossier td:not(:first-child)::before{content:attr(data-label) ": ";color:var(--soft)}
}
main.letter{max-width:44rem}
.letter .list li{font-size:1rem}
"""


def review_text(facts: Facts, at: datetime) -> str:
    """The reviewer's text, ending in a newline."""
    lines = [f"Appeal of {printable(facts.account)}: for the reviewer, not for the account"]
    for part in review(facts, at):
        lines += ["", part.title]
        lines += [_wrapped(text, 2) for text in part.text]
        lines += [_wrapped(point, 4, "  - ") for point in part.points]
        for row in part.rows:
            lines += _row(part.head, row)
        for step in part.steps:
            lines.append(_wrapped(f"{step.title}: {step.text}", 10, f"  {words.bits(step.bits):>6}  "))
        lines += [_wrapped(text, 2) for text in part.after]
    return "\n".join(lines) + "\n"


def _wrapped(text: str, indent: int, first: str | None = None) -> str:
    space = " " * indent
    parts = printable(text).split("\n")
    out = []
    for number, part in enumerate(parts):
        lead = first if number == 0 and first is not None else space
        out.append(
            textwrap.fill(part, WIDTH, initial_indent=lead, subsequent_indent=space, break_on_hyphens=False)
        )
    return "\n".join(out)


def _row(head: Sequence[str], row: Sequence[str]) -> list[str]:
    """A table's row as a point, its other columns below it by name."""
    lines = [_wrapped(row[0], 4, "  - ")]
    for name, value in zip(head[1:], row[1:], strict=True):
        if value:
            lines.append(_wrapped(value, 6, f"    {name}: "))
    return lines


def review_page(facts: Facts, at: datetime) -> str:
    """The reviewer's page, self-contained."""
    parts = []
    for part in review(facts, at):
        inside = [f"<p>{_inline(text)}</p>" for text in part.text]
        if part.points:
            inside.append(
                "<ul class='list'>" + "".join(f"<li>{_inline(point)}</li>" for point in part.points) + "</ul>"
            )
        if part.rows:
            inside.append(_table(part))
        if part.steps:
            inside.append(waterfall(part.steps, part.title, sums=True))
        inside += [f"<p class='soft small'>{_inline(text)}</p>" for text in part.after]
        parts.append(f"<h3>{escape(part.title)}</h3>{''.join(inside)}")
    return _page(
        "Appeal: for the reviewer",
        f"<h1>An appeal</h1><p class='soft'>For the reviewer, not for the account. "
        f"<code>{escape(printable(facts.account))}</code></p><section class='card "
        f"dossier'>{''.join(parts)}</section>",
    )


def _inline(text: str) -> str:
    """Text with `code` in it."""
    pieces = escape(printable(text)).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 and i + 1 < len(pieces) else p for i, p in enumerate(pieces))


def _table(part: Part) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in part.head)
    rows = []
    for row in part.rows:
        cells = []
        for name, value in zip(part.head, row, strict=True):
            shown = marked(printable(value)) if name == "wording" else _inline(value)
            cells.append(f"<td data-label='{escape(name)}'>{shown}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table class='plain'><tr>{head}</tr>{''.join(rows)}</table>"


def told_page(told: Told) -> str:
    """The account's page, self-contained."""
    return _page("About your account", told_html(told), letter=True)


def _page(title: str, inside: str, *, letter: bool = False) -> str:
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{style()}{STYLE}</style></head>"
        f"<body><main{' class=letter' if letter else ''}>{inside}</main></body></html>\n"
    )


def review_plain(facts: Facts, at: datetime) -> dict[str, Any]:
    """The reviewer's parts for JSON, with the numbers that they rest on."""
    named = facts.named
    out: dict[str, Any] = {
        "account": facts.account,
        "campaign": facts.campaign,
        "found_inline": facts.found,
        "reference": facts.reference,
        "free": facts.free,
        "results": facts.digest,
        "parts": [asdict(part) for part in review(facts, at)],
    }
    if named is not None:
        margin = named.margin
        out["margin"] = {
            "strongest": margin.strongest,
            "besides_bits": round(margin.besides, 6),
            "needed_bits": round(margin.needed, 6),
            "over_bits": round(margin.over, 6),
            "hangs_on": [
                {"view": view, "key_kind": kind, "key": key, "bits": bits}
                for view, kind, key, bits in margin.hangs_on
            ],
        }
    return out
