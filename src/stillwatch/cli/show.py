"""What commands print: tables of groups, of what detectors can see, and the explanation of one group."""

from __future__ import annotations

import pyarrow.compute as pc
from rich.table import Table

from stillwatch.schema.errors import ResultError
from stillwatch.schema.results import Findings, Group
from stillwatch.store.results import Results

WHY = {
    None: "",
    "one_view": "seen by one view only",
    "few_references": "too few reference groups",
    "not_harvest_like": "not shown to be harvest",
    "openly_one_customer": "openly one customer",
    "verified_entity": "one verified organisation",
    "registered_gateway": "a registered gateway",
    "contract": "permitted by contract",
    "benchmark": "a benchmark",
    "classroom": "a class",
}


def groups_table(findings: Findings) -> Table:
    """Campaigns and leads in full; cleared groups by their reason."""
    table = Table(title="Groups", title_justify="left")
    for name in ("group", "verdict", "accounts", "exchanges", "from", "strongest evidence"):
        number = name in ("accounts", "exchanges")
        table.add_column(name, justify="right" if number else "left", no_wrap=name in ("group", "from"))
    cleared: dict[str, list[Group]] = {}
    for group in findings.groups:
        if group.verdict == "cleared":
            cleared.setdefault(group.why or "", []).append(group)
            continue
        best = max(group.evidence, key=lambda e: (e.kind == "DIRECT", e.bits), default=None)
        verdict = group.verdict if group.why is None else f"{group.verdict}: {WHY.get(group.why, group.why)}"
        table.add_row(
            group.id,
            verdict,
            f"{group.accounts:,}",
            f"{group.exchanges:,}",
            group.first_ts[:10],
            f"{best.signal.replace('_', ' ')}, {best.bits:.0f} bits" if best else "",
        )
    for why, groups in sorted(cleared.items()):
        table.add_row(
            f"{len(groups)} groups",
            f"cleared: {WHY.get(why, why)}",
            f"{sum(g.accounts for g in groups):,}",
            f"{sum(g.exchanges for g in groups):,}",
            "",
            "",
        )
    return table


def explain_text(results: Results, name: str) -> str:
    """One group, or the groups of one account, in plain words."""
    for group in results.findings.groups:
        if group.id == name:
            return _group(results, group)
    rows = results.accounts.filter(pc.equal(results.accounts.column("account_id"), name)).to_pylist()
    if not rows:
        raise ResultError(
            "these results name neither a group nor an account like that",
            hint="group ids start with g-; accounts in no group are not in the results",
        )
    by_id = {group.id: group for group in results.findings.groups}
    lines = [f"This account is in {len(rows)} group{'s' if len(rows) > 1 else ''}."]
    for row in rows:
        group = by_id[row["campaign_id"]]
        lines.append(
            f"  {group.id} ({group.verdict}{': ' + WHY[group.why] if group.why else ''}), as {row['role']}, "
            f"{row['e_bits']:.1f} bits (FORM {row['bits_form']:.1f}, LINK {row['bits_link']:.1f}, "
            f"TIME {row['bits_time']:.1f}); {row['harvest_exchanges']} of {row['exchanges']} exchanges in the "
            "group's templates."
        )
    lines.append("For core members the bits rank; for recruits they carry a guarantee (e-BH, 1 %).")
    return "\n".join(lines)


def _group(results: Results, group: Group) -> str:
    reason = f" ({WHY.get(group.why, group.why)})" if group.why else ""
    lines = [
        f"{group.id}: {group.verdict}{reason}",
        f"{group.accounts} accounts, {group.exchanges:,} exchanges, {group.harvest_exchanges:,} of them in its own "
        f"templates, {group.first_ts} to {group.last_ts}",
        "",
        "Claims",
    ]
    for claim in group.claims:
        p = "" if claim.p is None else f" p = {claim.p:.2g}"
        q = "" if claim.q is None else f", q = {claim.q:.2g}"
        lines.append(f"  {'yes' if claim.holds else 'no '}  {claim.name}:{p}{q}. {claim.text}")
    lines += ["", "Evidence"]
    for part in sorted(group.evidence, key=lambda e: -e.bits):
        lines.append(f"  {part.bits:8.1f} bits  {part.kind} {part.signal}: {part.text}")
        for key in part.keys[:5]:
            lines.append(
                f"                 {key.key_kind} {key.key}: {key.group_count} of {key.group_total} members, "
                f"{key.background_count} of {key.background_total} others"
            )
    lines += ["", "Counter-evidence"]
    lines += [f"  {part.bits:8.1f} bits  {part.signal}: {part.text}" for part in group.counter_evidence] or [
        "  none"
    ]
    lines += ["", "Timeline"]
    lines += [f"  {event.ts}  {event.text}" for event in group.timeline]
    rows = results.accounts.filter(pc.equal(results.accounts.column("campaign_id"), group.id))
    recruits = pc.sum(pc.equal(rows.column("role"), "recruit")).as_py() or 0
    lines += [
        "",
        f"Members: {rows.num_rows - recruits} core (found together; their bits rank), {recruits} recruits (named by "
        "e-values). accounts.parquet lists them.",
        f"Recommended: {group.recommended_action}",
    ]
    return "\n".join(lines)
