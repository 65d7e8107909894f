"""A streamed response, as a log keeps it -> the body that the same call would have had without streaming.

A stream comes as a list of chunks, or as the text of the server-sent events
(https://html.spec.whatwg.org/multipage/server-sent-events.html). Chunks of chat completions, responses and
messages are told apart by their own keys. A stream that breaks off keeps what had arrived: its stop reason
and its token counts are then unknown, not zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stillwatch.ingest.objects import DECODE_ERRORS, decode_part

Body = dict[str, Any]


def reply_body(value: Any) -> Any:
    """The body of a response that was logged as an object, as JSON text, as chunks or as an event stream.

    Text that is none of these is returned as it is; text that begins as JSON and does not decode is None.
    """
    if isinstance(value, str):
        text = value.lstrip()
        if text.startswith(("data:", "event:", "id:", "retry:", ":")):
            return assemble(events(text))
        if not text.startswith(("{", "[")):
            return value
        try:
            value = decode_part(text.encode("utf-8", "replace"))
        except DECODE_ERRORS:
            return None
    return assemble(_chunks(value)) if isinstance(value, list) else value


def events(text: str) -> list[Any]:
    """The JSON payloads of an event stream; `[DONE]`, comments and what does not decode are left out."""
    found: list[Any] = []
    data: list[str] = []
    for line in [*text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), ""]:
        if line.startswith("data:"):
            data.append(line[5:])
        elif data and (line.startswith("event:") or not line.strip()):
            found.extend(_payloads(data))
            data = []
    return found


def _payloads(lines: list[str]) -> list[Any]:
    """One event's data over any number of lines; or an event each, where a logger dropped the blank lines."""
    for parts in (["\n".join(lines)], lines):
        found = []
        for part in parts:
            try:
                found.append(decode_part(part.encode("utf-8", "replace")))
            except DECODE_ERRORS:
                continue
        if found:
            return found
    return []


def _chunks(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if isinstance(value, str):
            found.extend(events(value if value.startswith(("data:", "event:")) else f"data: {value}"))
        else:
            found.append(value)
    return found


def assemble(chunks: Iterable[Any]) -> Body | None:
    """One body from the chunks of one stream; None where none of them is of a known kind."""
    known = [chunk for chunk in chunks if isinstance(chunk, dict)]
    for chunk in known:
        kind = chunk.get("type")
        if isinstance(chunk.get("choices"), list):
            return _from_chat(known)
        if isinstance(kind, str) and kind.startswith("response."):
            return _from_responses(known)
        if kind == "message_start" or (isinstance(kind, str) and kind.startswith("content_block")):
            return _from_messages(known)
    for chunk in known:
        if chunk.get("error"):
            return {"error": chunk["error"]}
    # A list with a single whole body in it is no stream.
    return known[0] if len(known) == 1 else None


def _from_chat(chunks: list[Body]) -> Body:
    body: Body = {}
    choices: dict[int, Body] = {}
    for chunk in chunks:
        for key in ("model", "usage", "id"):
            if chunk.get(key) is not None:
                body[key] = chunk[key]
        listed = chunk.get("choices")
        for choice in listed if isinstance(listed, list) else ():
            if not isinstance(choice, dict):
                continue
            index = choice.get("index")
            whole = choices.setdefault(index if isinstance(index, int) else 0, {})
            if isinstance(choice.get("finish_reason"), str):
                whole["finish_reason"] = choice["finish_reason"]
            if isinstance(choice.get("text"), str):
                _append(whole, "text", choice["text"])
            delta = choice.get("delta") or choice.get("message")
            if isinstance(delta, dict):
                message = whole.setdefault("message", {})
                for key in ("content", "refusal", "reasoning_content", "reasoning"):
                    if isinstance(delta.get(key), str):
                        _append(message, key, delta[key])
    # Joined once at the end: a long answer has thousands of chunks.
    for whole in choices.values():
        _join(whole)
        _join(whole.get("message", {}))
    body["choices"] = [choices[index] for index in sorted(choices)]
    return body


def _from_responses(chunks: list[Body]) -> Body:
    body: Body = {}
    items: dict[int, Body] = {}
    pieces: dict[tuple[int, int, str], list[str]] = {}
    for chunk in chunks:
        kind = chunk.get("type")
        state = chunk.get("response")
        if isinstance(state, dict):
            body = state
        place = chunk.get("output_index")
        place = place if isinstance(place, int) else 0
        if kind == "response.output_item.done" and isinstance(chunk.get("item"), dict):
            items[place] = chunk["item"]
        elif kind in ("response.output_text.delta", "response.refusal.delta"):
            part = chunk.get("content_index")
            key = (place, part if isinstance(part, int) else 0, kind.split(".")[1])
            if isinstance(chunk.get("delta"), str):
                pieces.setdefault(key, []).append(chunk["delta"])
        elif kind == "error":
            body = {**body, "error": chunk.get("error") or chunk}
    if isinstance(body.get("output"), list) and body["output"]:
        return body
    # The last event, with the whole response, never came, or its output was taken out.
    finished = set(items)
    for place, part, kind in sorted(pieces):
        if place not in finished:
            item = items.setdefault(place, {"type": "message", "content": []})
            named = ("refusal", "refusal") if kind == "refusal" else ("output_text", "text")
            item["content"].append({"type": named[0], named[1]: "".join(pieces[place, part, kind])})
    status = body.get("status")
    return {
        **body,
        "output": [items[place] for place in sorted(items)],
        "status": None if status in ("in_progress", "queued") else status,
    }


def _from_messages(chunks: list[Body]) -> Body:
    body: Body = {}
    blocks: dict[int, Body] = {}
    usage: Body = {}
    counted = False
    for chunk in chunks:
        kind = chunk.get("type")
        index = chunk.get("index")
        index = index if isinstance(index, int) else 0
        if kind == "message_start" and isinstance(chunk.get("message"), dict):
            body = dict(chunk["message"])
            usage.update(_counts(body.get("usage")))
        elif kind == "content_block_start" and isinstance(chunk.get("content_block"), dict):
            blocks[index] = dict(chunk["content_block"])
        elif kind == "content_block_delta" and isinstance(chunk.get("delta"), dict):
            block = blocks.setdefault(index, {})
            delta = chunk["delta"]
            for key in ("text", "thinking", "signature"):
                if isinstance(delta.get(key), str):
                    block.setdefault("type", "text" if key == "text" else "thinking")
                    _append(block, key, delta[key])
        elif kind == "message_delta":
            delta = chunk.get("delta")
            if isinstance(delta, dict) and delta.get("stop_reason") is not None:
                body["stop_reason"] = delta["stop_reason"]
            found = _counts(chunk.get("usage"))
            counted = counted or "output_tokens" in found
            usage.update(found)
        elif kind == "error":
            body["error"] = chunk.get("error") or chunk
        metrics = chunk.get("amazon-bedrock-invocationMetrics")
        if isinstance(metrics, dict):
            body["amazon-bedrock-invocationMetrics"] = metrics
    if not counted:
        # What `message_start` says of the output is a placeholder, counted before anything was written.
        usage.pop("output_tokens", None)
    for block in blocks.values():
        _join(block)
    body["content"] = [blocks[index] for index in sorted(blocks)]
    body["usage"] = usage
    return body


def _counts(usage: Any) -> Body:
    return (
        {key: value for key, value in usage.items() if value is not None} if isinstance(usage, dict) else {}
    )


def _append(holder: Body, key: str, text: str) -> None:
    before = holder.get(key)
    if isinstance(before, list):
        before.append(text)
    else:
        holder[key] = [before, text] if isinstance(before, str) and before else [text]


def _join(holder: Body) -> None:
    for key, value in holder.items():
        if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
            holder[key] = "".join(value)
