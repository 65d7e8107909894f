"""The page is self-contained, shows every group, and lets no markup through."""

from __future__ import annotations

import re

from stillwatch.report.html import render
from stillwatch.schema.results import Claim, Evidence, EvidenceKey, Findings, Group, Run, Sight, TimelineEvent


def _findings(text: str) -> Findings:
    run = Run(
        version="1", config_digest="0" * 64, seed=0, inputs=[], accounts=10, exchanges=100, refused=2,
        first_ts="2026-01-01T00:00:00Z", last_ts="2026-01-03T00:00:00Z", candidates=1, confirmed=1,
        references=0, references_needed=9, p_min=None, reach=text,
        sight=[Sight(detector="LINK", state="blind", reason=text)], releases=[], notes=[text],
    )  # fmt: skip
    key = EvidenceKey(
        key="00ff", key_kind="payment", group_count=5, group_total=8, background_count=1, background_total=9
    )
    group = Group(
        id="g-1", verdict="campaign", why=None, accounts=8, exchanges=80, harvest_exchanges=40,
        first_ts="2026-01-01T00:00:00Z", last_ts="2026-01-03T00:00:00Z",
        claims=[Claim(name="coordinated", holds=True, text=text, p=0.001, q=0.01)],
        evidence=[Evidence(kind="LINK", signal="payment", bits=9.5, text=text, keys=[key])],
        counter_evidence=[Evidence(kind="COUNTER", signal="openness", bits=-1.0, text=text)],
        capabilities=[], families=[],
        timeline=[TimelineEvent(ts="2026-01-02T00:00:00Z", kind="release", text=text)],
        activity=[10, 50, 20], entities=0, recommended_action=text, atlas=[],
    )  # fmt: skip
    return Findings(schema_version=1, run=run, groups=[group])


def test_the_page_needs_no_network_and_shows_the_numbers() -> None:
    page = render(_findings("plain words"))
    assert not re.search(r"(src|href)\s*=|@import|url\(|<script", page)
    for word in ("g-1", "p = 0.001", "q = 0.01", "9.5", "5 of 8", "day 2: 50 exchanges", "blind"):
        assert word in page


def test_markup_in_texts_is_shown_not_obeyed() -> None:
    page = render(_findings("<b onclick='x'>&"))
    assert "<b onclick" not in page
    assert "&lt;b onclick" in page
