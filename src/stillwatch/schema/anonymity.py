"""The rule for every number that leaves: no count tells of fewer than five accounts, or of a single customer.

Counts are rounded down to 5, 10, 20, 50, 100, ...; what is below is suppressed. A total is the sum of what is shown,
never of what was counted: a true total less the shown cells would give away a suppressed one. So what is published of
a cell depends on that cell alone, and a suppressed one may be 0 to 4 even to a reader who knows all others exactly.

This is k-anonymity for counts (Sweeney 2002) with the controlled rounding of statistical offices. It is no
differential privacy: who sees the same count on two days learns that it crossed a step.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

K = 5
"""The least number of accounts that a count may tell of."""
LEAST_ENTITIES = 2
"""The least number of different customers among them: five accounts of one customer are that customer."""

Name = TypeVar("Name", bound=Hashable)


def rounded_down(count: int) -> int:
    """The largest of 5, 10, 20, 50, 100, 200, 500, ... that is not above `count`; 0 if it is below 5."""
    if count < K:
        return 0
    ten = 10 ** (len(str(count)) - 1)
    return next(step * ten for step in (5, 2, 1) if step * ten <= count)


def shown(count: int) -> int | None:
    """What may be said of a count: `rounded_down`, None if nothing."""
    return rounded_down(count) or None


def enough(accounts: int, entities: int) -> bool:
    """Whether something that so many accounts of so many different customers share may be told of at all."""
    return accounts >= K and entities >= LEAST_ENTITIES


def day(ts: datetime) -> str:
    """A time to the day, UTC, ISO 8601. Times without a zone are UTC."""
    return (ts.replace(tzinfo=UTC) if ts.tzinfo is None else ts.astimezone(UTC)).date().isoformat()


@dataclass(frozen=True, slots=True)
class Shown(Generic[Name]):
    """A table of counts that may leave."""

    cells: dict[Name, int | None]
    """Rounded down; None where suppressed. Zero is suppressed as 1 to 4 are."""
    at_least: int
    """Sum of the shown cells: the total is not below it. Say `at least` with it."""
    suppressed: int
    """Cells that are not shown."""


def shown_table(counts: Mapping[Name, int]) -> Shown[Name]:
    """Counts of one table, in its order, with the only total that may stand beside them.

    Sums over rows or columns of a larger table are `at_least` of those, each of the cells that are shown. The cells
    have to be the same ones whatever was counted (all months, all techniques): a cell that is left out says zero.
    """
    cells = {name: shown(count) for name, count in counts.items()}
    there = [count for count in cells.values() if count is not None]
    return Shown(cells, sum(there), len(cells) - len(there))
