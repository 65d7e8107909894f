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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from stillwatch.sketch.hashing import chain_hash, content_hash

MAX_TURNS = 64
"""`turn_hashes` keeps the newest this many."""

Columns = dict[str, Any]
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_SYSTEM_ROLES = frozenset({"system", "developer"})
_encode = msgspec.json.Encoder(order="sorted").encode


@dataclass(slots=True)
class Message:
    """One message, whichever API it came through."""

    role: str
    text: str | None
    """What the author wrote; None where there is none (tool results, pictures)."""
    tool_text: str | None
    """Tool results and calls: they belong to the prefix, never to the author's words."""
    reasoning: list[str]


def request_columns(body: Any) -> Columns:
    """Canonical columns of one request body (a decoded JSON object; anything else gives none)."""
    if not isinstance(body, Mapping):
        return {}
    out = parameters(body)
    hidden = body.get("previous_response_id") is not None or body.get("conversation") is not None
    messages = messages_of(body)
    if messages is not None:
        system = _join([_text(body.get("system")), _text(body.get("instructions"))])
        out.update(conversation_columns(messages, system=system, tools=body.get("tools"), hidden=hidden))
    return {name: value for name, value in out.items() if value is not None}


def messages_of(body: Mapping[str, Any]) -> list[Message] | None:
    """The messages of a body: `messages`, else `input`, else `prompt`; None when it has none of them."""
    for key in ("messages", "input", "prompt"):
        if body.get(key) is not None:
            return messages_from(body[key])
    return None


def messages_from(value: Any) -> list[Message]:
    """Messages from a string, a list of strings, or a list of messages or response items."""
    if isinstance(value, str):
        return [Message("user", value, None, [])]
    if isinstance(value, Mapping):
        value = value["messages"] if isinstance(value.get("messages"), list) else [value]
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        return []
    if value and all(isinstance(item, str) for item in value):
        return [Message("user", "\n".join(value), None, [])]
    return [_message(item) for item in value if isinstance(item, Mapping)]


def conversation_columns(
    messages: Sequence[Message], *, system: str | None = None, tools: Any = None, hidden: bool = False
) -> Columns:
    """Columns that follow from the messages of a request.

    `hidden` says that earlier turns are kept by the server: then the hashes over history are left null,
    because hashing the delta alone would make unrelated conversations look alike.
    """
    out: Columns = {}
    own = [message.text for message in messages if message.role in _SYSTEM_ROLES and message.text]
    system = _join([system, *own])
    spoken = [message for message in messages if message.role not in _SYSTEM_ROLES]
    newest = _newest_user(spoken)
    out["system"] = system
    out["system_hash"] = content_hash("system", system) if system else None
    out["tools_hash"] = tools_hash(tools)
    out["n_messages"] = len(messages)
    out["newest_role"] = messages[-1].role if messages else None
    out["prompt"] = spoken[newest].text if newest is not None else None
    found = [content_hash("reasoning", block) for message in messages for block in message.reasoning]
    out["reasoning_in"] = found or None
    if hidden:
        return out
    out["turn_hashes"] = turn_hashes(spoken)
    before = list(_prefix(system, tools, spoken[: newest if newest is not None else len(spoken)]))
    chain, size = 0, 0
    for role, text in before:
        chain = chain_hash(chain, role, text)
        size += len(text.encode("utf-8", "replace"))
    out["prefix_hash"] = chain if before else None
    out["prefix_bytes"] = min(size, 2**31 - 1)
    return out


def turn_hashes(messages: Sequence[Message]) -> list[int]:
    """Running hash after each user-authored turn, oldest first, the newest `MAX_TURNS` of them."""
    chain = 0
    out = []
    for message in messages:
        if message.text is None or message.role not in ("user", "assistant"):
            continue
        chain = chain_hash(chain, message.role, message.text)
        if message.role == "user":
            out.append(chain)
    return out[-MAX_TURNS:]


def tools_hash(tools: Any) -> int | None:
    """Hash of the tool schemas sorted by name, equal for the APIs' different wrappings of one schema."""
    text = _tools_text(tools)
    return content_hash("tools", text) if text else None


def format_hash(value: Any) -> int | None:
    """Hash of the response format asked for; plain text is none."""
    if not isinstance(value, Mapping) or value.get("type") in (None, "text"):
        return None
    return content_hash("format", _canonical(value))


def parameters(body: Mapping[str, Any]) -> Columns:
    """Columns that follow from the parameters beside the messages."""
    reasoning = body.get("reasoning")
    thinking = body.get("thinking")
    effort = body.get("reasoning_effort") or (
        reasoning.get("effort") if isinstance(reasoning, Mapping) else None
    )
    if not isinstance(effort, str) and isinstance(thinking, Mapping) and thinking.get("type") == "enabled":
        effort = f"budget:{thinking['budget_tokens']}" if "budget_tokens" in thinking else "enabled"
    text = body.get("text")
    shape = text.get("format") if isinstance(text, Mapping) else None
    metadata = body.get("metadata")
    user = metadata.get("user_id") if isinstance(metadata, Mapping) else None
    conversation = body.get("conversation")
    if isinstance(conversation, Mapping):
        conversation = conversation.get("id")
    limit = next(
        (body[key] for key in ("max_tokens", "max_completion_tokens", "max_output_tokens") if body.get(key)),
        None,
    )
    top = body.get("top_logprobs")
    logprobs = body.get("logprobs")
    asked = bool(logprobs) or bool(top) if logprobs is not None or top is not None else None
    out = {
        "model": _string(body.get("model")),
        "max_tokens": _number(limit),
        "temperature": _number(body.get("temperature")),
        "n": _number(body.get("n")),
        "logprobs": asked,
        "stream": body["stream"] if isinstance(body.get("stream"), bool) else None,
        "reasoning_effort": _string(effort),
        "format_hash": format_hash(body.get("response_format") or shape or body.get("output_format")),
        "end_user_id": _string(body.get("safety_identifier")) or _string(user) or _string(body.get("user")),
        "conversation_id": _string(conversation),
    }
    return {name: value for name, value in out.items() if value is not None}


def endpoint_of(route: str | None) -> str | None:
    """Canonical endpoint of a request path such as `/v1/chat/completions`."""
    if not route:
        return None
    path = route.split("?", 1)[0].rstrip("/")
    for ending, name in (
        ("/chat/completions", "chat.completions"),
        ("/responses", "responses"),
        ("/messages", "messages"),
        ("/embeddings", "embeddings"),
        ("/completions", "completions"),
    ):
        if path.endswith(ending):
            return name
    return None


def _newest_user(messages: Sequence[Message]) -> int | None:
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].role == "user" and messages[index].text is not None:
            return index
    return None


def _prefix(system: str | None, tools: Any, messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
    if system:
        yield "system", system
    text = _tools_text(tools)
    if text:
        yield "tools", text
    for message in messages:
        if message.text is not None:
            yield message.role, message.text
        if message.tool_text is not None:
            yield "tool", message.tool_text


def _message(item: Mapping[str, Any]) -> Message:
    kind = item.get("type")
    if kind in ("function_call_output", "computer_call_output", "custom_tool_call_output"):
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
        if not isinstance(part, Mapping):
            continue
        kind = part.get("type")
        if kind == "tool_result":
            results.append(_text(part.get("content")) or _canonical(part.get("content")))
        elif kind == "tool_use":
            results.append(_canonical([part.get("name"), part.get("input")]))
        elif (kind is None or kind in _TEXT_PARTS) and isinstance(part.get("text"), str):
            texts.append(part["text"])
    return texts, results


def reasoning_of(item: Mapping[str, Any]) -> list[str]:
    """The reasoning blocks that a message or item carries, as the text or cipher text that names them."""
    content = item.get("content")
    blocks: list[Any] = content if isinstance(content, list) else []
    listed = item.get("thinking_blocks")
    if isinstance(listed, list) and listed:
        blocks = [*blocks, *listed]
    found: list[str] = []
    for block in [item, *blocks]:
        if not isinstance(block, Mapping):
            continue
        kind = block.get("type")
        if kind == "thinking":
            found.append(_string(block.get("thinking")) or _string(block.get("signature")) or "")
        elif kind == "redacted_thinking":
            found.append(_string(block.get("data")) or "")
        elif kind == "reasoning":
            found.append(_string(block.get("encrypted_content")) or _text(block.get("summary")) or "")
    if not any(found) and isinstance(item.get("reasoning_content"), str):
        found.append(item["reasoning_content"])
    return list(dict.fromkeys(text for text in found if text))


def _tools_text(tools: Any) -> str | None:
    if not isinstance(tools, list) or not tools:
        return None
    named: list[tuple[str, str]] = []
    for tool in tools:
        if not isinstance(tool, Mapping):
            continue
        inner = tool["function"] if isinstance(tool.get("function"), Mapping) else tool
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


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
