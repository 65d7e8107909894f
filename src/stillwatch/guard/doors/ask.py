"""One question to the guard, as every door puts it: decided, timed, counted, told."""

from __future__ import annotations

from time import perf_counter

from stillwatch.guard.doors.http import tell
from stillwatch.guard.doors.journal import told
from stillwatch.guard.doors.metrics import Metrics
from stillwatch.guard.subject import Decision, Subject


def ask(metrics: Metrics, subject: Subject, adapter: str, traceparent: str | None = None) -> Decision:
    """The decision about `subject`. `adapter`: the door's name in metrics; `traceparent`: the request's own header
    (https://www.w3.org/TR/trace-context/), so that a span joins its trace."""
    guard = metrics.source.guard
    began = perf_counter()
    decision = guard.decide(subject)
    metrics.count(decision, perf_counter() - began, adapter)
    if decision.would != "allow":
        tell(decision)
    if decision.reason == "fault":
        told("fault", often=True, error_type=guard.fault, adapter=adapter)
    if metrics.spans is not None:
        metrics.spans.record(decision, subject, guard, traceparent)
    return decision
