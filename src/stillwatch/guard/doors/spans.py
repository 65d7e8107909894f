"""Each decision as an OpenTelemetry span, by the draft conventions for guardrails (extra `otel`, off by default).

Names are those of https://github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-security.md,
`gen_ai.run_guardrail.internal`, status Development. No account, address or text is in a span; the hash of the input
is there only where it is asked for, and keyed (HMAC-SHA-256, in hex, over the body in the canonical form of RFC 8785,
or over the prompt's UTF-8 bytes).
"""

from __future__ import annotations

import hashlib
import hmac
import math
from typing import TYPE_CHECKING, Any

import msgspec

from stillwatch.guard.decide import Guard
from stillwatch.guard.doors.journal import told
from stillwatch.guard.sight import MOST_BODY
from stillwatch.guard.subject import Decision, Subject
from stillwatch.schema.errors import MissingExtraError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider as ExportingProvider
    from opentelemetry.trace import TracerProvider

NAME = "stillwatch"
G = "gen_ai.guardrail."
VERDICTS = {
    "allow": "allow", "observe": "warn", "challenge": "escalate", "throttle": "deny", "strip": "modify",
    "mark": "modify", "block": "deny",
}  # fmt: skip
"""What would be done, as a verdict."""
ACTIONS = {
    "allow": "allow", "observe": "audit", "challenge": "escalate", "throttle": "block", "strip": "modify",
    "mark": "modify", "block": "block",
}  # fmt: skip
"""What is done, as an action."""
RISK = "custom:distillation"


class Spans:
    """Records decisions. `provider` None: the process's own, as the host has set it up."""

    def __init__(self, provider: TracerProvider | None = None, content_key: bytes | None = None) -> None:
        """`content_key`: write the input's hash under this key. MissingExtraError without the package."""
        try:
            from opentelemetry import trace
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise MissingExtraError("opentelemetry-api", "otel", needed_for="spans") from error
        self._kind = trace.SpanKind.INTERNAL
        self._tracer = trace.get_tracer("stillwatch.guard", tracer_provider=provider)
        self._extract = TraceContextTextMapPropagator().extract
        self._key = content_key

    def record(self, decision: Decision, subject: Subject, guard: Guard, traceparent: str | None) -> None:
        """A span of no length, in the request's own trace if it names one. Never raises."""
        try:
            context = self._extract({"traceparent": traceparent}) if traceparent is not None else None
            attributes = attributes_of(decision, guard.snapshot.policy.digest)
            if self._key is not None:
                digest = input_hash(subject, self._key)
                if digest is not None:
                    attributes[f"{G}security.content.input.hash"] = digest
            self._tracer.start_span(
                f"run_guardrail {NAME}", context=context, kind=self._kind, attributes=attributes
            ).end()
        except Exception as error:
            told("span_failed", often=True, error_type=type(error).__name__)


def exporting() -> ExportingProvider:
    """Sends spans by OTLP over HTTP, in batches and from a thread of its own. Where to, OTEL_EXPORTER_OTLP_ENDPOINT
    and OpenTelemetry's other variables say. To be shut down at the end. MissingExtraError without the packages."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider as Provider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingExtraError(
            "opentelemetry-exporter-otlp-proto-http", "otel", needed_for="sending spans"
        ) from error
    provider = Provider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def attributes_of(decision: Decision, policy: str) -> dict[str, str | float]:
    """The span's attributes. `policy`: its digest. The score is in bits, as docs/guard.md explains, not in 0 to 1."""
    found: dict[str, str | float] = {
        "gen_ai.operation.name": "run_guardrail",
        f"{G}component.name": NAME,
        f"{G}target.type": "input",
        f"{G}target.subtype": "llm",
        f"{G}verdict.type": VERDICTS[decision.would],
        f"{G}verdict.code": decision.reason,
        f"{G}action.type": ACTIONS[decision.action],
        f"{G}security.policy.id": policy,
    }
    if decision.would != "allow":
        found[f"{G}verdict.reason"] = decision.reason
        found[f"{G}security.risk.category"] = RISK
    if decision.rule is not None:
        found[f"{G}security.policy.rule.id"] = decision.rule
    if decision.bits is not None:
        found[f"{G}security.risk.score"] = decision.bits
    finding = decision.appeal or decision.campaign
    if finding is not None:
        found[f"{G}security.external_finding_id"] = finding
    if decision.reason == "fault":
        found["error.type"] = "_OTHER"
    return found


def input_hash(subject: Subject, key: bytes) -> str | None:
    """`hmac-sha256:` and 64 hex digits; None where no input was seen, or none that has a canonical form."""
    body: Any = subject.body
    if isinstance(body, bytes):
        if not body or len(body) > MOST_BODY:
            return None
        try:
            body = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
    if body is None:
        data = subject.prompt.encode("utf-8", "replace") if isinstance(subject.prompt, str) else None
    else:
        try:
            data = canonical(body).encode()
        except (ValueError, OverflowError, RecursionError):
            data = None
    return None if data is None else f"hmac-sha256:{hmac.new(key, data, hashlib.sha256).hexdigest()}"


def canonical(value: Any) -> str:
    """JSON in the canonical form of RFC 8785. ValueError for what has none (halves of surrogate pairs), OverflowError
    for numbers beyond doubles."""
    if isinstance(value, dict):
        # Names are ordered by their UTF-16 code units (section 3.2.3).
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(f"{_string(name)}:{canonical(value[name])}" for name in names) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, str):
        return _string(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _number(float(value))


def _string(text: str) -> str:
    # Escapes as section 3.2.2.2 has them: the short ones, \u00xx in lower case, nothing else.
    return msgspec.json.encode(text).decode()


def _number(value: float) -> str:
    """As ECMAScript writes a double (Number::toString): the shortest digits, exponents from 1e21 and below 1e-6."""
    if not math.isfinite(value):
        raise ValueError("a number without a canonical form")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, power = repr(abs(value)).partition("e")
    whole, _, part = mantissa.partition(".")
    digits = (whole + part).lstrip("0")
    point = len(whole) + int(power or 0) - (len(whole + part) - len(digits))
    digits = digits.rstrip("0")
    if 0 < point <= 21:
        if len(digits) <= point:
            return sign + digits.ljust(point, "0")
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    exponent = f"{point - 1:+d}"
    more = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{more}e{exponent}"
