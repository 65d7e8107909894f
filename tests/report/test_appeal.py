"""What an account is told depends on nothing but itself; what the reviewer sees is everything.

The golden files are written again with STILLWATCH_GOLDEN=write.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from stillwatch.report.appeal import Facts, in_force, memberships, told_of
from stillwatch.report.appeal_list import by_month, months_table, waiting
from stillwatch.report.appeal_page import review_page, review_plain, review_text, told_page
from stillwatch.report.appeal_told import Letter, read_letter, told_plain, told_text
from stillwatch.report.shares import Share, suppressed
from stillwatch.schema import InputError
from stillwatch.schema.results import ACCOUNT_ROWS, WATERFALL_ROWS
from stillwatch.store.appeals import Case, Ruling
from stillwatch.store.appeals import Row as Appeal
from stillwatch.store.decisions import Order, Row
from stillwatch.store.results import Results

GOLDEN = Path(__file__).parent / "golden"
AT = datetime(2026, 1, 10, tzinfo=UTC)
HOSTILE = "</pre></style><script>alert(1)</script>\x1b[31m"


def facts(results: Results, account: str = "acct-1", **changes: Any) -> Facts:
    mine = memberships(results, account)
    campaign = mine[0].group.id if mine and mine[0].group.verdict == "campaign" else None
    plain: dict[str, Any] = {
        "account": account, "results": results, "digest": "d" * 64, "memberships": mine, "campaign": campaign,
        "families": {row["family_id"]: row for row in results.families.to_pylist()},
    }  # fmt: skip
    return Facts(**(plain | changes))


def decided(campaign: str = "g-0123456789ab") -> tuple[Row, ...]:
    order = Order(
        campaign=campaign, action="block", policy="e" * 64, expires=AT + timedelta(days=7), mapped=True,
        reason="reviewed", at=AT - timedelta(days=1),
    )  # fmt: skip
    row = Row(number=0, before="0" * 64, did="propose", at=order.at, digest=order.digest, order=order)
    return (row, Row(number=1, before="1" * 64, did="approve", at=AT, digest=order.digest))


def ruled(account: str = "acct-1") -> Appeal:
    ruling = Ruling(
        account="account-0a1b2c3d-x", campaign="g-0123456789ab", outcome="upheld", code="not_verified", note="ab",
        results="c" * 64, evidence_until="2025-12-30T00:00:00Z", received=AT - timedelta(days=9),
        at=AT - timedelta(days=5),
    )  # fmt: skip
    return Appeal(
        number=3, before="2" * 64, did="decide", at=ruling.at, account=account, pseudonym=ruling.account,
        campaign=ruling.campaign, ruling=ruling, note="The university did not answer.",
    )  # fmt: skip


def golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("STILLWATCH_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.fixture
def results(sample: Callable[..., Results]) -> Results:
    return sample("Plain words that say why.")


def test_both_texts_are_the_golden_ones(results: Results) -> None:
    owner = {
        "account_id": "acct-1", "entity_id": "Example University", "verified": False, "tier": "free",
        "email_domain": "example.edu", "signup_ip": "203.0.113.7", "created_at": AT - timedelta(days=40),
    }  # fmt: skip
    mine = facts(results, decisions=decided(), appeals=(ruled(),), owner=owner, reference="00c0ffee00c0ffee")
    told = told_of(mine, Letter(service="Example AI", contact="Write to appeals@example.com."), "block")
    golden("appeal_told.txt", told_text(told))
    review = review_text(mine, AT)
    golden("appeal_review.txt", review)
    assert "203.0.113.7" not in review
    assert "example.edu" not in review
    golden("appeal_told_stranger.txt", told_text(told_of(facts(results, "stranger"), Letter(), None)))


def others(results: Results) -> list[Results]:
    """The same account among others: sizes, keys, numbers, names of the group and of everybody else differ."""
    group = results.findings.groups[0]
    found = []
    for changes in (
        {"accounts": 20_000, "exchanges": 16_000_000, "harvest_exchanges": 15_000_000},
        {"id": "g-ffffffffffff", "families": ["ffffffffffffffff"], "capabilities": ["elicit_reasoning"]},
        {"claims": [], "evidence": [], "counter_evidence": [], "shared": [], "timeline": [], "activity": []},
        {"first_ts": "2024-01-01T00:00:00Z", "last_ts": "2027-01-01T00:00:00Z", "entities": 4, "atlas": []},
    ):
        other = msgspec.structs.replace(group, **changes)
        rows = [
            row | {"campaign_id": other.id}
            for row in results.accounts.to_pylist()
            if row["account_id"] == "acct-1"
        ]
        # Bits that are measured against others: more or fewer of them, as long as the kinds are the same.
        rows[0] |= {"e_bits": 60.5, "bits_form": 40.0, "bits_link": 0.5, "bits_time": -3.0, "role": "recruit"}
        rows.append(rows[0] | {"account_id": f"other-{other.accounts}"})
        run = msgspec.structs.replace(results.findings.run, accounts=1_000_000, references=3, p_min=0.2)
        found.append(
            replace(
                results,
                findings=msgspec.structs.replace(results.findings, run=run, groups=[other]),
                accounts=pa.Table.from_pylist(rows, schema=ACCOUNT_ROWS),
                waterfall=WATERFALL_ROWS.empty_table(),
                streams=results.streams.slice(0, 0),
                profiles=results.profiles.slice(0, 0),
            )
        )
    return found


def test_what_an_account_is_told_does_not_change_with_anything_but_itself(results: Results) -> None:
    first = told_of(facts(results), Letter(), "block")
    for other in others(results):
        told = told_of(facts(other), Letter(), "block")
        assert told_text(told) == told_text(first)
        assert told_page(told) == told_page(first)
        assert told_plain(told) == told_plain(first)
    # The reviewer's does: the differential would not be worth much otherwise.
    texts = {review_text(facts(other), AT) for other in [results, *others(results)]}
    assert len(texts) == 5


def test_what_an_account_is_told_holds_no_number_or_name_of_the_detection(results: Results) -> None:
    mine = facts(results, decisions=decided(), appeals=(ruled(),), reference="00c0ffee00c0ffee")
    told = told_of(mine, Letter(), "block")
    for text in (told_text(told), told_page(told), str(told_plain(told))):
        text = re.sub(r"<style>.*</style>", "", text, flags=re.S)
        for word in (
            "g-0123456789ab", "0abc0abc0abc0abc", "00ff00ff00ff00ff", "acct-2", "bits", "p =", "FORM", "LINK",
            "core", "payment instrument", "1,080", "940", "Rate the answer", "6.2", "university did not",
        ):  # fmt: skip
            assert word not in text, word
        # Its own days, the deadlines and the reference are all the numbers there are.
        assert set(re.findall(r"\d+", re.sub(r"00c0ffee00c0ffee|acct-1|utf-8|initial-scale=1", "", text))) <= {
            "1", "3", "2026", "183", "14"
        } | set(re.findall(r"(?<=<h)\d|(?<=</h)\d", text))  # fmt: skip


def test_a_lead_is_told_what_a_stranger_is_told(results: Results) -> None:
    rows = results.accounts.to_pylist()
    lead = results.findings.groups[1]
    rows[0] |= {"campaign_id": lead.id, "verdict": "lead"}
    in_lead = replace(results, accounts=pa.Table.from_pylist(rows[:1], schema=ACCOUNT_ROWS))
    assert told_text(told_of(facts(in_lead), Letter(), None)) == told_text(
        told_of(facts(replace(results, accounts=results.accounts.slice(0, 0))), Letter(), None)
    )
    freed = facts(results, free=True)
    assert told_of(freed, Letter(), "block").acted is False
    assert "on which nobody may act" in review_text(facts(in_lead), AT)


def test_how_near_it_is_to_being_unnamed_is_counted_from_its_own_keys(results: Results) -> None:
    margin = facts(results).memberships[0].margin
    # FORM 9, LINK 7, TIME -0.5: FORM does not count. Half of log2(5000 / 8) is needed.
    assert (margin.strongest, margin.besides) == ("FORM", 6.5)
    assert margin.needed == pytest.approx(4.644, abs=1e-3)
    # Without its template FORM has 0.5, and LINK counts no more; without the instrument LINK has 1.5. Without the
    # domain 4.75 are left: enough.
    assert [(kind, bits) for _, kind, _, bits in margin.hangs_on] == [
        ("prompt_family", 8.5),
        ("payment", 5.5),
    ]
    assert "It hangs on each of these" in review_text(facts(results), AT)
    assert review_plain(facts(results), AT)["margin"]["over_bits"] == pytest.approx(
        6.5 - margin.needed, abs=1e-5
    )


def test_pages_are_self_contained_and_obey_no_text(sample: Callable[..., Results]) -> None:
    results = sample(HOSTILE, HOSTILE)
    mine = facts(results, decisions=decided(), appeals=(ruled(),), owner={"entity_id": HOSTILE})
    page = review_page(mine, AT)
    told = told_page(told_of(facts(results), Letter(service=HOSTILE, contact=HOSTILE), "block"))
    for text in (page, told):
        assert "<script" not in text
        assert "\x1b" not in text
        assert not re.search(r"src\s*=|@import|url\(|href='[^#]", text)
        assert text.count("<style>") == text.count("</style>") == 1
    assert "&lt;script&gt;" in page
    assert "\x1b" not in review_text(mine, AT) + told_text(told_of(mine, Letter(contact=HOSTILE), None))


def test_only_a_decision_on_this_campaign_is_in_force() -> None:
    rows = decided()
    assert in_force(rows, "g-0123456789ab", AT) == "block"
    assert in_force(rows, "g-0123456789ab", AT + timedelta(days=30)) == ""
    assert in_force(rows, "g-1", AT) == in_force((), "g-1", AT) == ""


@pytest.mark.parametrize(
    "text",
    [
        "contact = 3",
        "x = 1",
        "appeal_days = 0",
        "answer_days = 1e99",
        "service = ''",
        "\xff",
        "[",
        "a" * 70_000,
    ],
)
def test_a_letter_that_cannot_be_used_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "letter.toml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"letter\.toml"):
        read_letter(path)
    with pytest.raises(InputError):
        read_letter(tmp_path / "none")


def test_months_say_how_many_were_right_and_how_long_people_waited() -> None:
    start = datetime(2026, 1, 5, tzinfo=UTC)
    found = [
        Case(f"a{n}", "g-1", start, start + timedelta(days=n), "reversed" if n < 6 else "upheld", "other")
        for n in range(40)
    ]
    found.append(Case("late", "g-1", datetime(2026, 2, 1, tzinfo=UTC)))
    rows = by_month(found, internal=True)
    assert [row["month"] for row in rows] == ["2026-01", "2026-02", "all"]
    assert (rows[0]["reversed"], rows[0]["median_days"]) == (6, 19.5)
    # Wilson 1927 for 6 of 40, as scipy.stats.binomtest(6, 40).proportion_ci(method="wilson") has it.
    assert rows[0]["interval"] == pytest.approx([0.07064, 0.29066], abs=1e-4)
    assert months_table(rows)[0][:5] == ("2026-01", "40", "40", "6", "15.0 %")
    assert waiting(found, datetime(2026, 2, 11, tzinfo=UTC)) == [("late", "g-1", "10 days")]
    public = by_month(found, internal=False)
    assert public[1]["appeals"] is None
    # The total would tell that one.
    assert public[2]["appeals"] is None
    assert public[0]["reversed"] == 6
    assert by_month([], internal=True) == []


def test_wilson_s_interval_is_the_published_one() -> None:
    from scipy.stats import binomtest

    for count, total in ((0, 5), (1, 7), (5, 5), (33, 100), (1700, 52_000)):
        low, high = binomtest(count, total).proportion_ci(0.95, method="wilson")
        assert Share(count, total).interval == pytest.approx((low, high), abs=1e-9)
    assert Share(0, 0).interval is None


def test_hidden_cells_do_not_follow_from_the_others() -> None:
    """For every small table: what is hidden could be something else, and is at least two cells that are not small."""
    cells = (0, 1, 4, 5, 9, 30)
    for a in cells:
        for b in cells:
            for c in cells:
                shown = suppressed((a, b, c))
                hidden = [count for count, cell in zip((a, b, c), shown, strict=True) if cell is None]
                assert not any(0 < cell < 5 for cell in shown if cell is not None)
                if hidden and any(count for count in (a, b, c) if count not in (0,)) and a + b + c >= 5:
                    assert len(hidden) >= 2
                    assert sum(hidden) >= 5 or len(hidden) == 3
