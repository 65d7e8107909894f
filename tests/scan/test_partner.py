"""A partner's word in a verdict: one more kind beside two own ones that are not wording, and never more."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from stillwatch.detect import confirm as cf
from stillwatch.detect.direct import Direct
from stillwatch.detect.explain import Openness
from stillwatch.detect.score import Conformal
from stillwatch.scan.context import Context, Finding, Together
from stillwatch.scan.partner import (
    BESIDE,
    DECISIVE,
    MOST_ASIDE,
    Fit,
    Intel,
    Told,
    _whole_partners,
    digest_of,
    evidence_of,
)
from stillwatch.scan.verdict import DIRECT_LEVEL, partner_counts, settle
from stillwatch.sketch.keyed import KeyedHash

HANDOVER = Direct("handover", "HANDOVER", 1e-9, 9, 0.1, 0.9)
SPLIT = Direct("work_split", "FORM", 1e-9, 0, 30.0, 0.9)
SIGNUPS = Direct("signup_batch", "LINK", 1e-9, 9, 1.0, 0.9)
KEY = KeyedHash(b"k" * 32, b"")


def told(partner: str = "acme", until_us: int = 4_000_000, **changes: Any) -> Told:
    plain: dict[str, Any] = {
        "partner": partner, "indicator": "i-1", "part": "prompt", "hashes": np.arange(8, dtype=np.uint64),
        "needed": 3, "tlp": "amber", "confidence": 80, "until_us": until_us, "key": KEY,
    }  # fmt: skip
    return Told(**plain | changes)


def group(*direct: Direct, partner: bool = True, link: float = 1e-3, openness: float = 0.1) -> Finding:
    """A hidden, harvest-like group that was found by wording and confirmed by links."""
    tested = [
        cf.Tested("LINK", link, 3.0, 1.0, 0, "Poisson", 0),
        cf.Tested("TIME", 0.4, 0.0, 0.0, 0, "draws", 99),
    ]
    finding = Finding(np.arange(10), "FORM", "community", tested, 1e-6)
    finding.direct = list(direct)
    finding.openness = Openness(openness, "payment", ("payment", "site", "mail"))
    finding.items, finding.space = 500, 5.0
    if partner:
        finding.partners = (Fit(told(), 5),)
    return finding


def settled(finding: Finding) -> Finding:
    none = np.full(10, -1, np.int64)
    units = SimpleNamespace(declared=none, contract=np.zeros(10, bool))
    outcome = SimpleNamespace(references=0, needed=9)
    settle(
        cast(Context, SimpleNamespace(units=units)),
        finding,
        cast(Conformal, outcome),
        DIRECT_LEVEL / 20,
        1e-4,
    )
    return finding


def test_it_lifts_a_lead_with_one_direct_kind_and_says_so() -> None:
    alone, both = settled(group(HANDOVER, partner=False)), settled(group(HANDOVER))
    assert (alone.verdict, both.verdict) == ("lead", "campaign")
    assert (alone.leans, both.leans) == (False, True)
    found = evidence_of(both)
    assert [(e.kind, e.signal, e.bits) for e in found] == [("PARTNER", DECISIVE, 0.0)]
    for word in ("acme", "TLP:AMBER", "confidence 80", "1970-01-01", "Without it the group would be a lead"):
        assert word in found[0].text


def test_it_changes_nothing_where_own_kinds_suffice() -> None:
    alone, both = settled(group(HANDOVER, SIGNUPS, partner=False)), settled(group(HANDOVER, SIGNUPS))
    assert alone.verdict == both.verdict == "campaign"
    assert not both.leans
    assert [e.signal for e in evidence_of(both)] == [BESIDE]


@pytest.mark.parametrize(
    ("finding", "what"),
    [
        (group(), "no direct test fired"),
        (group(SPLIT), "work that is shared out is wording, as the fingerprint is"),
        (group(HANDOVER, link=0.2), "one own kind alone: no view confirms the group"),
        (group(HANDOVER, openness=0.45), "the owner is in sight"),
        (group(SIGNUPS), "people who signed up together"),
    ],
)
def test_it_lifts_nothing_else(finding: Finding, what: str) -> None:
    assert settled(finding).verdict == "lead", what
    assert not finding.leans


def test_a_group_that_wording_and_links_found_together_stays_a_lead() -> None:
    finding = group(SIGNUPS, SPLIT)
    finding.together = Together(2, 12, 6, 0.01)
    finding.view_found = "FORM AND LINK"
    assert not partner_counts(finding, finding.direct) or settled(finding).verdict == "lead"
    assert settled(finding).verdict == "lead"


def test_what_has_expired_is_not_compared_and_time_is_the_logs_or_the_callers() -> None:
    intel = Intel((told(until_us=4_000_000), told("zeta", until_us=9_000_000)))
    assert [t.partner for t in intel.live(3_999_999)] == ["acme", "zeta"]
    assert [t.partner for t in intel.live(4_000_000)] == ["zeta"]
    assert [t.partner for t in Intel(intel.told, 1).live(10**15)] == ["acme", "zeta"]


def test_the_digest_is_of_what_was_in_force_whatever_the_order() -> None:
    one, two = told("a"), told("b")
    assert digest_of(Intel((one, two)).live(0)) == digest_of(Intel((two, one)).live(0))
    assert digest_of([one]) != digest_of([told("a", confidence=81)])


def test_whoever_mostly_fits_bystanders_is_not_listened_to() -> None:
    live = [told("bad") for _ in range(MOST_ASIDE + 1)] + [told("good")]
    fits = [[(0, Fit(t, 5))] for t in live]
    reasons = [*["vouched"] * MOST_ASIDE, None, None]
    assert _whole_partners(live, fits, reasons) == [*["vouched"] * MOST_ASIDE, "partner", None]
    assert _whole_partners(live, fits, [None, *reasons[1:]])[MOST_ASIDE] is None


@pytest.mark.slow
def test_without_indicators_in_force_a_scan_has_the_same_bytes_and_poison_names_nobody(
    tmp_path: Path,
) -> None:
    from tests.scan.poison import campaigns_before_and_after

    for seed in (1, 2, 3):
        found = campaigns_before_and_after(tmp_path, seed)
        assert found.same_bytes
        assert found.poisoned >= 10, "the attack must have been made"
        assert found.aside >= found.poisoned // 2
        assert found.honest_after <= found.honest_before
        assert found.accounts_after == found.accounts_before
