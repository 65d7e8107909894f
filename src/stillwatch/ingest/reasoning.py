"""The reasoning blocks of a message or response item, whichever API it came through.

A block that a response produced and a later request carries back must get the same name, so a block is named by
the text or cipher text that both hold. Sources: OpenAI API reference (reasoning items), Anthropic API reference
(thinking and redacted_thinking blocks); `reasoning_content` and `reasoning` are what open models' servers write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")


def reasoning_of(item: Mapping[str, Any]) -> Sequence[str]:
    """The reasoning blocks that a message or item carries, as the text or cipher text that names them."""
    found: list[str] = []
    if item.get("type") in _THOUGHTS:
        found.append(_named(item))
    for key in ("content", "thinking_blocks"):
        blocks = item.get(key)
        for block in blocks if isinstance(blocks, list) else ():
            if isinstance(block, dict) and block.get("type") in _THOUGHTS:
                found.append(_named(block))
    for key in ("reasoning_content", "reasoning"):
        if isinstance(item.get(key), str) and not any(found):
            found.append(item[key])
    return list(dict.fromkeys(text for text in found if text)) if found else ()


def _named(block: Mapping[str, Any]) -> str:
    kind = block["type"]
    if kind == "thinking":
        return _text(block.get("thinking")) or _text(block.get("signature")) or ""
    if kind == "redacted_thinking":
        return _text(block.get("data")) or ""
    return _text(block.get("encrypted_content")) or _thought(block) or ""


def _thought(item: Mapping[str, Any]) -> str | None:
    """The text of a reasoning item of the responses API: its summary, or what an open model thought."""
    for key in ("summary", "content"):
        parts = item.get(key)
        texts = (
            [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
        )
        found = "\n".join(text for text in texts if isinstance(text, str) and text)
        if found:
            return found
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
