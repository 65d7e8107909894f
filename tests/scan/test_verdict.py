"""The content null of the direct road."""

from __future__ import annotations

import numpy as np
import pytest

from stillwatch.scan.context import Finding
from stillwatch.scan.verdict import _harvested


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
