"""A model's API on loopback: chat completions and responses, streamed and not, always the same answer."""

from __future__ import annotations

import gzip
import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

THOUGHT = "First the fox, then the dog."
"""What the model shows of its reasoning where it is asked to think aloud."""
ANSWER = "The quick brown fox jumps over the lazy dog."
INPUT_TOKENS, OUTPUT_TOKENS = 21, 10
_NUMBERS = itertools.count(1)


class _Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def body(self) -> bytes:
        if "chunked" in (self.headers.get("transfer-encoding") or ""):
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
        return gzip.decompress(data) if self.headers.get("content-encoding") == "gzip" else data

    def answer(self, data: bytes, kind: str = "application/json", status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class _Model(_Quiet):
    def do_GET(self) -> None:
        self.answer(b"{}")

    def do_POST(self) -> None:
        asked = json.loads(self.body() or b"{}")
        if "overload" in json.dumps(asked):
            error = {
                "error": {"message": "slow down", "type": "rate_limit_error", "code": "rate_limit_exceeded"}
            }
            self.answer(json.dumps(error).encode(), status=429)
            return
        if asked.get("stream") and "slowly" in json.dumps(asked):
            self.slowly(_chat(asked))
            return
        make = _response if self.path.endswith("/responses") else _chat
        chunks = make(asked)
        if asked.get("stream"):
            self.answer(b"".join(chunks), "text/event-stream")
        else:
            self.answer(chunks[-1])

    def slowly(self, chunks: list[bytes]) -> None:
        """A stream whose first half comes half a second before the other."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        half = len(chunks) // 2
        for part in (b"".join(chunks[:half]), b"".join(chunks[half:]), b""):
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.flush()
            time.sleep(0.5 if part else 0)


_LOGPROBS = {"content": [{"token": "The", "logprob": -0.125, "bytes": [84, 104, 101], "top_logprobs": []}]}


def _chat(asked: dict[str, Any]) -> list[bytes]:
    head = {"id": f"chatcmpl-{next(_NUMBERS):04d}", "created": 1_772_366_400, "model": asked.get("model")}
    usage = {
        "prompt_tokens": INPUT_TOKENS,
        "completion_tokens": OUTPUT_TOKENS,
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    }
    aloud = "think aloud" in json.dumps(asked)
    if not asked.get("stream"):
        many = 230_000 if "at length" in json.dumps(asked) else 1
        message = {"role": "assistant", "content": " ".join([ANSWER] * many)}
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": message}
        if aloud:
            message["reasoning_content"] = THOUGHT
            choice["logprobs"] = _LOGPROBS
        whole = {**head, "object": "chat.completion", "usage": usage, "choices": [choice]}
        return [json.dumps(whole).encode()]
    parts: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}]}
        for word in ANSWER.replace(" ", " |").split("|")
    ]
    if aloud:
        parts[0]["choices"][0]["logprobs"] = _LOGPROBS
        parts.insert(
            0, {"choices": [{"index": 0, "delta": {"role": "assistant", "reasoning_content": THOUGHT}}]}
        )
    parts.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    parts.append({"choices": [], "usage": usage})
    lines = [json.dumps({**head, "object": "chat.completion.chunk", **part}) for part in parts]
    return [f"data: {line}\n\n".encode() for line in [*lines, "[DONE]"]]


def _response(asked: dict[str, Any]) -> list[bytes]:
    item = {
        "id": "msg_upstream",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": ANSWER, "annotations": []}],
    }
    output: list[dict[str, Any]] = [item]
    aloud = "think aloud" in json.dumps(asked)
    if aloud:
        summary = [{"type": "summary_text", "text": THOUGHT}]
        output.insert(0, {"id": "rs_upstream", "type": "reasoning", "summary": summary})
    whole = {
        "id": f"resp_{next(_NUMBERS):04d}",
        "object": "response",
        "created_at": 1_772_366_400,
        "status": "completed",
        "model": asked.get("model"),
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": INPUT_TOKENS,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": OUTPUT_TOKENS,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        },
    }
    if not asked.get("stream"):
        return [json.dumps(whole).encode()]
    place = {"item_id": item["id"], "output_index": len(output) - 1, "content_index": 0}
    events: list[dict[str, Any]] = [
        {
            "type": "response.created",
            "response": {**whole, "status": "in_progress", "output": [], "usage": None},
        },
        {"type": "response.output_text.delta", **place, "delta": ANSWER},
        {"type": "response.output_text.done", **place, "text": ANSWER},
        {"type": "response.completed", "response": whole},
    ]
    if aloud:
        thought = {"item_id": "rs_upstream", "output_index": 0, "summary_index": 0}
        events[1:1] = [
            {"type": "response.output_item.added", "output_index": 0, "item": {**output[0], "summary": []}},
            {"type": "response.reasoning_summary_text.delta", **thought, "delta": THOUGHT},
            {"type": "response.output_item.done", "output_index": 0, "item": output[0]},
        ]
    return [
        f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': number})}\n\n".encode()
        for number, event in enumerate(events)
    ]


class _Server(ThreadingHTTPServer):
    request_queue_size = 1024
    """Connections that may wait to be taken; beyond it a proxy would see a fault that is ours."""


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """A server on a free port of loopback for as long as the block runs; gives the port."""
    server = _Server(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextmanager
def model(seen: list[dict[str, str]] | None = None) -> Iterator[int]:
    """The model's API; gives its port. The headers of each POST are added to `seen`, names in lower case."""

    class Model(_Model):
        def do_POST(self) -> None:
            if seen is not None:
                seen.append({name.lower(): value for name, value in self.headers.items()})
            super().do_POST()

    with served(Model) as port:
        yield port


@contextmanager
def collector(lines: list[bytes]) -> Iterator[int]:
    """An OTLP/HTTP endpoint that keeps each export as one line, as the collector's file exporter writes it."""

    class Collector(_Quiet):
        def do_POST(self) -> None:
            data = self.body()
            if self.path.endswith("/v1/traces"):
                lines.append(json.dumps(json.loads(data), separators=(",", ":")).encode())
            self.answer(b"{}")

    with served(Collector) as port:
        yield port
