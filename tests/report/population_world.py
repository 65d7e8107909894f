"""Half a year of results folders, small and made by hand: as many accounts of each risk as a test asks for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa

from stillwatch.schema.results import ACCOUNT_ROWS, Claim, Evidence, Findings, Group, Run
from stillwatch.store.decisions import Order, Row
from stillwatch.store.results import Results, write_results
from tests.conftest import sample_results

KINDS: dict[str, dict[str, object]] = {
    "low": {"capabilities": [], "harvest": 5, "evasion": 0.4, "standby": []},
    "medium": {"capabilities": ["coding"], "harvest": 150, "evasion": 0.8, "standby": []},
    "high": {"capabilities": ["elicit_reasoning", "coding"], "harvest": 300, "evasion": 0.8, "standby": ["handover"]},
    "critical": {
        "capabilities": ["elicit_reasoning", "grade_answers", "coding"], "harvest": 2000, "evasion": 0.95,
        "standby": ["handover", "takeover"],
    },
}  # fmt: skip
"""What makes an account of each tier."""


def group_of(kind: str, month: str, accounts: int) -> Group:
    """A campaign of one month, all of whose accounts are of one tier."""
    what = KINDS[kind]
    return Group(
        id=f"g-{kind}-{month}", verdict="campaign", why=None, accounts=accounts, exchanges=900, harvest_exchanges=900,
        first_ts=f"{month}-05T00:00:00Z", last_ts=f"{month}-06T00:00:00Z",
        claims=[Claim(name="one_director", holds=True, text="x", statistic=what["evasion"])],
        evidence=[Evidence(kind="DIRECT", signal=name, bits=30.0, text="x") for name in what["standby"]],
        counter_evidence=[], capabilities=what["capabilities"], families=[], timeline=[], activity=[], entities=0,
        recommended_action="x", atlas=[],
    )  # fmt: skip


def month_of(month: str, counts: Mapping[str, int], days: int = 27) -> Results:
    """The results of one scan of a month."""
    start = datetime.fromisoformat(f"{month}-01T00:00:00+00:00")
    groups, rows = [], []
    for kind, count in counts.items():
        if not count:
            continue
        group = group_of(kind, month, count)
        groups.append(group)
        for n in range(count):
            rows.append(
                {
                    "account_id": f"{kind}-{month}-{n}", "campaign_id": group.id, "verdict": "campaign",
                    "role": "core", "e_bits": 9.0, "exchanges": 2 * int(str(KINDS[kind]["harvest"])),
                    "harvest_exchanges": KINDS[kind]["harvest"], "first_ts": start + timedelta(days=4),
                    "last_ts": start + timedelta(days=5),
                }
            )  # fmt: skip
    sample = sample_results()
    run: Run = msgspec.structs.replace(
        sample.findings.run,
        first_ts=f"{start:%Y-%m-%dT%H:%M:%SZ}",
        last_ts=f"{start + timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}",
    )
    return Results(
        Findings(schema_version=sample.findings.schema_version, run=run, groups=groups),
        pa.Table.from_pylist(rows, schema=ACCOUNT_ROWS),
        *(getattr(sample, name).slice(0, 0) for name in ("streams", "families", "profiles", "waterfall")),
        run_info={},
    )


def written(folder: Path, months: Mapping[str, Mapping[str, int]]) -> list[Path]:
    """A results folder for each month."""
    out = []
    for month, counts in months.items():
        out.append(folder / month)
        write_results(out[-1], month_of(month, counts))
    return out


def ordered(campaign: str, begin: str, end: str, action: str = "block") -> list[Row]:
    """A decision that was in force from `begin` to `end`; rows that `spans` reads."""
    at = datetime.fromisoformat(begin).replace(tzinfo=UTC)
    order = Order(
        campaign=campaign, action=action, policy="0" * 64, at=at, mapped=True,
        expires=datetime.fromisoformat(end).replace(tzinfo=UTC),
    )  # fmt: skip
    row = Row(number=0, before="", did="propose", at=at, digest=order.digest, order=order)
    return [row, Row(number=1, before="", did="approve", at=at, digest=order.digest)]
