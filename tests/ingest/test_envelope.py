"""Raw API bodies in envelopes: every API's shape, streamed and not, and the traps between them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from stillwatch.ingest.bodies import asking_columns, request_columns
from stillwatch.schema.errors import ColumnError, FormatError
from stillwatch.sketch.hashing import chain_hash, content_hash
from tests.ingest.conftest import Write, envelope, event, jsonl, read_all

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
CHAT = {
    "model": "m-large",
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": [{"type": "text", "text": "three"}]},
    ],
    "tools": [
        {"type": "function", "function": {"name": "b", "description": "B", "parameters": SCHEMA}},
        {"type": "function", "function": {"name": "a", "description": "A", "parameters": SCHEMA}},
    ],
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
    "max_completion_tokens": 64,
    "temperature": 0.5,
    "n": 2,
    "logprobs": True,
    "reasoning_effort": "high",
    "stream": False,
    "safety_identifier": "customer-9",
}
RESPONSES = {
    "model": "m-large",
    "instructions": "be brief",
    "input": [
        {"role": "user", "content": "one"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "two"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "three"}]},
    ],
    "tools": [
        {"type": "function", "name": "a", "description": "A", "parameters": SCHEMA, "strict": True},
        {"type": "function", "name": "b", "description": "B", "parameters": SCHEMA, "strict": True},
    ],
    "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}},
    "max_output_tokens": 64,
    "temperature": 0.5,
    "reasoning": {"effort": "high", "summary": "auto"},
    "user": "customer-9",
}
MESSAGES = {
    "model": "m-large",
    "system": [{"type": "text", "text": "be brief"}],
    "messages": [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": [{"type": "text", "text": "two"}]},
        {"role": "user", "content": [{"type": "text", "text": "three"}]},
    ],
    "tools": [
        {"name": "b", "description": "B", "input_schema": SCHEMA},
        {"name": "a", "description": "A", "input_schema": SCHEMA},
    ],
    "output_format": {"type": "json_schema", "schema": SCHEMA},
    "max_tokens": 64,
    "temperature": 0.5,
    "thinking": {"type": "enabled", "budget_tokens": 2048},
    "metadata": {"user_id": "customer-9"},
}
CHAT_REPLY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "m-large-2026",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "four", "refusal": None, "reasoning_content": "hm"},
        }
    ],
    "usage": {
        "prompt_tokens": 30,
        "completion_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 5},
    },
}
RESPONSES_REPLY = {
    "id": "resp_1",
    "object": "response",
    "model": "m-large-2026",
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "output": [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "cipher"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "four"}]},
    ],
    "usage": {
        "input_tokens": 30,
        "input_tokens_details": {"cached_tokens": 20},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 5},
    },
}
MESSAGES_REPLY = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m-large-2026",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "blob"},
        {"type": "text", "text": "four"},
    ],
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 10,
        "cache_read_input_tokens": 15,
        "cache_creation_input_tokens": 5,
        "output_tokens": 9,
    },
}
APIS = {
    "chat.completions": (CHAT, CHAT_REPLY),
    "responses": (RESPONSES, RESPONSES_REPLY),
    "messages": (MESSAGES, MESSAGES_REPLY),
}


def one(write: Write, request: Any, response: Any, **changes: Any) -> dict[str, Any]:
    path = write("a.jsonl", jsonl([envelope(1, request, response, **changes)]))
    # Without a body in sight an envelope could be a canonical row: it has to be named.
    body = isinstance(request, dict) or str(request).startswith("{")
    table, log = read_all(path, format=None if body else "bodies")
    assert log.format == "bodies"
    assert log.refusals == []
    row: dict[str, Any] = table.to_pylist()[0]
    return row


def sse(chunks: list[Any], named: bool = False) -> str:
    lines = [(f"event: {c['type']}\n" if named else "") + f"data: {json.dumps(c)}\n\n" for c in chunks]
    return "".join(lines) + ("" if named else "data: [DONE]\n\n")


@pytest.mark.parametrize("api", APIS)
def test_what_all_apis_have_in_common(write: Write, api: str) -> None:
    row = one(write, *APIS[api])
    first = chain_hash(0, "user", "one")
    turns = [first, chain_hash(chain_hash(first, "assistant", "two"), "user", "three")]
    tools = "\n".join(
        json.dumps([name, name.upper(), SCHEMA], separators=(",", ":"), sort_keys=True) for name in ("a", "b")
    )
    prefix = chain_hash(chain_hash(0, "system", "be brief"), "tools", tools)
    prefix = chain_hash(chain_hash(prefix, "user", "one"), "assistant", "two")
    expected = {
        "ts": datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC),
        "account_id": "account-1",
        "ip": "203.0.113.9",
        "end_user_id": "customer-9",
        "end_user_trust": "asserted",
        "model": "m-large-2026",
        "endpoint": api,
        "system": "be brief",
        "prompt": "three",
        "response": "four",
        "newest_role": "user",
        "turn_hashes": turns,
        "prefix_hash": prefix,
        "prefix_bytes": len("be brief" + tools + "one" + "two"),
        "system_hash": content_hash("system", "be brief"),
        "tools_hash": content_hash("tools", tools),
        "format_hash": content_hash(
            "format", json.dumps(["json_schema", SCHEMA], separators=(",", ":"), sort_keys=True)
        ),
        "max_tokens": 64,
        "temperature": 0.5,
        "input_tokens": 30,
        "output_tokens": 9,
        "status": 200,
        "refused": False,
    }
    assert {name: row[name] for name in expected} == expected


def test_what_each_api_has_of_its_own(write: Write) -> None:
    chat, items, blocks = (one(write, *APIS[api]) for api in APIS)
    assert (chat["n_messages"], chat["n"], chat["logprobs"], chat["stream"]) == (4, 2, True, False)
    assert (items["n_messages"], items["n"], items["logprobs"], items["stream"]) == (3, None, None, None)
    efforts = [row["reasoning_effort"] for row in (chat, items, blocks)]
    assert efforts == ["high", "high", "budget:2048"]
    assert [row["stop_reason"] for row in (chat, items, blocks)] == ["stop", "completed", "end_turn"]
    assert [row["reasoning_tokens"] for row in (chat, items, blocks)] == [5, 5, None]
    assert chat["reasoning_out"] == [content_hash("reasoning", "hm")]
    assert items["reasoning_out"] == [content_hash("reasoning", "cipher")]
    assert blocks["reasoning_out"] == [content_hash("reasoning", text) for text in ("hm", "blob")]


def test_one_conversation_is_the_same_through_every_door(write: Write) -> None:
    rows = [one(write, *APIS[api]) for api in APIS]
    table, _ = read_all(write("l.jsonl", jsonl([event(1, messages=CHAT["messages"], model_parameters={})])))
    rows.extend(table.to_pylist())
    for name in ("prompt", "system", "turn_hashes", "system_hash"):
        assert all(row[name] == rows[0][name] for row in rows), name


CHAT_CHUNKS = [
    {"object": "chat.completion.chunk", "model": "m-large-2026", "choices": [], "prompt_filter_results": []},
    {
        "model": "m-large-2026",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": "", "reasoning_content": "h"}}],
    },
    {"choices": [{"index": 0, "delta": {"reasoning_content": "m"}}]},
    {"choices": [{"index": 0, "delta": {"content": "fo"}}]},
    {"choices": [{"index": 0, "delta": {"content": "ur"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None},
    {"choices": [], "usage": CHAT_REPLY["usage"]},
]
RESPONSES_CHUNKS = [
    {
        "type": "response.created",
        "response": {"status": "in_progress", "model": "m-large-2026", "output": []},
    },
    {"type": "response.output_item.done", "output_index": 0, "item": RESPONSES_REPLY["output"][0]},
    {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "fo"},
    {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "ur"},
    {"type": "response.completed", "response": RESPONSES_REPLY},
]
MESSAGES_CHUNKS = [
    {
        "type": "message_start",
        "message": MESSAGES_REPLY
        | {"content": [], "stop_reason": None, "usage": MESSAGES_REPLY["usage"] | {"output_tokens": 1}},
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "h"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "m"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig"}},
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "redacted_thinking", "data": "blob"},
    },
    {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "fo"}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "ur"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
]
STREAMS = {
    "chat.completions": (CHAT, CHAT_REPLY, CHAT_CHUNKS),
    "responses": (RESPONSES, RESPONSES_REPLY, RESPONSES_CHUNKS),
    "messages": (MESSAGES, MESSAGES_REPLY, MESSAGES_CHUNKS),
}


@pytest.mark.parametrize("api", STREAMS)
def test_a_stream_reads_like_the_whole(write: Write, api: str) -> None:
    request, reply, chunks = STREAMS[api]
    request = request | {"stream": True}
    whole = one(write, request, reply)
    assert one(write, request, chunks) == whole
    assert one(write, request, [json.dumps(chunk) for chunk in chunks]) == whole
    assert one(write, request, sse(chunks, named=api != "chat.completions")) == whole
    assert one(write, request, sse(chunks).replace("\n\n", "\n")) == whole
    assert one(write, request, sse(chunks).replace("\n", "\r\n")) == whole
    assert one(write, json.dumps(request), json.dumps(reply)) == whole


@pytest.mark.parametrize("api", STREAMS)
def test_a_broken_stream_leaves_the_counts_open(write: Write, api: str) -> None:
    request, _, chunks = STREAMS[api]
    text = sse(chunks)
    row = one(write, request, text[: text.index("\n\n", text.index('"ur"')) + 30])
    assert row["response"] == "four"
    assert (row["output_tokens"], row["stop_reason"], row["refused"]) == (None, None, None)
    assert row["stream"] is (api != "chat.completions")


def test_several_choices(write: Write) -> None:
    chunks = [
        {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": stop}]}
        for index, text, stop in ((1, "b", None), (0, "a", None), (1, "b", "length"), (0, "a", "stop"))
    ]
    row = one(write, CHAT, chunks)
    assert (row["response"], row["stop_reason"]) == ("aa\nbb", "stop")


def test_tool_results_behind_the_text(write: Write) -> None:
    messages = [
        {"role": "user", "content": "what is the weather"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "look", "signature": "s"},
                {"type": "tool_use", "id": "t", "name": "w", "input": {}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "rain"}]},
    ]
    row = one(write, {"model": "m", "max_tokens": 9, "messages": messages}, MESSAGES_REPLY)
    assert (row["prompt"], row["newest_role"], row["n_messages"]) == ("what is the weather", "tool", 3)
    assert row["turn_hashes"] == [chain_hash(0, "user", "what is the weather")]
    assert row["reasoning_in"] == [content_hash("reasoning", "look")]
    items = [
        {"role": "user", "content": "what is the weather"},
        {"type": "reasoning", "encrypted_content": "cipher", "summary": []},
        {"type": "function_call", "name": "w", "arguments": "{}", "call_id": "c"},
        {"type": "function_call_output", "call_id": "c", "output": "rain"},
    ]
    other = one(write, {"model": "m", "input": items}, RESPONSES_REPLY)
    assert (other["prompt"], other["newest_role"]) == ("what is the weather", "tool")
    assert other["turn_hashes"] == row["turn_hashes"]
    assert other["reasoning_in"] == [content_hash("reasoning", "cipher")]


def test_hidden_history_is_null(write: Write) -> None:
    items = [{"type": "item_reference", "id": "msg_1"}, {"role": "user", "content": "go on"}]
    for extra in ({"previous_response_id": "r"}, {"input": items}, {"conversation": {"id": "conv_1"}}):
        row = one(write, {"model": "m", "input": "go on"} | extra, RESPONSES_REPLY)
        assert (row["prompt"], row["turn_hashes"], row["prefix_hash"]) == ("go on", None, None)
    assert row["conversation_id"] == "conv_1"


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (
            {"choices": [{"finish_reason": "stop", "message": {"content": None, "refusal": "I cannot"}}]},
            "I cannot",
        ),
        ({"choices": [{"finish_reason": "content_filter", "message": {"content": ""}}]}, None),
        (
            {
                "status": "completed",
                "output": [{"type": "message", "content": [{"type": "refusal", "refusal": "I cannot"}]}],
            },
            "I cannot",
        ),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}, "output": []},
            None,
        ),
        ({"type": "message", "content": [{"type": "text", "text": "no"}], "stop_reason": "refusal"}, "no"),
    ],
)
def test_refusals(write: Write, reply: Any, text: str | None) -> None:
    row = one(write, CHAT, reply)
    assert (row["refused"], row["response"], row["status"]) == (True, text, 200)


def test_error_bodies(write: Write) -> None:
    def status(error: Any, **changes: Any) -> Any:
        row = one(write, CHAT, error, **changes)
        assert (row["output_tokens"], row["response"]) == (None, None)
        assert row["model"] == "m-large"
        return row["status"]

    assert status({"error": {"type": "requests", "code": "rate_limit_exceeded", "message": "m"}}) == 429
    assert status({"error": {"type": "invalid_request_error", "code": "invalid_api_key"}}) == 401
    assert status({"error": {"type": "invalid_request_error", "code": None}}) == 400
    assert status({"type": "error", "error": {"type": "overloaded_error", "message": "m"}}) == 529
    assert status([{"type": "error", "error": {"type": "overloaded_error", "message": "m"}}]) == 529
    assert status({"error": {"code": 503, "message": "m"}}) == 503
    assert status({"error": "something"}) is None
    assert status({"error": {"type": "rate_limit_error"}}, status=403) == 403
    assert status(None, status=500) == 500


def test_who_refused(write: Write) -> None:
    own = {"error": {"message": "refused", "case": "SW-2026-1", "type": "permission_error"}}
    row = one(write, CHAT, own)
    assert (row["status"], row["blocked_by"]) == (403, "stillwatch:SW-2026-1")
    filtered = one(write, CHAT, {"error": {"code": "content_filter", "message": "m"}})
    assert (filtered["status"], filtered["refused"], filtered["blocked_by"]) == (400, True, None)


def test_headers(write: Write) -> None:
    pairs = [["Host", "h"], ["User-Agent", "sdk/1"], ["X-JA4", "t13d"], ["Authorization", "Bearer s"]]
    expected = content_hash("headers", "host\nuser-agent\nx-ja4\nauthorization")
    shapes: list[Any] = [
        dict(pairs),
        pairs,
        {name.lower(): [value] for name, value in pairs},
        [{"name": name, "value": value} for name, value in pairs],
        [{"key": name, "value": value} for name, value in pairs],
        json.dumps(dict(pairs)),
    ]
    for headers in shapes:
        row = one(write, CHAT, CHAT_REPLY, headers=headers)
        assert (row["header_hash"], row["user_agent"], row["ja4"]) == (expected, "sdk/1", "t13d")
    again = one(write, CHAT, CHAT_REPLY, headers=pairs[::-1])
    assert again["header_hash"] != expected
    assert one(write, CHAT, CHAT_REPLY, headers={})["header_hash"] is None


def test_the_envelope_wins(write: Write) -> None:
    stated = {
        "exchange_id": "x-9", "entity_id": "org-1", "key_id": "k", "end_user_id": "u", "end_user_trust": "verified",
        "gateway_id": "g", "conversation_id": "c", "provider": "acme", "model": "public", "endpoint": "responses",
        "status": 206, "latency_ms": 12.5, "ja4": "t13", "user_agent": "ua", "batch": True,
    }  # fmt: skip
    row = one(write, CHAT, CHAT_REPLY, headers={"user-agent": "other"}, **stated)
    assert {name: row[name] for name in stated} == stated
    assert one(write, CHAT, CHAT_REPLY, path="/v1/messages?beta=true")["endpoint"] == "messages"
    _, log = read_all(write("a.jsonl", jsonl([envelope(1, CHAT, CHAT_REPLY, entity_id="org-1")])))
    list(log.batches())
    assert log.owners.table()["entity_id"].to_pylist() == ["org-1"]


@pytest.mark.parametrize(
    "ts",
    [1_772_366_401, 1_772_366_401_000, 1_772_366_401_000_000, 1_772_366_401.0, "2026-03-01T12:00:01Z",
     "2026-03-01T13:00:01+01:00", "1772366401"],
)  # fmt: skip
def test_times(write: Write, ts: Any) -> None:
    assert one(write, CHAT, CHAT_REPLY, ts=ts)["ts"] == datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC)


def test_arrays_and_pretty_json(write: Write) -> None:
    rows = [envelope(n, CHAT, CHAT_REPLY) for n in range(3)]
    for data in (
        json.dumps(rows),
        json.dumps(rows, indent=2),
        json.dumps(rows[0], indent=1) + json.dumps(rows[1:]),
    ):
        table, log = read_all(write("a.json", data.encode()))
        assert (table.num_rows, log.refusals) == (3, [])


def test_other_shapes_of_request(write: Write) -> None:
    completion = one(
        write,
        {"model": "m", "prompt": ["a", "b"], "logprobs": 0},
        {"choices": [{"text": "c", "finish_reason": "length"}]},
    )
    assert (completion["endpoint"], completion["prompt"], completion["response"]) == (
        "completions",
        "a\nb",
        "c",
    )
    assert completion["logprobs"] is True
    vectors = one(write, {"model": "e", "input": "text"}, {"data": [], "usage": {"prompt_tokens": 3}})
    assert (vectors["endpoint"], vectors["input_tokens"], vectors["status"]) == ("embeddings", 3, 200)


def test_unknown_counts_are_null(write: Write) -> None:
    for usage in (
        {},
        None,
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"input_tokens": "3"},
        {"input_tokens": -1},
    ):
        row = one(write, CHAT, CHAT_REPLY | {"usage": usage})
        assert (row["input_tokens"], row["output_tokens"], row["reasoning_tokens"]) == (None, None, None)


def test_content_that_is_not_there(write: Write) -> None:
    none = one(write, None, None, model="m", output_tokens=7)
    assert (none["prompt"], none["content_state"], none["output_tokens"]) == (None, "absent", 7)
    bare = one(write, {"model": "m"}, CHAT_REPLY)
    assert (bare["turn_hashes"], bare["content_state"]) == (None, "absent")
    cut = one(write, json.dumps(CHAT)[:60], CHAT_REPLY)
    assert (cut["prompt"], cut["content_state"], cut["model"]) == (None, "truncated", "m-large-2026")
    half = one(write, CHAT, json.dumps(CHAT_REPLY)[:60])
    assert (half["prompt"], half["response"], half["content_state"]) == ("three", None, "truncated")
    plain = one(write, CHAT, "just what was said")
    assert (plain["response"], plain["content_state"]) == ("just what was said", None)
    said = one(write, CHAT, '{"answer": 42}')
    assert said["response"] == '{"answer": 42}'


def test_redacted_content_is_null(write: Write) -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "[REDACTED]"}]
    reply = {"choices": [{"finish_reason": "stop", "message": {"content": "[REDACTED]"}}]}
    row = one(write, {"model": "m", "messages": messages}, reply)
    assert (row["prompt"], row["response"], row["turn_hashes"], row["prefix_hash"]) == (
        None,
        None,
        None,
        None,
    )
    assert (row["system"], row["content_state"]) == ("s", "redacted")
    assert one(write, "[REDACTED]", None, model="m")["content_state"] == "redacted"


def test_what_no_service_takes_does_not_hide_a_row(write: Write) -> None:
    odd = {
        "max_tokens": 1e30,
        "n": 10**9,
        "temperature": "hot",
        "stream": "yes",
        "user": {"a": 1},
        "logprobs": [],
    }
    row = one(write, CHAT | odd | {"max_completion_tokens": None, "safety_identifier": None}, CHAT_REPLY)
    assert (row["max_tokens"], row["n"], row["temperature"], row["stream"]) == (None, None, None, None)
    assert (row["end_user_id"], row["end_user_trust"]) == (None, None)


def test_half_a_surrogate_pair_does_not_hide_a_row(write: Write) -> None:
    request = CHAT | {"messages": [{"role": "user", "content": "a\ud800b"}]}
    row = one(write, request, CHAT_REPLY)
    assert row["turn_hashes"] == [chain_hash(0, "user", "a\ud800b")]
    assert row["prompt"] == "a?b"
    assert one(write, json.dumps(request), CHAT_REPLY)["prompt"] == "a?b"


def test_no_account(write: Write) -> None:
    bare = [envelope(n, CHAT, CHAT_REPLY) for n in range(3)]
    for row in bare:
        del row["account_id"]
    path = write("a.jsonl", jsonl(bare))
    with pytest.raises(FormatError, match=r"--map account_id=\$\.path") as caught:
        read_all(path)
    assert "a.jsonl" in str(caught.value)
    table, _ = read_all(path, overrides={"account_id": "$.request.safety_identifier"})
    assert table["account_id"].to_pylist() == ["customer-9"] * 3
    table, log = read_all(write("b.jsonl", jsonl([bare[0], envelope(5, CHAT, CHAT_REPLY)])))
    assert (table.num_rows, [(part.row, part.column) for part in log.refusals]) == (1, [(1, "account_id")])
    missing = envelope(1, CHAT, CHAT_REPLY)
    del missing["ts"]
    with pytest.raises(ColumnError, match="ts"):
        read_all(write("c.jsonl", jsonl([missing])))


@pytest.mark.parametrize("first", ["request", "ts"])
def test_a_long_envelope_is_known_by_its_first_keys(write: Write, first: str) -> None:
    row = envelope(1, {"model": "m", "messages": [{"role": "user", "content": "x" * 200_000}]}, CHAT_REPLY)
    row = {first: row.pop(first), **row}
    table, log = read_all(write("a.jsonl", jsonl([row])))
    assert (log.format, len(table["prompt"][0].as_py())) == ("bodies", 200_000)


def test_restricted_columns_agree(write: Write) -> None:
    path = write("a.jsonl", jsonl([envelope(n, CHAT, CHAT_REPLY, exchange_id=f"x{n}") for n in range(3)]))
    narrow, _ = read_all(path, columns=["ip", "output_tokens"])
    whole, _ = read_all(path)
    names = [name for name in narrow.column_names if name != "raw_ref"]
    assert narrow.select(names).equals(whole.select(names))


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                      {"role": "user", "content": [{"type": "text", "text": "c"}]}], "system": "t",
         "tools": [{"name": "f", "input_schema": {"type": "object"}}]},
        {"input": "hello", "instructions": "be brief", "previous_response_id": "r", "reasoning": {"effort": "high"},
         "text": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        {"prompt": ["one", "two"], "response_format": {"type": "json_object"}, "logprobs": 3},
        {"messages": [{"role": "user", "content": "[REDACTED]"}], "system": "[REDACTED]"},
        {"messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "y", "tool_call_id": "1"}]},
        {"messages": 5}, {}, {"system": "alone"},
    ],
)  # fmt: skip
def test_what_is_asked_is_the_same_without_the_history(body: dict[str, Any]) -> None:
    whole, asking = request_columns(body), asking_columns(body)
    for name in (
        "prompt",
        "system",
        "system_hash",
        "tools_hash",
        "format_hash",
        "newest_role",
        "content_state",
    ):
        assert asking.get(name) == whole.get(name), name
    assert not asking.keys() - whole.keys()


@pytest.mark.parametrize("kind", [[], {}, 5, None, True])
def test_a_part_of_an_odd_type_is_no_text(kind: Any) -> None:
    part = {"type": kind, "text": "words"}
    for body in (
        {"system": [part], "messages": "hello"},
        {"messages": [{"role": "user", "content": [part]}]},
    ):
        found = request_columns(body)
        assert found.get("prompt") in ("hello", "words", None)
