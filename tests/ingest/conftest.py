"""Small logs of our own, written anew for every test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stillwatch.ingest import Log, open_log


def exchange(number: int, **changes: Any) -> dict[str, Any]:
    """One canonical row as JSON writes it."""
    row: dict[str, Any] = {
        "exchange_id": f"x{number}",
        "ts": f"2026-03-01T12:{number // 60 % 60:02d}:{number % 60:02d}Z",
        "account_id": f"account-{number % 7}",
        "model": "m-large",
        "prompt": f'question {number}, with a comma and a "quote"',
        "turn_hashes": [f"{number:016x}"],
        "prefix_hash": "00000000000000ff",
        "output_tokens": number,
    }
    return row | changes


def jsonl(rows: list[Any]) -> bytes:
    """Rows as JSON lines; bytes stand for themselves."""
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def event(number: int, **changes: Any) -> dict[str, Any]:
    """One LiteLLM event, as far as the shape matters; `metadata` changes are merged."""
    metadata: dict[str, Any] = {
        "user_api_key_hash": f"{number:064x}",
        "user_api_key_user_id": None,
        "user_api_key_team_id": "team-1",
        "user_api_key_org_id": "org-1",
        "user_api_key_end_user_id": "",
        "user_api_key_request_route": "/v1/chat/completions",
    }
    metadata.update(changes.pop("metadata", {}))
    base: dict[str, Any] = {
        "id": f"chatcmpl-{number}",
        "litellm_call_id": f"call-{number}",
        "session_id": "",
        "call_type": "acompletion",
        "stream": None,
        "status": "success",
        "custom_llm_provider": "openai",
        "startTime": 1_772_366_400.25 + number,
        "endTime": 1_772_366_401.25 + number,
        "response_time": 1.0,
        "model": "openai/deployment-7",
        "model_group": "m-large",
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "end_user": "",
        "requester_ip_address": "203.0.113.9",
        "user_agent": "some-sdk/1.0",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": f"hello {number}"},
        ],
        "response": {
            "choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": "hi there"}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 20},
        },
        "model_parameters": {"stream": True, "max_tokens": 64},
        "error_str": None,
        "error_information": {"error_code": "", "error_message": ""},
        "hidden_params": {},
        "metadata": metadata,
    }
    return base | changes


def envelope(number: int, request: Any, response: Any, **changes: Any) -> dict[str, Any]:
    """One envelope around the bodies of a call."""
    base: dict[str, Any] = {
        "ts": 1_772_366_400 + number,
        "account_id": f"account-{number % 7}",
        "ip": "203.0.113.9",
        "request": request,
        "response": response,
    }
    return base | changes


def record(number: int, request: Any, response: Any, **changes: Any) -> dict[str, Any]:
    """One record of Bedrock's invocation log, its keys in the order that the service writes them."""
    base: dict[str, Any] = {
        "timestamp": f"2026-03-01T12:{number // 60 % 60:02d}:{number % 60:02d}Z",
        "accountId": "111122223333",
        "region": "us-east-1",
        "requestId": f"request-{number}",
        "operation": "InvokeModel",
        "modelId": "anthropic.claude-x-v1:0",
        "input": {
            "inputContentType": "application/json",
            "inputBodyJson": request,
            "inputTokenCount": 10,
            "cacheReadInputTokenCount": 15,
            "cacheWriteInputTokenCount": 5,
        },
        "output": {
            "outputContentType": "application/json",
            "outputBodyJson": response,
            "outputTokenCount": 9,
        },
        "identity": {"arn": f"arn:aws:sts::111122223333:assumed-role/Role/session-{number}"},
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
    }
    return base | changes


Write = Callable[[str, bytes], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes bytes under a name and returns the path."""

    def inner(name: str, data: bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return str(path)

    return inner


def read_all(*paths: str, **options: Any) -> tuple[pa.Table, Log]:
    """Every accepted row, and the log."""
    log = open_log(list(paths), **options)
    return pa.Table.from_batches(log.batches(), schema=log.schema), log
