"""Shares with their intervals, and which small counts may not leave the house.

Counts of single campaigns are rounded down before they leave (`schema.anonymity`). Over all campaigns of a month that
would take away what a share is for; there the counts stay exact, and cells below K are hidden together with those
from which they would follow, as statistical offices do (complementary cell suppression).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stillwatch.schema.anonymity import K

Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % interval."""

    count: int
    total: int

    @property
    def value(self) -> float | None:
        """None where there is nothing to share."""
        return self.count / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's score interval (Wilson 1927, JASA 22:209): it holds for small totals and shares near 0 and 1."""
        n = self.total
        if n == 0:
            return None
        p, z2 = self.count / n, Z95 * Z95
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)


def small(count: int) -> bool:
    """Whether a count would point at a few accounts."""
    return 0 < count < K


def suppressed(cells: Sequence[int]) -> list[int | None]:
    """Cells whose sum is known to the reader, without those that are small and those that would tell them.

    A single hidden cell follows from the sum: then the smallest other one is hidden as well, until the hidden ones
    together are not small and at least two.
    """
    hidden = {place for place, count in enumerate(cells) if small(count)}
    rest = sorted((count, place) for place, count in enumerate(cells) if place not in hidden and count)
    zeros = [place for place, count in enumerate(cells) if count == 0]
    while hidden and (len(hidden) < 2 or small(sum(cells[place] for place in hidden))):
        if rest:
            hidden.add(rest.pop(0)[1])
        elif zeros:
            hidden.add(zeros.pop(0))
        else:
            break
    return [None if place in hidden else count for place, count in enumerate(cells)]
