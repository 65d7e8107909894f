"""LiteLLM events: identity, traps and the recorded ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stillwatch.sketch.hashing import chain_hash, content_hash
from tests.ingest.conftest import Write, event, jsonl, read_all


def _one(write: Write, **changes: Any) -> dict[str, Any]:
    table, log = read_all(write("a.jsonl", jsonl([event(1, **changes)])))
    assert log.format == "litellm"
    assert log.refusals == []
    row: dict[str, Any] = table.to_pylist()[0]
    return row


def test_plain_event(write: Write) -> None:
    row = _one(write, end_user="customer-9")
    assert row["exchange_id"] == "chatcmpl-1"
    assert row["ts"].isoformat() == "2026-03-01T12:00:01.250000+00:00"
    assert row["model"] == "m-large"
    assert (row["prompt"], row["system"], row["response"]) == ("hello 1", "be brief", "hi there")
    assert (row["n_messages"], row["newest_role"], row["stop_reason"]) == (2, "user", "stop")
    assert (row["input_tokens"], row["output_tokens"], row["latency_ms"]) == (10, 20, 1000.0)
    assert (row["stream"], row["max_tokens"], row["status"]) == (True, 64, 200)
    assert (row["endpoint"], row["provider"], row["end_user_id"]) == (
        "chat.completions",
        "openai",
        "customer-9",
    )
    assert row["turn_hashes"] == [chain_hash(0, "user", "hello 1")]
    assert row["prefix_hash"] == chain_hash(0, "system", "be brief")
    assert row["system_hash"] == content_hash("system", "be brief")


def test_one_company_with_300_keys_is_one_entity(write: Write) -> None:
    table, log = read_all(write("a.json", json.dumps([event(n) for n in range(300)]).encode()))
    assert len(set(table["account_id"].to_pylist())) == 300
    assert set(table["entity_id"].to_pylist()) == {"org-1"}
    accounts = log.owners.table()
    assert accounts.num_rows == 300
    assert set(accounts["entity_id"].to_pylist()) == {"org-1"}


def test_one_person_with_many_keys_is_one_account(write: Write) -> None:
    rows = [event(n, metadata={"user_api_key_user_id": "u-1", "user_api_key_org_id": None}) for n in range(5)]
    table, _ = read_all(write("a.jsonl", jsonl(rows)))
    assert set(table["account_id"].to_pylist()) == {"u-1"}
    assert set(table["entity_id"].to_pylist()) == {"team-1"}
    assert len(set(table["key_id"].to_pylist())) == 5


def test_arrays_in_any_number(write: Write) -> None:
    data = json.dumps([event(1), event(2)]) + "\n" + json.dumps([event(3)], indent=2) + json.dumps(event(4))
    table, log = read_all(write("a.json", data.encode()))
    assert table["exchange_id"].to_pylist() == [f"chatcmpl-{n}" for n in (1, 2, 3, 4)]
    assert log.refusals == []


def test_unknown_token_counts_are_null(write: Write) -> None:
    row = _one(write, prompt_tokens=0, completion_tokens=0, response={})
    assert (row["input_tokens"], row["output_tokens"]) == (None, None)


@pytest.mark.parametrize(
    "messages",
    [
        "redacted-by-litellm",
        [{"role": "user", "content": "redacted-by-litellm"}],
        [{"role": "user", "content": [{"type": "text", "text": "redacted-by-litellm"}]}],
    ],
)
def test_redacted_content_is_null(write: Write, messages: Any) -> None:
    reply = {"choices": [{"finish_reason": "stop", "message": {"content": "redacted-by-litellm"}}]}
    row = _one(write, messages=messages, response=reply)
    assert (row["prompt"], row["response"], row["turn_hashes"]) == (None, None, None)
    assert row["content_state"] == "redacted"


def test_own_blocks_are_told_from_other_failures(write: Write) -> None:
    def failure(text: str, code: str) -> dict[str, Any]:
        row = _one(
            write,
            status="failure",
            response={},
            prompt_tokens=0,
            completion_tokens=0,
            error_str=text,
            error_information={"error_code": code, "error_message": text},
        )
        assert row["output_tokens"] is None
        return row

    own = failure("403: {'error': 'refused', 'case': 'SW-2026-1', 'guardrail_name': 'stillwatch'}", "403")
    assert (own["status"], own["blocked_by"]) == (403, "stillwatch:SW-2026-1")
    other = failure("400: {'error': 'no', 'guardrail_name': 'pii-filter'}", "400")
    assert (other["status"], other["blocked_by"]) == (400, "pii-filter")
    plain = failure("rate limit", "429")
    assert (plain["status"], plain["blocked_by"]) == (429, None)
    assert failure("invalid key", "")["status"] == 401


def test_own_refusals_are_known_by_what_the_guardrail_recorded(write: Write) -> None:
    def blocked(information: Any, status: str = "failure") -> str | None:
        more = {"response": {}, "error_str": "no", "guardrail_information": information}
        found: str | None = _one(write, status=status, **more)["blocked_by"]
        return found

    ours = {
        "guardrail_name": "any name", "guardrail_provider": "stillwatch", "guardrail_status": "guardrail_intervened",
        "guardrail_response": {"action": "throttle"},
    }  # fmt: skip
    assert blocked([{"guardrail_name": "pii"}, ours]) == "stillwatch:throttle"
    over_http = {
        **ours,
        "guardrail_name": "stillwatch",
        "guardrail_provider": "generic",
        "guardrail_response": "no",
    }
    assert blocked([over_http]) == "stillwatch:refused"
    assert blocked([{**ours, "guardrail_status": "success"}]) is None
    assert blocked([{**ours, "guardrail_provider": "x"}]) is None
    # Who was answered was not refused, whatever he has written into his request.
    assert blocked([ours], "success") is None
    for odd in ({"guardrail_provider": "stillwatch"}, "stillwatch", [None, 3, "stillwatch"]):
        assert blocked(odd) is None


def test_newest_user_text_even_behind_tool_results(write: Write) -> None:
    messages = [
        {"role": "user", "content": "what is the weather"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"function": {"name": "w", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "rain", "tool_call_id": "1"},
    ]
    row = _one(write, messages=messages)
    assert (row["prompt"], row["newest_role"], row["n_messages"]) == ("what is the weather", "tool", 3)


def test_a_harness_change_leaves_turn_hashes_alone(write: Write) -> None:
    turns = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    plain = _one(write, messages=turns)
    changed = _one(write, messages=[{"role": "system", "content": "other"}, *turns])
    assert plain["turn_hashes"] == changed["turn_hashes"]
    assert len(plain["turn_hashes"]) == 2
    assert plain["prefix_hash"] != changed["prefix_hash"]


def test_hidden_history_is_null(write: Write) -> None:
    row = _one(
        write, messages="go on", model_parameters={"previous_response_id": "r1"}, call_type="aresponses"
    )
    assert (row["prompt"], row["turn_hashes"], row["prefix_hash"]) == ("go on", None, None)


def test_overrides_reach_into_the_raw_event(write: Write) -> None:
    path = write("a.jsonl", jsonl([event(1)]))
    table, log = read_all(path, overrides={"account_id": "$.metadata.user_api_key_team_id"})
    assert table["account_id"].to_pylist() == ["team-1"]
    assert len(log.owners) == 0


def test_restricted_columns_agree(write: Write) -> None:
    path = write("a.jsonl", jsonl([event(n) for n in range(3)]))
    narrow, _ = read_all(path, columns=["ip"])
    whole, _ = read_all(path)
    assert narrow.drop_columns(["raw_ref"]).equals(
        whole.select([name for name in narrow.column_names if name != "raw_ref"])
    )


@pytest.mark.corpora
def test_recorded_events() -> None:
    beside = Path(__file__).resolve().parents[3] / "shared" / "prototypes" / "gateways" / "litellm"
    path = beside / "events.jsonl"
    if not path.exists():
        pytest.skip("the recorded events are not beside the checkout")
    table, log = read_all(str(path))
    assert (table.num_rows, log.refusals, log.format) == (40, [], "litellm")
    assert table["status"].to_pylist().count(403) == 5
    blocked = [name for name in table["blocked_by"].to_pylist() if name]
    assert blocked == ["stillwatch:SW-2026-0001"] * 5
    assert table["status"].to_pylist().count(401) == 2
    assert "203.0.113.9" in table["ip"].to_pylist()
