"""No published number tells of fewer than five accounts, alone or with the others."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone

import pytest

from stillwatch.schema.anonymity import K, day, enough, rounded_down, shown, shown_table

STEPS = [5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000]


def test_counts_go_down_to_the_ladder() -> None:
    for count in range(12_000):
        below = [step for step in STEPS if step <= count]
        assert rounded_down(count) == (below[-1] if below else 0)
        assert shown(count) == (below[-1] if below else None)
    assert rounded_down(10**18 - 1) == 5 * 10**17
    assert [rounded_down(count) for count in (-(10**9), -1, 0, 4)] == [0, 0, 0, 0]


def test_one_customer_is_nobody() -> None:
    assert enough(5, 2)
    assert not enough(4, 2)
    assert not enough(10**6, 1)


@pytest.mark.parametrize(
    ("ts", "told"),
    [
        (datetime(2026, 3, 1, 23, 59, 59, 999999, UTC), "2026-03-01"),
        (datetime(2026, 3, 1, 23, 59), "2026-03-01"),
        (datetime(2026, 3, 1, 23, 59, tzinfo=timezone(-timedelta(hours=8))), "2026-03-02"),
    ],
)
def test_times_are_days_of_utc(ts: datetime, told: str) -> None:
    assert day(ts) == told


def test_totals_less_the_shown_cells_reveal_nothing() -> None:
    """Whoever knows all cells but one exactly, and reads everything published, cannot tell 0 from 4 in that one."""
    for others in itertools.product((0, 3, 5, 9, 10, 19, 20), repeat=2):
        published = {repr(shown_table(dict(zip("abc", (one, *others), strict=True)))) for one in range(K)}
        assert len(published) == 1
    # The total that was counted would: 9 + 1 are at least 10, and 9 is shown as 5 to 9.
    assert {rounded_down(9 + one) for one in range(K)} == {5, 10}
    table = shown_table({"2026-01": 9, "2026-02": 1, "2026-03": 0, "2026-04": 23})
    assert table.cells == {"2026-01": 5, "2026-02": None, "2026-03": None, "2026-04": 20}
    assert (table.at_least, table.suppressed) == (25, 2)
    assert shown_table({}).at_least == 0
