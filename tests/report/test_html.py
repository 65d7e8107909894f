"""The page is self-contained, shows every group, and lets no markup through."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

import msgspec
import pytest

from stillwatch.report import charts, words
from stillwatch.report.group import marked
from stillwatch.report.html import render
from stillwatch.store.results import Results

HOSTILE = "</pre></style><script>alert(1)</script><b onclick='x' class=\"y\">&amp;"


class _Tags(HTMLParser):
    """Counts tags and attributes, and whether they close."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_no_network_and_shows_the_numbers(sample: Callable[..., Results]) -> None:
    page = render(sample())
    assert not re.search(r"src\s*=|@import|url\(|<script|href='[^#]", page)
    for word in ("g-0123456789ab", "2 × 10⁻¹⁵", "q = 0.11", "14.2", "246", "5 of 8 members", "900 exchanges",
                 "sees nothing", "acct-1", "Openly one customer", "A benchmark", "g-00000000000a",
                 "g-00000000000b"):  # fmt: skip
        assert word.lower() in page.lower(), word
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []


def test_markup_in_texts_is_shown_not_obeyed(sample: Callable[..., Results]) -> None:
    plain, hostile = _Tags(), _Tags()
    plain.feed(render(sample()))
    results = sample(HOSTILE, HOSTILE)
    accounts = results.accounts.set_column(0, results.accounts.schema.field(0), [[HOSTILE] * 2])
    page = render(msgspec.structs.replace(results, accounts=accounts) if False else _with(results, accounts))
    hostile.feed(page)
    assert hostile.open == []
    assert hostile.seen == plain.seen
    assert hostile.attributes == plain.attributes
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def _with(results: Results, accounts: object) -> Results:
    from dataclasses import replace

    return replace(results, accounts=accounts)  # type: ignore[arg-type]


def test_a_skeleton_s_slots_and_masks_are_drawn() -> None:
    assert marked("<i>▢ ▪").count("<span") == 2
    assert marked("<i>▢").startswith("&lt;i&gt;")


def test_a_results_folder_without_groups_has_a_page(sample: Callable[..., Results]) -> None:
    results = sample()
    findings = msgspec.structs.replace(results.findings, groups=[])
    page = render(_replaced(results, findings))
    assert "None was found." in page


def _replaced(results: Results, findings: object) -> Results:
    from dataclasses import replace

    return replace(results, findings=findings)  # type: ignore[arg-type]


def test_a_waterfall_goes_back_for_what_speaks_against() -> None:
    steps = [charts.Step("a", "", 10.0), charts.Step("b", "", 30.0), charts.Step("c", "", -20.0)]
    drawn = re.findall(
        r"<rect class='bar( against)?' x='([\d.]+)' y='30' width='([\d.]+)'", charts.waterfall(steps, "")
    )
    assert drawn == [("", "0.00", "25.00"), ("", "25.00", "75.00"), (" against", "50.00", "50.00")]


@pytest.mark.parametrize(("days", "bars"), [(1, 1), (14, 14), (62, 62), (63, 9), (900, 60)])
def test_long_logs_have_wider_bars(days: int, bars: int) -> None:
    page = charts.activity(
        [1] * days, "2026-01-01T00:00:00Z", [("2026-01-01T05:00:00Z", "r")], [("2026-01-01T07:00:00Z", 2)]
    )
    assert page.count("<rect class='bar'") == bars
    assert "R1" in page


def test_numbers_read_as_a_person_writes_them() -> None:
    assert [words.p_value(p) for p in (0.0, 0.0123, 8.2e-75, 1e-10)] == [
        "below 10⁻³⁰⁰",
        "0.012",
        "8.2 × 10⁻⁷⁵",
        "1 × 10⁻¹⁰",
    ]
    assert [words.bits(b) for b in (246.1, -1.25, 0.0, -0.01)] == ["246", "−1.2", "0.0", "0.0"]
    assert [words.share(n, 5000) for n in (0, 1, 60, 4999, 5000)] == [
        "none",
        "< 0.1 %",
        "1.2 %",
        "99 %",
        "all",
    ]
    assert [words.compact(n) for n in (400, 4000, 40_000, 1_500_000)] == ["400", "4,000", "40k", "1.5M"]
    assert words.span("2026-12-30T00:00:00Z", "2027-01-02T00:00:00Z") == "30 Dec 2026 to 2 Jan 2027"
