"""One group on the page: claims, activity, evidence, counter-evidence, who shares what, what it sends, members."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from stillwatch.report import words
from stillwatch.report.charts import Sharing, Step, activity, sharing, waterfall
from stillwatch.schema.results import Claim, Evidence, Group, Run, TimelineEvent

MOST_MEMBERS = 40
MOST_FAMILIES = 8
COMMON = 0.01
"""Share of the other accounts from which a wording is everyday language and says nothing about the group."""
BLANK, MASK = "▢", "▪"


@dataclass(frozen=True, slots=True)
class Rows:
    """What the tables say about one group, as plain rows."""

    accounts: Sequence[Mapping[str, Any]]
    families: Mapping[str, Mapping[str, Any]]
    """Every family of the results by its id."""
    profile: Mapping[str, Mapping[str, Any]]
    """The group's keys by their hash."""


def render_group(group: Group, run: Run, rows: Rows) -> str:
    """The whole section."""
    own = f", {group.harvest_exchanges:,} of them in its own templates" if group.harvest_exchanges else ""
    descent = "".join(
        f"<p class='soft small'>{text} {escape(words.listed(names))}.</p>"
        for text, names in (("Takes in the earlier", group.merged_from), ("Split off from", group.split_from))
        if names
    )
    return (
        f"<section class='card' id='{escape(group.id)}'><div class='top'>"
        f"<span class='tag {group.verdict}'>{escape(words.verdict(group).capitalize())}</span>"
        f"<code class='soft'>{escape(group.id)}</code></div>"
        f"<p class='name'>{_title(group)}</p>"
        f"<p>{words.plural(group.exchanges, 'exchange')}{own}, {words.span(group.first_ts, group.last_ts)}.</p>"
        f"{_asked(group)}{descent}"
        f"<p class='do small'><b>What to do.</b> {escape(group.recommended_action)}</p>"
        f"<div class='claims'>{''.join(_claim(c) for c in group.claims)}</div>"
        f"<h3>Activity</h3>{_activity(group, run)}"
        f"<h3>Evidence, in bits</h3>{_evidence(group)}"
        f"<h3>What speaks against it</h3>{_against(group.counter_evidence)}"
        f"{_sharing(group)}{_families(group, rows)}{_members(rows.accounts)}{_keys(group.evidence)}"
        f"{_timeline(group.timeline)}</section>"
    )


def _asked(group: Group) -> str:
    asked = words.asked(group.capabilities)
    return f"<p class='soft small'>{escape(asked)}</p>" if asked else ""


def _title(group: Group) -> str:
    what = {
        "campaign": "harvest as one",
        "lead": "act as one",
        "cleared": "act as one, for a known reason",
    }[group.verdict]
    return f"{words.plural(group.accounts, 'account')} {what}"


def _claim(claim: Claim) -> str:
    numbers = words.claim_numbers(claim)
    answer = "Yes" if claim.holds else "Not shown"
    return (
        f"<div class='claim{' yes' if claim.holds else ''}'>"
        f"<div class='q'>{escape(words.CLAIMS.get(claim.name, claim.name))}</div><div class='a'>{answer}</div>"
        f"<div class='small'>{escape(claim.text)}</div><div class='soft small'>{', '.join(numbers)}</div></div>"
    )


def _activity(group: Group, run: Run) -> str:
    bans = []
    for event in group.timeline:
        if event.kind == "sanction":
            number = re.match(r"\d+", event.text)
            bans.append((event.ts, int(number.group()) if number else 1))
    return activity(group.activity, run.first_ts, [(r.ts, r.text) for r in run.releases], bans)


def _evidence(group: Group) -> str:
    order = ("FORM", "LINK", "TIME", "DIRECT")
    ranked = sorted(
        group.evidence,
        key=lambda e: (order.index(e.kind) if e.kind in order else len(order), -e.bits, e.signal),
    )
    steps = [Step(_heading(part), part.text, part.bits) for part in ranked]
    steps += [
        Step("Against", part.text, part.bits)
        for part in sorted(group.counter_evidence, key=lambda e: e.bits)
        if part.bits < 0
    ]
    return waterfall(steps, "Evidence in bits, kind by kind")


def _heading(part: Evidence) -> str:
    kind = words.KINDS.get(part.kind, part.kind)
    return f"{kind}: {words.SIGNALS.get(part.signal, part.signal)}" if part.kind == "DIRECT" else kind


def _against(parts: Sequence[Evidence]) -> str:
    if not parts:
        return "<p class='small'>Nothing was found that speaks against it.</p>"
    rows = "".join(
        f"<li>{escape(part.text)}"
        + (f" <span class='soft'>{words.bits(part.bits)} bits</span>" if part.bits else "")
        + "</li>"
        for part in sorted(parts, key=lambda e: (e.bits, e.signal))
    )
    return f"<ul class='list'>{rows}</ul>"


def _sharing(group: Group) -> str:
    if not group.shared:
        return ""
    kinds = [
        Sharing(
            words.kind(s.key_kind, 2).capitalize(),
            f"{s.group_count} of {s.group_total} members have one of {s.keys}"
            if s.keys > 1
            else f"{s.group_count} of {s.group_total} members have the same one",
            s.group_count,
            s.group_total,
            s.background_count,
            s.background_total,
        )
        for s in group.shared
    ]
    return (
        "<h3>Who shares what</h3><p class='soft small'>Things that hardly anybody outside has: each is held by at "
        f"most 1 in 100 other accounts.</p>{sharing(kinds)}"
    )


def _families(group: Group, rows: Rows) -> str:
    shown: list[str] = []
    seen: set[str] = set()
    hidden = common = 0
    for name in group.families:
        family = rows.families.get(name)
        if family is None:
            continue
        text, key = family["skeleton"], rows.profile.get(name)
        if key is None or key["background_count"] > COMMON * key["background_total"]:
            common += 1
            continue
        if text is None or text in seen:
            hidden += text is None
            continue
        seen.add(text)
        if len(shown) < MOST_FAMILIES:
            part = "System prompt" if family["part"] == "system" else "Prompt"
            shown.append(
                f"<div class='family'><div class='soft'>{part} · {_holders(key)}</div>"
                f"<pre>{marked(text)}</pre></div>"
            )
    if not shown and not hidden:
        return ""
    notes = [
        f"{words.plural(count, 'more family', 'more families')}: {why}."
        for count, why in (
            (len(seen) - len(shown), "see families.parquet"),
            (hidden, "no wording that five accounts have in common could be read again"),
            (common, "everyday wording that many others use too"),
        )
        if count
    ]
    note = f"<p class='soft small'>{' '.join(notes)}</p>" if notes else ""
    legend = (
        "<p class='soft small'>Only words that stand in the texts of at least five of its accounts. "
        f"{marked(BLANK)} differs from request to request; {marked(MASK)} is a number, an address or "
        "a name of a place on the web, left out.</p>"
        if shown
        else ""
    )
    return f"<h3>What it sends</h3>{legend}{''.join(shown)}{note}"


def _holders(key: Mapping[str, Any]) -> str:
    return (
        f"{key['group_count']:,} of {key['group_total']:,} members, "
        f"{key['background_count']:,} of {key['background_total']:,} others"
    )


def marked(skeleton: str) -> str:
    """A skeleton as markup: slots and masks are drawn, everything else is text."""
    return (
        escape(skeleton)
        .replace(BLANK, f"<span class='slot' role='img' aria-label='blank'>{BLANK}</span>")
        .replace(MASK, f"<span class='mask' role='img' aria-label='masked'>{MASK}</span>")
    )


def _members(accounts: Sequence[Mapping[str, Any]]) -> str:
    if not accounts:
        return ""
    ranked = sorted(accounts, key=lambda row: (-(row["e_bits"] or 0.0), row["account_id"]))
    cells = "".join(
        f"<tr><td><code>{escape(row['account_id'])}</code></td><td>{escape(row['role'])}</td>"
        + "".join(
            f"<td class='n'>{'' if row[name] is None else words.bits(row[name])}</td>"
            for name in ("e_bits", "bits_form", "bits_link", "bits_time")
        )
        + f"<td class='n'>{row['exchanges']:,}</td><td class='n'>{row['harvest_exchanges']:,}</td>"
        f"<td class='n'>{_date(row['first_ts'])}</td><td class='n'>{_date(row['last_ts'])}</td></tr>"
        for row in ranked[:MOST_MEMBERS]
    )
    recruits = sum(row["role"] == "recruit" for row in accounts)
    added = f"; {words.plural(recruits, 'recruit')} joined the settled group" if recruits else ""
    more = (
        f" The {MOST_MEMBERS} with most bits; all are in accounts.parquet."
        if len(ranked) > MOST_MEMBERS
        else ""
    )
    return (
        f"<h3>Members</h3><p class='soft small'>{words.plural(len(accounts) - recruits, 'core account')}, "
        f"found together; their bits rank them{added}.{more}</p>"
        "<div class='tall' tabindex='0' role='region' aria-label='Members'>"
        "<table><tr><th>account</th><th>role</th><th class='n'>bits</th>"
        "<th class='n'>form</th><th class='n'>link</th><th class='n'>time</th><th class='n'>exchanges</th>"
        f"<th class='n'>in templates</th><th class='n'>first</th><th class='n'>last</th></tr>{cells}</table></div>"
    )


def _date(value: Any) -> str:
    return "" if value is None else words.day(value.isoformat())


def _keys(parts: Sequence[Evidence]) -> str:
    rows = "".join(
        f"<tr><td>{escape(words.kind(key.key_kind))}</td><td><code>{escape(key.key)}</code></td>"
        f"<td class='n'>{key.group_count:,} of {key.group_total:,}</td>"
        f"<td class='n'>{key.background_count:,} of {key.background_total:,}</td></tr>"
        for part in parts
        for key in part.keys
    )
    if not rows:
        return ""
    return (
        "<details><summary>Strongest keys</summary><div class='scroll'><table class='plain'><tr><th>kind</th>"
        f"<th>hash</th><th class='n'>members</th><th class='n'>others</th></tr>{rows}</table></div></details>"
    )


def _timeline(events: Sequence[TimelineEvent]) -> str:
    rows = "".join(
        f"<tr><td class='n'>{words.minute(e.ts)}</td><td>{escape(e.text)}</td></tr>" for e in events
    )
    return (
        "<details><summary>Timeline</summary><div class='scroll'><table class='plain'>"
        f"{rows}</table></div></details>"
    )
