"""Bedrock invocation logs: both APIs, streamed and not, CloudWatch's wrapping, and the traps."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from stillwatch.schema.errors import ColumnError, FormatError
from stillwatch.sketch.hashing import chain_hash, content_hash
from tests.ingest.conftest import Write, jsonl, read_all, record

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
INVOKE = {
    "anthropic_version": "bedrock-2023-05-31",
    "system": "be brief",
    "messages": [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": [{"type": "text", "text": "two"}]},
        {"role": "user", "content": [{"type": "text", "text": "three"}]},
    ],
    "tools": [{"name": "a", "description": "A", "input_schema": SCHEMA}],
    "max_tokens": 64,
    "temperature": 0.5,
}
INVOKE_REPLY = {
    "type": "message",
    "model": "claude-x",
    "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "four"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 10, "cache_read_input_tokens": 15, "output_tokens": 9},
}
CONVERSE = {
    "system": [{"text": "be brief"}],
    "messages": [
        {"role": "user", "content": [{"text": "one"}]},
        {"role": "assistant", "content": [{"text": "two"}]},
        {"role": "user", "content": [{"text": "three"}]},
    ],
    "toolConfig": {
        "tools": [{"toolSpec": {"name": "a", "description": "A", "inputSchema": {"json": SCHEMA}}}],
        "toolChoice": {"auto": {}},
    },
    "inferenceConfig": {"maxTokens": 64, "temperature": 0.5},
}
CONVERSE_REPLY = {
    "output": {
        "message": {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}},
                {"text": "four"},
            ],
        }
    },
    "stopReason": "end_turn",
    "metrics": {"latencyMs": 302},
    "usage": {"inputTokens": 10, "outputTokens": 9, "totalTokens": 19, "cacheReadInputTokens": 15},
}
INVOKE_CHUNKS = [
    {
        "type": "message_start",
        "message": {"type": "message", "model": "claude-x", "usage": {"input_tokens": 10}},
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "fo"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "ur"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
    {
        "type": "message_stop",
        "amazon-bedrock-invocationMetrics": {
            "inputTokenCount": 10,
            "outputTokenCount": 9,
            "invocationLatency": 302,
            "firstByteLatency": 100,
        },
    },
]
CONVERSE_CHUNKS = [
    {"messageStart": {"role": "assistant"}},
    {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "h"}}}},
    {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "m"}}}},
    {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"reasoningContent": {"signature": "s"}}}},
    {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"text": "fo"}}},
    {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"text": "ur"}}},
    {"contentBlockStop": {"contentBlockIndex": 1}},
    {"messageStop": {"stopReason": "end_turn"}},
    {"metadata": {"usage": {"inputTokens": 10, "outputTokens": 9}, "metrics": {"latencyMs": 302}}},
]
CASES: dict[str, tuple[Any, Any]] = {
    "InvokeModel": (INVOKE, INVOKE_REPLY),
    "InvokeModelWithResponseStream": (INVOKE, INVOKE_CHUNKS),
    "Converse": (CONVERSE, CONVERSE_REPLY),
    "ConverseStream": (CONVERSE, CONVERSE_CHUNKS),
}


def one(write: Write, row: dict[str, Any]) -> dict[str, Any]:
    table, log = read_all(write("a.jsonl", jsonl([row])))
    assert log.format == "bedrock"
    assert log.refusals == []
    found: dict[str, Any] = table.to_pylist()[0]
    return found


@pytest.mark.parametrize("operation", CASES)
def test_every_operation(write: Write, operation: str) -> None:
    request, reply = CASES[operation]
    row = one(write, record(1, request, reply, operation=operation))
    first = chain_hash(0, "user", "one")
    tool = json.dumps(["a", "A", SCHEMA], separators=(",", ":"), sort_keys=True)
    prefix = chain_hash(chain_hash(0, "system", "be brief"), "tools", tool)
    expected = {
        "exchange_id": "request-1",
        "ts": datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC),
        "account_id": "arn:aws:sts::111122223333:assumed-role/Role/session-1",
        "entity_id": "111122223333",
        "provider": "bedrock",
        "model": "anthropic.claude-x-v1:0",
        "endpoint": "messages",
        "system": "be brief",
        "prompt": "three",
        "response": "four",
        "n_messages": 3,
        "newest_role": "user",
        "turn_hashes": [first, chain_hash(chain_hash(first, "assistant", "two"), "user", "three")],
        "prefix_hash": chain_hash(chain_hash(prefix, "user", "one"), "assistant", "two"),
        "tools_hash": content_hash("tools", tool),
        "reasoning_out": [content_hash("reasoning", "hm")],
        "max_tokens": 64,
        "temperature": 0.5,
        "stream": "Stream" in operation,
        "input_tokens": 30,
        "output_tokens": 9,
        "stop_reason": "end_turn",
        "status": 200,
        "refused": False,
        "content_state": None,
        "latency_ms": None if operation == "InvokeModel" else 302.0,
        "ip": None,
        "user_agent": None,
    }
    assert {name: row[name] for name in expected} == expected


@pytest.mark.parametrize("operation", CASES)
def test_bodies_as_text(write: Write, operation: str) -> None:
    request, reply = CASES[operation]
    whole = one(write, record(1, request, reply, operation=operation))
    assert one(write, record(1, json.dumps(request), json.dumps(reply), operation=operation)) == whole
    wrapped = [{"chunk": part} for part in reply] if isinstance(reply, list) else reply
    assert one(write, record(1, request, wrapped, operation=operation)) == whole


def test_converse_streams_are_logged_whole_too(write: Write) -> None:
    row = one(write, record(1, CONVERSE, CONVERSE_REPLY, operation="ConverseStream"))
    assert (row["response"], row["stream"]) == ("four", True)


def test_tools_and_reasoning_in_converse(write: Write) -> None:
    messages = [
        {"role": "user", "content": [{"text": "what is the weather"}]},
        {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"redactedContent": "blob"}},
                {"toolUse": {"toolUseId": "t", "name": "w", "input": {}}},
            ],
        },
        {"role": "user", "content": [{"toolResult": {"toolUseId": "t", "content": [{"text": "rain"}]}}]},
    ]
    row = one(write, record(1, {"messages": messages}, CONVERSE_REPLY, operation="Converse"))
    assert (row["prompt"], row["newest_role"], row["n_messages"]) == ("what is the weather", "tool", 3)
    assert row["turn_hashes"] == [chain_hash(0, "user", "what is the weather")]
    assert row["reasoning_in"] == [content_hash("reasoning", "blob")]


@pytest.mark.parametrize(
    ("request_body", "reply"),
    [
        ({"prompt": "why", "max_gen_len": 9}, {"generation": "so", "stop_reason": "stop"}),
        ({"inputText": "why"}, {"results": [{"outputText": "so", "completionReason": "stop"}]}),
        ({"inputText": "why"}, [{"outputText": "s"}, {"outputText": "o", "completionReason": "stop"}]),
        ({"prompt": "why"}, {"outputs": [{"text": "so", "stop_reason": "stop"}]}),
        ({"message": "why"}, {"text": "so", "finish_reason": "stop"}),
        (
            {"messages": [{"role": "user", "content": "why"}]},
            {"choices": [{"message": {"content": "so"}, "finish_reason": "stop"}]},
        ),
    ],
)
def test_other_models_bodies(write: Write, request_body: Any, reply: Any) -> None:
    row = one(write, record(1, request_body, reply))
    assert (row["prompt"], row["response"], row["stop_reason"]) == ("why", "so", "stop")
    assert row["input_tokens"] == 30


def test_packed_files_and_bare_objects(write: Write) -> None:
    rows = [record(n, INVOKE, INVOKE_REPLY) for n in range(3)]
    table, log = read_all(write("a.json.gz", gzip.compress(jsonl(rows))))
    assert (table.num_rows, log.inputs[0].format) == (3, "bedrock/jsonl+gzip")
    data = json.dumps(rows[0], indent=2) + "\n" + json.dumps(rows[1], indent=2)
    assert read_all(write("b.json", data.encode()))[0].num_rows == 2


def test_cloudwatch_events(write: Write) -> None:
    rows = [record(n, INVOKE, INVOKE_REPLY) for n in range(4)]
    texts = [json.dumps(row) for row in rows]
    plain, _ = read_all(write("a.jsonl", jsonl(rows)))
    names = [name for name in plain.column_names if name != "raw_ref"]
    events = [{"timestamp": 1_772_366_400_000, "ingestionTime": 1, "message": text} for text in texts]
    group = {"messageType": "DATA_MESSAGE", "logGroup": "g", "logEvents": [{"id": "1", **e} for e in events]}
    shapes = {
        "b.jsonl": jsonl(events),
        "c.json": json.dumps({"events": events}, indent=1).encode(),
        "d.jsonl": jsonl([group]),
    }
    for name, data in shapes.items():
        table, log = read_all(write(name, data))
        assert log.format == "bedrock"
        assert log.refusals == []
        assert table.select(names).equals(plain.select(names)), name
    broken = group | {"logEvents": [*group["logEvents"][:2], {"message": "no record"}, {"message": None}]}
    table, log = read_all(write("e.jsonl", jsonl([broken])))
    assert table.num_rows == 2
    assert (log.refusals[0].row, log.refusals[0].column) == (1, "message")
    assert len(log.refusals) == 2


def test_failed_calls(write: Write) -> None:
    def status(code: Any) -> Any:
        row = record(1, None, None, errorCode=code)
        row["input"], row["output"] = {}, {}
        found = one(write, row)
        assert (found["prompt"], found["content_state"]) == (None, "absent")
        assert (found["input_tokens"], found["output_tokens"]) == (None, None)
        return found["status"]

    assert status("ThrottlingException") == 429
    assert status("ValidationException") == 400
    assert status("AccessDenied") == 403
    assert status("com.amazon#ModelTimeoutException") == 408
    assert status("424") == 424
    assert status("SomethingNew") is None
    counted = record(1, None, None, errorCode="ThrottlingException")
    counted["input"] = {"inputTokenCount": 0}
    counted["output"] = {"outputTokenCount": 0}
    assert one(write, counted)["output_tokens"] is None


def test_large_bodies_lie_elsewhere(write: Write) -> None:
    row = record(1, None, None)
    row["input"] = {"inputBodyS3Path": "s3://b/k", "inputTokenCount": 40_000}
    row["output"] = {"outputBodyS3Path": "s3://b/k", "outputTokenCount": 5}
    found = one(write, row)
    assert (found["prompt"], found["turn_hashes"], found["content_state"]) == (None, None, "absent")
    assert (found["input_tokens"], found["output_tokens"], found["status"]) == (40_000, 5, 200)
    row = record(1, INVOKE, None)
    row["output"] = {"outputBodyS3Path": "s3://b/k", "outputTokenCount": 5}
    found = one(write, row)
    assert (found["prompt"], found["response"], found["content_state"]) == ("three", None, "truncated")


def test_metadata_names_conversation_and_tenant(write: Write) -> None:
    row = one(
        write, record(1, CONVERSE, CONVERSE_REPLY, requestMetadata={"session_id": "s", "Tenant-ID": "t"})
    )
    assert (row["conversation_id"], row["end_user_id"], row["end_user_trust"]) == ("s", "t", "asserted")
    row = one(write, record(1, CONVERSE, CONVERSE_REPLY, requestMetadata={"costCentre": "c"}))
    assert (row["conversation_id"], row["end_user_id"], row["end_user_trust"]) == (None, None, None)


def test_guardrails(write: Write) -> None:
    row = one(write, record(1, CONVERSE, CONVERSE_REPLY | {"stopReason": "guardrail_intervened"}))
    assert (row["refused"], row["blocked_by"]) == (True, "bedrock-guardrail")
    row = one(write, record(1, INVOKE, INVOKE_REPLY | {"amazon-bedrock-guardrailAction": "INTERVENED"}))
    assert (row["refused"], row["blocked_by"]) == (True, "bedrock-guardrail")


def test_model_arns(write: Write) -> None:
    def model(name: str) -> Any:
        return one(write, record(1, INVOKE, INVOKE_REPLY, modelId=name))["model"]

    assert (
        model("arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-x-v1:0")
        == "anthropic.claude-x-v1:0"
    )
    assert model("arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.c") == "us.anthropic.c"
    own = "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc"
    assert model(own) == own


def test_owners_and_overrides(write: Write) -> None:
    rows = [record(n, INVOKE, INVOKE_REPLY) for n in range(3)]
    path = write("a.jsonl", jsonl(rows))
    _, log = read_all(path)
    assert log.owners.table()["entity_id"].to_pylist() == ["111122223333"] * 3
    table, log = read_all(path, overrides={"account_id": "$.accountId", "gateway_id": "=g"})
    assert table["account_id"].to_pylist() == ["111122223333"] * 3
    assert table["gateway_id"].to_pylist() == ["g"] * 3
    assert len(log.owners) == 0
    for row in rows:
        row["identity"] = None
    with pytest.raises(ColumnError, match="--map account_id="):
        read_all(write("b.jsonl", jsonl(rows)))


def test_restricted_columns_agree(write: Write) -> None:
    path = write("a.jsonl", jsonl([record(n, INVOKE, INVOKE_REPLY) for n in range(3)]))
    narrow, _ = read_all(path, columns=["entity_id", "output_tokens"])
    whole, _ = read_all(path)
    names = [name for name in narrow.column_names if name != "raw_ref"]
    assert narrow.select(names).equals(whole.select(names))


def test_a_format_that_cannot_be(write: Write) -> None:
    with pytest.raises(FormatError, match="model invocation logs are JSON"):
        read_all(write("a.csv", b"ts,account_id,model\n"), format="bedrock")


def test_a_long_record_is_known_by_its_first_keys(write: Write) -> None:
    long = INVOKE | {"messages": [{"role": "user", "content": "x" * 200_000}]}
    row = record(1, long, INVOKE_REPLY)
    assert len(one(write, row)["prompt"]) == 200_000
    assert len(one(write, {"timestamp": 1, "message": json.dumps(row)})["prompt"]) == 200_000
