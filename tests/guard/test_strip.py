"""What `strip` takes out, what it leaves, and that it leaves a valid answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwatch.guard.doors.strip import (
    StripStream,
    strip_answer_bytes,
    strip_asked,
    strip_asked_bytes,
)

SECRET = "thus I think that"
LOGPROBS = {"content": [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}]}
SUMMARY = [{"type": "summary_text", "text": SECRET}]
REASONING = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": SUMMARY,
    "encrypted_content": "gAAA",
    "status": "completed",
}
TEXT = {
    "type": "output_text",
    "text": "yes",
    "annotations": [],
    "logprobs": [{"token": "yes", "logprob": -1.0}],
}
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [TEXT]}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "output": [REASONING, MESSAGE],
    "usage": {"output_tokens": 7},
}

WHOLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "chat": (
        {
            "object": "chat.completion", "prompt_logprobs": [None, {"1": {"logprob": -1.0}}],
            "choices": [{
                "index": 0, "finish_reason": "stop", "logprobs": LOGPROBS,
                "message": {
                    "role": "assistant", "content": "yes", "reasoning_content": SECRET, "reasoning": SECRET,
                    "reasoning_details": [{"type": "reasoning.text", "text": SECRET, "signature": "s"}],
                    "thinking_blocks": [{"type": "thinking", "thinking": SECRET, "signature": "s"}],
                    "provider_specific_fields": {"reasoning_content": SECRET, "refusal": None},
                },
            }],
            "usage": {"completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 5}},
        },
        {
            "object": "chat.completion", "prompt_logprobs": None,
            "choices": [{
                "index": 0, "finish_reason": "stop", "logprobs": None,
                "message": {
                    "role": "assistant", "content": "yes",
                    "reasoning_details": [{"type": "reasoning.text", "text": "", "signature": "s"}],
                    "thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "s"}],
                    "provider_specific_fields": {"refusal": None},
                },
            }],
            "usage": {"completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 5}},
        },
    ),
    "parts": (
        {"choices": [{"message": {"content": [
            {"type": "thinking", "thinking": SECRET}, {"type": "text", "text": "yes"}]}}]},
        {"choices": [{"message": {"content": [{"type": "text", "text": "yes"}]}}]},
    ),
    "completions": (
        {"object": "text_completion", "choices": [{"text": "yes", "logprobs": {"token_logprobs": [-1.0]}}]},
        {"object": "text_completion", "choices": [{"text": "yes", "logprobs": None}]},
    ),
    "responses": (
        RESPONSE,
        {**RESPONSE, "output": [{**REASONING, "summary": []}, {**MESSAGE, "content": [{**TEXT, "logprobs": []}]}]},
    ),
    "open reasoning": (
        {"object": "response", "output": [{"type": "reasoning", "id": "r", "summary": [], "content": [
            {"type": "reasoning_text", "text": SECRET}]}]},
        {"object": "response", "output": [{"type": "reasoning", "id": "r", "summary": []}]},
    ),
    "messages": (
        {"type": "message", "role": "assistant", "stop_reason": "tool_use", "content": [
            {"type": "thinking", "thinking": SECRET, "signature": "sig"},
            {"type": "redacted_thinking", "data": "gAAA"}, {"type": "text", "text": "yes"},
            {"type": "tool_use", "id": "t", "name": "look", "input": {}}]},
        {"type": "message", "role": "assistant", "stop_reason": "tool_use", "content": [
            {"type": "thinking", "thinking": "", "signature": "sig"},
            {"type": "redacted_thinking", "data": "gAAA"}, {"type": "text", "text": "yes"},
            {"type": "tool_use", "id": "t", "name": "look", "input": {}}]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer(name: str) -> None:
    before, after = WHOLE[name]
    data, found = strip_answer_bytes(json.dumps(before).encode())
    assert found == "changed"
    assert json.loads(data) == after
    assert SECRET.encode() not in data
    # What has nothing in it stays as it is, to the byte.
    plain = json.dumps(after, indent=1).encode()
    assert strip_answer_bytes(plain) == (plain, "same")


def event(data: Any, *, end: str = "\n", name: bool = True) -> bytes:
    head = f"event: {data['type']}{end}" if name and isinstance(data, dict) and "type" in data else ""
    text = data if isinstance(data, str) else json.dumps(data)
    return f"{head}data: {text}{end}{end}".encode()


def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, **more}]}


PLACE = {"item_id": "msg_1", "output_index": 1, "content_index": 0}
STREAMS: dict[str, tuple[list[Any], list[Any]]] = {
    "chat": (
        [
            chunk({"role": "assistant", "content": ""}, finish_reason=None),
            chunk({"reasoning_content": SECRET}, finish_reason=None),
            chunk({"content": "yes ☃"}, logprobs=LOGPROBS),
            chunk({}, finish_reason="stop"), {"choices": [], "usage": {"completion_tokens": 7}}, "[DONE]",
        ],
        [
            chunk({"role": "assistant", "content": ""}, finish_reason=None), chunk({}, finish_reason=None),
            chunk({"content": "yes ☃"}, logprobs=None), chunk({}, finish_reason="stop"),
            {"choices": [], "usage": {"completion_tokens": 7}}, "[DONE]",
        ],
    ),
    "responses": (
        [
            {"type": "response.created", "response": {**RESPONSE, "output": []}},
            {"type": "response.output_item.added", "output_index": 0, "item": {**REASONING, "summary": []}},
            {"type": "response.reasoning_summary_part.added", "output_index": 0, "part": SUMMARY[0]},
            {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": SECRET},
            {"type": "response.reasoning_summary_text.done", "output_index": 0, "text": SECRET},
            {"type": "response.reasoning_summary_part.done", "output_index": 0, "part": SUMMARY[0]},
            {"type": "response.content_part.added", "part": {"type": "reasoning_text", "text": ""}},
            {"type": "response.reasoning_text.delta", "output_index": 0, "delta": SECRET},
            {"type": "response.output_item.done", "output_index": 0, "item": REASONING},
            {"type": "response.output_text.delta", **PLACE, "delta": "yes", "logprobs": [{"token": "yes"}]},
            {"type": "response.content_part.done", **PLACE, "part": TEXT},
            {"type": "response.completed", "response": RESPONSE},
        ],
        [
            {"type": "response.created", "response": {**RESPONSE, "output": []}},
            {"type": "response.output_item.added", "output_index": 0, "item": {**REASONING, "summary": []}},
            {"type": "response.output_item.done", "output_index": 0, "item": {**REASONING, "summary": []}},
            {"type": "response.output_text.delta", **PLACE, "delta": "yes", "logprobs": []},
            {"type": "response.content_part.done", **PLACE, "part": {**TEXT, "logprobs": []}},
            {"type": "response.completed", "response": WHOLE["responses"][1]},
        ],
    ),
    "messages": (
        [
            {"type": "message_start", "message": {"type": "message", "content": [], "usage": {"output_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": SECRET}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": SECRET}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "ping"},
            {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "yes"}},
            {"type": "message_stop"},
        ],
        [
            {"type": "message_start", "message": {"type": "message", "content": [], "usage": {"output_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "ping"},
            {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "yes"}},
            {"type": "message_stop"},
        ],
    ),
}  # fmt: skip


def through(data: bytes, cuts: list[int], most: int = 1 << 20) -> tuple[bytes, int, int]:
    stream, out, begin = StripStream(most), b"", 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        out += stream.feed(data[begin:cut])
        begin = cut
    return out + stream.close(), stream.changed, stream.unknown


def read(stream: bytes) -> list[Any]:
    """The data of each event, by the rules of the standard; `[DONE]` as it is."""
    found, data = [], []
    for line in stream.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line and data:
            text = "\n".join(data)
            found.append(text if text == "[DONE]" else json.loads(text))
            data = []
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
    return found


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream(name: str, end: str) -> None:
    before, after = STREAMS[name]
    out, changed, unknown = through(b"".join(event(one, end=end) for one in before), [])
    assert read(out) == after
    assert (changed > 0, unknown) == (True, 0)
    assert SECRET.encode() not in out
    # Each event's name goes with it.
    assert out.count(b"event: ") == sum("type" in one for one in after if isinstance(one, dict))
    plain = b": a comment" + end.encode() * 2 + b"".join(event(one, end=end) for one in after)
    assert through(plain, [])[:2] == (plain, 0)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(STREAMS)),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.lists(st.integers(0, 10_000), max_size=40),
    most=st.sampled_from([80, 300, 1 << 20]),
    tail=st.sampled_from(["", "data: {\"choices\": [{\"delta\": {\"reasoning\": \"x\"}}]}", "data: rea", "\r", "\n"]),
)  # fmt: skip
def test_however_a_stream_is_cut_the_output_is_the_same(
    name: str, end: str, cuts: list[int], most: int, tail: str
) -> None:
    data = b"".join(event(one, end=end) for one in STREAMS[name][0]) + tail.encode()
    assert through(data, cuts, most) == through(data, [], most)
    assert through(data, list(range(len(data))), most) == through(data, [], most)


@settings(max_examples=150, deadline=None)
@given(
    data=st.binary(max_size=200)
    | st.text(alphabet='data: \r\n{}[]"reasoning,0thinking', max_size=200).map(str.encode),
    cuts=st.lists(st.integers(0, 200), max_size=10),
)
def test_whatever_comes_nothing_is_raised_and_cuts_do_not_matter(data: bytes, cuts: list[int]) -> None:
    assert through(data, cuts, 64) == through(data, [], 64)
    strip_answer_bytes(data)
    strip_asked_bytes(data)


def test_an_event_is_passed_on_at_its_end_and_a_large_one_before() -> None:
    stream = StripStream(100)
    first = event(chunk({"content": "a"}), name=False)
    assert stream.feed(first[:-1]) == b""
    assert stream.feed(first[-1:]) == first
    assert len(stream.feed(b"data: " + b"x" * 200)) > 150
    assert len(stream.feed(b"y")) == 1
    assert (stream.feed(b"\n\n")[-2:], stream.unknown) == (b"\n\n", 1)
    small = event(chunk({"reasoning": "r"}), name=False)
    assert read(stream.feed(small)) == [chunk({})]


@pytest.mark.parametrize(
    "data",
    [
        b'{"reasoning": "x"', b'["thinking"]', b"\xff\xfe logprobs", b'{"data": [{"logprobs": 1}]}',
        b"[" * 100_000 + b"thinking",
    ],
)  # fmt: skip
def test_a_form_that_is_not_known_is_passed_on_and_counted(data: bytes) -> None:
    assert strip_answer_bytes(data) == (data, "unknown")
    stream = b"data: " + data + b"\n\n"
    assert through(stream, []) == (stream, 0, 1)


def test_odd_values_in_known_forms_are_left_alone() -> None:
    for data in (
        {"choices": ["reasoning", None, {"delta": "thinking", "message": 3}]},
        {"output": [None, {"type": "reasoning"}, {"content": "logprobs"}, {"content": [1]}]},
        {"type": "message", "content": [None, {"type": "thinking"}]},
        {"type": "response.completed", "response": "thinking", "item": [], "part": 1},
        {"type": "message_start", "message": ["thinking"]},
        {"type": "content_block_start", "content_block": "thinking"},
        {"error": {"message": "thinking"}},
    ):
        raw = json.dumps(data).encode()
        assert strip_answer_bytes(raw) == (raw, "same")


def test_half_surrogates_and_large_numbers_survive() -> None:
    raw = b'{"choices": [{"delta": {"content": "\\ud83d", "reasoning": "x"}, "n": 123456789012345678901234567890}]}'
    data, found = strip_answer_bytes(raw)
    assert found == "changed"
    choice = json.loads(raw)["choices"][0]
    del choice["delta"]["reasoning"]
    assert json.loads(data) == {"choices": [choice]}


ASKED: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    ({"logprobs": True, "top_logprobs": 5, "messages": []}, {"messages": []}),
    ({"logprobs": 0, "prompt": "p"}, {"prompt": "p"}),
    ({"logprobs": False, "messages": []}, None),
    ({"prompt_logprobs": 1, "messages": []}, {"messages": []}),
    (
        {"input": "p", "include": ["message.output_text.logprobs", "reasoning.encrypted_content"]},
        {"input": "p", "include": ["reasoning.encrypted_content"]},
    ),
    ({"reasoning": {"effort": "high", "summary": "auto"}}, {"reasoning": {"effort": "high"}}),
    ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, None),
    (
        {"thinking": {"type": "adaptive", "display": "summarized"}},
        {"thinking": {"type": "adaptive", "display": "omitted"}},
    ),
    ({"include": "x.logprobs", "reasoning": None, "thinking": 3}, None),
]  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), ASKED)
def test_a_request_loses_only_options_of_the_output(
    body: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    before = json.dumps(body)
    assert strip_asked(body) == expected
    assert json.dumps(body) == before
    raw = json.dumps(body, indent=2).encode()
    assert strip_asked_bytes(raw) == (raw if expected is None else strip_asked_bytes(raw))
    assert json.loads(strip_asked_bytes(raw)) == (body if expected is None else expected)
