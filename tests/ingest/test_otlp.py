"""OTLP traces: four vocabularies that say the same, identity, traps, places of refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from stillwatch.ingest import coverage, open_log
from stillwatch.sketch.hashing import chain_hash, content_hash
from tests.ingest.conftest import Write, jsonl, read_all
from tests.ingest.spans import (
    ANSWER,
    PROMPT,
    SYSTEM,
    current,
    legacy,
    openinference,
    request,
    span,
    traceloop,
)

Make = Callable[..., dict[str, Any]]
VOCABULARIES: list[Make] = [current, legacy, traceloop, openinference]


def _one(write: Write, *spans: Any, **resource: Any) -> dict[str, Any]:
    table, log = read_all(write("a.jsonl", jsonl([request(*spans, **resource)])))
    assert (log.format, log.refusals) == ("otlp", [])
    rows: list[dict[str, Any]] = table.to_pylist()
    assert len(rows) == 1
    return rows[0]


@pytest.mark.parametrize("make", VOCABULARIES)
def test_every_vocabulary_says_the_same(write: Write, make: Make) -> None:
    row = _one(write, make(1))
    assert row["exchange_id"] == f"{1:032x}-{1:016x}"
    assert row["ts"].isoformat() == "2026-03-01T12:00:01.250000+00:00"
    assert (row["account_id"], row["model"], row["provider"].lower()) == ("account-1", "m-large", "openai")
    assert (row["system"], row["prompt"], row["response"]) == (SYSTEM, PROMPT, ANSWER)
    assert (row["newest_role"], row["stop_reason"], row["refused"]) == ("user", "stop", False)
    assert (row["input_tokens"], row["output_tokens"], row["reasoning_tokens"]) == (10, 20, None)
    assert (row["max_tokens"], row["temperature"], row["latency_ms"]) == (64, 0.5, 1500.0)
    assert (row["status"], row["conversation_id"]) == (200, "c-1")
    assert (row["ip"], row["user_agent"]) == ("203.0.113.9", "some-sdk/1.0")
    assert row["turn_hashes"] == [chain_hash(0, "user", PROMPT)]
    assert row["prefix_hash"] == chain_hash(0, "system", SYSTEM)
    assert row["system_hash"] == content_hash("system", SYSTEM)
    assert row["content_state"] is None
    assert row["stream"] is (None if make is legacy else True)


def test_structured_messages_and_the_details_event_say_the_same(write: Write) -> None:
    text = _one(write, current(1))
    assert _one(write, current(1, text=False)) == text
    names = ("gen_ai.system_instructions", "gen_ai.input.messages", "gen_ai.output.messages")
    bare = current(1, **dict.fromkeys(names))
    moved = [pair for pair in current(1)["attributes"] if pair["key"] in names]
    bare["events"] = [{"name": "gen_ai.client.inference.operation.details", "attributes": moved}]
    assert _one(write, bare) == text


def test_parts_of_a_conversation_with_tools(write: Write) -> None:
    messages = [
        {"role": "user", "parts": [{"type": "text", "content": "what is the weather"}]},
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "look it up"},
                {"type": "tool_call", "id": "1", "name": "w", "arguments": {}},
            ],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": "rain"}]},
    ]
    output = [
        {
            "role": "assistant",
            "parts": [{"type": "reasoning", "content": "so rain"}, {"type": "text", "content": "It rains."}],
            "finish_reason": "stop",
        }
    ]
    tools = [{"type": "function", "name": "w", "description": "weather", "parameters": {"type": "object"}}]
    row = _one(
        write,
        current(
            1,
            **{
                "gen_ai.input.messages": json.dumps(messages),
                "gen_ai.output.messages": json.dumps(output),
                "gen_ai.tool.definitions": json.dumps(tools),
                "gen_ai.usage.reasoning.output_tokens": 5,
            },
        ),
    )
    assert (row["prompt"], row["newest_role"], row["n_messages"]) == ("what is the weather", "tool", 3)
    assert row["reasoning_in"] == [content_hash("reasoning", "look it up")]
    assert (row["response"], row["reasoning_tokens"]) == ("It rains.", 5)
    assert row["reasoning_out"] == [content_hash("reasoning", "so rain")]
    flat = openinference(
        2, **{"llm.tools.0.tool.json_schema": json.dumps({"type": "function", "function": tools[0]})}
    )
    looped = traceloop(
        3,
        **{
            "llm.request.functions.0.name": "w",
            "llm.request.functions.0.description": "weather",
            "llm.request.functions.0.parameters": '{"type": "object"}',
        },
    )
    assert {_one(write, flat)["tools_hash"], _one(write, looped)["tools_hash"]} == {row["tools_hash"]}


def test_a_conversation_through_any_importer_has_the_same_turns(write: Write) -> None:
    said = [("user", "one"), ("assistant", "two"), ("user", "three")]
    spoken = [{"role": role, "parts": [{"type": "text", "content": text}]} for role, text in said]
    flat = {}
    for number, (role, text) in enumerate(said):
        flat |= {f"gen_ai.prompt.{number}.role": role, f"gen_ai.prompt.{number}.content": text}
    rows = [
        _one(
            write,
            current(1, **{"gen_ai.input.messages": json.dumps(spoken), "gen_ai.system_instructions": None}),
        ),
        _one(write, traceloop(2, **flat)),
    ]
    plain = [{"role": role, "content": text} for role, text in said]
    rows.append(
        _one(
            write,
            current(3, **{"gen_ai.input.messages": json.dumps(plain), "gen_ai.system_instructions": None}),
        )
    )
    first = chain_hash(0, "user", "one")
    turns = [first, chain_hash(chain_hash(first, "assistant", "two"), "user", "three")]
    assert [row["turn_hashes"] for row in rows] == [turns] * 3
    assert {row["prompt"] for row in rows} == {"three"}


def test_only_calls_of_models_become_rows(write: Write) -> None:
    others = [
        span(10, {"http.request.method": "POST", "url.path": "/v1/chat/completions"}),
        span(11, {"gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "m-large"}),
        span(12, {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "w"}),
        span(13, {"openinference.span.kind": "CHAIN", "llm.model_name": "m-large"}),
        span(14, {"traceloop.span.kind": "workflow", "gen_ai.system": "OpenAI", "gen_ai.request.model": "m"}),
        span(15, {"llm.request.type": "rerank", "gen_ai.request.model": "m"}),
        span(16, {}),
    ]
    path = write("a.jsonl", jsonl([request(*others[:4], current(1)), request(*others[4:])]))
    table, log = read_all(path)
    assert (table.num_rows, log.rows_read, log.rows_passed, log.refusals) == (1, 1, 7, [])
    found = coverage(open_log([path]))
    assert (found.rows, found.refused, found.passed) == (1, 0, 7)


def test_embeddings_are_calls_too(write: Write) -> None:
    row = _one(
        write, span(1, {"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "e", "user.id": "a"})
    )
    assert (row["endpoint"], row["model"], row["content_state"]) == ("embeddings", "e", "absent")


def test_who_the_account_is(write: Write) -> None:
    def account(resource: dict[str, Any], **changes: Any) -> Any:
        return _one(write, current(1, **changes), **resource)["account_id"]

    assert account({"user.id": "of-the-resource"}) == "account-1"
    assert account({}, **{"user.id": None, "enduser.id": "e-1"}) == "e-1"
    assert account({"enduser.id": "r-1"}, **{"user.id": None}) == "r-1"
    row = _one(
        write,
        current(
            1,
            **{
                "user.id": "customer-of-the-customer",
                "litellm.api_key.hash": "k1",
                "litellm.metadata.user_api_key_user_id": "u-1",
                "litellm.metadata.user_api_key_org_id": "org-1",
                "litellm.team.id": "team-1",
            },
        ),
    )
    assert (row["account_id"], row["entity_id"], row["key_id"]) == ("u-1", "org-1", "k1")
    assert (row["end_user_id"], row["end_user_trust"]) == ("customer-of-the-customer", "asserted")
    assert account({}, **{"user.id": None, "litellm.api_key.hash": "k1"}) == "k1"


def test_one_company_with_300_keys_is_one_entity(write: Write) -> None:
    spans = [
        current(n, **{"user.id": None, "litellm.api_key.hash": f"k{n}", "litellm.team.id": "team-1"})
        for n in range(300)
    ]
    table, log = read_all(write("a.jsonl", jsonl([request(*spans)])))
    assert len(set(table["account_id"].to_pylist())) == 300
    assert set(log.owners.table()["entity_id"].to_pylist()) == {"team-1"}


def test_a_span_without_an_account_is_refused_and_the_way_out_is_named(write: Write) -> None:
    nameless = current(2, **{"user.id": None, "tenant.id": "t-1"})
    path = write("a.jsonl", jsonl([request(current(1), nameless, **{"cluster.owner": "o-1"})]))
    table, log = read_all(path)
    assert table.num_rows == 1
    refusal = log.refusals[0]
    assert (refusal.file, refusal.row, refusal.column) == (path, 2, "account_id")
    assert "--map account_id=$.path" in refusal.reason
    mapped, log = read_all(path, overrides={"account_id": '$.attributes["tenant.id"]'})
    assert (mapped["account_id"].to_pylist(), [part.column for part in log.refusals]) == (
        ["t-1"],
        ["account_id"],
    )
    mapped, log = read_all(path, overrides={"account_id": '$.resource.attributes["cluster.owner"]'})
    assert (mapped["account_id"].to_pylist(), log.refusals) == (["o-1", "o-1"], [])
    assert len(log.owners) == 0


def test_rows_and_offsets_name_the_span(write: Write) -> None:
    lines = [
        json.dumps(request(current(1), span(2, {}), current(3, **{"user.id": None}))).encode(),
        b'{"resourceSpans": [',
        json.dumps({"resourceLogs": []}).encode(),
        json.dumps(request(current(4) | {"attributes": "x"}, current(5))).encode(),
    ]
    data = b"\n".join(lines) + b"\n"
    table, log = read_all(write("a.jsonl", data))
    assert [ref["row"] for ref in table["raw_ref"].to_pylist()] == [1, 7]
    assert [part.row for part in log.refusals] == [3, 4, 5, 6]
    starts = (b'{"traceId": "%032x"' % 3, lines[1], lines[2], b'{"traceId": "%032x"' % 4)
    for refusal, start in zip(log.refusals, starts, strict=True):
        assert refusal.offset is not None
        assert data[refusal.offset :].startswith(start)
    reasons = [part.reason for part in log.refusals]
    assert "truncated JSON" in reasons[1]
    assert "log records" in reasons[2]
    assert (
        reasons[3]
        == "a span that cannot be read: not the JSON expected here: Expected `array | null`, got `str`"
    )


@pytest.mark.parametrize(
    ("attributes", "code", "expected"),
    [
        ({"error.type": "429"}, 0, (429, None)),
        ({"error.type": "RateLimitError"}, 2, (429, None)),
        ({"error.type": "openai.AuthenticationError"}, 2, (401, None)),
        ({"error.type": "timeout"}, 2, (504, None)),
        ({"error.type": "_OTHER"}, 2, (500, None)),
        ({"error.type": "_OTHER", "http.response.status_code": 403}, 2, (403, None)),
        ({}, "STATUS_CODE_ERROR", (500, None)),
        ({"http.status_code": 200}, 1, (200, None)),
        (
            {"error.type": "403", "error.message": "{'case': 'SW-2026-1', 'guardrail_name': 'stillwatch'}"},
            2,
            (403, "stillwatch:SW-2026-1"),
        ),
    ],
)
def test_outcomes(
    write: Write, attributes: dict[str, Any], code: Any, expected: tuple[int, str | None]
) -> None:
    row = _one(write, current(1, **attributes) | {"status": {"code": code}})
    assert (row["status"], row["blocked_by"]) == expected


def test_tokens(write: Write) -> None:
    cached = {"gen_ai.usage.cache_read.input_tokens": 8}
    assert _one(write, current(1, **cached))["input_tokens"] == 10
    left_out = {"gen_ai.usage.cache_read_input_tokens": 900, "gen_ai.usage.cache_creation_input_tokens": 50}
    assert _one(write, current(1, **left_out))["input_tokens"] == 960
    row = _one(write, current(1, **{"gen_ai.usage.input_tokens": 0, "gen_ai.usage.output_tokens": 0}))
    assert (row["input_tokens"], row["output_tokens"]) == (None, None)


def test_redacted_cut_and_absent_content(write: Write) -> None:
    hidden = {
        "llm.input_messages.0.message.content": "__REDACTED__",
        "llm.input_messages.1.message.contents.0.message_content.text": "__REDACTED__",
        "llm.output_messages.0.message.content": "__REDACTED__",
    }
    row = _one(write, openinference(1, **hidden))
    assert (row["prompt"], row["response"], row["turn_hashes"]) == (None, None, None)
    assert row["content_state"] == "redacted"
    cut = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "x" * 100}]}])[:60]
    row = _one(write, current(1, **{"gen_ai.input.messages": cut}))
    assert (row["prompt"], row["content_state"]) == (None, "truncated")
    names = ("gen_ai.system_instructions", "gen_ai.input.messages", "gen_ai.output.messages")
    assert _one(write, current(1, **dict.fromkeys(names)))["content_state"] == "absent"


def test_hidden_history_is_null(write: Write) -> None:
    row = _one(write, current(1, **{"gen_ai.request.previous_response.id": "r1"}))
    assert (row["prompt"], row["turn_hashes"], row["prefix_hash"]) == (PROMPT, None, None)


def test_a_gateways_model_is_the_public_name(write: Write) -> None:
    names = {"gen_ai.request.model": "public", "gen_ai.response.model": "deployment-7"}
    assert _one(write, current(1, **names))["model"] == "deployment-7"
    assert _one(write, current(1, **names, **{"litellm.call_id": "c"}))["model"] == "public"


def test_captured_headers(write: Write) -> None:
    headers = {
        "client.address": None,
        "user_agent.original": None,
        "http.request.header.x-forwarded-for": ["6.6.6.6, 198.51.100.7", "10.0.0.1"],
        "http.request.header.user-agent": ["sdk/2"],
        "http.request.header.x-ja4": ["t13d"],
        "url.path": "/v1/messages",
    }
    row = _one(write, current(1, **headers))
    assert (row["ip"], row["user_agent"], row["ja4"], row["endpoint"]) == (
        "198.51.100.7",
        "sdk/2",
        "t13d",
        "messages",
    )


def test_documents_arrays_and_long_lines(write: Write) -> None:
    both = [request(current(1)), request(current(2))]
    for data in (json.dumps(both, indent=1), json.dumps(both[0], indent=2) + json.dumps(both[1])):
        table, log = read_all(write("a.json", data.encode()))
        assert (table.num_rows, log.format, log.refusals) == (2, "otlp", [])
    long = request(*[current(n) for n in range(100)])
    table, log = read_all(write("b.jsonl", json.dumps(long).encode()), batch_rows=7)
    assert (table.num_rows, log.format) == (100, "otlp")
    assert (
        max(
            batch.num_rows
            for batch in open_log([write("b.jsonl", json.dumps(long).encode())], batch_rows=7).batches()
        )
        == 7
    )


def test_restricted_columns_agree(write: Write) -> None:
    path = write("a.jsonl", jsonl([request(*[make(n) for n, make in enumerate(VOCABULARIES)])]))
    whole, _ = read_all(path)
    for columns in (["ip"], ["stop_reason"], ["turn_hashes", "response"]):
        narrow, _ = read_all(path, columns=columns)
        assert narrow.equals(whole.select(narrow.column_names))
