"""Spans of decisions: the draft's names, the request's trace, and nothing of what was sent."""

from __future__ import annotations

import http.server
import json
import threading
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from stillwatch.guard import Subject
from stillwatch.guard.doors.asgi import StillwatchMiddleware
from stillwatch.guard.doors.check import CheckService
from stillwatch.guard.doors.metrics import Metrics
from stillwatch.guard.doors.spans import ACTIONS, VERDICTS, Spans, canonical, exporting, input_hash
from stillwatch.guard.policy import ACTIONS as ALL
from tests.guard.conftest import SECRET, Scanned
from tests.guard.test_decide import _now, _strong
from tests.guard.test_doors import WHO, _ask, _echo, _Fixed

TRACE = "0af7651916cd43dd8448eb211c80319c"
DRAFT = {
    "gen_ai.operation.name", "gen_ai.guardrail.component.name", "gen_ai.guardrail.target.type",
    "gen_ai.guardrail.target.subtype", "gen_ai.guardrail.verdict.type", "gen_ai.guardrail.verdict.code",
    "gen_ai.guardrail.verdict.reason", "gen_ai.guardrail.action.type", "gen_ai.guardrail.security.policy.id",
    "gen_ai.guardrail.security.policy.rule.id", "gen_ai.guardrail.security.risk.category",
    "gen_ai.guardrail.security.risk.score", "gen_ai.guardrail.security.external_finding_id",
    "gen_ai.guardrail.security.content.input.hash", "error.type",
}  # fmt: skip
"""Of docs/gen-ai/gen-ai-security.md as read in November 2026."""


def test_a_span_says_what_the_draft_asks_for_and_joins_the_trace(demo: Scanned) -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    fixed = _Fixed(demo.snapshot, _now(demo))
    service, middleware = CheckService(fixed, WHO), StillwatchMiddleware(_echo, fixed, WHO)  # type: ignore[arg-type]
    member = _strong(demo)[0]["account_id"]
    body = b'{"messages": [{"role": "user", "content": "name a colour"}]}'
    headers = {"x-account": member, "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    for app in (service, middleware):
        app.metrics.spans = Spans(provider, SECRET.spans())
        _ask(app, "/v1/check", headers, body)
    _ask(service, "/v1/check", {"x-account": "somebody", "traceparent": "\xff" * 50})
    spans = memory.get_finished_spans()
    assert len(spans) == 3
    for span in spans[:2]:
        assert (span.name, span.kind.name) == ("run_guardrail stillwatch", "INTERNAL")
        assert f"{span.context.trace_id:032x}" == TRACE
        assert span.parent is not None
        told = dict(span.attributes or {})
        assert told.keys() <= DRAFT
        assert (told["gen_ai.guardrail.verdict.type"], told["gen_ai.guardrail.action.type"]) == (
            "deny",
            "audit",
        )
        assert told["gen_ai.guardrail.security.policy.id"] == demo.snapshot.policy.digest
        assert str(told["gen_ai.guardrail.security.content.input.hash"]).startswith("hmac-sha256:")
        assert not [word for word in (member, "colour") if word in span.to_json()]
    last = dict(spans[2].attributes or {})
    assert (last["gen_ai.guardrail.verdict.type"], last["gen_ai.guardrail.action.type"]) == ("allow", "allow")
    assert "gen_ai.guardrail.security.content.input.hash" not in last
    assert VERDICTS.keys() == ACTIONS.keys() == set(ALL)


def test_a_real_receiver_gets_them(demo: Scanned, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[bytes] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        provider = exporting()
        metrics = Metrics(_Fixed(demo.snapshot, _now(demo)))
        app = CheckService(metrics.source, WHO, None, metrics)  # type: ignore[arg-type]
        metrics.spans = Spans(provider)
        _ask(app, "/v1/check", {"x-account": _strong(demo)[0]["account_id"]})
        provider.shutdown()
        server.shutdown()
    (message,) = got
    (span,) = ExportTraceServiceRequest.FromString(message).resource_spans[0].scope_spans[0].spans
    names = {attribute.key for attribute in span.attributes}
    assert span.name == "run_guardrail stillwatch"
    assert {"gen_ai.guardrail.target.type", "gen_ai.guardrail.verdict.type", "gen_ai.operation.name"} <= names
    assert names <= DRAFT


@pytest.mark.parametrize(
    ("value", "text"),
    [(333333333.33333329, "333333333.3333333"), (1e30, "1e+30"), (4.50, "4.5"), (2e-3, "0.002"), (1e-27, "1e-27"),
     (1e21, "1e+21"), (1e20, "100000000000000000000"), (1e-6, "0.000001"), (1e-7, "1e-7"), (5e-324, "5e-324"),
     (1.7976931348623157e308, "1.7976931348623157e+308"), (-0.0, "0"), (9007199254740992, "9007199254740992"),
     ([True, None, False], "[true,null,false]"), ("\u20ac$\x0f\nA'\"\\/", '"\u20ac$\\u000f\\nA\'\\"\\\\/"'),
     ({"\ufb33": 1, "\U0001f600": 2, "1": {"b": [], "a": {}}}, '{"1":{"a":{},"b":[]},"\U0001f600":2,"\ufb33":1}')],
)  # fmt: skip
def test_the_canonical_form_is_that_of_rfc_8785(value: Any, text: str) -> None:
    assert canonical(value) == text


def test_equal_inputs_hash_alike_and_what_has_no_form_has_no_hash() -> None:
    key = SECRET.spans()
    one = input_hash(Subject(body=b'{"a": 1.0, "b": "x"}'), key)
    assert one == input_hash(Subject(body=json.dumps({"b": "x", "a": 1}).encode()), key)
    assert one != input_hash(Subject(body=b'{"a": 1.0, "b": "x"}'), b"another key")
    for body in (b"", b"{", b"\xff", b"[" * 100_000, b'{"a": 1' + b"0" * 400 + b"}"):
        assert input_hash(Subject(body=body), key) is None
    assert input_hash(Subject(body={"a": "\ud800"}), key) is None
    assert input_hash(Subject(prompt="\ud800"), key) is not None
