"""What spans say that was said: four vocabularies -> messages and choices in the shape that `bodies` reads.

Which one a span speaks is seen by what it carries, in this order:
- the GenAI conventions: `gen_ai.input.messages` and its kin with typed parts, as JSON text or as structured
  values, on the span or on the event `gen_ai.client.inference.operation.details`;
- the GenAI conventions up to 1.36: the events `gen_ai.content.prompt` and `gen_ai.<role>.message`;
- Traceloop: `gen_ai.prompt.<n>.content`; - OpenInference: `llm.input_messages.<n>.message.content`.

Sources: open-telemetry/semantic-conventions-genai (client-inference), semantic-conventions 1.27 to 1.36
(gen-ai-events), traceloop/openllmetry (semantic-conventions-ai), Arize-ai/openinference (spec).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from stillwatch.ingest.attributes import Attributes, indexed, plain
from stillwatch.ingest.bodies import Columns, content_columns, messages_from, messages_of
from stillwatch.ingest.objects import DECODE_ERRORS, decode_part
from stillwatch.schema.tables import REDACTION_MARKERS

Event = tuple[str, Attributes]
"""Name and attributes of a span's event."""

_Item = dict[str, Any]
_ROLES = {"human": "user", "ai": "assistant", "model": "assistant"}
_MESSAGE_EVENTS = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}


_FIRST_SAID = frozenset(
    {
        "gen_ai.prompt.0.role", "gen_ai.prompt.0.content", "gen_ai.completion.0.role",
        "gen_ai.completion.0.content", "gen_ai.completion.0.finish_reason", "llm.input_messages.0.message.role",
        "llm.input_messages.0.message.content", "llm.output_messages.0.message.role",
        "llm.output_messages.0.message.content", "llm.prompts.0.prompt.text", "llm.choices.0.completion.text",
    }
)  # fmt: skip
"""Where flat vocabularies begin to say something: a span without any of them need not be searched."""
_FIRST_TOOLS = frozenset(
    {"llm.tools.0.tool.json_schema", "llm.request.functions.0.name", "gen_ai.tool.0.name"}
)


class _Cut:
    """Stands for JSON that does not decode: the SDK's limit on the length of attributes has cut it."""


_CUT = _Cut()


def message_columns(a: Attributes, events: Sequence[Event], asked: Mapping[str, Any]) -> Columns:
    """Columns of the messages of a request. `asked` has what else bears on them (`previous_response_id`)."""
    found = _asked(a, events)
    system = _structured(a.get("gen_ai.system_instructions"))
    if found is _CUT or system is _CUT:
        return {"content_state": "truncated"}
    text = _system_text(system)
    messages = messages_from(found) if found else []
    if not messages and text is None:
        redacted = a.get("input.value") in REDACTION_MARKERS
        return {"content_state": "redacted" if redacted else "absent"}
    return content_columns(messages, {**asked, "tools": _tools(a)}, system=text)


def choices_of(a: Attributes, events: Sequence[Event]) -> list[_Item] | None:
    """The choices of the response, as chat completions have them; None where the span keeps none."""
    if "gen_ai.output.messages" in a:
        found = _structured(a["gen_ai.output.messages"])
        items = found if isinstance(found, list) else [found]
        return [_choice(item, item.get("finish_reason")) for item in items if isinstance(item, dict)] or None
    said = [_event_choice(own) for name, own in events if name == "gen_ai.choice"]
    for name, own in events:
        if name == "gen_ai.content.completion":
            said.extend(_completion(own.get("gen_ai.completion")))
    if not said and "gen_ai.completion" in a:
        said = _completion(a["gen_ai.completion"])
    if not said:
        said = [
            _choice(_traceloop(own), own.get("finish_reason")) for own in indexed(a, "gen_ai.completion.")
        ]
        said = said or [_choice(_openinference(own), None) for own in indexed(a, "llm.output_messages.")]
        said = said or [{"text": own.get("completion.text")} for own in indexed(a, "llm.choices.")]
    if not said and isinstance(a.get("output.value"), str) and not _is_json(a, "output"):
        said = [{"message": {"content": a["output.value"]}}]
    return said or None


def _asked(a: Attributes, events: Sequence[Event]) -> Any:
    """Messages in any shape that `messages_from` takes; None where there are none."""
    if "gen_ai.input.messages" in a:
        return _message_list(_structured(a["gen_ai.input.messages"]))
    told: list[_Item] = []
    for name, own in events:
        if name == "gen_ai.content.prompt":
            return _message_list(_structured(own.get("gen_ai.prompt")))
        if name in _MESSAGE_EVENTS:
            told.append(_event_message(own, _MESSAGE_EVENTS[name]))
    if told:
        return told
    if "gen_ai.prompt" in a:
        return _message_list(_structured(a["gen_ai.prompt"]))
    if not _FIRST_SAID.isdisjoint(a):
        told = [_traceloop(own) for own in indexed(a, "gen_ai.prompt.")]
        told = told or [_openinference(own) for own in indexed(a, "llm.input_messages.")]
        if told:
            return told
        prompts = [own.get("prompt.text") for own in indexed(a, "llm.prompts.")]
        if prompts:
            return [text for text in prompts if isinstance(text, str)]
    whole = a.get("input.value")
    if not isinstance(whole, str) or whole in REDACTION_MARKERS:
        return None
    if not _is_json(a, "input"):
        return whole
    body = _structured(whole)
    if isinstance(body, dict):
        return (
            None if messages_of(body) is None else body.get("messages", body.get("input", body.get("prompt")))
        )
    return body if body is _CUT or isinstance(body, list) else None


def _is_json(a: Attributes, side: str) -> bool:
    return a.get(f"{side}.mime_type") == "application/json"


def _structured(value: Any) -> Any:
    """A structured value, or what its JSON text says; text that is no JSON stays text."""
    value = plain(value)
    if not isinstance(value, str) or value[:1] not in ("[", "{"):
        return value
    try:
        return msgspec.json.decode(value)
    except DECODE_ERRORS:
        pass
    try:
        return decode_part(value.encode("utf-8", "replace"))
    except DECODE_ERRORS:
        return _CUT


def _message_list(found: Any) -> Any:
    if isinstance(found, list):
        return [_parted(item) if isinstance(item, dict) else item for item in found]
    return _parted(found) if isinstance(found, dict) else found


def _parted(item: _Item) -> _Item:
    """A message with typed parts -> one with content; any other message stays what it is."""
    parts = item.get("parts")
    role = item.get("role")
    role = _ROLES.get(role, role) if isinstance(role, str) else "user"
    if not isinstance(parts, list):
        return item if role == item.get("role") else {**item, "role": role}
    if len(parts) == 1 and isinstance(parts[0], dict) and parts[0].get("type") == "text":
        return {"role": role, "content": parts[0].get("content")}
    return {"role": role, "content": [_part(part) for part in parts if isinstance(part, dict)]}


def _part(part: _Item) -> _Item:
    kind, content = part.get("type"), part.get("content")
    if kind == "text":
        return {"type": "text", "text": content}
    if kind == "reasoning":
        return {"type": "thinking", "thinking": content}
    if kind == "tool_call":
        return {"type": "tool_use", "name": part.get("name"), "input": part.get("arguments")}
    if kind == "tool_call_response":
        answer = next((part[key] for key in ("response", "result", "content") if key in part), None)
        return {"type": "tool_result", "content": answer}
    return part


def _system_text(found: Any) -> str | None:
    """System instructions: text, or a list of parts."""
    if isinstance(found, str):
        return found or None
    parts = found if isinstance(found, list) else [found]
    texts = [part.get("content", part.get("text")) if isinstance(part, dict) else part for part in parts]
    return "\n".join(text for text in texts if isinstance(text, str) and text) or None


def _event_message(own: Attributes, role: str) -> _Item:
    """A message event: its members as attributes, or as JSON in one attribute (Azure)."""
    body = _structured(own.get("gen_ai.event.content"))
    members = body if isinstance(body, dict) else own
    out: _Item = {"role": role, "content": _content(members.get("content"))}
    if isinstance(members.get("role"), str):
        out["role"] = _ROLES.get(members["role"], members["role"])
    calls = _structured(members.get("tool_calls"))
    if isinstance(calls, list) and calls:
        out["tool_calls"] = calls
    return out


def _event_choice(own: Attributes) -> _Item:
    body = _structured(own.get("gen_ai.event.content"))
    members = body if isinstance(body, dict) else own
    message = _structured(members.get("message"))
    if not isinstance(message, dict):
        message = {"content": message if isinstance(message, str) else members.get("content")}
    content = _content(message.get("content"))
    return _choice({**message, "content": content}, members.get("finish_reason"))


def _completion(value: Any) -> list[_Item]:
    found = _structured(value)
    if isinstance(found, str):
        return [{"message": {"content": found}}]
    items = found if isinstance(found, list) else [found]
    return [_choice(item, item.get("finish_reason")) for item in items if isinstance(item, dict)]


def _choice(item: _Item, stop: Any) -> _Item:
    message = _parted(item)
    return {"message": message, "finish_reason": stop if stop is not None else item.get("finish_reason")}


def _content(value: Any) -> Any:
    """Content that is text, or typed parts written as JSON text; a prompt that merely is JSON stays text."""
    value = plain(value)
    if not isinstance(value, str) or not value.startswith("[{"):
        return value
    parts = _structured(value)
    typed = isinstance(parts, list) and all(
        isinstance(part, dict) and isinstance(part.get("type"), str) for part in parts
    )
    return parts if typed else value


def _traceloop(own: Attributes) -> _Item:
    role = own.get("role")
    out: _Item = {
        "role": _ROLES.get(role, role) if isinstance(role, str) else "user",
        "content": _content(own.get("content")),
    }
    return _with_calls(out, own, "tool_calls.", lambda call: (call.get("name"), call.get("arguments")))


def _openinference(own: Attributes) -> _Item:
    role = own.get("message.role")
    content = own.get("message.content")
    if content is None:
        content = [
            {"type": "text", "text": part.get("message_content.text")}
            for part in indexed(own, "message.contents.")
            if part.get("message_content.type", "text") == "text"
        ]
    out: _Item = {"role": _ROLES.get(role, role) if isinstance(role, str) else "user", "content": content}
    name = "tool_call.function."
    return _with_calls(
        out, own, "message.tool_calls.", lambda call: (call.get(f"{name}name"), call.get(f"{name}arguments"))
    )


def _with_calls(
    out: _Item, own: Attributes, prefix: str, read: Callable[[Attributes], tuple[Any, Any]]
) -> _Item:
    calls = [read(call) for call in indexed(own, prefix)] if len(own) > 2 else []
    if calls:
        out["tool_calls"] = [
            {"type": "function", "function": {"name": name, "arguments": arguments}}
            for name, arguments in calls
        ]
    return out


def _tools(a: Attributes) -> list[Any] | None:
    """Tool definitions as chat completions have them."""
    if "gen_ai.tool.definitions" in a:
        found = _structured(a["gen_ai.tool.definitions"])
        return found if isinstance(found, list) else None
    if _FIRST_TOOLS.isdisjoint(a):
        return None
    listed = [_structured(own.get("tool.json_schema")) for own in indexed(a, "llm.tools.")]
    if listed:
        return [tool for tool in listed if isinstance(tool, dict)]
    named = indexed(a, "llm.request.functions.") or indexed(a, "gen_ai.tool.")
    return [
        {
            "name": own.get("name"),
            "description": own.get("description"),
            "parameters": _structured(own.get("parameters")),
        }
        for own in named
    ] or None
