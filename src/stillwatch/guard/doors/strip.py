"""`strip`: what leaves the model shows no reasoning and no log-probabilities, and is a valid answer all the same.

Chat completions (the old completions too), responses and messages; whole and as a stream of server-sent events
(https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6). Shapes: OpenAI API reference (chat,
responses), Anthropic API reference (messages: extended thinking), vLLM and OpenRouter for `reasoning`,
`reasoning_content` and `reasoning_details`.

Reasoning keeps its place and loses its words: items, blocks, indices and usage stay, as the APIs themselves answer
where nobody asks for a summary, or asks for thinking with `display: "omitted"`. What is encrypted (`signature`,
`encrypted_content`, `redacted_thinking`) stays: nobody can read it, and the APIs refuse the next turn without it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

MOST_EVENT = 8 << 20
"""Bytes of one event beyond which it is passed on as it is, and counted."""
Found = Literal["same", "changed", "dropped", "unknown"]
"""What became of an answer or an event: nothing was in it; something was; it held nothing else; its form is not
known, so it goes on as it is."""

_WORDS = (
    "reasoning_content",
    "reasoning",
    "reasoning_text",
    "reasoning_summary",
    "thinking",
    "thinking_content",
)
"""Fields of a message in chat completions that hold reasoning as text."""
_MARKS = (b"reasoning", b"thinking", b"logprobs")
"""Without one of these there is nothing to take out: no need to decode."""
_DROPPED = re.compile(r"response\.reasoning(_\w+)?\.(delta|done|added)")
_END = re.compile(rb"(?:\r\n|\n|\r(?=[^\n]))(?:\r\n|\n|\r(?=[^\n]))")
"""A line's end and an empty line's. A carriage return alone counts once it is seen that no line feed follows."""
_LINE = re.compile(rb"\r\n|\n|\r")


def strip_asked(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """A request without what asks for log-probabilities or for reasoning that is shown; None where nothing asks.

    Only options of the output go. Whether and how much a model reasons changes its answer, and stays.
    """
    out = dict(body)
    for name in ("logprobs", "top_logprobs", "prompt_logprobs"):
        # In the old completions 0 is a count.
        if out.get(name) is not None and out[name] is not False:
            del out[name]
    include = out.get("include")
    if isinstance(include, list) and any(_asks(entry) for entry in include):
        out["include"] = [entry for entry in include if not _asks(entry)]
    reasoning = out.get("reasoning")
    if isinstance(reasoning, dict) and {"summary", "generate_summary"} & reasoning.keys():
        out["reasoning"] = {n: v for n, v in reasoning.items() if n not in ("summary", "generate_summary")}
    thinking = out.get("thinking")
    # Who names it speaks to an API that knows it; to others it would be an error.
    if isinstance(thinking, dict) and thinking.get("display") not in (None, "omitted"):
        out["thinking"] = {**thinking, "display": "omitted"}
    return out if out != body else None


def _asks(entry: Any) -> bool:
    return isinstance(entry, str) and entry.endswith(".logprobs")


def strip_asked_bytes(data: bytes) -> bytes:
    """The same of a request's JSON; the very bytes where nothing asks, or where they are no JSON object."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return data
    found = strip_asked(body) if isinstance(body, dict) else None
    return data if found is None else _encoded(found)


def strip_answer(value: Any) -> Found:
    """Take it out of a decoded answer, or of the data of one event, in place."""
    if not isinstance(value, dict):
        return "unknown"
    kind = value.get("type")
    if isinstance(value.get("choices"), list):
        return _said(_chat(value))
    if isinstance(kind, str) and (kind.startswith("response.") or kind in _MESSAGES):
        return _event(value, kind)
    if value.get("object") == "response" or isinstance(value.get("output"), list):
        return _said(_response(value))
    if kind == "message" and isinstance(value.get("content"), list):
        return _said(_blocks(value["content"]))
    return "same" if "error" in value else "unknown"


def strip_answer_bytes(data: bytes) -> tuple[bytes, Found]:
    """The same of a whole answer's JSON. Where nothing is taken out, the very bytes."""
    if not _may_hold(data):
        return data, "same"
    try:
        value = json.loads(data)
        found = strip_answer(value)
    except (ValueError, RecursionError):
        return data, "unknown"
    return (_encoded(value), found) if found == "changed" else (data, found)


class StripStream:
    """Server-sent events as they come. The same output however the stream is cut; an event is kept back until its
    end has come, up to `MOST_EVENT` bytes."""

    def __init__(self, most: int = MOST_EVENT) -> None:
        self._most = most
        self._kept = bytearray()
        self._looked = 0
        self._passing = False
        """Within an event that is too large."""
        self.changed = 0
        """Events that something was taken out of, or that went."""
        self.unknown = 0
        """Events that may have held something, in a form that is not known or too large to be read."""

    def feed(self, part: bytes) -> bytes:
        """What may go on by now."""
        self._kept += part
        out = bytearray()
        begin = 0
        while True:
            end = _END.search(self._kept, max(begin, self._looked - 3))
            if end is None:
                break
            event = bytes(memoryview(self._kept)[begin : end.end()])
            if self._passing or len(event) > self._most:
                self.unknown += not self._passing
                out += event
            else:
                out += self._one(event)
            self._passing = False
            begin = self._looked = end.end()
        del self._kept[:begin]
        self._looked = len(self._kept)
        if len(self._kept) > self._most and not self._passing:
            self.unknown += 1
            self._passing = True
        if self._passing and len(self._kept) > 3:
            # All but what may be the beginning of the end.
            cut = len(self._kept) - 3
            out += memoryview(self._kept)[:cut]
            del self._kept[:cut]
            self._looked = len(self._kept)
        return bytes(out)

    def close(self) -> bytes:
        """What is left at the stream's end: an event whose end never came, as readers take it."""
        rest = bytes(self._kept)
        self._kept.clear()
        return rest if self._passing or not rest else self._one(rest)

    def _one(self, event: bytes) -> bytes:
        if not _may_hold(event):
            return event
        lines = list(_lines(event))
        parts = [_data(text) for text, _ in lines]
        data = b"\n".join(part for part in parts if part is not None)
        if not data or data.strip() == b"[DONE]":
            return event
        try:
            value = json.loads(data)
            found = strip_answer(value)
        except (ValueError, RecursionError):
            found = "unknown"
        if found == "unknown":
            self.unknown += 1
        if found in ("same", "unknown"):
            return event
        self.changed += 1
        if found == "dropped":
            return b""
        out, told = bytearray(), False
        for (text, end), part in zip(lines, parts, strict=True):
            if part is None:
                out += text + end
            elif not told:
                out += b"data: " + _encoded(value) + end
                told = True
        return bytes(out)


def _may_hold(data: bytes) -> bool:
    return any(mark in data for mark in _MARKS)


def _lines(event: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(line, its end)."""
    begin = 0
    for end in _LINE.finditer(event):
        yield event[begin : end.start()], end[0]
        begin = end.end()
    if begin < len(event):
        yield event[begin:], b""


def _data(line: bytes) -> bytes | None:
    """The value of a line `data: value`; None for other lines."""
    name, colon, value = line.partition(b":")
    if name != b"data":
        return None
    return value[1:] if colon and value.startswith(b" ") else value


def _encoded(value: Any) -> bytes:
    # In ASCII: it holds whatever the text was, half surrogates too, and no line's end.
    return json.dumps(value, separators=(",", ":")).encode()


def _said(changed: bool) -> Found:
    return "changed" if changed else "same"


def _chat(body: dict[str, Any]) -> bool:
    """Chat completions and completions, whole or a chunk."""
    changed = _blank(body, "prompt_logprobs", None)
    for choice in body["choices"]:
        if not isinstance(choice, dict):
            continue
        changed |= _blank(choice, "logprobs", None) | _blank(choice, "prompt_logprobs", None)
        for holder in ("message", "delta"):
            if isinstance(choice.get(holder), dict):
                changed |= strip_message(choice[holder])
    return changed


def strip_message(message: dict[str, Any]) -> bool:
    """Take the reasoning out of one message, or delta, of chat completions; whether there was any."""
    changed = False
    for name in _WORDS:
        if message.get(name):
            del message[name]
            changed = True
    blocks = message.get("thinking_blocks")
    if isinstance(blocks, list):
        changed |= _blocks(blocks)
    details = message.get("reasoning_details")
    if isinstance(details, list):
        for detail in details:
            if isinstance(detail, dict):
                changed |= _blank(detail, "text", "") | _blank(detail, "summary", "")
    if isinstance(message.get("content"), list):
        changed |= _without_thinking(message)
    extra = message.get("provider_specific_fields")
    if isinstance(extra, dict):
        changed |= strip_message(extra)
    return changed


def _without_thinking(message: dict[str, Any]) -> bool:
    """Parts of a content that are reasoning go: here nothing counts them."""
    before = message["content"]
    after = [p for p in before if not (isinstance(p, dict) and p.get("type") in ("thinking", "reasoning"))]
    message["content"] = after
    return len(after) != len(before)


def _blank(holder: dict[str, Any], name: str, empty: Any) -> bool:
    """Leave a field that holds something empty."""
    if not holder.get(name):
        return False
    holder[name] = empty
    return True


def _blocks(blocks: list[Any]) -> bool:
    """Content of messages: a thinking block keeps its place and its signature."""
    return sum(map(_block, blocks)) > 0


def _block(block: Any) -> bool:
    return isinstance(block, dict) and block.get("type") == "thinking" and _blank(block, "thinking", "")


def _response(body: dict[str, Any]) -> bool:
    output = body.get("output")
    return isinstance(output, list) and sum(map(_item, output)) > 0


def _item(item: Any) -> bool:
    """An output item of responses: reasoning keeps its place and its id."""
    if not isinstance(item, dict):
        return False
    changed = False
    if item.get("type") == "reasoning":
        changed = _blank(item, "summary", [])
        if item.get("content"):
            del item["content"]
            changed = True
        return changed
    parts = item.get("content")
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, dict):
            changed |= _blank(part, "logprobs", [])
    return changed


def _event(event: dict[str, Any], kind: str) -> Found:
    if _DROPPED.fullmatch(kind):
        return "dropped"
    take = _MESSAGES.get(kind)
    if take is not None:
        return take(event)
    changed = _blank(event, "logprobs", [])
    part = event.get("part")
    if isinstance(part, dict):
        if part.get("type") in ("reasoning_text", "summary_text"):
            return "dropped"
        changed |= _blank(part, "logprobs", [])
    changed |= _item(event.get("item"))
    whole = event.get("response")
    if isinstance(whole, dict):
        changed |= _response(whole)
    return _said(changed)


def _begins(event: dict[str, Any]) -> Found:
    message = event.get("message")
    blocks = message.get("content") if isinstance(message, dict) else None
    return _said(isinstance(blocks, list) and _blocks(blocks))


def _grows(event: dict[str, Any]) -> Found:
    delta = event.get("delta")
    return "dropped" if isinstance(delta, dict) and delta.get("type") == "thinking_delta" else "same"


def _nothing(event: dict[str, Any]) -> Found:
    return "same"


_MESSAGES: Mapping[str, Callable[[dict[str, Any]], Found]] = {
    "message_start": _begins,
    "content_block_start": lambda event: _said(_block(event.get("content_block"))),
    "content_block_delta": _grows,
    "content_block_stop": _nothing,
    "message_delta": _nothing,
    "message_stop": _nothing,
    "ping": _nothing,
    "error": _nothing,
}
"""Events of messages."""
