"""The content null of the direct road, and what is left to confirm a group that two views found."""

from __future__ import annotations

import numpy as np
import pytest

from stillwatch.detect.direct import Direct
from stillwatch.scan.context import Finding, Together
from stillwatch.scan.verdict import _harvested, used_up


@pytest.mark.parametrize(
    ("items", "things", "wide"),
    [
        (40, 1e9, False),  # too few to tell
        (500, 300, True),  # half of what 500 draws can show
        (500, 100, False),
        (5_000, 600, False),  # a public set of items
        (150_000, 47_000, True),  # strangers' requests through one pool, many of which say "thanks"
        (150_000, 600, False),
    ],
)
def test_an_item_space_is_wide_for_its_draws_or_by_itself(items: int, things: float, wide: bool) -> None:
    finding = Finding(np.arange(10), "FORM", "community", [], 1e-9)
    finding.items, finding.space = items, float(np.log10(things))
    assert _harvested(finding) is wide


def test_a_group_found_by_wording_and_links_needs_evidence_of_another_kind() -> None:
    finding = Finding(np.arange(10), "FORM AND LINK", "tied wordings", [], 1e-9)
    finding.together = Together(2, 12, 6, 0.01)
    signups, split = Direct("signup_batch", "LINK", 1e-9, 9, 1.0), Direct("work_split", "FORM", 1e-9, 0, 30.0)
    handover = Direct("handover", "HANDOVER", 1e-9, 9, 0.1)
    assert used_up(finding, [])
    assert used_up(finding, [signups, split])
    assert not used_up(finding, [signups, handover])
    finding.together = None
    assert not used_up(finding, [signups])
