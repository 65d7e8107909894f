"""What is listed: openly one customer, and what its own balancer explains."""

from __future__ import annotations

import numpy as np
import pytest

from stillwatch.detect.direct import Direct
from stillwatch.detect.explain import openness
from stillwatch.scan.conclude import _speaks
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
