"""`report.html`: the findings for a person, in one file that needs no network. Knows only the result records."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from html import escape
from importlib import resources
from typing import Any

from stillwatch.report import words
from stillwatch.report.charts import spark
from stillwatch.report.group import Rows, render_group
from stillwatch.schema.results import Group, Run, Sight
from stillwatch.store.results import Results


def render(results: Results) -> str:
    """The whole page."""
    findings = results.findings
    run = findings.run
    by_verdict = {v: [g for g in findings.groups if g.verdict == v] for v in ("campaign", "lead", "cleared")}
    named = by_verdict["campaign"] + by_verdict["lead"]
    rows = _rows(results, {group.id for group in named})
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>Stillwatch report</title><style>{style()}</style></head><body><main>",
        _head(run, by_verdict),
        _sight(run),
        _overview(named),
        "<h2>Campaigns</h2><p class='soft'>Coordinated, under hidden common control, and harvest-like. Fit for "
        "action after a person's review.</p>",
        "".join(render_group(g, run, rows[g.id]) for g in by_verdict["campaign"]) or "<p>None was found.</p>",
        "<h2>Leads</h2><p class='soft'>For an analyst, never for action.</p>",
        "".join(render_group(g, run, rows[g.id]) for g in by_verdict["lead"]) or "<p>None.</p>",
        "<h2>Cleared</h2><p class='soft'>Coordinated, and explained by a legitimate cause.</p>",
        _cleared(by_verdict["cleared"]),
        "<h2>What this does not show</h2>",
        "<p>Who is behind a campaign: naming an organisation is a person's conclusion. That a group that is not "
        "listed is honest: one that shares nothing measurable stays unseen. What is promised is the expected share "
        "of false groups among those named by comparison with honest groups (10 %); it holds while honest groups "
        "look like those.</p>",
        f"<p class='soft small'>Stillwatch {escape(run.version)}, seed {run.seed}, configuration "
        f"<code>{escape(run.config_digest[:12])}</code>"
        + (f", group ids kept from results <code>{escape(run.previous[:12])}</code>" if run.previous else "")
        + f". Inputs: {_inputs(run)}.</p>",
        "</main></body></html>\n",
    ]
    return "".join(parts)


@cache
def style() -> str:
    """The style of every page, without a network."""
    return resources.files("stillwatch.report").joinpath("report.css").read_text(encoding="utf-8")


def _rows(results: Results, names: set[str]) -> dict[str, Rows]:
    """The tables' rows of the groups that are shown in full."""
    accounts: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for row in results.accounts.to_pylist():
        if row["campaign_id"] in names:
            accounts[row["campaign_id"]].append(row)
    profile: dict[str, dict[str, Any]] = {name: {} for name in names}
    for row in results.profiles.to_pylist():
        if row["campaign_id"] in names:
            profile[row["campaign_id"]][row["key"]] = row
    families = {row["family_id"]: row for row in results.families.to_pylist()}
    return {name: Rows(accounts[name], families, profile[name]) for name in names}


def _inputs(run: Run) -> str:
    shown = [
        f"{escape(i.format)}, {words.plural(i.rows, 'row')}, <code>{escape(i.digest[:12])}</code>"
        for i in run.inputs
    ]
    more = f"; and {len(shown) - 5} more" if len(shown) > 5 else ""
    return "; ".join(shown[:5]) + more or "none"


def _head(run: Run, groups: dict[str, list[Group]]) -> str:
    counts = [
        (f"{len(groups['campaign']):,}", "campaign" if len(groups["campaign"]) == 1 else "campaigns"),
        (f"{len(groups['lead']):,}", "lead" if len(groups["lead"]) == 1 else "leads"),
        (f"{len(groups['cleared']):,}", "groups cleared"),
        (f"{run.accounts:,}", "accounts"),
        (f"{run.exchanges:,}", "exchanges"),
    ]
    if run.refused:
        counts.append((f"{run.refused:,}", "rows refused"))
    facts = "".join(f"<div><b>{number}</b>{name}</div>" for number, name in counts)
    notes = "".join(f"<p class='soft small'>{escape(note)}</p>" for note in [run.reach, *run.notes] if note)
    return (
        "<h1>Unauthorised coordinated harvesting</h1>"
        f"<p class='soft'>Request log of {words.span(run.first_ts, run.last_ts)}</p>"
        f"<div class='facts'>{facts}</div>{notes}"
    )


def _sight(run: Run) -> str:
    poor = [s for s in run.sight if s.state != "on"]
    good = [s for s in run.sight if s.state == "on"]
    rest = f"<details><summary>Detectors that saw</summary>{_detectors(good)}</details>" if good else ""
    if not poor:
        return f"<h2>What could not be seen</h2><p>Every detector had what it needs.</p>{rest}"
    return f"<h2>What could not be seen</h2>{_detectors(poor)}{rest}"


def _detectors(sight: Sequence[Sight]) -> str:
    rows = "".join(
        f"<tr><td>{escape(s.detector)}</td>"
        f"<td class='state'><i class='dot {s.state}'></i>{words.STATES[s.state]}</td><td>{escape(s.reason)}</td></tr>"
        for s in sight
    )
    return (
        "<div class='scroll'><table class='plain'><tr><th>detector</th><th>state</th><th>because</th></tr>"
        f"{rows}</table></div>"
    )


def _overview(groups: Sequence[Group]) -> str:
    if not groups:
        return ""
    rows = []
    for group in groups:
        best = max(group.evidence, key=lambda e: (e.kind == "DIRECT", e.bits), default=None)
        strongest = words.SIGNALS.get(best.signal, words.kind(best.signal)) if best else ""
        rows.append(
            f"<tr><td><span class='tag {group.verdict}'>{escape(words.verdict(group))}</span>"
            f"<a href='#{escape(group.id)}'><code>{escape(group.id)}</code></a></td>"
            f"<td class='n'>{group.accounts:,}</td><td class='n'>{group.exchanges:,}</td>"
            f"<td>{spark(group.activity) if group.activity else ''}</td><td>{escape(strongest)}</td></tr>"
        )
    return (
        "<h2>Groups, strongest first</h2><div class='scroll'><table class='plain overview'><tr><th>group</th>"
        "<th class='n'>accounts</th><th class='n'>exchanges</th><th>activity</th>"
        f"<th>strongest evidence</th></tr>{''.join(rows)}</table></div>"
    )


def _cleared(groups: Sequence[Group]) -> str:
    if not groups:
        return "<p>None.</p>"
    by_why: dict[str, list[Group]] = {}
    for group in groups:
        by_why.setdefault(group.why or "", []).append(group)
    parts = []
    for why, same in sorted(by_why.items(), key=lambda item: (len(item[1]), item[0])):
        rows = "".join(
            f"<tr><td><code>{escape(g.id)}</code></td><td class='n'>{g.accounts:,}</td>"
            f"<td class='n'>{g.exchanges:,}</td><td>{words.span(g.first_ts, g.last_ts)}</td></tr>"
            for g in same
        )
        parts.append(
            f"<details><summary>{escape(words.WHY.get(why, why)).capitalize()}: {words.plural(len(same), 'group')}, "
            f"{sum(g.accounts for g in same):,} accounts</summary><div class='scroll'><table class='plain'><tr>"
            "<th>group</th><th class='n'>accounts</th><th class='n'>exchanges</th><th>active</th></tr>"
            f"{rows}</table></div></details>"
        )
    return "".join(parts)
