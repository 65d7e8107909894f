"""The official clients read what `strip` leaves."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from stillwatch.guard.doors.strip import StripStream, strip_answer_bytes
from tests.servers.programs import clean_environment, program
from tests.servers.upstream import _chat, _Quiet, _response, served

pytestmark = pytest.mark.server

SECRET = "thus I think that"
USAGE = {"input_tokens": 3, "output_tokens": 7}
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
BLOCKS: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": SECRET, "signature": "sig"},
    {"type": "text", "text": "yes"},
    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": 1}},
]
DELTAS = [
    [{"type": "thinking_delta", "thinking": SECRET}, {"type": "signature_delta", "signature": "sig"}],
    [{"type": "text_delta", "text": "yes"}],
    [{"type": "input_json_delta", "partial_json": '{"at": 1}'}],
]
EMPTY: list[dict[str, Any]] = [{"thinking": "", "signature": ""}, {"text": ""}, {"input": {}}]


def _messages(stream: bool) -> bytes:
    if not stream:
        return json.dumps({**MESSAGE, "content": BLOCKS, "stop_reason": "tool_use", "usage": USAGE}).encode()
    start = {**MESSAGE, "content": [], "stop_reason": None, "usage": USAGE}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, (block, deltas) in enumerate(zip(BLOCKS, DELTAS, strict=True)):
        events.append({"type": "content_block_start", "index": index, "content_block": block | EMPTY[index]})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": "tool_use", "stop_sequence": None}
    events += [{"type": "message_delta", "delta": end, "usage": USAGE}, {"type": "message_stop"}]
    return b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)


def _responses(stream: bool) -> bytes:
    made = _response({"model": "m", "stream": stream, "input": "think aloud"})
    if not stream:
        return made[-1]
    # As the API does it: each item and part is added before it grows.
    item = {
        "id": "msg_upstream",
        "type": "message",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    part = {"type": "output_text", "text": "", "annotations": []}
    place = {"item_id": "msg_upstream", "output_index": 1, "content_index": 0}
    added: list[dict[str, Any]] = [
        {"type": "response.output_item.added", "output_index": 1, "item": item},
        {"type": "response.content_part.added", **place, "part": part},
    ]
    events = [
        f"event: {e['type']}\ndata: {json.dumps({**e, 'sequence_number': 99})}\n\n".encode() for e in added
    ]
    at = next(i for i, event in enumerate(made) if b"output_text.delta" in event)
    return b"".join([*made[:at], *events, *made[at:]])


class _Stripped(_Quiet):
    """Answers as the model, stripped; streams in pieces of odd sizes."""

    def do_POST(self) -> None:
        asked = json.loads(self.body())
        stream = bool(asked.get("stream"))
        if self.path == "/v1/chat/completions":
            chunks = _chat({"model": "m", "stream": stream, "messages": "think aloud"})
            raw = b"".join(chunks) if stream else chunks[-1]
        else:
            raw = _responses(stream) if self.path == "/v1/responses" else _messages(stream)
        if not stream:
            body, found = strip_answer_bytes(raw)
            assert found == "changed"
            self.answer(body)
            return
        strip = StripStream()
        body = b"".join(strip.feed(raw[i : i + 37]) for i in range(0, len(raw), 37)) + strip.close()
        assert strip.changed
        self.answer(body, "text/event-stream")


def test_the_official_clients_read_what_is_left() -> None:
    python = program("litellm", "STILLWATCH_LITELLM").parent / "python"
    script = Path(__file__).with_name("sdk_reads.py")
    with served(_Stripped) as port:
        done = subprocess.run(
            [str(python), str(script), f"http://127.0.0.1:{port}"], env=clean_environment(), capture_output=True,
            text=True, timeout=120,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = "The quick brown fox jumps over the lazy dog."
    assert json.loads(done.stdout) == {
        "chat": [answer, None, 10], "chat stream": [answer, "stop", 10],
        "responses": [answer, ["reasoning", "message"], []],
        "responses stream": [answer, ["reasoning", "message"], []],
        "messages": [["thinking", "text", "tool_use"], "", "yes"],
        "messages stream": [["thinking", "text", "tool_use"], "", "yes"],
        "signature": ["sig", "sig"], "tool": [{"at": 1}, "tool_use", 7],
    }  # fmt: skip
