"""Request and response bodies of the three public APIs -> canonical columns.

Chat completions, responses and messages bodies are told apart by their own keys, so one log may mix them.
Shapes: OpenAI API reference (chat, responses), Anthropic API reference (messages). Every function takes
decoded JSON of any shape and leaves out what it does not understand; none raises on odd input.

What the hashes cover:
- `turn_hashes`: a chain over user-authored and assistant text in order, noted after each user-authored turn.
  System prompts, tools, tool results and reasoning do not enter it, so it survives a changed harness.
- `prefix_hash`: a chain over system prompt, tools and every message before the newest user turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from stillwatch.ingest.reasoning import reasoning_of
from stillwatch.schema.tables import REDACTION_MARKERS
from stillwatch.sketch.hashing import chain_hash, chain_on, content_hash

MAX_TURNS = 64
"""`turn_hashes` keeps the newest this many."""

CONTENT_COLUMNS = frozenset(
    {
        "system", "prompt", "n_messages", "newest_role", "turn_hashes", "prefix_hash", "prefix_bytes",
        "system_hash", "tools_hash", "reasoning_in", "content_state",
    }
)  # fmt: skip
"""What `content_columns` fills: where none of them is wanted, the messages need not be looked at."""

Columns = dict[str, Any]
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_SYSTEM_ROLES = frozenset({"system", "developer"})
_PLAIN_ROLES = frozenset({"user", "assistant", "system", "developer"})
_NO_TEXTS: Sequence[str] = ()
_encode = msgspec.json.Encoder(order="sorted").encode


@dataclass(slots=True)
class Message:
    """One message, whichever API it came through."""

    role: str
    text: str | None
    """What the author wrote; None where there is none (tool results, pictures)."""
    tool_text: str | None
    """Tool results and calls: they belong to the prefix, never to the author's words."""
    reasoning: Sequence[str]


def request_columns(body: Any, *, with_content: bool = True) -> Columns:
    """Canonical columns of one request body (a decoded JSON object; anything else gives none)."""
    if not isinstance(body, dict):
        return {}
    out = parameters(body)
    if with_content:
        first, second = body.get("system"), body.get("instructions")
        system = _join([_text(first), _text(second)]) if first or second else None
        messages = messages_of(body)
        if messages:
            out.update(content_columns(messages, body, system=system))
    return out


def asking_columns(body: Mapping[str, Any]) -> Columns:
    """Those of `request_columns` that say what is asked for, and none about earlier turns: `prompt`, `system`,
    `system_hash`, `tools_hash`, `format_hash` among them. For whoever cannot wait for the hashes of a long history.
    """
    out: Columns = {}
    asked = _format(body)
    if asked is not None:
        out["format_hash"] = format_hash(asked)
    first, second = body.get("system"), body.get("instructions")
    system = _join([_text(first), _text(second)]) if first or second else None
    messages = messages_of(body)
    if messages:
        out.update(content_columns(messages, body, system=system, history=False))
    return out


def content_columns(
    messages: Sequence[Message], asked: Mapping[str, Any], *, system: str | None = None, history: bool = True
) -> Columns:
    """Columns of the messages of a request whose other parameters are `asked`.

    Text that a logger has taken out is no text at all: hashed, all accounts would share it.
    """
    gone = [message for message in messages if message.text in REDACTION_MARKERS]
    if gone and len(gone) == sum(message.text is not None for message in messages):
        return {"content_state": "redacted"}
    out = conversation_columns(
        messages, system=system, tools=asked.get("tools"), hidden=not history or _hides(asked)
    )
    if gone or system in REDACTION_MARKERS:
        for name in ("turn_hashes", "prefix_hash", "prefix_bytes"):
            out.pop(name, None)
        for name in ("prompt", "system"):
            if out.get(name) in REDACTION_MARKERS:
                out[name] = None
                out.pop(f"{name}_hash", None)
        out["content_state"] = "redacted"
    return out


def _hides(asked: Mapping[str, Any]) -> bool:
    """Whether earlier turns are kept by the server, all of them or single items."""
    if asked.get("previous_response_id") is not None or asked.get("conversation") is not None:
        return True
    items = asked.get("input")
    return isinstance(items, list) and any(
        isinstance(item, dict) and item.get("type") == "item_reference" for item in items
    )


def messages_of(body: Mapping[str, Any]) -> list[Message] | None:
    """The messages of a body: `messages`, else `input`, else `prompt`; None when it has none of them."""
    for key in ("messages", "input", "prompt"):
        if body.get(key) is not None:
            return messages_from(body[key])
    return None


def messages_from(value: Any) -> list[Message]:
    """Messages from a string, a list of strings, or a list of messages or response items."""
    if isinstance(value, str):
        return [Message("user", value, None, _NO_TEXTS)]
    if isinstance(value, dict):
        value = value["messages"] if isinstance(value.get("messages"), list) else [value]
    if not isinstance(value, list):
        return []
    if value and isinstance(value[0], str) and all(isinstance(item, str) for item in value):
        return [Message("user", "\n".join(value), None, _NO_TEXTS)]
    out: list[Message] = []
    for item in value:
        if not isinstance(item, dict):
            continue
        role, content = item.get("role"), item.get("content")
        # Nearly every message is two strings.
        if len(item) == 2 and type(content) is str and type(role) is str and role in _PLAIN_ROLES:
            out.append(Message(role, content, None, _NO_TEXTS))
        else:
            out.append(_message(item))
    return out


def conversation_columns(
    messages: Sequence[Message], *, system: str | None = None, tools: Any = None, hidden: bool = False
) -> Columns:
    """Columns that follow from the messages of a request.

    `hidden` says that earlier turns are kept by the server: then the hashes over history are left null,
    because hashing the delta alone would make unrelated conversations look alike.
    """
    out: Columns = {}
    own = [message.text for message in messages if message.role in _SYSTEM_ROLES]
    spoken = messages
    if own:
        system = _join([system, *own])
        spoken = [message for message in messages if message.role not in _SYSTEM_ROLES]
    newest = _newest_user(spoken)
    out["system"] = system
    system_hash = content_hash("system", system) if system else None
    out["system_hash"] = system_hash
    out["n_messages"] = len(messages)
    out["newest_role"] = messages[-1].role if messages else None
    out["prompt"] = spoken[newest].text if newest is not None else None
    thoughts = [message.reasoning for message in messages if message.reasoning]
    out["reasoning_in"] = [content_hash("reasoning", text) for texts in thoughts for text in texts] or None
    listed = _tools_text(tools)
    out["tools_hash"] = content_hash("tools", listed) if listed else None
    if hidden:
        return out
    # Every text is hashed once, and enters both chains by its hash.
    chain, size = 0, 0
    if system and system_hash is not None:
        chain, size = chain_on(chain, system_hash), _size(system)
    if listed:
        chain, size = chain_hash(chain, "tools", listed), size + _size(listed)
    before = newest if newest is not None else len(spoken)
    said = 0
    turns: list[int] = []
    for place, message in enumerate(spoken):
        text = message.text
        if text is not None:
            role = message.role
            hashed = content_hash(role, text)
            if place < before:
                chain, size = chain_on(chain, hashed), size + _size(text)
            if role == "user":
                said = chain_on(said, hashed)
                turns.append(said)
            elif role == "assistant":
                said = chain_on(said, hashed)
        if message.tool_text is not None and place < before:
            chain, size = chain_hash(chain, "tool", message.tool_text), size + _size(message.tool_text)
    out["turn_hashes"] = turns[-MAX_TURNS:]
    out["prefix_hash"] = chain or None
    out["prefix_bytes"] = min(size, 2**31 - 1)
    return out


def tools_hash(tools: Any) -> int | None:
    """Hash of the tool schemas sorted by name, equal for the APIs' different wrappings of one schema."""
    text = _tools_text(tools)
    return content_hash("tools", text) if text else None


def format_hash(value: Any) -> int | None:
    """Hash of the response format asked for, equal for the APIs' different wrappings; plain text is none."""
    if not isinstance(value, dict) or value.get("type") in (None, "text"):
        return None
    inner = value.get("json_schema")
    schema = (inner if isinstance(inner, dict) else value).get("schema")
    return content_hash("format", _canonical([value["type"], schema]))


def parameters(body: Mapping[str, Any]) -> Columns:
    """Columns that follow from the parameters beside the messages.

    What no service would take (a fraction of a token, a number beyond the column) counts as not stated:
    refusing the row would let a caller keep his requests out of a scan.
    """
    get = body.get
    out: Columns = {}
    model = _string(get("model"))
    if model is not None:
        out["model"] = model
    limit = get("max_tokens") or get("max_completion_tokens") or get("max_output_tokens")
    if limit is not None and type(limit) is int and 0 < limit < 2**31:
        out["max_tokens"] = limit
    temperature = get("temperature")
    if isinstance(temperature, int | float) and type(temperature) is not bool and abs(temperature) < 1e9:
        out["temperature"] = temperature
    count = get("n")
    if type(count) is int and 0 < count < 2**15:
        out["n"] = count
    stream = get("stream")
    if isinstance(stream, bool):
        out["stream"] = stream
    top, logprobs = get("top_logprobs"), get("logprobs")
    if logprobs is not None or top is not None:
        # Zero is a count in the old completions API: the logarithm of the chosen token alone.
        out["logprobs"] = bool(logprobs) or bool(top) or (logprobs == 0 and logprobs is not False)
    effort = _effort(body)
    if effort is not None:
        out["reasoning_effort"] = effort
    asked = _format(body)
    if asked is not None:
        out["format_hash"] = format_hash(asked)
    metadata = get("metadata")
    user = metadata.get("user_id") if isinstance(metadata, dict) else None
    user = _string(get("safety_identifier")) or _string(user) or _string(get("user"))
    if user is not None:
        out["end_user_id"] = user
    conversation = get("conversation")
    if conversation is not None:
        named = conversation.get("id") if isinstance(conversation, dict) else conversation
        if _string(named) is not None:
            out["conversation_id"] = _string(named)
    return out


def _effort(body: Mapping[str, Any]) -> str | None:
    """How much reasoning is asked for, in the words of whichever API: an effort, a budget or a mode."""
    effort = body.get("reasoning_effort")
    if not effort:
        for holder in (body.get("reasoning"), body.get("output_config")):
            if not effort and isinstance(holder, dict):
                effort = holder.get("effort")
    thinking = body.get("thinking")
    if not isinstance(effort, str) and isinstance(thinking, dict):
        mode = thinking.get("type")
        budget = thinking.get("budget_tokens")
        if mode == "enabled" and _string(budget) is not None:
            return f"budget:{budget}"
        return mode if mode in ("enabled", "adaptive") else None
    return _string(effort)


def _format(body: Mapping[str, Any]) -> Any:
    """The response format asked for, wherever the API puts it."""
    found = body.get("response_format") or body.get("output_format")
    if not found:
        for holder in (body.get("text"), body.get("output_config")):
            if not found and isinstance(holder, dict):
                found = holder.get("format")
    return found


def _newest_user(messages: Sequence[Message]) -> int | None:
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].role == "user" and messages[index].text is not None:
            return index
    return None


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _message(item: Mapping[str, Any]) -> Message:
    kind = item.get("type")
    if isinstance(kind, str) and kind.endswith("_call_output"):
        return Message("tool", None, _text(item.get("output")) or _canonical(item.get("output")), [])
    if kind == "reasoning":
        return Message("assistant", None, None, reasoning_of(item))
    if isinstance(kind, str) and kind.endswith("_call"):
        return Message("assistant", None, _canonical([item.get("name"), item.get("arguments")]), [])
    role = item.get("role")
    role = role if isinstance(role, str) else "user"
    texts, results = _parts(item.get("content"))
    if isinstance(item.get("tool_calls"), list) and item["tool_calls"]:
        results.append(_canonical(item["tool_calls"]))
    if role in ("tool", "function"):
        return Message("tool", None, "\n".join([*texts, *results]), [])
    if role == "user" and results and not texts:
        role = "tool"
    text = "\n".join(texts) if texts else None
    return Message(role, text, "\n".join(results) if results else None, reasoning_of(item))


def _parts(content: Any) -> tuple[list[str], list[str]]:
    """Texts and tool traffic of one message's content."""
    if isinstance(content, str):
        return [content], []
    texts: list[str] = []
    results: list[str] = []
    for part in content if isinstance(content, list) else []:
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, dict):
            continue
        kind = part.get("type")
        if kind == "tool_result":
            results.append(_text(part.get("content")) or _canonical(part.get("content")))
        elif kind == "tool_use":
            results.append(_canonical([part.get("name"), part.get("input")]))
        elif (kind is None or (isinstance(kind, str) and kind in _TEXT_PARTS)) and isinstance(
            part.get("text"), str
        ):
            texts.append(part["text"])
    return texts, results


def _tools_text(tools: Any) -> str | None:
    if not isinstance(tools, list) or not tools:
        return None
    named: list[tuple[str, str]] = []
    for tool in tools:
        if not isinstance(tool, dict):
            continue
        inner = tool["function"] if isinstance(tool.get("function"), dict) else tool
        name = _string(inner.get("name")) or _string(inner.get("type")) or ""
        schema = inner.get("parameters") or inner.get("input_schema")
        named.append((name, _canonical([name, inner.get("description"), schema])))
    return "\n".join(text for _, text in sorted(named)) or None


def _canonical(value: Any) -> str:
    """JSON with sorted keys; half surrogates, which JSON cannot carry, are replaced."""
    return _encode(value).decode("utf-8", "replace")


def _text(value: Any) -> str | None:
    """Text of a string or of a list of text parts."""
    if isinstance(value, str):
        return value or None
    texts, _ = _parts(value)
    return "\n".join(texts) or None


def _join(texts: Sequence[str | None]) -> str | None:
    return "\n\n".join(text for text in texts if text) or None


def _string(value: Any) -> str | None:
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None
