"""What commands print: tables of groups and of what detectors can see."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from stillwatch.report import words
from stillwatch.schema.results import Findings, Group

NEEDS = (
    ("FORM: prompt families", ("prompt", "prompt_sketch")),
    ("FORM: system prompts", ("system", "system_sketch", "system_hash")),
    ("LINK: addresses", ("ip",)),
    ("LINK: client stack", ("ja4", "header_hash")),
    ("direct: hand-over", ("turn_hashes",)),
)
SIDE_NEEDS = (
    ("LINK: payment", "accounts", "payment_fp"),
    ("LINK: sign-up batches", "accounts", "created_at"),
    ("units: verified owners", "accounts", "verified"),
    ("direct: take-over after bans", "sanctions", "ts"),
)


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


def sight_table(filled: Mapping[str, float], side: Mapping[str, pa.Table]) -> Table:
    """Which detectors are on, weak or blind, and because of which column."""
    table = Table(title="What the detectors can see", title_justify="left")
    for name in ("detector", "state", "because"):
        table.add_column(name)

    def row(detector: str, percent: float, source: str) -> None:
        state = "on" if percent >= 50 else "weak" if percent > 0 else "blind"
        table.add_row(detector, state, f"{source}: filled in {percent:.0f} %")

    for detector, columns in NEEDS:
        best = max(columns, key=lambda name: filled.get(name, 0.0))
        row(detector, filled.get(best, 0.0), best)
    for detector, name, column in SIDE_NEEDS:
        if name not in side or column not in side[name].column_names:
            table.add_row(detector, "blind", f"no {name} table with {column}")
            continue
        values = side[name].column(column)
        row(detector, 100 * (1 - values.null_count / max(1, len(values))), f"{name}.{column}")
    count = references(side.get("accounts"))
    enough = (
        "the road by references is open" if count >= 9 else "9 are the least: verdicts rest on direct tests"
    )
    table.add_row(
        "verdict by references", "on" if count >= 9 else "blind", f"{count} organisations; {enough}"
    )
    return table


def references(accounts: pa.Table | None) -> int:
    """Verified organisations of 8 or more accounts."""
    if accounts is None or not {"entity_id", "verified"} <= set(accounts.column_names):
        return 0
    known = accounts.filter(pc.fill_null(accounts.column("verified"), False))
    sizes = known.group_by("entity_id").aggregate([("account_id", "count")])
    return int(pc.sum(pc.greater_equal(sizes.column("account_id_count"), 8)).as_py() or 0)
