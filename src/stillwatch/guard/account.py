"""What a process remembers of one account, and what the snapshot says of it."""

from __future__ import annotations

from typing import Any

from stillwatch.guard.ladder import Fact
from stillwatch.guard.snapshot import Arrays

Bits = tuple[float, ...]
NO_CAMPAIGNS: dict[int, tuple[int, float]] = {}
NO_BITS: dict[int, Bits] = {}
"""What most accounts have. Never written to."""


class Account:
    """Counters of one account."""

    __slots__ = (
        "bits",
        "campaigns",
        "counts",
        "excused",
        "facts",
        "hash",
        "named",
        "past",
        "refused",
        "row",
        "unknown",
        "volume",
    )

    def __init__(self, number: int, row: int) -> None:
        self.hash = number
        self.row = row
        self.excused = False
        self.volume = 0
        self.refused = 0
        self.counts: dict[int, int] = {}
        """Exchanges that showed each key, by place."""
        self.past = False
        """Whether what the scan counted has yet to be added. For most accounts it never matters."""
        self.campaigns = NO_CAMPAIGNS
        """Campaigns that the account may belong to: which profile judges it, and its bits in TIME."""
        self.unknown = 0
        """For how many of them the scan did not measure TIME."""
        self.named: tuple[tuple[int, str, Bits], ...] = ()
        """Group, role and bits as the scan has them."""
        self.bits = NO_BITS
        self.facts: tuple[Fact, ...] = ()

    def near(self, campaign: int) -> None:
        """The account may belong to this campaign too."""
        if campaign not in self.campaigns:
            self.campaigns = {**self.campaigns, campaign: (0, 0.0)}
            self.unknown += 1


def view(array: Any) -> memoryview:
    """One element of a memoryview is read several times faster than one of an array."""
    return memoryview(array)


class Rows:
    """The snapshot's columns for one account at a time."""

    __slots__ = (
        "count",
        "excused",
        "fold",
        "given",
        "held",
        "hours",
        "measured",
        "measured_at",
        "named_at",
        "place",
        "volume",
    )

    def __init__(self, a: Arrays) -> None:
        self.held, self.place = view(a.held_offsets), view(a.held_place)
        self.count, self.given = view(a.held_count), view(a.held_given)
        self.excused, self.volume = view(a.account_excused), view(a.account_volume)
        self.named_at, self.measured_at = view(a.named_offsets), view(a.measured_offsets)
        self.measured, self.fold = view(a.measured_campaign), view(a.measured_fold)
        self.hours = view(a.measured_time)
