"""What the doors of one process have done, as plain numbers; `prometheus` writes them out.

Counted once a request, so nothing here is a metric object of a library: a dictionary, a list and a lock. Totals are
the door's own, not the guard's: they go on when a snapshot replaces another. No label holds an identity, and every
label has a bounded set of values.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from stillwatch.guard.decide import REFUSES, Guard
from stillwatch.guard.subject import Decision, Subject

BUCKETS_S = (
    10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 50e-3, 0.25, 1.0,
)  # fmt: skip
"""Upper bounds of the histogram of decision times. The goals are 25 us at the median and 100 us at the 99th
percentile; a request must never wait 10 ms."""
FAIL_OPEN = frozenset({"fault", "snapshot_expired"})
"""Reasons for which a request went on unjudged because of the guard, not because of who sent it."""
Kind = tuple[str, str, str, str, str]
"""Action, mode of the policy, adapter, what would be done, reason."""


class Source(Protocol):
    """Where the guard comes from: `Watched`, or whatever replaces its guard as that does."""

    guard: Guard
    swaps: int
    failed: int
    problem: str | None


class Recorder(Protocol):
    """Takes decisions down, as `spans.Spans` does."""

    def record(self, decision: Decision, subject: Subject, guard: Guard, traceparent: str | None) -> None:
        """One decision that was just taken. Never raises."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Counters that a part of the process keeps by itself."""

    name: str
    what: str
    label: str
    counts: Callable[[], Mapping[str, int]]
    """Value of the label -> count; the values are a few. Counts only grow."""


class Metrics:
    """Counters of one process. `count` may be called by several threads."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.decisions: dict[Kind, int] = {}
        self.lacks: dict[tuple[str, ...], int] = {}
        """Decisions by what they lacked together."""
        self.buckets: dict[str, list[int]] = {}
        """By adapter: decisions whose time is in each of `BUCKETS_S` (not summed up), and beyond the last."""
        self.seconds: dict[str, float] = {}
        self.strangers = 0
        """Callers that were not answered, for want of the token."""
        self.spans: Recorder | None = None
        """Where each decision's span goes; None: nowhere."""
        self.tallies: list[Tally] = []
        """Whatever else this process counts."""
        self._lock = threading.Lock()

    def count(self, decision: Decision, seconds: float, adapter: str) -> None:
        """One decision: how long it took, and through which door it came (a name out of a few)."""
        mode = self.source.guard.snapshot.policy.mode
        kind = (decision.action, mode, adapter, decision.would, decision.reason)
        lacked, bucket = decision.lacked, bisect_left(BUCKETS_S, seconds)
        with self._lock:
            self.decisions[kind] = self.decisions.get(kind, 0) + 1
            if lacked:
                self.lacks[lacked] = self.lacks.get(lacked, 0) + 1
            counts = self.buckets.get(adapter)
            if counts is None:
                counts = self.buckets[adapter] = [0] * (len(BUCKETS_S) + 1)
                self.seconds[adapter] = 0.0
            counts[bucket] += 1
            self.seconds[adapter] += seconds

    def stranger(self) -> None:
        """A caller without the right token."""
        with self._lock:
            self.strangers += 1

    def seen(self) -> Seen:
        """A copy of the counters that belongs together: all of one moment."""
        with self._lock:
            return Seen(
                dict(self.decisions),
                dict(self.lacks),
                {adapter: list(counts) for adapter, counts in self.buckets.items()},
                dict(self.seconds),
                self.strangers,
            )


class Seen:
    """Counters as they were at one moment."""

    def __init__(
        self,
        decisions: dict[Kind, int],
        lacks: dict[tuple[str, ...], int],
        buckets: dict[str, list[int]],
        seconds: dict[str, float],
        strangers: int,
    ) -> None:
        self.decisions, self.buckets, self.seconds, self.strangers = decisions, buckets, seconds, strangers
        self.lacked: dict[str, int] = {}
        for names, count in lacks.items():
            for name in names:
                self.lacked[name] = self.lacked.get(name, 0) + count

    def by_reason(self, reason: str) -> int:
        """Decisions with this reason."""
        return sum(count for kind, count in self.decisions.items() if kind[4] == reason)

    @property
    def refusals(self) -> int:
        """Requests that were refused, here or before they came."""
        return self.by_reason("refused_before") + sum(
            count for kind, count in self.decisions.items() if kind[0] in REFUSES
        )

    def failed_open(self, reason: str) -> int:
        """Requests that went on unjudged for this reason of `FAIL_OPEN`."""
        return sum(
            count for kind, count in self.decisions.items() if kind[4] == reason and kind[0] == "allow"
        )
