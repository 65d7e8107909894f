"""Which API a request went to: from its path, else from the shape of its bodies."""

from __future__ import annotations

from typing import Any


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


def endpoint_by_shape(request: Any, reply: Any) -> str | None:
    """Canonical endpoint of decoded bodies; None where they have nothing of an API's own.

    `messages` alone is both OpenAI's and Anthropic's: the answer decides, else what only Anthropic's has.
    """
    asked = request if isinstance(request, dict) else {}
    answer = reply if isinstance(reply, dict) else {}
    if "messages" in asked:
        if "choices" in answer:
            return "chat.completions"
        if answer.get("type") in ("message", "error") or isinstance(answer.get("content"), list):
            return "messages"
        return "messages" if _is_anthropic(asked) else "chat.completions"
    if "input" in asked:
        vectors = "data" in answer or "encoding_format" in asked or "dimensions" in asked
        return "embeddings" if vectors else "responses"
    if "prompt" in asked:
        return "completions"
    for key, name in (("output", "responses"), ("choices", "chat.completions")):
        if isinstance(answer.get(key), list):
            return name
    return "messages" if answer.get("type") == "message" else None


def _is_anthropic(asked: dict[str, Any]) -> bool:
    if any(key in asked for key in ("system", "anthropic_version", "thinking", "stop_sequences")):
        return True
    tools = asked.get("tools")
    return isinstance(tools, list) and any(
        isinstance(tool, dict) and "input_schema" in tool for tool in tools
    )
