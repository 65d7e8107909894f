"""`stillwatch explain`: one group, or one account, in plain words and in bits, for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.compute as pc

from stillwatch.campaign.techniques import ATLAS_VERSION, ATTACK_VERSION, techniques
from stillwatch.report import words
from stillwatch.schema.errors import ResultError
from stillwatch.schema.results import Claim, Evidence, Group
from stillwatch.store.results import Results

WIDTH = 100
LONGEST_BAR = 16
SHOWN_KEYS = 6
SHOWN_MEMBERS = 10
SHOWN_FAMILIES = 4
VIEWS = ("FORM", "LINK", "TIME")


def explain_text(results: Results, name: str) -> str:
    """A group by its id, or an account. ResultError where a group id is named that the results lack."""
    for group in results.findings.groups:
        if group.id == name:
            return _group(results, group)
    rows = _where(results.accounts, "account_id", name)
    if rows:
        return _account(results, name, rows)
    if name.startswith("g-"):
        raise ResultError(
            "these results have no group of that id",
            hint="`stillwatch scan --previous` keeps ids; the report lists the groups",
        )
    count = len(results.findings.groups)
    return _wrapped(
        f"{name} is in none of the {words.plural(count, 'group')} of these results. Accounts outside groups are not "
        "listed, so this does not say whether the log has an account of that name.",
    )


def _where(table: Any, column: str, value: str) -> list[dict[str, Any]]:
    return table.filter(pc.equal(table.column(column), value)).to_pylist()


def _wrapped(text: str, indent: int = 0, first: str | None = None) -> str:
    space = " " * indent
    lead = space if first is None else first
    return textwrap.fill(
        printable(text), WIDTH, initial_indent=lead, subsequent_indent=space, break_on_hyphens=False
    )


def _bar(value: float, largest: float) -> str:
    length = max(1, round(LONGEST_BAR * min(abs(value) / largest, 1))) if abs(value) >= 0.05 else 0
    return (("▒" if value < 0 else "█") * length).ljust(LONGEST_BAR)


def _group(results: Results, group: Group) -> str:
    own = f", {group.harvest_exchanges:,} of them in its own templates" if group.harvest_exchanges else ""
    lines = [
        f"{group.id}  {words.verdict(group)}",
        _wrapped(
            f"{words.plural(group.accounts, 'account')}, {words.plural(group.exchanges, 'exchange')}{own}, "
            f"{words.span(group.first_ts, group.last_ts)}."
        ),
    ]
    if group.capabilities:
        lines.append(_wrapped(words.asked(group.capabilities)))
    if group.merged_from:
        lines.append(_wrapped(f"Takes in the earlier {words.listed(group.merged_from)}."))
    if group.split_from:
        lines.append(_wrapped(f"Split off from {words.listed(group.split_from)}."))
    lines += ["", "Claims"]
    for claim in group.claims:
        lines += _claim(claim)
    lines += ["", "Evidence, in bits (10 bits: one chance in a thousand; the kinds are not independent)"]
    lines += _evidence(group.evidence) or ["  none"]
    lines += ["", "What speaks against it"]
    lines += [
        _wrapped(part.text, 10, f"  {words.bits(part.bits):>6}  ")
        for part in sorted(group.counter_evidence, key=lambda e: (e.bits, e.signal))
    ] or ["  nothing that was looked for"]
    lines += _shared(group) + _keys(group.evidence) + _wording(results, group)
    lines += _members(_where(results.accounts, "campaign_id", group.id), group.id)
    lines += ["", "Timeline (UTC)"]
    lines += [_wrapped(event.text, 20, f"  {words.minute(event.ts)}  ") for event in group.timeline]
    lines += ["", _wrapped(f"Recommended: {group.recommended_action}")]
    return "\n".join(lines + _techniques(group))


def _techniques(group: Group) -> list[str]:
    shown = techniques(group)
    if not shown:
        return []
    lines = ["", f"Techniques of ATLAS {ATLAS_VERSION} and ATT&CK {ATTACK_VERSION}, each with what shows it"]
    for technique in shown:
        lines.append(_wrapped(f"{technique.name} ({technique.tactic})", 18, f"  {technique.id:<16}"))
        lines.append(_wrapped(technique.because, 18))
    return lines


def _claim(claim: Claim) -> list[str]:
    numbers = words.claim_numbers(claim, smallest=True)
    answer = "yes" if claim.holds else "not shown"
    lines = [f"  {words.CLAIMS.get(claim.name, claim.name)} {answer}", _wrapped(claim.text, 6)]
    return lines + ([f"      {', '.join(numbers)}"] if numbers else [])


def _evidence(parts: Sequence[Evidence]) -> list[str]:
    order = [*VIEWS, "DIRECT"]
    largest = max((part.bits for part in parts), default=1.0)
    lines = []
    for part in sorted(
        parts, key=lambda e: (order.index(e.kind) if e.kind in order else 9, -e.bits, e.signal)
    ):
        kind = words.KINDS.get(part.kind, part.kind)
        lead = f"  {words.bits(part.bits):>6}  {_bar(part.bits, largest)}  "
        lines.append(_wrapped(f"{kind}. {part.text}", len(lead), lead))
    return lines


def _shared(group: Group) -> list[str]:
    if not group.shared:
        return []
    lines = ["", "Who shares what (things that at most 1 in 100 others have)"]
    for s in group.shared:
        label = f"{s.keys:,} {words.kind(s.key_kind, s.keys)}"
        lines.append(
            f"  {label:<34} {s.group_count:>6,} of {s.group_total:,} members, "
            f"{words.share(s.background_count, s.background_total)} of others"
        )
    return lines


def _keys(parts: Sequence[Evidence]) -> list[str]:
    lines: list[str] = []
    for part in parts:
        for key in part.keys[:SHOWN_KEYS]:
            rare = (
                f"one in {key.background_total // key.background_count:,} others"
                if key.background_count
                else "no other account"
            )
            held = f"{key.group_count:>6,} of {key.group_total:,} members"
            lines.append(f"  {words.kind(key.key_kind):<26} {key.key}  {held}, {rare}")
    return ["", "Strongest keys, and who else has them", *lines] if lines else []


def _wording(results: Results, group: Group) -> list[str]:
    known = {row["family_id"]: row for row in results.families.to_pylist()}
    lines: list[str] = []
    seen: set[str] = set()
    for name in group.families:
        text = known[name]["skeleton"] if name in known else None
        if text is None or text in seen or len(seen) == SHOWN_FAMILIES:
            continue
        seen.add(text)
        part = "system prompt" if known[name]["part"] == "system" else "prompt"
        lines.append(f"  {part} {name}")
        lines += [_wrapped(line, 4, "  | ") for line in printable(text).split("\n")]
    return (
        ["", "Wording that five accounts or more have in common (▢ differs, ▪ is masked)", *lines]
        if lines
        else []
    )


def printable(text: str) -> str:
    """Without what a terminal would obey; line breaks stay."""
    return "".join(c if c == "\n" or c.isprintable() else "�" for c in text)


def _members(rows: list[dict[str, Any]], group: str) -> list[str]:
    recruits = sum(row["role"] == "recruit" for row in rows)
    core = words.plural(len(rows) - recruits, "core account")
    added = f", and {words.plural(recruits, 'recruit')}, who joined the settled group"
    lines = [
        "",
        _wrapped(f"Members: {core}, found together (their bits rank them){added if recruits else ''}."),
        f"  {'account':<34} {'role':<8} {'bits':>6} {'form':>6} {'link':>6} {'time':>6} {'exchanges':>9}",
    ]
    ranked = sorted(rows, key=lambda row: (-(row["e_bits"] or 0.0), row["account_id"]))
    for row in ranked[:SHOWN_MEMBERS]:
        numbers = " ".join(f"{_number(row[n]):>6}" for n in ("e_bits", "bits_form", "bits_link", "bits_time"))
        lines.append(
            f"  {printable(row['account_id']):<34} {row['role']:<8} {numbers} {row['exchanges']:>9,}"
        )
    if len(ranked) > SHOWN_MEMBERS:
        lines.append(f"  and {len(ranked) - SHOWN_MEMBERS:,} more in accounts.parquet (campaign_id {group})")
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else words.bits(value)


def _account(results: Results, name: str, rows: list[dict[str, Any]]) -> str:
    by_id = {group.id: group for group in results.findings.groups}
    lines = [f"{printable(name)} is in {words.plural(len(rows), 'group')}."]
    steps = _where(results.waterfall, "account_id", name)
    for row in sorted(rows, key=lambda r: (-(r["e_bits"] or 0.0), r["campaign_id"])):
        group = by_id[row["campaign_id"]]
        lines += ["", f"{group.id}  {words.verdict(group)}, as {row['role']}"]
        first, last = row["first_ts"], row["last_ts"]
        when = words.span(first.isoformat(), last.isoformat()) if first is not None else "none let through"
        lines.append(
            _wrapped(
                f"{row['harvest_exchanges']:,} of its {words.plural(row['exchanges'], 'exchange')} are in the "
                f"group's own templates; {when}."
            )
        )
        lines += _views(row)
        mine = [s for s in steps if s["campaign_id"] == group.id]
        lines += _waterfall(mine, row, _profile(results, group))
    lines += [
        "",
        _wrapped("The bits rank the members; they are no guarantee, for core accounts or for recruits."),
    ]
    return "\n".join(lines)


def _known(row: Mapping[str, Any]) -> dict[str, float]:
    """Bits of the views that looked, strongest first."""
    known = {view: row[f"bits_{view.lower()}"] for view in VIEWS}
    return dict(sorted(((v, b) for v, b in known.items() if b is not None), key=lambda item: -item[1]))


def _views(row: Mapping[str, Any]) -> list[str]:
    known = _known(row)
    if not known:
        return []
    parts = [f"{view} {words.bits(value)}" for view, value in known.items()]
    parts[0] += " (the strongest view, which does not count: no view acts alone)"
    return [_wrapped(f"{words.bits(row['e_bits'])} bits in all. By view: {', '.join(parts)}.")]


def _profile(results: Results, group: Group) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in _where(results.profiles, "campaign_id", group.id)}


def _waterfall(
    steps: Sequence[Mapping[str, Any]], row: Mapping[str, Any], profile: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """The steps of an account, view by view, summing to its bits."""
    if not steps:
        return []
    largest = max(abs(s["bits"]) for s in steps)
    order = [*VIEWS, "ALL"]
    lines = ["  What makes up the bits"]
    ranked = sorted(
        steps,
        key=lambda s: (order.index(s["view"]), s["key_kind"] == "other_keys", -s["bits"], s["key"] or ""),
    )
    for step in ranked:
        view = step["view"] if step["view"] != "ALL" else ""
        text = words.kind(step["key_kind"])
        held = profile.get(step["key"] or "")
        if held is not None:
            text += (
                f" {step['key']}: {held['group_count']:,} of {held['group_total']:,} members, "
                f"{held['background_count']:,} of {held['background_total']:,} others"
            )
        elif step["key"]:
            text += f" {step['key']}: not typical of the group"
        if step["view"] == "ALL":
            taken = next((f"{view}, {words.bits(value)}" for view, value in _known(row).items()), "none")
            text += (
                f": takes the strongest view ({taken}) out again; the rest is the mean over stakes and views"
            )
        lead = f"  {words.bits(step['bits']):>6}  {_bar(step['bits'], largest)}  {view:<5} "
        lines.append(_wrapped(text, len(lead), lead))
    return [*lines, f"  {words.bits(row['e_bits']):>6}  in all"]
