"""One question to the guard, as every door puts it: decided, timed, counted, told."""

from __future__ import annotations

from collections.abc import MutableMapping
from time import perf_counter
from typing import Any

from stillwatch.guard.doors.http import Identity, header, subject_of, tell
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
    if metrics.spans is not None:
        metrics.spans.record(decision, subject, guard, traceparent)
    return decision


def decided(
    metrics: Metrics, scope: MutableMapping[str, Any], body: bytes | None, who: Identity, adapter: str
) -> Decision:
    """The decision about an ASGI request. Never raises: what fails here is a fault of the guard's as well."""
    try:
        peer = scope.get("client")
        subject = subject_of(scope["headers"], peer[0] if peer else None, body, who)
        trace = None if metrics.spans is None else header(scope["headers"], b"traceparent")
    except Exception as error:
        return failed(metrics, error, adapter)
    return ask(metrics, subject, adapter, trace)


def failed(metrics: Metrics, error: Exception, adapter: str) -> Decision:
    """What a request meets whose door failed before it could ask."""
    decision = metrics.source.guard.fault(error)
    metrics.count(decision, 0.0, adapter)
    return decision
