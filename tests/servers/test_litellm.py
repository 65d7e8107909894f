"""A real LiteLLM: what it writes about real requests arrives as the rows that it should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stillwatch.sketch.hashing import chain_hash, content_hash
from tests.ingest.conftest import read_all
from tests.servers.litellm_gateway import CALLS, COMPANY, SYSTEM, hashed, litellm_logs
from tests.servers.upstream import ANSWER, INPUT_TOKENS, OUTPUT_TOKENS

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return litellm_logs(tmp_path_factory.mktemp("litellm"))


def _by_prompt(path: Path) -> dict[str, dict[str, Any]]:
    table, log = read_all(str(path))
    assert log.refusals == []
    return {row["prompt"]: row for row in table.to_pylist()}


def _check(row: dict[str, Any], *, events: bool) -> None:
    assert row["provider"] == "openai"
    if row["status"] == 200:
        assert (row["response"], row["refused"]) == (ANSWER, False)
        assert (row["input_tokens"], row["output_tokens"]) == (INPUT_TOKENS, OUTPUT_TOKENS)
        assert 0 < row["latency_ms"] < 60_000
    if events:
        assert (row["user_agent"], row["ip"] in ("203.0.113.9", "198.51.100.7")) == ("some-sdk/1.0", True)


EXPECTED = {
    "name a colour": ("alice", "org-a", "sk-alice-1", "chat.completions", 200, None),
    "name a river": ("alice", "org-a", "sk-alice-2", "chat.completions", 200, None),
    "name a bird": ("bob", "team-b", "sk-bob-1", "chat.completions", 200, "customer-9"),
    "name a tree": ("bob", "team-b", "sk-bob-1", "responses", 200, None),
    "name a fish": ("bob", "team-b", "sk-bob-1", "responses", 200, None),
    "name a stone": ("alice", "org-a", "sk-alice-1", "messages", 200, "customer-7"),
    "overload": ("bob", "team-b", "sk-bob-1", "chat.completions", 429, None),
}


@pytest.mark.parametrize("prompt", EXPECTED)
def test_calls_arrive_through_events_and_through_spans(logs: tuple[Path, Path], prompt: str) -> None:
    account, entity, key, endpoint, status, end_user = EXPECTED[prompt]
    for path in logs:
        row = _by_prompt(path)[prompt]
        assert (row["account_id"], row["entity_id"], row["key_id"]) == (account, entity, hashed(key))
        assert (row["model"], row["endpoint"], row["status"]) == ("m-large", endpoint, status)
        assert row["end_user_id"] == end_user
        assert row["turn_hashes"] == [chain_hash(0, "user", prompt)]
        if endpoint == "chat.completions":
            assert (row["system"], row["system_hash"]) == (SYSTEM, content_hash("system", SYSTEM))
            assert row["max_tokens"] == 64
        _check(row, events=path == logs[0])


def test_streams_addresses_and_unknown_keys(logs: tuple[Path, Path]) -> None:
    rows = _by_prompt(logs[0])
    assert {prompt: rows[prompt]["stream"] for prompt in ("name a river", "name a fish")} == {
        "name a river": True,
        "name a fish": True,
    }
    assert rows["name a river"]["ip"] == "198.51.100.7"
    assert rows["name a colour"]["temperature"] == 0.5
    unknown = rows["let me in"]
    assert (unknown["status"], unknown["key_id"], unknown["entity_id"]) == (401, hashed("sk-nobody"), None)
    assert "let me in" not in _by_prompt(logs[1])


def test_every_request_is_there_once(logs: tuple[Path, Path]) -> None:
    events, log = read_all(str(logs[0]))
    assert (log.format, events.num_rows) == ("litellm", len(CALLS) + len(COMPANY))
    spans, log = read_all(str(logs[1]))
    # A key that nobody knows never reaches a model, so there is no span of a call.
    assert (log.format, spans.num_rows) == ("otlp", len(CALLS) - 1 + len(COMPANY))
    assert log.rows_passed > 0


def test_one_company_with_300_keys_is_one_entity(logs: tuple[Path, Path]) -> None:
    for path in logs:
        table, log = read_all(str(path))
        mocked = [row for row in table.to_pylist() if row["model"] == "m-mock"]
        assert {row["account_id"] for row in mocked} == {hashed(call.key) for call in COMPANY}
        assert {row["entity_id"] for row in mocked} == {"acme"}
        owners = [row for row in log.owners.table().to_pylist() if row["entity_id"] == "acme"]
        assert len(owners) == 300
