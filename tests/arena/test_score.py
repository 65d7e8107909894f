"""The score of hand-made result folders with known precision, recall and intervals."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.arena import proportion, render, score
from stillwatch.schema.errors import ResultError

TRUTH = {
    "a1": ("attack", "hydra"),
    "a2": ("attack", "hydra"),
    "a3": ("attack", "slow_wide"),
    "a4": ("attack", "imitate_gateway"),
    "h1": ("individual", None),
    "h2": ("individual", None),
    "c1": ("classroom", None),
    "c2": ("classroom", None),
    "c3": ("classroom", None),
    "f1": ("framework", None),
}


def folders(tmp_path: Path, verdicts: dict[str, str], rows: list[tuple[str, str]]) -> tuple[Path, Path]:
    results, truth = tmp_path / "results", tmp_path / "log" / "truth"
    results.mkdir(parents=True)
    truth.mkdir(parents=True)
    groups = [{"id": g, "verdict": v} for g, v in verdicts.items()]
    (results / "findings.json").write_text(json.dumps({"groups": groups}))
    table = {
        "account_id": [a for a, _ in rows],
        "campaign_id": [g for _, g in rows],
        "verdict": [verdicts.get(g, "") for _, g in rows],
    }
    pq.write_table(pa.table(table), results / "accounts.parquet")
    labels = {
        "account_id": list(TRUTH),
        "group_id": [None] * len(TRUTH),
        "kind": [k for k, _ in TRUTH.values()],
        "operation": [o for _, o in TRUTH.values()],
    }
    schema = pa.schema([(name, pa.string()) for name in labels])
    pq.write_table(pa.table(labels, schema=schema), truth / "accounts.parquet")
    return results, truth


ROWS = [
    ("a1", "g1"),
    ("a2", "g1"),
    ("h1", "g1"),
    ("c1", "g2"),
    ("c2", "g2"),
    ("a1", "g2"),
    ("a3", "g3"),
    ("f1", "g3"),
    ("a1", "g3"),
    ("a4", "g4"),
]
VERDICTS = {"g1": "campaign", "g2": "campaign", "g3": "lead", "g4": "cleared"}


def test_known_counts(tmp_path: Path) -> None:
    result = score(*folders(tmp_path, VERDICTS, ROWS))
    assert (result.precision.hits, result.precision.total) == (2, 5)
    assert (result.recall.hits, result.recall.total) == (2, 4)
    assert result.recall_by_operation["hydra"].value == 1.0
    assert result.recall_by_operation["slow_wide"].value == 0.0
    classroom = result.false_positives_by_kind["classroom"]
    assert (classroom.hits, classroom.total) == (2, 3)
    assert result.false_positives_by_kind["framework"].hits == 0
    assert [g.group_id for g in result.false_campaigns] == ["g2"]
    assert result.false_campaigns[0].kinds == {"attack": 1, "classroom": 2}
    assert (result.honest_in_leads.hits, result.honest_in_leads.total) == (1, 6)
    assert result.lead_precision.value == pytest.approx(2 / 3)
    assert (result.lead_recall_rest.hits, result.lead_recall_rest.total) == (1, 2)
    assert result.lead_recall.hits == 2
    assert result.campaign_or_lead_recall.value == 0.75
    assert result.cleared_imitators == {"imitate_gateway": 1}
    json.dumps(result.as_dict())


def test_truth_may_be_the_log_folder(tmp_path: Path) -> None:
    results, truth = folders(tmp_path, VERDICTS, ROWS)
    assert score(results, truth.parent) == score(results, truth)


def test_nothing_found_has_no_precision(tmp_path: Path) -> None:
    result = score(*folders(tmp_path, {}, []))
    assert result.precision.value is None
    assert result.recall.value == 0.0
    assert "n/a" in render(result)


@pytest.mark.parametrize(
    ("hits", "total", "low", "high", "upper"),
    [
        (0, 10, 0.0, 0.30850, 0.25887),
        (5, 10, 0.18709, 0.81291, 0.77756),
        (10, 10, 0.69150, 1.0, 1.0),
        (1, 200, 0.00013, 0.02754, 0.02350),
    ],
)
def test_clopper_pearson_known_values(hits: int, total: int, low: float, high: float, upper: float) -> None:
    found = proportion(hits, total)
    assert found.low == pytest.approx(low, abs=2e-5)
    assert found.high == pytest.approx(high, abs=2e-5)
    assert found.upper_bound == pytest.approx(upper, abs=3e-4)


def test_damaged_results_are_named(tmp_path: Path) -> None:
    results, truth = folders(tmp_path, VERDICTS, ROWS)
    (results / "findings.json").write_text("{")
    with pytest.raises(ResultError, match=r"findings\.json"):
        score(results, truth)
    (results / "findings.json").unlink()
    with pytest.raises(ResultError, match="has no findings"):
        score(results, truth)


def test_unknown_groups_and_accounts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"findings\.json lacks"):
        score(*folders(tmp_path / "x", {}, ROWS[:1]))
    with pytest.raises(ResultError, match="truth lacks"):
        score(*folders(tmp_path / "y", VERDICTS, [("stranger", "g1")]))


def test_the_score_as_text(tmp_path: Path) -> None:
    text = render(score(*folders(tmp_path, VERDICTS, ROWS)))
    assert "g2: 3 accounts, 1 attackers (attack 1, classroom 2)" in text
    assert "imitate_gateway" in text
