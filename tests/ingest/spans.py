"""Spans of model calls in four vocabularies, as OTLP JSON writes them. All say the same conversation."""

from __future__ import annotations

import json
from typing import Any

START = 1_772_366_400_250_000_000
SYSTEM, PROMPT, ANSWER = "be brief", "hello", "hi there"


def value(plain: Any) -> dict[str, Any]:
    """A plain value -> an AnyValue."""
    if isinstance(plain, bool):
        return {"boolValue": plain}
    if isinstance(plain, int):
        return {"intValue": str(plain)}
    if isinstance(plain, float):
        return {"doubleValue": plain}
    if isinstance(plain, list):
        return {"arrayValue": {"values": [value(item) for item in plain]}}
    if isinstance(plain, dict):
        return {"kvlistValue": {"values": pairs(plain)}}
    return {"stringValue": plain}


def pairs(plain: dict[str, Any]) -> list[dict[str, Any]]:
    """A dictionary -> a list of KeyValues."""
    return [{"key": key, "value": value(item)} for key, item in plain.items()]


def span(number: int, attributes: dict[str, Any], events: Any = (), **changes: Any) -> dict[str, Any]:
    """One span; `events` are (name, attributes)."""
    base: dict[str, Any] = {
        "traceId": f"{number:032x}",
        "spanId": f"{number:016x}",
        "name": "chat m-large",
        "kind": 3,
        "startTimeUnixNano": str(START + number * 1_000_000_000),
        "endTimeUnixNano": str(START + number * 1_000_000_000 + 1_500_000_000),
        "attributes": pairs(attributes),
        "events": [
            {"name": name, "timeUnixNano": str(START), "attributes": pairs(own)} for name, own in events
        ],
        "status": {},
    }
    return base | changes


def request(*spans: Any, **resource: Any) -> dict[str, Any]:
    """An ExportTraceServiceRequest around spans; `resource` holds its attributes."""
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": pairs({"service.name": "gateway", **resource})},
                "scopeSpans": [{"scope": {"name": "instrumentation"}, "spans": list(spans)}],
            }
        ]
    }


def current(number: int, *, text: bool = True, prompt: str = PROMPT, **changes: Any) -> dict[str, Any]:
    """The GenAI conventions of now; messages as JSON text, or as structured values."""
    inputs = [{"role": "user", "parts": [{"type": "text", "content": prompt}]}]
    outputs = [{"role": "assistant", "parts": [{"type": "text", "content": ANSWER}], "finish_reason": "stop"}]
    system = [{"type": "text", "content": SYSTEM}]
    pack = json.dumps if text else lambda plain: plain
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m-large",
        "gen_ai.response.model": "m-large",
        "gen_ai.response.id": f"chatcmpl-{number}",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.stream": True,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.conversation.id": "c-1",
        "gen_ai.system_instructions": pack(system),
        "gen_ai.input.messages": pack(inputs),
        "gen_ai.output.messages": pack(outputs),
        "user.id": f"account-{number % 7}",
        "client.address": "203.0.113.9",
        "user_agent.original": "some-sdk/1.0",
    }
    return span(number, {key: item for key, item in (attributes | changes).items() if item is not None})


def legacy(number: int, **changes: Any) -> dict[str, Any]:
    """The GenAI conventions up to 1.36, with an event for every message."""
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "openai",
        "gen_ai.request.model": "m-large",
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.usage.prompt_tokens": 10,
        "gen_ai.usage.completion_tokens": 20,
        "enduser.id": f"account-{number % 7}",
        "net.sock.peer.addr": "10.0.0.1",
        "http.client_ip": "203.0.113.9",
        "http.user_agent": "some-sdk/1.0",
        "session.id": "c-1",
    }
    events = [
        ("gen_ai.system.message", {"gen_ai.system": "openai", "content": SYSTEM}),
        ("gen_ai.user.message", {"gen_ai.system": "openai", "content": PROMPT}),
        ("gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": json.dumps({"content": ANSWER})}),
    ]
    return span(number, attributes | changes, events)


def traceloop(number: int, **changes: Any) -> dict[str, Any]:
    """Traceloop's flat attributes."""
    attributes = {
        "llm.request.type": "chat",
        "gen_ai.system": "OpenAI",
        "gen_ai.request.model": "m-large",
        "gen_ai.response.model": "m-large",
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.temperature": 0.5,
        "llm.is_streaming": True,
        "gen_ai.prompt.0.role": "system",
        "gen_ai.prompt.0.content": SYSTEM,
        "gen_ai.prompt.1.role": "user",
        "gen_ai.prompt.1.content": PROMPT,
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.content": ANSWER,
        "gen_ai.completion.0.finish_reason": "stop",
        "gen_ai.usage.prompt_tokens": 10,
        "gen_ai.usage.completion_tokens": 20,
        "llm.usage.total_tokens": 30,
        "traceloop.association.properties.session_id": "c-1",
        "user.id": f"account-{number % 7}",
        "client.address": "203.0.113.9",
        "user_agent.original": "some-sdk/1.0",
    }
    return span(number, attributes | changes)


def openinference(number: int, **changes: Any) -> dict[str, Any]:
    """OpenInference's flat attributes, one message in parts."""
    attributes = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "m-large",
        "llm.provider": "openai",
        "llm.invocation_parameters": json.dumps({"max_tokens": 64, "temperature": 0.5, "stream": True}),
        "llm.input_messages.0.message.role": "system",
        "llm.input_messages.0.message.content": SYSTEM,
        "llm.input_messages.1.message.role": "user",
        "llm.input_messages.1.message.contents.0.message_content.type": "text",
        "llm.input_messages.1.message.contents.0.message_content.text": PROMPT,
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": ANSWER,
        "llm.finish_reason": "stop",
        "llm.token_count.prompt": 10,
        "llm.token_count.completion": 20,
        "llm.token_count.total": 30,
        "session.id": "c-1",
        "user.id": f"account-{number % 7}",
        "client.address": "203.0.113.9",
        "user_agent.original": "some-sdk/1.0",
    }
    return span(number, attributes | changes)


def access(number: int, **changes: Any) -> dict[str, Any]:
    """One line of an Envoy AI Gateway access log."""
    base: dict[str, Any] = {
        "start_time": f"2026-03-01T12:{number // 60 % 60:02d}:{number % 60:02d}.250Z",
        "method": "POST",
        "x-envoy-origin-path": "/v1/chat/completions",
        "protocol": "HTTP/1.1",
        "response_code": 200,
        "response_code_details": "via_upstream",
        "response_flags": "-",
        "duration": 1500,
        "bytes_received": 120,
        "bytes_sent": 640,
        "x-forwarded-for": "203.0.113.9",
        "downstream_remote_address": "10.0.0.5:51324",
        "user-agent": "some-sdk/1.0",
        "x-request-id": f"request-{number}",
        "ja4": "t13d1812h1_85036bcba153_d41ae481755e",
        "gen_ai.request.model": "m-large",
        "gen_ai.response.model": "m-large-2026-01-01",
        "gen_ai.provider.name": "openai",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.total_tokens": 30,
        "account_id": f"account-{number % 7}",
        "session.id": "c-1",
    }
    return base | changes
