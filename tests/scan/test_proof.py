"""What a results folder says follows from its tables of numbers, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from stillwatch.detect import confirm as cf
from stillwatch.detect.direct import Direct
from stillwatch.detect.fanout import fan_out
from stillwatch.scan import Options, scan_each
from stillwatch.scan.context import Finding, Together
from stillwatch.scan.proof import proof_tables
from stillwatch.scan.verdict import settle
from stillwatch.schema.proof import PROOF
from stillwatch.schema.results import Claim, Group
from stillwatch.store.results import read_findings, read_proof, rounded
from tests import recomputed as by_hand

Rows = list[dict[str, Any]]
NEAR = 1e-9
"""Sums of other lengths, and logarithms of factorials, differ in their last digits."""


@pytest.fixture(scope="module")
def proof(scanned: tuple[Path, Path]) -> dict[str, Rows]:
    return {name: table.to_pylist() for name, table in read_proof(scanned[1]).items()}


@pytest.fixture(scope="module")
def campaigns(scanned: tuple[Path, Path]) -> dict[str, Group]:
    found = {g.id: g for g in read_findings(scanned[1]).groups if g.verdict == "campaign"}
    assert len(found) >= 2
    return found


def _claims(group: Group) -> dict[str, Claim]:
    return {claim.name: claim for claim in group.claims}


def _of(rows: Rows, **wanted: object) -> Rows:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def _asked(proof: dict[str, Rows], group: str, claim: str) -> dict[str, Any]:
    """The row of `proof_tests` that a claim rests on, and the level of the claim."""
    (named,) = _of(proof["proof_claims"], campaign_id=group, claim=claim)
    (row,) = _of(proof["proof_tests"], test=named["test"], number=named["number"])
    return row | {"level": named["level"]}


def test_p_of_coordination_follows_from_the_null_values(
    proof: dict[str, Rows], campaigns: dict[str, Group]
) -> None:
    methods = set()
    for name, group in campaigns.items():
        views = _of(proof["proof_views"], campaign_id=name)
        assert len(views) >= 2
        for view in views:
            null = _of(proof["proof_nulls"], campaign_id=name, view=view["view"])
            values = [row["value"] for row in null]
            assert [row["draw"] for row in null] == list(range(len(values)))
            assert by_hand.view_p(view, values) == view["p"]
            if values:
                assert sum(values) / len(values) == pytest.approx(view["expected"], rel=NEAR, abs=1e-15)
            methods.add(view["method"])
        claim, row = _claims(group)["coordinated"], _asked(proof, name, "coordinated")
        assert rounded(by_hand.conjunction(views)) == rounded(row["p"]) == claim.p
        assert rounded(row["q"]) == claim.q
        assert claim.holds is (row["q"] <= row["level"]) is True
        assert claim.statistic == rounded(min(views, key=lambda v: v["p"])["statistic"])
        told = {view["view"] for view in views if view["p"] <= row["level"] / 2}
        assert told == set(claim.views_confirmed)
    assert "permutation with fitted tail" in methods


def test_q_follows_from_every_p_of_the_run(proof: dict[str, Rows]) -> None:
    names = {row["test"] for row in proof["proof_tests"]}
    assert names == {"coordinated", "coordinated_reference", "tied", "harvest_like"}
    for name in names:
        rows = _of(proof["proof_tests"], test=name)
        assert [row["number"] for row in rows] == list(range(len(rows)))
        p = [row["p"] for row in rows]
        assert p == sorted(p)
        assert [row["q"] for row in rows] == pytest.approx(by_hand.benjamini_hochberg(p), rel=1e-12)


def test_direct_tests_follow_from_their_counts(proof: dict[str, Rows], campaigns: dict[str, Group]) -> None:
    seen = set()
    for name, group in campaigns.items():
        tests = _of(proof["proof_direct"], campaign_id=name)
        assert [t["test"] for t in tests] == [
            "work_split", "handover", "replay", "signup_batch", "takeover", "fan_out",
        ]  # fmt: skip
        for test in tests:
            assert by_hand.expected(test) == pytest.approx(test["expected"], rel=NEAR)
            assert test["mean"] in (test["expected"], 1e-3)
            assert by_hand.direct_p(test) == pytest.approx(test["p"], rel=NEAR)
            assert test["level"] == 0.01 / test["tests"]
            seen |= {test["test"]} if test["p"] < 1 else set()
        claim = _claims(group)["one_director"]
        assert claim.p == rounded(min(test["p"] for test in tests))
        fired = [t for t in tests if t["alone"] and t["p"] <= t["level"] and t["reach"] >= 0.1]
        told = {e.signal for e in group.evidence if e.kind == "DIRECT"}
        assert {t["test"] for t in fired} == told != set()
    assert seen >= {"work_split", "handover", "signup_batch", "takeover"}


def test_fan_out_follows_from_a_binomial_law() -> None:
    wide, able = np.zeros((7, 60), bool), np.arange(60) < 50
    wide[3, :6] = True
    found = fan_out(wide, able, "abcdefg", np.arange(60))
    row = {name: getattr(found, name) for name in ("observed", "mean", "least", "tail", "trials", "times")}
    row |= {"test": "fan_out", "law": "binomial", "counts": found.counts}
    assert (found.observed, found.trials, found.detail) == (6, 50, "d")
    assert found.p < 0.05
    assert by_hand.direct_p(row) == pytest.approx(found.p, rel=1e-12)
    assert by_hand.expected(row) == found.expected


def _harvest(proof: dict[str, Rows], campaigns: dict[str, Group], references: int) -> None:
    """Every score, p and q of the claim `harvest_like`, by hand."""
    rows = proof["proof_scores"]
    known = [row["score"] for row in _of(rows, kind="reference")]
    assert len(known) == references
    assert known == sorted(known)
    assert by_hand.scores(rows) == pytest.approx([row["score"] for row in rows], rel=NEAR, abs=NEAR)
    for name, group in campaigns.items():
        (mine,) = _of(rows, campaign_id=name)
        assert by_hand.space(mine["items"], mine["coincidences"]) == pytest.approx(mine["space"], rel=1e-12)
        claim = _claims(group)["harvest_like"]
        assert claim.statistic == pytest.approx(mine["score"], rel=1e-11)
        assert _claims(group)["one_director"].statistic == pytest.approx(mine["evasion"], rel=1e-11)
        assert mine["size"] >= group.accounts
        if references == 0:
            assert not _of(proof["proof_claims"], campaign_id=name, claim="harvest_like")
            assert claim.p is None
            continue
        row = _asked(proof, name, "harvest_like")
        assert by_hand.conformal(mine["score"], known) == row["p"]
        assert rounded([row["p"], row["q"]]) == rounded([claim.p, claim.q])


def test_p_of_harvest_follows_from_the_references(
    scanned: tuple[Path, Path], proof: dict[str, Rows], campaigns: dict[str, Group]
) -> None:
    _harvest(proof, campaigns, references=read_findings(scanned[1]).run.references)


@pytest.mark.slow
def test_each_of_several_settings_has_the_numbers_of_its_own_references(scanned: tuple[Path, Path]) -> None:
    settings = [
        Options(),
        Options(most_references=20),
        Options(most_references=5),
        Options(most_references=0),
    ]
    settings.append(Options(roads=("direct",)))
    every = read_findings(scanned[1]).run.references
    for found, count in zip(scan_each([str(scanned[0])], settings), (every, 20, 5, 0, every), strict=True):
        named = {g.id: g for g in found.findings.groups if g.verdict == "campaign"}
        assert named
        _harvest({name: table.to_pylist() for name, table in found.proof.items()}, named, count)


def test_no_account_and_no_reference_is_named(scanned: tuple[Path, Path], proof: dict[str, Rows]) -> None:
    accounts = set(pq.read_table(scanned[0] / "accounts.parquet").column("account_id").to_pylist())
    findings = read_findings(scanned[1])
    campaigns = {g.id for g in findings.groups if g.verdict == "campaign"}
    for rows in proof.values():
        for row in rows:
            texts = {value for value in row.values() if isinstance(value, str)}
            assert not texts & accounts
            assert {text for text in texts if text.startswith("g-")} <= campaigns
    blank = ("campaign_id", "items", "coincidences")
    assert all(row[name] is None for row in _of(proof["proof_scores"], kind="reference") for name in blank)


def _together(direct: list[Direct]) -> Finding:
    """A group that wording and links found at once, of 40 accounts of which nobody knows the owner."""
    finding = Finding(
        np.arange(40),
        "FORM AND LINK",
        "tied wordings",
        [cf.Tested("FORM AND LINK", 7e-12, 9.0, 0.21, 0, "Poisson, degrees given", 0)],
        by_hand.poisson_upper(9, 0.21),
        3e-9,
        candidate=15,
        claimed=np.arange(15),
        together=Together(3, 15, 9, 0.21),
    )
    finding.tested = [replace(finding.tested[0], p=finding.p)]
    finding.direct, finding.items, finding.coincidences = direct, 400, 2
    finding.space = by_hand.space(400, 2)
    finding.openness = replace(finding.openness, share=0.0, seen=("payment", "block"))
    finding.web = 1.0
    return finding


def test_a_group_found_by_wording_and_links_together_rests_on_a_poisson_tail() -> None:
    """It is a campaign where direct tests of other kinds open the road, and only there."""
    moved = Direct("handover", "HANDOVER", 1e-40, 30, 0.0, 0.7, least=2, floor=1e-3)
    begun = Direct("takeover", "TIME", 1e-20, 20, 0.5, 0.5, floor=1e-3)
    units = SimpleNamespace(declared=np.full(40, -1), contract=np.zeros(40, bool))
    outcome: Any = SimpleNamespace(references=0, needed=9, p=np.zeros(0))
    for direct, verdict in (([moved, begun], "campaign"), ([], "lead")):
        finding = _together(direct)
        settle(SimpleNamespace(units=units), finding, outcome, 1e-5, 1e-4)  # type: ignore[arg-type]
        assert finding.verdict == verdict
    finding = _together([moved, begun])
    p = np.concatenate([[finding.p], np.ones(500)])
    judged: Any = SimpleNamespace(
        asked={"coordinated": np.ones(3), "coordinated_reference": np.zeros(0), "tied": p[::-1]},
        conformal=outcome, findings=[finding], against=[], direct_level=1e-5,
    )  # fmt: skip
    tables = {name: table.to_pylist() for name, table in proof_tables(judged, [("g-1", finding)]).items()}
    (view,) = tables["proof_views"]
    assert (view["view"], view["draws"], view["views_tested"], view["candidate"]) == (
        "FORM AND LINK",
        0,
        1,
        15,
    )
    assert by_hand.view_p(view, []) == by_hand.conjunction([view]) == view["p"] == finding.p
    assert tables["proof_nulls"] == []
    (claim,) = tables["proof_claims"]
    assert (claim["test"], claim["number"]) == ("tied", 0)
    asked = _of(tables["proof_tests"], test="tied")
    assert len(asked) == 501
    assert asked[0]["q"] == by_hand.benjamini_hochberg([row["p"] for row in asked])[0] == 501 * finding.p
    (row,) = tables["proof_scores"]
    assert row["items"] == 400


def test_without_campaigns_there_is_nothing_to_prove() -> None:
    judged: Any = SimpleNamespace()
    tables = proof_tables(judged, [])
    assert {name: table.schema for name, table in tables.items()} == PROOF
    assert not any(table.num_rows for table in tables.values())
