"""The population view recovers what went into it, shows gaps as gaps, and tells of nobody."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwatch.campaign.risk import TIERS, observed, risk
from stillwatch.cli import main
from stillwatch.report.population import Month, Scan, leaving, plain, population
from stillwatch.report.population_charts import picture
from stillwatch.report.population_page import headline, notes, page, table
from stillwatch.report.shares import Share, small
from stillwatch.store.decisions import Row, spans
from tests.report.population_world import KINDS, month_of, ordered, written

MONTHS = ("2026-01", "2026-02", "2026-03", "2026-04", "2026-05", "2026-06")
TRUE = (0.33, 0.38, 0.42, 0.47, 0.52, 0.56)


def drawn(seed: int) -> dict[str, dict[str, int]]:
    """600 accounts a month, each of medium risk or higher with the probability of that month."""
    rng = np.random.default_rng(seed)
    out = {}
    for month, share in zip(MONTHS, TRUE, strict=True):
        parts = rng.multinomial(600, [1 - share, 0.6 * share, 0.3 * share, 0.1 * share])
        out[month] = dict(zip(KINDS, (int(n) for n in parts), strict=True))
    return out


def scans(counts: dict[str, dict[str, int]]) -> list[Scan]:
    return [Scan(month_of(month, of), month) for month, of in counts.items()]


def test_a_rise_from_33_to_56_per_cent_is_recovered_within_the_intervals() -> None:
    covered = 0
    for seed in range(3):
        counts = drawn(seed)
        found = population(scans(counts), None, internal=True)
        for month, true in zip(found.months, TRUE, strict=True):
            assert dict(month.tiers) == counts[month.name]
            assert month.accounts == 600
            assert month.share is not None
            assert month.share.interval is not None
            covered += month.share.interval[0] <= true <= month.share.interval[1]
        first, last = found.months[0].share, found.months[-1].share
        assert first is not None
        assert last is not None
        assert first.interval is not None
        assert last.interval is not None
        # The rise is told from chance.
        assert first.interval[1] < last.interval[0]
    # 95 % of 18 intervals are expected to hold the true share.
    assert covered >= 16


def test_every_kind_of_the_small_world_is_of_its_tier() -> None:
    for kind in KINDS:
        results = month_of("2026-01", {kind: 1})
        assert risk(observed(results.findings.groups[0], results.accounts.to_pylist()[0])).tier == kind


def test_a_month_without_a_scan_is_a_gap_and_no_zero() -> None:
    counts = drawn(1)
    del counts["2026-03"]
    counts["2026-05"] = {"low": 0}
    found = population(scans(counts), None)
    assert [month.gap for month in found.months] == [False, False, True, False, False, False]
    gap, none = found.months[2], found.months[4]
    assert (gap.accounts, gap.share, gap.covered) == (None, None, 0.0)
    assert none.accounts == 0
    assert none.share is not None
    assert none.share.value is None
    assert plain(found)["months"][2] == {"month": "2026-03", "gap": True, "days_read": 0.0}
    assert "No scan read a day of 2026-03" in " ".join(notes(found))
    assert table(found)[2][1] == "no scan"
    for text in (page(found), picture(found.months, "x")):
        assert re.search(r"no(<br>| )scan", text)


def test_a_month_of_which_days_are_missing_is_no_headline_or_says_so() -> None:
    found = population(scans(drawn(1)), None)
    months = [*found.months[:5], replace(found.months[5], covered=0.1)]
    said = headline(replace(found, months=tuple(months)))
    assert "in May 2026." in said
    assert "Jun" not in said
    two = headline(replace(found, months=(months[0], months[5])))
    assert "in Jan 2026, " in two
    assert two.endswith("in Jun 2026 (of 10 % of its days).")


def test_accounts_count_in_the_months_in_which_a_decision_was_in_force() -> None:
    counts = {month: {"high": 6, "low": 9} for month in MONTHS}
    rows: list[Row] = ordered("g-high-2026-02", "2026-02-20", "2026-04-01")
    # Proposed and never approved: it was never in force. A throttle needs nobody else.
    rows += ordered("g-low-2026-02", "2026-02-20", "2026-04-05")[:1]
    rows += ordered("g-low-2026-05", "2026-05-02", "2026-05-09", action="throttle")[:1]
    rows += ordered("g-elsewhere", "2026-05-02", "2026-05-09")
    found = population(scans(counts), spans(rows, {"throttle"}), internal=True)
    # Until midnight of the first of April: not in April.
    assert [month.accounts for month in found.months] == [0, 6, 6, 0, 9, 0]
    assert found.months[1].tiers["high"] == 6
    assert found.unknown == 1
    assert found.counting == "actioned"
    revoked = Row(
        number=0, before="", did="revoke", at=datetime(2026, 2, 27, tzinfo=UTC), digest=rows[0].digest
    )
    found = population(scans(counts), spans([*rows, revoked], {"throttle"}), internal=True)
    assert [month.accounts for month in found.months] == [0, 6, 0, 0, 9, 0]


def test_an_account_counts_once_and_whom_an_appeal_freed_not_at_all() -> None:
    base = scans({"2026-01": {"high": 8, "low": 12}})
    again = Scan(month_of("2026-01", {"high": 8, "critical": 5}), "newer")
    found = population([*base, again], None, internal=True)
    # The newer scan has eight of them again; the low ones are known from the older one.
    assert found.months[0].accounts == 8 + 12 + 5
    freed = population([*base, again], None, freed={"high-2026-01-0", "low-2026-01-3"}, internal=True)
    assert freed.months[0].accounts == 23
    assert freed.freed == 2
    assert population([again, *base], None, internal=True) == found
    assert population([], None).months == ()


@given(st.lists(st.integers(0, 40), min_size=4, max_size=4), st.integers(0, 160))
def test_what_leaves_tells_of_nobody(counts: list[int], technique: int) -> None:
    """An attacker who knows the rule and everything that is shown cannot pin a hidden cell to a small number."""
    total, upper = sum(counts), sum(counts[1:])
    tiers = dict(zip(TIERS, counts, strict=True))
    technique = min(technique, total)
    month = Month(
        "2026-01", 1.0, total, 3, tiers, upper, Share(upper, total), {"T1078": technique}, {"harvested": 1.0}
    )
    shown = leaving(month)
    known = [*shown.tiers.values(), shown.accounts, shown.upper, shown.techniques["T1078"]]
    assert not any(count is not None and small(count) for count in known)
    assert shown.campaigns is None
    assert not shown.points
    if shown.accounts is None:
        return
    if shown.techniques["T1078"] is not None:
        assert not small(total - technique)
    if shown.upper is None:
        assert shown.share is None
        assert all(count is None for count in shown.tiers.values())
        return
    assert not small(total - shown.upper)
    hidden = [name for name in TIERS[1:] if shown.tiers[name] is None]
    rest = shown.upper - sum(shown.tiers[name] or 0 for name in TIERS[1:])
    if hidden:
        assert len(hidden) >= 2
        # At least two tables fit, and what is hidden is together no small number.
        fits = (
            [t for t in product(range(rest + 1), repeat=len(hidden)) if sum(t) == rest]
            if rest < 60
            else [1, 2]
        )
        assert len(fits) >= 2
        assert rest >= 5


def test_small_cells_are_shown_inside_only() -> None:
    counts = {"2026-01": {"low": 20, "medium": 20, "high": 30, "critical": 2}, "2026-02": {"high": 3}}
    inside = population(scans(counts), None, internal=True)
    outside = population(scans(counts), None)
    assert inside.months[0].tiers["critical"] == 2
    assert inside.months[1].accounts == 3
    assert dict(outside.months[0].tiers) == {"low": 20, "medium": None, "high": 30, "critical": None}
    assert outside.months[1].accounts is None
    for text in (page(outside), json.dumps(plain(outside)), picture(outside.months, "x")):
        assert "g-high" not in text
        assert "high-2026" not in text
    assert "for inside use only" in page(inside)
    assert "the picture has them in one colour" in " ".join(notes(outside))


def test_the_page_is_self_contained_and_the_picture_is_well_formed() -> None:
    found = population(scans(drawn(2)), None)
    text = page(found)
    assert not re.search(r"src\s*=|@import|<script|href='(?!https://(atlas|attack)\.mitre\.org)", text)
    assert not re.search(r"href='#?'", text)
    drawn_ = ET.fromstring(picture(found.months, "Risk & <more>"))
    assert drawn_.tag.endswith("svg")
    assert len(drawn_.findall(".//{*}path[@class='whisk']")) == 6
    long = population(
        scans({f"20{y}-{m:02d}": {"low": 9} for y in range(20, 24) for m in range(1, 13)}), None
    )
    assert len(long.months) == 48
    ET.fromstring(picture(long.months, "x"))


@pytest.fixture
def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("COLUMNS", "140")

    def run(*args: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return run


def test_the_command_writes_the_same_bytes_whatever_the_order(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    counts = {
        "2026-01": {"low": 134, "medium": 40, "high": 20, "critical": 6},
        "2026-06": {"low": 88, "medium": 62, "high": 40, "critical": 10},
    }
    folders = written(tmp_path, counts)
    code, said, _ = call("population", *folders, "--out", tmp_path / "a")
    assert code == 0
    assert "33 % (27 to 40 %) in Jan 2026, 56 % (49 to 63 %) in Jun 2026" in said.replace("\n", " ")
    assert said.count("no scan") == 4
    assert call("population", *folders[::-1], folders[0], "--out", tmp_path / "b")[0] == 0
    for name in ("population.json", "population.html", "population.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    told = json.loads(call("population", *folders, "--json", "--internal")[1])
    assert told["months"][0]["mean_points"]["evasion"] > 0
    assert told["months"][0]["share"] == 0.33
    assert told["tiers"]["medium"] == {"least_points": 5}
    decisions = tmp_path / "decisions.jsonl"
    assert "are in none" not in call("population", *folders, "--decisions", decisions)[1]
    decisions.write_text("x")
    for args, code in (
        ((*folders, "--by", "week"), 2),
        ((tmp_path / "none",), 5),
        ((*folders, "--decisions", decisions), 5),
        ((*folders, "--appeals", decisions), 5),
        ((*folders, "--out", decisions / "x"), 4),
    ):
        assert call("population", *args)[0] == code
