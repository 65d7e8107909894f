"""LiteLLM's StandardLoggingPayload: one event per call, as JSON, JSON lines or arrays of events.

Read from LiteLLM 1.106.2, `litellm/types/utils.py`. An event is about 12 KB, most of it a price table that is
the same in every event, so only the fields below are decoded. What an event says that has to be turned:
- the account is the user, and the key's hash only where a key belongs to nobody: one person with many keys is
  one account, and one organisation is one entity however many keys it holds;
- token counts that LiteLLM does not know are written 0;
- `model` is a deployment, `model_group` the name that callers ask for;
- a request that our own guardrail refused looks like any failure: it is known by its case number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from stillwatch.ingest.bodies import (
    CONTENT_COLUMNS,
    Columns,
    content_columns,
    messages_from,
    parameters,
)
from stillwatch.ingest.endpoints import endpoint_of
from stillwatch.ingest.failures import blocker
from stillwatch.ingest.objects import DECODE_ERRORS, decode_part, read_objects
from stillwatch.ingest.registry import Owner, Probe, RawBatch, ReadOptions
from stillwatch.ingest.replies import response_columns
from stillwatch.ingest.rows import batches
from stillwatch.ingest.source import Source
from stillwatch.schema.errors import FormatError, Where
from stillwatch.schema.tables import OWN_REFUSAL

_EMPTY = msgspec.Raw(b"null")


class _Metadata(msgspec.Struct, gc=False):
    user_api_key_hash: Any = None
    user_api_key_user_id: Any = None
    user_api_key_user_email: Any = None
    user_api_key_team_id: Any = None
    user_api_key_org_id: Any = None
    user_api_key_end_user_id: Any = None
    user_api_key_request_route: Any = None
    requester_ip_address: Any = None
    user_agent: Any = None
    requester_custom_headers: Any = None
    usage_object: Any = None


class _Event(msgspec.Struct, gc=False):
    """The fields of a StandardLoggingPayload that are read. All are optional and of any JSON type."""

    id: Any = None
    session_id: Any = None
    call_type: Any = None
    stream: Any = None
    status: Any = None
    custom_llm_provider: Any = None
    prompt_tokens: Any = None
    completion_tokens: Any = None
    startTime: Any = None
    endTime: Any = None
    response_time: Any = None
    model: Any = None
    model_group: Any = None
    end_user: Any = None
    requester_ip_address: Any = None
    user_agent: Any = None
    messages: msgspec.Raw = _EMPTY
    response: msgspec.Raw = _EMPTY
    model_parameters: Any = None
    error_str: Any = None
    error_information: Any = None
    guardrail_information: Any = None
    metadata: _Metadata | None = None


FIELDS, METADATA_FIELDS = _Event.__struct_fields__, _Metadata.__struct_fields__
"""Fields of an event, and of its metadata, that are read."""
_decode_event = msgspec.json.Decoder(_Event).decode
_MARKS = frozenset({"litellm_call_id", "model_group", "call_type", "startTime", "metadata", "hidden_params"})
_CALLS = {
    "completion": "chat.completions",
    "acompletion": "chat.completions",
    "responses": "responses",
    "aresponses": "responses",
    "anthropic_messages": "messages",
    "text_completion": "completions",
    "atext_completion": "completions",
    "embedding": "embeddings",
    "aembedding": "embeddings",
}


class LiteLLMImporter:
    """Reads events of LiteLLM's logging callbacks."""

    name = "litellm"

    def sniff(self, probe: Probe) -> float:
        """High for JSON objects with the marks of an event."""
        best = max((len(_MARKS & set(found)) for found in probe.objects), default=0)
        if best == 0 and probe.container in ("json", "jsonl"):
            # An event may be longer than the head: then its first keys are all there is to see.
            best = sum(f'"{mark}"'.encode() in probe.head for mark in _MARKS)
        return 0.95 if best >= 4 else 0.0

    def read(self, source: Source, options: ReadOptions) -> Iterator[RawBatch]:
        """Batches with canonical names; see `Importer.read`."""
        if source.container not in ("json", "jsonl"):
            raise FormatError(
                f"LiteLLM events are JSON, this is {source.container}",
                where=Where(source.path),
                hint="leave out --format, or describe the columns in a mapping file",
            )
        with_text = options.columns is None or bool(CONTENT_COLUMNS & options.columns)
        pieces = read_objects(source, msgspec.json.Decoder(_Event))
        yield from batches(pieces, options, lambda event: _columns(event, with_text), _owner)


def event_columns(data: bytes) -> Columns:
    """Canonical columns of one event, given as JSON. Raises msgspec.DecodeError where it is no event."""
    return _columns(_decode_event(data), True)


def _account(metadata: _Metadata) -> str | None:
    return _text(metadata.user_api_key_user_id) or _text(metadata.user_api_key_hash)


def _owner(event: _Event) -> Owner | None:
    metadata = event.metadata
    account = _account(metadata) if metadata is not None else None
    if metadata is None or account is None:
        return None
    mail = _text(metadata.user_api_key_user_email)
    domain = mail.rsplit("@", 1)[1].lower() if mail and "@" in mail else None
    return Owner(account, _entity(metadata), domain or None)


def _entity(metadata: _Metadata) -> str | None:
    return _text(metadata.user_api_key_org_id) or _text(metadata.user_api_key_team_id)


def _columns(event: _Event, with_text: bool) -> Columns:
    metadata = event.metadata or _Metadata()
    asked = event.model_parameters if isinstance(event.model_parameters, Mapping) else {}
    out: Columns = parameters(asked)
    out.pop("model", None)
    out.update(_reply(event, metadata))
    if with_text:
        out.update(_content(event, asked))
    wanted_stream = event.stream if isinstance(event.stream, bool) else out.get("stream")
    route = _text(metadata.user_api_key_request_route)
    out.update(
        exchange_id=_text(event.id),
        ts=_time(event.startTime),
        account_id=_account(metadata),
        entity_id=_entity(metadata),
        key_id=_text(metadata.user_api_key_hash),
        end_user_id=_text(event.end_user)
        or _text(metadata.user_api_key_end_user_id)
        or out.get("end_user_id"),
        conversation_id=_text(event.session_id) or out.get("conversation_id"),
        provider=_text(event.custom_llm_provider),
        model=_text(event.model_group) or _text(event.model),
        endpoint=endpoint_of(route) or _CALLS.get(_text(event.call_type) or ""),
        stream=wanted_stream,
        ip=_text(event.requester_ip_address) or _text(metadata.requester_ip_address),
        user_agent=_text(event.user_agent) or _text(metadata.user_agent),
        ja4=_header(metadata.requester_custom_headers, "x-ja4"),
        latency_ms=_latency_ms(event),
    )
    return out


def _content(event: _Event, asked: Mapping[str, Any]) -> Columns:
    """Columns of the messages; redacted ones are no text at all, or all accounts would share it."""
    body = _decoded(event.messages)
    if body is None or body == [] or body == {}:
        return {"content_state": "absent"}
    instructions = _text(asked.get("instructions")) or _system(asked.get("system"))
    return content_columns(messages_from(body), asked, system=instructions)


def _system(value: Any) -> str | None:
    found = messages_from([{"role": "system", "content": value}]) if value else []
    return found[0].text if found else None


def _reply(event: _Event, metadata: _Metadata) -> Columns:
    body = _decoded(event.response)
    out = response_columns(body)
    out.pop("model", None)
    # The event's own counts are LiteLLM's billed ones, with cached tokens in them; 0 stands for unknown.
    for name, own in (("input_tokens", event.prompt_tokens), ("output_tokens", event.completion_tokens)):
        out[name] = own if _whole(own) else None
    failed = event.status == "failure"
    if out["output_tokens"] is None and out["input_tokens"] is not None and not failed:
        # An empty answer to a counted prompt really has no tokens.
        out["output_tokens"] = 0 if event.completion_tokens == 0 and out.get("response") is None else None
    if not out.get("reasoning_tokens"):
        out.pop("reasoning_tokens", None)
    if failed:
        out.update(_failure(event))
    elif event.status == "success":
        out["status"] = 200
    return out


def _failure(event: _Event) -> Columns:
    """Status and blocker of a failed call.

    A failure without a code and without an owner of the key is a key that nobody knows: 401.
    """
    info = event.error_information if isinstance(event.error_information, Mapping) else {}
    code = _text(info.get("error_code"))
    status = int(code) if code and code.isascii() and code.isdigit() and len(code) == 3 else None
    text = _text(info.get("error_message")) or _text(event.error_str) or ""
    if status is None and re.search(r"invalid.{0,20}key|authentication error", text, re.IGNORECASE):
        status = 401
    return {"status": status, "blocked_by": _own_refusal(event.guardrail_information) or blocker(text)}


def _own_refusal(entries: Any) -> str | None:
    """`stillwatch:ACTION` where our guardrail, inside LiteLLM or called by it, says that it refused. Asked of
    failures alone: whoever forged it would have had no answer either."""
    for entry in entries if isinstance(entries, list) else ():
        if (
            isinstance(entry, Mapping)
            and "stillwatch" in (entry.get("guardrail_provider"), entry.get("guardrail_name"))
            and entry.get("guardrail_status") == "guardrail_intervened"
        ):
            said = entry.get("guardrail_response")
            return OWN_REFUSAL + (
                _text(said.get("action") if isinstance(said, Mapping) else None) or "refused"
            )
    return None


def _latency_ms(event: _Event) -> float | None:
    if _number(event.response_time) and event.response_time >= 0:
        return float(event.response_time) * 1000.0
    if _number(event.startTime) and _number(event.endTime) and event.endTime >= event.startTime:
        return float(event.endTime - event.startTime) * 1000.0
    return None


def _time(value: Any) -> Any:
    """Epoch seconds -> microseconds; anything else is judged by the checks as it stands."""
    if _number(value) and 0 <= value < 1e11:
        return round(float(value) * 1e6)
    return value


def _header(headers: Any, name: str) -> str | None:
    return _text(headers.get(name)) if isinstance(headers, Mapping) else None


def _decoded(raw: msgspec.Raw) -> Any:
    """A part that was left undecoded; None where it does not decode.

    Older callbacks write the messages as JSON inside text.
    """
    try:
        value = decode_part(raw)
    except DECODE_ERRORS:
        return None
    if not (isinstance(value, str) and value[:1] in ("[", "{")):
        return value
    try:
        return decode_part(value.encode())
    except (*DECODE_ERRORS, UnicodeEncodeError):
        return value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


IMPORTER = LiteLLMImporter()
