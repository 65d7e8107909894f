"""LiteLLM as an operator runs it, in front of our model, and the traffic that is sent through it."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.programs import clean_environment, free_port, program, running, wait_for_lines
from tests.servers.upstream import collector, model

LITELLM = "1.106.2"

KEYS: dict[str, dict[str, str]] = {
    "sk-alice-1": {"user_id": "alice", "team_id": "team-a", "org_id": "org-a"},
    "sk-alice-2": {"user_id": "alice", "team_id": "team-a", "org_id": "org-a"},
    "sk-bob-1": {"user_id": "bob", "team_id": "team-b"},
    **{f"sk-acme-{n:03d}": {"team_id": f"acme-team-{n % 3}", "org_id": "acme"} for n in range(300)},
}
SYSTEM = "You are terse."


def hashed(key: str) -> str:
    """A key as LiteLLM logs it."""
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass(frozen=True)
class Call:
    """One request: who, where and what, and the status it gets."""

    key: str
    path: str
    body: dict[str, Any]
    ip: str = "203.0.113.9"
    status: int = 200


def _chat(prompt: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]
    return {"model": "m-large", "messages": messages, "max_tokens": 64, **more}


CALLS = [
    Call("sk-alice-1", "/v1/chat/completions", _chat("name a colour", temperature=0.5)),
    Call("sk-alice-2", "/v1/chat/completions", _chat("name a river", stream=True), ip="198.51.100.7"),
    Call("sk-bob-1", "/v1/chat/completions", _chat("name a bird", user="customer-9")),
    Call("sk-bob-1", "/v1/responses", {"model": "m-large", "input": "name a tree", "instructions": SYSTEM}),
    Call("sk-bob-1", "/v1/responses", {"model": "m-large", "input": "name a fish", "stream": True}),
    Call(
        "sk-alice-1",
        "/v1/messages",
        {
            "model": "m-large",
            "system": SYSTEM,
            "messages": [{"role": "user", "content": "name a stone"}],
            "max_tokens": 32,
            "metadata": {"user_id": "customer-7"},
        },
    ),
    Call("sk-nobody", "/v1/chat/completions", _chat("let me in"), status=401),
    Call("sk-bob-1", "/v1/chat/completions", _chat("overload"), status=429),
]
COMPANY = [
    Call(
        key, "/v1/chat/completions", {"model": "m-mock", "messages": [{"role": "user", "content": f"q {n}"}]}
    )
    for n, key in enumerate(key for key in KEYS if key.startswith("sk-acme"))
]


def send(port: int, call: Call, **headers: str) -> None:
    """One request, answered to the end; RuntimeError for another status than expected."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        own = {
            "authorization": f"Bearer {call.key}",
            "content-type": "application/json",
            "user-agent": "some-sdk/1.0",
            "x-forwarded-for": call.ip,
        }
        connection.request("POST", call.path, json.dumps(call.body).encode(), own | headers)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status != call.status:
        raise RuntimeError(f"{call.path} got {answer.status}: {text[:500]!r}")


def litellm_logs(folder: Path, company: int = 300) -> tuple[Path, Path]:
    """Run LiteLLM, send `CALLS` and `company` calls of the company; (its events, its exported traces)."""
    events, traces = folder / "events.jsonl", folder / "traces.jsonl"
    exported: list[bytes] = []
    with model() as upstream, collector(exported) as sink, _litellm(folder, upstream, sink, events) as port:
        for call in CALLS:
            send(port, call)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda call: send(port, call), COMPANY[:company]))
        wait_for_lines(events, len(CALLS) + company, 60)
        _wait_for_spans(exported, company)
    traces.write_bytes(b"".join(line + b"\n" for line in exported))
    return events, traces


def _wait_for_spans(exported: list[bytes], company: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if sum(line.count(b'"chat m-') for line in exported) >= company + 5:
            return
        time.sleep(0.2)


@contextmanager
def _litellm(folder: Path, upstream: int, sink: int, events: Path) -> Iterator[int]:
    command = program("litellm", "STILLWATCH_LITELLM")
    shutil.copy(Path(__file__).with_name("litellm_hooks.py"), folder / "hooks.py")
    config = {
        "model_list": [
            {
                "model_name": "m-large",
                "litellm_params": {
                    "model": "openai/deployment-7",
                    "api_key": "none",
                    "api_base": f"http://127.0.0.1:{upstream}/v1",
                    "num_retries": 0,
                },
            },
            {
                "model_name": "m-mock",
                "litellm_params": {"model": "openai/mock", "api_key": "none", "mock_response": "mocked"},
            },
        ],
        "litellm_settings": {"telemetry": False, "callbacks": ["hooks.event_log", "otel"], "num_retries": 0},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {
            "master_key": "os.environ/LITELLM_MASTER_KEY",
            "custom_auth": "hooks.user_api_key_auth",
            "use_x_forwarded_for": True,
        },
    }
    # JSON is YAML.
    (folder / "config.yaml").write_text(json.dumps(config))
    port = free_port()
    env = clean_environment(
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        LITELLM_MASTER_KEY="sk-" + hashlib.sha256(str(folder).encode()).hexdigest(),
        LITELLM_OTEL_V2="true",
        OTEL_EXPORTER="http/json",
        OTEL_ENDPOINT=f"http://127.0.0.1:{sink}",
        OTEL_BSP_SCHEDULE_DELAY="500",
        OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT="span_only",
        STILLWATCH_KEYS=json.dumps(KEYS),
        STILLWATCH_EVENTS=str(events),
    )
    arguments = [str(command), "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    ready = f"http://127.0.0.1:{port}/health/liveliness"
    with running(arguments, ready, folder=folder, env=env, timeout_s=120):
        yield port
