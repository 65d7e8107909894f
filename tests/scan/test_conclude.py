"""What is listed: openly one customer, and what its own balancer explains."""

from __future__ import annotations

import numpy as np
import pytest

from stillwatch.detect.direct import Direct
from stillwatch.detect.explain import openness
from stillwatch.detect.waterfall import Steps
from stillwatch.scan.assign import Assignment
from stillwatch.scan.conclude import _named, _speaks
from stillwatch.scan.context import Finding

NONE = np.full(10, -1, np.int64)


def _open(payer: np.ndarray, block: np.ndarray, fired: str) -> Finding:
    finding = Finding(np.arange(10), "FORM", "community", [], 1e-9)
    finding.openness = openness(payer, block, NONE, np.zeros(10, np.int64))
    finding.direct = [Direct(fired, "HANDOVER", 1e-12, 20, 0.1)]
    finding.why = "openly_one_customer"
    return finding


@pytest.mark.parametrize(
    ("fired", "one_payer", "listed"),
    [
        ("handover", True, False),
        ("replay", True, False),
        ("work_split", True, False),
        ("signup_batch", True, True),
        ("takeover", True, True),
        ("handover", False, True),
        ("replay", False, True),
    ],
)
def test_one_payer_explains_conversations_that_change_keys(fired: str, one_payer: bool, listed: bool) -> None:
    same, different = np.zeros(10, np.int64), np.arange(10)
    finding = _open(same if one_payer else different, same, fired)
    assert finding.openness.share == 1.0
    assert finding.openness.payer == (1.0 if one_payer else 0.1)
    assert _speaks(finding, 1e-5) is listed


def _assigned(weak: list[bool]) -> Assignment:
    n = len(weak)
    steps = Steps(np.repeat(np.arange(n), 2), np.arange(2 * n), np.arange(2.0 * n))
    bits = {"FORM": np.arange(float(n)), "LINK": np.ones(n)}
    return Assignment(np.arange(n), np.ones(n, bool), np.ones(n), bits, np.array(weak), {"FORM": steps})


def test_a_campaign_holds_back_the_names_of_those_who_stand_on_one_view() -> None:
    finding = Finding(np.arange(12), "FORM", "community", [], 1e-9)
    finding.verdict, finding.roads = "campaign", ("direct",)
    named = _named(finding, _assigned([True, False] * 2 + [False] * 8))
    assert named.accounts.tolist() == [1, 3, *range(4, 12)] == finding.members.tolist()
    assert named.bits["FORM"].tolist() == [1.0, 3.0, *map(float, range(4, 12))]
    assert named.steps["FORM"].account.tolist() == np.repeat(np.arange(10), 2).tolist()
    assert named.steps["FORM"].key.tolist() == [2, 3, 6, 7, *range(8, 24)]
    assert (finding.verdict, finding.withheld) == ("campaign", 2)


def test_where_too_few_are_left_the_group_is_a_lead_and_whole() -> None:
    finding = Finding(np.arange(12), "FORM", "community", [], 1e-9)
    finding.verdict, finding.roads = "campaign", ("direct",)
    named = _named(finding, _assigned([True] * 6 + [False] * 6))
    assert len(named.accounts) == 12
    assert (finding.verdict, finding.why, finding.roads, finding.withheld) == ("lead", "one_view", (), 0)
    finding.verdict = "lead"
    assert len(_named(finding, _assigned([True] * 2 + [False] * 10)).accounts) == 12
