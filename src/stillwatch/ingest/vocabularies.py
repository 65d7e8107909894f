"""Span attributes of four vocabularies -> canonical columns: the GenAI conventions of now and up to 1.36,
Traceloop's, and OpenInference's. Every column takes the first of its names that the span has, so a span may
mix them, as exporters for several backends write it.

What stands under `litellm.*` was set by LiteLLM after it had authenticated the key, so as the account it wins
over `user.id`, which an application fills as it likes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from stillwatch.ingest.addresses import client_address
from stillwatch.ingest.attributes import Attributes, plain
from stillwatch.ingest.bodies import Columns, parameters
from stillwatch.ingest.endpoints import endpoint_of
from stillwatch.ingest.failures import blocker
from stillwatch.ingest.objects import DECODE_ERRORS
from stillwatch.ingest.replies import response_columns
from stillwatch.ingest.span_content import Event, choices_of, message_columns

ACCOUNT = ("litellm.metadata.user_api_key_user_id", "litellm.api_key.hash", "user.id", "enduser.id")
"""Where the account stands: on the span in this order, then on the resource."""

_ENTITY = ("litellm.metadata.user_api_key_org_id", "litellm.team.id")
_MODEL = ("gen_ai.response.model", "llm.response.model", "gen_ai.request.model", "llm.model_name",
          "llm.request.model", "embedding.model_name")  # fmt: skip
_PROVIDER = ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system", "llm.vendor")
_CONVERSATION = ("gen_ai.conversation.id", "session.id", "traceloop.association.properties.session_id")
_END_USER = ("litellm.end_user.id", "litellm.metadata.user_api_key_end_user_id", "llm.user")
_AGENT = ("user_agent.original", "http.user_agent", "http.request.header.user-agent")
_STATUS = ("http.response.status_code", "http.status_code", "litellm.provider.error.code")
_ROUTE = ("litellm.request.route", "url.path", "http.route", "http.target")
_STREAM = ("gen_ai.request.stream", "litellm.request.streaming", "llm.is_streaming", "gen_ai.is_streaming")
_LIMIT = ("gen_ai.request.max_tokens", "llm.request.max_tokens")
_SCHEMA = ("gen_ai.request.structured_output_schema", "llm.request.structured_output_schema")

_INPUT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt",
          "llm.usage.prompt_tokens")  # fmt: skip
_OUTPUT = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion",
           "llm.usage.completion_tokens")  # fmt: skip
_REASONING = ("gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens",
              "gen_ai.usage.output_tokens.reasoning", "llm.token_count.completion_details.reasoning")  # fmt: skip
_CACHED = (
    ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens",
     "llm.token_count.prompt_details.cache_read"),
    ("gen_ai.usage.cache_write.input_tokens", "gen_ai.usage.cache_creation.input_tokens",
     "gen_ai.usage.cache_creation_input_tokens", "llm.token_count.prompt_details.cache_write"),
)  # fmt: skip

_OPERATIONS = {
    "chat": None,
    "text_completion": "completions",
    "generate_content": None,
    "embeddings": "embeddings",
}
_OTHER_OPERATIONS = frozenset(
    {"create_agent", "invoke_agent", "invoke_workflow", "execute_tool", "retrieval", "plan", "search_memory"}
)
_REQUEST_TYPES = {"chat": None, "completion": "completions", "embedding": "embeddings"}
_KINDS = {"LLM": None, "EMBEDDING": "embeddings"}
_API_TYPES = {"chat_completions": "chat.completions", "responses": "responses"}
_ERRORS = (
    (429, re.compile(r"rate.?limit|too.?many|quota|throttl", re.IGNORECASE)),
    (401, re.compile(r"authenticat|unauthorized|api.?key", re.IGNORECASE)),
    (403, re.compile(r"permission|forbidden|access.?denied", re.IGNORECASE)),
    (404, re.compile(r"not.?found", re.IGNORECASE)),
    (504, re.compile(r"time.?out|deadline", re.IGNORECASE)),
    (529, re.compile(r"overloaded", re.IGNORECASE)),
    (400, re.compile(r"bad.?request|invalid|content.?(filter|policy)|context.?window", re.IGNORECASE)),
)
_NONE = (None, False)


def inference(a: Attributes) -> tuple[str | None, bool]:
    """(canonical endpoint as far as the span's kind says it, is this span a call of a model).

    Spans of agents, tools and workflows repeat the model and the tokens of the calls inside them, so only
    the calls themselves count.
    """
    kind = a.get("openinference.span.kind")
    if isinstance(kind, str):
        return (_KINDS[kind.upper()], True) if kind.upper() in _KINDS else _NONE
    operation = a.get("gen_ai.operation.name")
    if isinstance(operation, str):
        if operation in _OPERATIONS:
            return _OPERATIONS[operation], True
        own = operation not in _OTHER_OPERATIONS and not operation.startswith("litellm.")
        return None, own and "gen_ai.request.model" in a
    asked = a.get("llm.request.type")
    if isinstance(asked, str):
        return (_REQUEST_TYPES[asked], True) if asked in _REQUEST_TYPES else _NONE
    if "traceloop.span.kind" in a:
        return _NONE
    named = "gen_ai.request.model" in a or "gen_ai.response.model" in a
    return None, named and ("gen_ai.provider.name" in a or "gen_ai.system" in a)


def identity_columns(a: Attributes, resource: Attributes) -> Columns:
    """Who called, and from where."""
    account = _text(a, ACCOUNT) or _text(resource, ACCOUNT)
    end_user = _text(a, _END_USER)
    if end_user is None and _text(a, ACCOUNT[:2]) is not None:
        end_user = _text(a, ACCOUNT[2:])
    ja4 = _header(a, "http.request.header.x-ja4") or _text(a, ("tls.client.ja4",))
    hops = _header(a, "http.request.header.x-forwarded-for")
    return {
        "account_id": account,
        "entity_id": _text(a, _ENTITY) or _text(resource, _ENTITY),
        "key_id": _text(a, ("litellm.api_key.hash",)),
        "end_user_id": end_user,
        "end_user_trust": "asserted" if end_user is not None else None,
        "conversation_id": _text(a, _CONVERSATION),
        "ip": client_address(hops, _text(a, ("client.address", "http.client_ip"))),
        "ja4": ja4,
        "user_agent": _text(a, _AGENT[:2]) or _header(a, _AGENT[2]),
    }


def call_columns(
    a: Attributes,
    events: Sequence[Event],
    *,
    with_content: bool,
    with_reply: bool,
    failed: bool,
    message: str,
) -> Columns:
    """What was asked for, what came back and what it cost. `message` is the text of the span's status."""
    asked = _asked(a)
    out = parameters(asked)
    if with_reply:
        choices = choices_of(a, events) or []
        if not any(choice.get("finish_reason") for choice in choices):
            choices.append({"finish_reason": _stop(a)})
        out.update(response_columns({"choices": choices}))
    if with_content:
        out.update(message_columns(a, events, asked))
    # A gateway's callers know a model by the name they ask for.
    gateway = "litellm.call_id" in a
    out["model"] = (
        (_text(a, ("gen_ai.request.model",)) if gateway else None) or _text(a, _MODEL) or out.get("model")
    )
    out["provider"] = _text(a, _PROVIDER)
    api = _API_TYPES.get(_text(a, ("openai.api.type", "gen_ai.openai.api.type")) or "")
    out["endpoint"] = endpoint_of(_text(a, _ROUTE)) or api
    out.update(_usage(a, failed))
    out.update(_outcome(a, events, failed, message))
    return out


def _stop(a: Attributes) -> Any:
    stop = plain(a.get("gen_ai.response.finish_reasons"))
    return stop[0] if isinstance(stop, list) and stop else stop or a.get("llm.finish_reason")


def _asked(a: Attributes) -> dict[str, Any]:
    """The parameters of the request, as a request body names them."""
    asked: dict[str, Any] = {}
    given = a.get("llm.invocation_parameters")
    if isinstance(given, str):
        try:
            found = msgspec.json.decode(given)
        except DECODE_ERRORS:
            found = None
        asked = found if isinstance(found, dict) else {}
    for name, key in (
        ("temperature", "gen_ai.request.temperature"),
        ("n", "gen_ai.request.choice.count"),
        ("reasoning_effort", "gen_ai.request.reasoning.level"),
        ("previous_response_id", "gen_ai.request.previous_response.id"),
    ):
        if key in a:
            asked[name] = a[key]
    for name, keys in (("max_tokens", _LIMIT), ("stream", _STREAM)):
        for key in keys:
            if key in a:
                asked[name] = a[key]
                break
    schema = _text(a, _SCHEMA)
    if schema is not None:
        with suppress(*DECODE_ERRORS):
            asked["response_format"] = {"type": "json_schema", "schema": msgspec.json.decode(schema)}
    return asked


def _usage(a: Attributes, failed: bool) -> Columns:
    """Token counts; the input includes cached tokens, as all four vocabularies have it.

    An input smaller than its cached part was counted without it.
    """
    taken, given = _count(a, _INPUT), _count(a, _OUTPUT)
    cached = sum(_count(a, names) or 0 for names in _CACHED)
    if taken is not None and cached > taken:
        taken += cached
    return {
        "input_tokens": taken or None,
        "output_tokens": given if given or (taken and not failed) else None,
        "reasoning_tokens": _count(a, _REASONING),
    }


def _outcome(a: Attributes, events: Sequence[Event], failed: bool, message: str) -> Columns:
    """HTTP status: the one that is stated, else what the error's name means; a failure without a name is 500."""
    kind = _text(a, ("error.type",))
    stated = next((_http(a[key]) for key in _STATUS if key in a and _http(a[key]) is not None), None)
    if stated is None and kind is not None:
        stated = _http(kind)
    if not failed and kind is None and (stated is None or stated < 400):
        return {"status": stated or 200}
    texts = [message, _text(a, ("error.message", "error")) or ""]
    names = [kind or ""]
    for name, own in events:
        if name == "exception":
            texts.append(_text(own, ("exception.message",)) or "")
            names.append(_text(own, ("exception.type",)) or "")
    if stated is None:
        stated = next(
            (status for name in names for status, pattern in _ERRORS if name and pattern.search(name[:256])),
            500,
        )
    blocked = next((found for text in texts if text and (found := blocker(text)) is not None), None)
    return {"status": stated, "blocked_by": blocked}


def _http(value: Any) -> int | None:
    if type(value) is str and len(value) == 3 and value.isascii() and value.isdigit():
        value = int(value)
    return value if type(value) is int and 100 <= value <= 599 else None


def _count(a: Attributes, names: Sequence[str]) -> int | None:
    for name in names:
        if name in a:
            value = a[name]
            if type(value) is float and value.is_integer():
                value = int(value)
            if type(value) is int and 0 <= value < 2**31:
                return value
    return None


def _text(a: Mapping[str, Any], names: Sequence[str]) -> str | None:
    for name in names:
        if name in a:
            value = a[name]
            if type(value) is str:
                if value:
                    return value
            elif type(value) is int:
                return str(value)
    return None


def _header(a: Attributes, name: str) -> str | None:
    """A captured header: a list of its values, or text."""
    value = plain(a.get(name)) if name in a else None
    if isinstance(value, list):
        value = ",".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) and value else None
