"""The counters as Prometheus reads them, by `prometheus_client` (extra `serve`): read out when somebody asks.

https://prometheus.io/docs/instrumenting/writing_clientlibs/#custom-collectors
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import Protocol

from stillwatch.guard.doors.metrics import BUCKETS_S, FAIL_OPEN, Metrics
from stillwatch.schema.errors import MissingExtraError

try:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
except ImportError as error:
    raise MissingExtraError("prometheus-client", "serve", needed_for="/metrics") from error

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Ingest(Protocol):
    """What takes in traffic, as `watch` does. Sources and states are names out of a few."""

    @property
    def events(self) -> Mapping[tuple[str, str], int]:
        """By source (an input's name) and state (`kept`, `refused`, ...). They only grow."""
        ...

    @property
    def lag_s(self) -> Mapping[str, float]:
        """By source: seconds between an exchange and its being taken in, of the newest one."""
        ...


class GuardCollector:
    """Decisions, and the snapshot that they rest on."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.time) -> None:
        self._metrics, self._clock = metrics, clock

    def collect(self) -> Iterable[Metric]:
        """All families, as of now."""
        seen, source = self._metrics.seen(), self._metrics.source
        decisions = CounterMetricFamily(
            "stillwatch_decisions",
            "Decisions by action, mode of the policy, door, what enforcing everything would do, and reason.",
            labels=("action", "mode", "adapter", "would", "reason"),
        )
        for kind, count in seen.decisions.items():
            decisions.add_metric(kind, count)
        yield decisions
        times = HistogramMetricFamily(
            "stillwatch_decision_seconds", "Time that a decision took.", labels=("adapter",)
        )
        for adapter, counts in seen.buckets.items():
            bounds = (*map(str, BUCKETS_S), "+Inf")
            times.add_metric(
                (adapter,), list(zip(bounds, accumulate(counts), strict=True)), seen.seconds[adapter]
            )
        yield times
        lacked = CounterMetricFamily(
            "stillwatch_lacked", "Decisions that had to do without an input.", labels=("input",)
        )
        for name, count in seen.lacked.items():
            lacked.add_metric((name,), count)
        yield lacked
        opened = CounterMetricFamily(
            "stillwatch_fail_open",
            "Requests that went on unjudged because of the guard itself.",
            labels=("cause",),
        )
        for cause in sorted(FAIL_OPEN):
            opened.add_metric((cause,), seen.failed_open(cause))
        yield opened
        for counter, what, value in (
            ("faults", "Requests that the guard could not decide about.", seen.by_reason("fault")),
            ("refusals", "Requests that were refused, here or before they came.", seen.refusals),
            ("strangers", "Callers that were not answered, for want of the token.", seen.strangers),
            ("snapshot_swaps", "Snapshots that took over.", source.swaps),
            ("snapshot_failures", "Snapshots that could not be loaded.", source.failed),
        ):
            yield CounterMetricFamily(f"stillwatch_{counter}", what, value=value)
        for tally in self._metrics.tallies:
            family = CounterMetricFamily(f"stillwatch_{tally.name}", tally.what, labels=(tally.label,))
            for label, count in dict(tally.counts()).items():
                family.add_metric((label,), count)
            yield family
        snapshot, now = source.guard.snapshot, self._clock()
        for gauge, what, level in (
            ("age_seconds", "Since the end of the log that was scanned.", now - snapshot.meta.last_us / 1e6),
            (
                "expires_seconds",
                "Until it is no longer used; below 0: it is not.",
                snapshot.meta.expires_us / 1e6 - now,
            ),
            ("campaigns", "Campaigns in the snapshot.", float(len(snapshot.meta.campaigns))),
            ("accounts", "Accounts in the snapshot.", float(snapshot.accounts)),
            ("uncarried", "Requests since its scan that it does not count.", float(source.guard.lost)),
        ):
            yield GaugeMetricFamily(f"stillwatch_snapshot_{gauge}", what, value=level)


class IngestCollector:
    """What came in, and how late."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    def collect(self) -> Iterable[Metric]:
        """Both families, as of now."""
        events = CounterMetricFamily(
            "stillwatch_ingest_events",
            "Exchanges that came in, by what became of them.",
            labels=("source", "state"),
        )
        for labels, count in dict(self._ingest.events).items():
            events.add_metric(labels, count)
        yield events
        lag = GaugeMetricFamily(
            "stillwatch_ingest_lag_seconds",
            "Between an exchange and its being taken in, of the newest one.",
            labels=("source",),
        )
        for source, seconds in dict(self._ingest.lag_s).items():
            lag.add_metric((source,), seconds)
        yield lag


class Scans(Protocol):
    """What `watch` keeps count of."""

    @property
    def scans(self) -> int: ...

    @property
    def failed(self) -> int: ...

    @property
    def late(self) -> int: ...

    @property
    def scan_s(self) -> float: ...


class ScanCollector:
    """Scans of the window."""

    def __init__(self, scans: Scans) -> None:
        self._scans = scans

    def collect(self) -> Iterable[Metric]:
        """All families, as of now."""
        for counter, what, value in (
            ("scans", "Scans that gave a snapshot.", self._scans.scans),
            (
                "scan_failures",
                "Scans or snapshots that did not come about; the old one stayed.",
                self._scans.failed,
            ),
            ("scans_late", "Scans that took longer than the time between two.", self._scans.late),
        ):
            yield CounterMetricFamily(f"stillwatch_{counter}", what, value=value)
        yield GaugeMetricFamily(
            "stillwatch_scan_seconds", "Time that the last scan took.", value=self._scans.scan_s
        )


class Exposition:
    """The text that `/metrics` answers with."""

    def __init__(self, *collectors: GuardCollector | IngestCollector | ScanCollector) -> None:
        self._registry = CollectorRegistry()
        for collector in collectors:
            self._registry.register(collector)

    def text(self) -> bytes:
        """Everything, in the text format 0.0.4."""
        return generate_latest(self._registry)
