"""Response bodies of the three public APIs -> canonical columns (the counterpart of `bodies`).

Token conventions differ: Anthropic's `input_tokens` leaves cached tokens out, OpenAI's includes them; the
canonical column includes them. Sources: OpenAI and Anthropic API references.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stillwatch.ingest.bodies import Columns
from stillwatch.ingest.reasoning import reasoning_of
from stillwatch.schema.tables import REDACTION_MARKERS
from stillwatch.sketch.hashing import content_hash

REFUSALS = frozenset({"refusal", "content_filter", "content_filtered", "guardrail_intervened"})
"""Stop reasons by which a model or its classifier says no."""


def response_columns(body: Any) -> Columns:
    """Canonical columns of one response body (a decoded JSON object; anything else gives none)."""
    if not isinstance(body, dict):
        return {}
    out: Columns = usage_columns(body.get("usage"))
    if isinstance(body.get("choices"), list):
        out.update(_from_choices(body["choices"]))
    elif isinstance(body.get("output"), list):
        out.update(_from_items(body))
    elif isinstance(body.get("content"), list):
        out.update(_from_blocks(body))
    if isinstance(body.get("model"), str):
        out["model"] = body["model"]
    if out.get("response") in REDACTION_MARKERS:
        out["response"] = None
    return out


def answered(body: Any) -> bool:
    """Whether a body is an answer, and no error: the call had status 200."""
    if isinstance(body, dict):
        for key in ("choices", "content", "output", "data"):
            if isinstance(body.get(key), list):
                return True
    return False


def usage_columns(usage: Any) -> Columns:
    """Token counts of a `usage` object. What it does not state stays out."""
    if not isinstance(usage, dict):
        return {}
    out: Columns = {}
    if usage.get("prompt_tokens") is not None or usage.get("completion_tokens") is not None:
        out["input_tokens"] = _count(usage.get("prompt_tokens"))
        out["output_tokens"] = _count(usage.get("completion_tokens"))
        out["reasoning_tokens"] = _detail(usage.get("completion_tokens_details"))
    else:
        cached = [
            _count(usage.get(key)) for key in ("cache_read_input_tokens", "cache_creation_input_tokens")
        ]
        plain = _count(usage.get("input_tokens"))
        out["input_tokens"] = plain + sum(count or 0 for count in cached) if plain is not None else None
        out["output_tokens"] = _count(usage.get("output_tokens"))
        out["reasoning_tokens"] = _detail(usage.get("output_tokens_details"))
    if out["input_tokens"] == 0:
        # No request is empty: a server that writes zero has not counted.
        out["input_tokens"] = None
        out["output_tokens"] = out["output_tokens"] or None
    return out


def _from_choices(choices: list[Any]) -> Columns:
    texts: list[str] = []
    reasoning: list[str] = []
    stop: str | None = None
    declined = False
    for choice in choices:
        if not isinstance(choice, dict):
            continue
        message = choice.get("message")
        if isinstance(message, dict):
            texts.extend(_texts(message.get("content")))
            reasoning.extend(reasoning_of(message))
            if isinstance(message.get("refusal"), str) and message["refusal"]:
                declined = True
                texts.append(message["refusal"])
        elif isinstance(choice.get("text"), str):
            texts.append(choice["text"])
        if stop is None and isinstance(choice.get("finish_reason"), str):
            stop = choice["finish_reason"]
    return _reply(texts, reasoning, stop, declined)


def _from_items(body: Mapping[str, Any]) -> Columns:
    texts: list[str] = []
    reasoning: list[str] = []
    declined = False
    for item in body["output"]:
        if not isinstance(item, dict):
            continue
        if item.get("type") == "reasoning":
            reasoning.extend(reasoning_of(item))
        texts.extend(_texts(item.get("content")))
        for part in item["content"] if isinstance(item.get("content"), list) else []:
            if isinstance(part, dict) and part.get("type") == "refusal":
                declined = True
    details = body.get("incomplete_details")
    stop = details.get("reason") if isinstance(details, dict) else body.get("status")
    return _reply(texts, reasoning, stop if isinstance(stop, str) else None, declined)


def _from_blocks(body: Mapping[str, Any]) -> Columns:
    stop = body.get("stop_reason")
    return _reply(_texts(body["content"]), reasoning_of(body), stop if isinstance(stop, str) else None, False)


def _reply(texts: list[str], reasoning: Sequence[str], stop: str | None, declined: bool) -> Columns:
    hashes = [content_hash("reasoning", block) for block in reasoning]
    return {
        "response": "\n".join(texts) or None,
        "reasoning_out": hashes or None,
        "stop_reason": stop,
        "refused": declined or stop in REFUSALS if stop is not None or declined else None,
    }


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content] if content else []
    found = []
    for part in content if isinstance(content, list) else []:
        if isinstance(part, dict) and part.get("type") in ("text", "output_text", "refusal"):
            text = part.get("text") or part.get("refusal")
            if isinstance(text, str):
                found.append(text)
    return found


def _detail(details: Any) -> int | None:
    return _count(details.get("reasoning_tokens")) if isinstance(details, dict) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**31 else None
