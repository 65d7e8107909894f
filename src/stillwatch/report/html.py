"""`report.html`: the findings for a person, in one file that needs no network. Knows only the result records."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from html import escape

from stillwatch.schema.results import Claim, Evidence, Findings, Group, Run

WHY = {
    "one_view": "seen by one view only",
    "few_references": "too few reference groups to decide",
    "not_harvest_like": "coordinated, not shown to be harvest",
    "openly_one_customer": "openly one customer",
    "verified_entity": "one verified organisation",
    "registered_gateway": "a registered gateway",
    "contract": "permitted by contract",
    "benchmark": "a benchmark",
    "classroom": "a class",
}
CLAIMS = {
    "coordinated": "Are these accounts coordinated?",
    "one_director": "Is there one hidden director?",
    "harvest_like": "Is it harvest-like?",
}
KINDS = {"FORM": "what requests look like", "LINK": "what accounts share", "TIME": "when they act",
         "DIRECT": "direct test of one director"}  # fmt: skip

_STYLE = """
:root{color-scheme:light dark;--bg:#fafaf7;--fg:#1c2321;--soft:#5a6663;--line:#d9ddd8;--card:#fff;
--campaign:#b3261e;--lead:#8a5a00;--cleared:#2c6e49;--bar:#39708f;--mark:#b3261e}
@media (prefers-color-scheme:dark){:root{--bg:#141817;--fg:#e6ebe8;--soft:#9aa7a2;--line:#2e3634;--card:#1b201f;
--campaign:#ff8a80;--lead:#e8b45a;--cleared:#7fc99a;--bar:#7fb4d1;--mark:#ff8a80}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.6rem;margin:0 0 .3rem}h2{font-size:1.2rem;margin:2.2rem 0 .6rem}
h3{font-size:1rem;margin:1.2rem 0 .3rem}
p{margin:.4rem 0}.soft{color:var(--soft)}.small{font-size:.875rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:1rem 1.1rem;margin:.9rem 0}
.campaign{border-left:.35rem solid var(--campaign)}.lead{border-left:.35rem solid var(--lead)}
.tag{font-weight:600}.tag.campaign,.tag.lead,.tag.cleared{border:0}
.tag.campaign{color:var(--campaign)}.tag.lead{color:var(--lead)}.tag.cleared{color:var(--cleared)}
code{font-size:.9em;overflow-wrap:anywhere}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td.n,th.n{text-align:right}.facts{display:flex;flex-wrap:wrap;gap:.4rem 2rem;margin:.5rem 0}
.facts b{display:block;font-size:1.25rem}svg{width:100%;height:auto;display:block}
svg text{fill:var(--soft);font:11px system-ui,sans-serif}details summary{cursor:pointer;margin:.5rem 0}
.bar{fill:var(--bar)}.mark{stroke:var(--mark);stroke-dasharray:3 3}.axis{stroke:var(--line)}
.row{display:grid;grid-template-columns:minmax(0,1fr) 4.5rem;gap:0 .6rem;align-items:end;margin:.55rem 0}
.track{grid-column:1/3;background:var(--line);height:.45rem;border-radius:.25rem;overflow:hidden}
.fill{background:var(--bar);height:100%}.fill.against{background:var(--cleared)}
.bits{text-align:right;color:var(--soft);font-size:.875rem}
"""


def render(findings: Findings) -> str:
    """The whole page."""
    run = findings.run
    campaigns = [g for g in findings.groups if g.verdict == "campaign"]
    leads = [g for g in findings.groups if g.verdict == "lead"]
    cleared = [g for g in findings.groups if g.verdict == "cleared"]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>Stillwatch report</title><style>{_STYLE}</style></head><body><main>",
        _head(run, len(campaigns), len(leads), len(cleared)),
        "<h2>Campaigns</h2>",
        "".join(_group(g, run) for g in campaigns) or "<p>None was found.</p>",
        "<h2>Leads</h2><p class='soft'>For an analyst, never for action.</p>",
        "".join(_group(g, run) for g in leads) or "<p>None.</p>",
        "<h2>Cleared</h2>",
        _cleared(cleared),
        "<h2>What could not be seen</h2>",
        _sight(run),
        "<h2>What this does not show</h2>",
        "<p>Who is behind a campaign: naming an organisation is a person's conclusion. That a group that is not "
        "listed is honest: one that shares nothing measurable stays unseen. What is promised is the expected share "
        "of false groups among those named by references (10 %); it holds while honest groups look like the "
        "references.</p>",
        f"<p class='soft small'>Version {escape(run.version)}, seed {run.seed}, configuration "
        f"<code>{run.config_digest[:12]}</code>.</p>",
        "</main></body></html>\n",
    ]
    return "".join(parts)


def _head(run: Run, campaigns: int, leads: int, cleared: int) -> str:
    notes = "".join(f"<p class='soft small'>{escape(note)}</p>" for note in [run.reach, *run.notes])
    refused = f"<div><b>{run.refused:,}</b>rows refused</div>" if run.refused else ""
    return (
        "<h1>Unauthorised coordinated harvesting</h1>"
        f"<p class='soft'>{run.first_ts[:10]} to {run.last_ts[:10]}</p><div class='facts'>"
        f"<div><b>{run.accounts:,}</b>accounts</div><div><b>{run.exchanges:,}</b>exchanges</div>{refused}"
        f"<div><b>{campaigns}</b>campaigns</div><div><b>{leads}</b>leads</div>"
        f"<div><b>{cleared}</b>groups cleared</div></div>{notes}"
    )


def _group(group: Group, run: Run) -> str:
    why = f": {WHY.get(group.why, group.why)}" if group.why else ""
    return (
        f"<section class='card {group.verdict}' id='{escape(group.id)}'>"
        f"<p><span class='tag {group.verdict}'>{group.verdict}{escape(why)}</span> "
        f"<code>{escape(group.id)}</code></p>"
        f"<div class='facts'><div><b>{group.accounts:,}</b>accounts</div>"
        f"<div><b>{group.exchanges:,}</b>exchanges</div>"
        f"<div><b>{group.harvest_exchanges:,}</b>in its own templates</div></div>"
        f"{_activity(group, run)}"
        f"<h3>Claims</h3>{''.join(_claim(c) for c in group.claims)}"
        f"<h3>Evidence, in bits</h3>{_waterfall(group.evidence, against=False)}"
        f"<h3>What speaks against it</h3>{_waterfall(group.counter_evidence, against=True)}"
        f"{_keys(group.evidence)}{_timeline(group)}"
        f"<p class='small'><b>Recommended.</b> {escape(group.recommended_action)}</p></section>"
    )


def _claim(claim: Claim) -> str:
    numbers = []
    if claim.p is not None:
        numbers.append(f"p = {claim.p:.2g}")
    if claim.q is not None:
        numbers.append(f"q = {claim.q:.2g}")
    if claim.references is not None:
        numbers.append(f"{claim.references} references")
    mark = "Yes." if claim.holds else "Not shown."
    return (
        f"<p><b>{CLAIMS.get(claim.name, claim.name)}</b> {mark} <span class='soft small'>{', '.join(numbers)}</span>"
        f"<br><span class='small'>{escape(claim.text)}</span></p>"
    )


def _waterfall(parts: Sequence[Evidence], *, against: bool) -> str:
    if not parts:
        return "<p class='small'>Nothing was found.</p>"
    largest = max(max(abs(part.bits) for part in parts), 1.0)
    rows = []
    for part in sorted(parts, key=lambda e: -abs(e.bits)):
        width = 100 * abs(part.bits) / largest
        kind = f"<b>{KINDS.get(part.kind, '')}</b> " if part.kind in KINDS else ""
        fill = "fill against" if against else "fill"
        shown = f"{part.bits:.1f}" if abs(part.bits) < 1000 else f"{part.bits:,.0f}"
        rows.append(
            f"<div class='row'><div class='small'>{kind}{escape(part.text)}</div><div class='bits'>{shown}</div>"
            f"<div class='track'><div class='{fill}' style='width:{width:.1f}%'></div></div></div>"
        )
    return "".join(rows)


def _keys(parts: Sequence[Evidence]) -> str:
    rows = [
        f"<tr><td>{escape(key.key_kind.replace('_', ' '))}</td><td><code>{key.key}</code></td>"
        f"<td class='n'>{key.group_count} of {key.group_total}</td>"
        f"<td class='n'>{key.background_count:,} of {key.background_total:,}</td></tr>"
        for part in parts
        for key in part.keys
    ]
    if not rows:
        return ""
    return (
        "<details><summary>Who shares what</summary><div class='scroll'><table><tr><th>kind</th><th>key</th>"
        f"<th class='n'>members</th><th class='n'>others</th></tr>{''.join(rows)}</table></div></details>"
    )


def _timeline(group: Group) -> str:
    rows = "".join(
        f"<tr><td>{e.ts[:16].replace('T', ' ')}</td><td>{escape(e.text)}</td></tr>" for e in group.timeline
    )
    return f"<details><summary>Timeline</summary><div class='scroll'><table>{rows}</table></div></details>"


def _activity(group: Group, run: Run) -> str:
    """Exchanges per day as bars, releases and bans as dashed lines."""
    days = len(group.activity)
    if days == 0:
        return ""
    width, height, base = 640.0, 120.0, 96.0
    step = width / days
    top = max(*group.activity, 1)
    bars = [
        f"<rect class='bar' x='{i * step + 1:.1f}' y='{base - 80 * n / top:.1f}' width='{max(1.0, step - 2):.1f}' "
        f"height='{80 * n / top:.1f}'><title>day {i + 1}: {n:,} exchanges</title></rect>"
        for i, n in enumerate(group.activity)
    ]
    marks = []
    for event in group.timeline:
        if event.kind in ("release", "sanction"):
            day = _day(event.ts) - _day(run.first_ts)
            x = (day + 0.5) * step
            marks.append(
                f"<line class='mark' x1='{x:.1f}' x2='{x:.1f}' y1='8' y2='{base}'>"
                f"<title>{escape(event.text)}</title></line>"
            )
    label = f"Exchanges of the members per day; at most {top:,} a day. Dashed lines are releases and bans."
    return (
        f"<svg viewBox='0 0 {width:.0f} {height:.0f}' role='img' aria-label='{label}'>{''.join(bars)}{''.join(marks)}"
        f"<line class='axis' x1='0' x2='{width:.0f}' y1='{base}' y2='{base}'/>"
        f"<text x='0' y='114'>{run.first_ts[:10]}</text>"
        f"<text x='{width:.0f}' y='114' text-anchor='end'>{run.last_ts[:10]}</text></svg>"
        f"<p class='soft small'>{label}</p>"
    )


def _day(ts: str) -> int:
    return date.fromisoformat(ts[:10]).toordinal()


def _cleared(groups: Sequence[Group]) -> str:
    if not groups:
        return "<p>None.</p>"
    rows = "".join(
        f"<tr><td>{escape(WHY.get(g.why or '', g.why or ''))}</td><td><code>{escape(g.id)}</code></td>"
        f"<td class='n'>{g.accounts:,}</td><td class='n'>{g.exchanges:,}</td></tr>"
        for g in groups
    )
    return (
        f"<details><summary>{len(groups)} coordinated groups with a legitimate cause</summary><div class='scroll'>"
        "<table><tr><th>cause</th><th>group</th><th class='n'>accounts</th><th class='n'>exchanges</th></tr>"
        f"{rows}</table></div></details>"
    )


def _sight(run: Run) -> str:
    rows = "".join(
        f"<tr><td>{escape(s.detector)}</td><td>{s.state}</td><td>{escape(s.reason)}</td></tr>"
        for s in run.sight
    )
    return f"<div class='scroll'><table><tr><th>detector</th><th>state</th><th>because</th></tr>{rows}</table></div>"
