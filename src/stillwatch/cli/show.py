"""What commands print: tables of groups and of what detectors can see."""

from __future__ import annotations

from rich.table import Table

from stillwatch.report import words
from stillwatch.schema.results import Findings, Group


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
        table.add_row(
            group.id,
            words.verdict(group),
            f"{group.accounts:,}",
            f"{group.exchanges:,}",
            group.first_ts[:10],
            f"{best.signal.replace('_', ' ')}, {best.bits:.0f} bits" if best else "",
        )
    for why, groups in sorted(cleared.items()):
        table.add_row(
            f"{len(groups)} groups",
            f"cleared: {words.WHY.get(why, why)}",
            f"{sum(g.accounts for g in groups):,}",
            f"{sum(g.exchanges for g in groups):,}",
            "",
            "",
        )
    return table
