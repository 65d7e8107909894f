"""What the suites of the doors share: a snapshot that acts today, and a stand-in that hears what a gateway asks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from stillwatch.guard import Guard, Subject, load, parse_policy
from stillwatch.guard.doors.http import refusal
from stillwatch.store.decisions import Order, approve, propose, read_decisions
from tests.guard.conftest import SECRET, Scanned
from tests.guard.test_decide import ANNA, BELA, LISTED, _strong
from tests.servers.today import alive
from tests.servers.upstream import served

SYSTEM = "You are terse."
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
BODIES: Mapping[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "name a colour"}],
        "tools": [TOOL], "response_format": {"type": "json_object"},
    },
    "/v1/responses": {"input": "name a tree", "instructions": SYSTEM},
    "/v1/messages": {
        "system": SYSTEM, "messages": [{"role": "user", "content": "name a stone"}], "max_tokens": 32,
    },
}  # fmt: skip
CHAT = {"model": "m-large", **BODIES["/v1/chat/completions"]}
ADDRESS = {"x-forwarded-for": "6.6.6.6, 203.0.113.9"}
"""What the trusted proxy before the gateway hands on; the left address is the client's own invention."""


@dataclass(frozen=True)
class Live:
    """A snapshot that counts today, and a key for whom it blocks, whom it throttles and whom it does not know."""

    path: Path
    accounts: Mapping[str, str]
    """Account by API key."""
    refused: Mapping[str, tuple[int, dict[str, str], dict[str, Any]]]
    """(status, headers, body) of the refusal by API key: what the guard itself says, asked without any gateway."""


BLOCKED, THROTTLED, FREE = "sk-blocked", "sk-throttled", "sk-free"


@pytest.fixture(scope="session")
def live(scanned: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Live:
    log, results = scanned
    folder = tmp_path_factory.mktemp("live")
    demo = Scanned(log, results, folder / "snapshot", None)  # type: ignore[arg-type]
    strong = _strong(demo)
    mates = [row for row in strong if row["campaign_id"] == strong[0]["campaign_id"]]
    assert mates[0]["e_bits"] > mates[-1]["e_bits"]
    between = (mates[0]["e_bits"] + mates[-1]["e_bits"]) / 2
    rules = (
        f'[[rule]]\nname = "strong"\naction = "block"\nmin_bits = {between}\n'
        '[[rule]]\nname = "weak"\naction = "throttle"\nmin_bits = 1\nretry_after_s = 30\n'
    )
    policy = parse_policy(f'version = 1\nmode = "enforce"\n{LISTED}{rules}')
    now = datetime.now(UTC).replace(microsecond=0)
    order = Order(
        campaign=mates[0]["campaign_id"], action="block", policy=policy.digest, expires=now + timedelta(days=3),
        at=now, mapped=False, reason="",
    )  # fmt: skip
    ledger = folder / "decisions.jsonl"
    approve(ledger, propose(ledger, order, ANNA).digest, BELA, now)
    accounts = {BLOCKED: mates[0]["account_id"], THROTTLED: mates[-1]["account_id"], FREE: "acct-of-nobody"}
    alive(demo, accounts, policy.text, read_decisions(ledger))
    guard = Guard(load(demo.path, SECRET))
    refused = {}
    for key in (BLOCKED, THROTTLED):
        answer = refusal(guard.decide(Subject(api_key=key)))
        assert answer is not None
        headers = {n.decode(): v.decode() for n, v in answer[1]}
        refused[key] = answer[0], headers, json.loads(answer[2])
    assert [refused[key][0] for key in (BLOCKED, THROTTLED)] == [403, 429]
    assert guard.decide(Subject(api_key=FREE)).action == "allow"
    return Live(demo.path, accounts, refused)


@pytest.fixture(scope="session")
def acting(
    scanned: tuple[Path, Path], live: Live, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """A snapshot that orders one action against the campaign of `BLOCKED`."""

    def made(action: str) -> Path:
        folder = tmp_path_factory.mktemp(action)
        demo = Scanned(*scanned, folder / "snapshot", None)  # type: ignore[arg-type]
        rule = f'[[rule]]\nname = "all"\naction = "{action}"\nmin_bits = 1\n'
        policy = parse_policy(f'version = 1\nmode = "enforce"\n{LISTED}{rule}')
        now = datetime.now(UTC).replace(microsecond=0)
        order = Order(
            campaign=_strong(demo)[0]["campaign_id"], action=action, policy=policy.digest,
            expires=now + timedelta(days=3), at=now, mapped=False, reason="",
        )  # fmt: skip
        ledger = folder / "decisions.jsonl"
        approve(ledger, propose(ledger, order, ANNA).digest, BELA, now)
        return alive(demo, {BLOCKED: live.accounts[BLOCKED]}, policy.text, read_decisions(ledger))

    return made


def aloud(path: str, stream: bool) -> dict[str, Any]:
    """A request that is answered with reasoning, and log-probabilities where there are any."""
    body = {
        "model": "m-large",
        **json.loads(json.dumps(BODIES[path]).replace("name a", "think aloud, name a")),
    }
    if path == "/v1/chat/completions":
        body |= {"logprobs": True, "top_logprobs": 2}
    if path == "/v1/responses":
        body |= {"reasoning": {"summary": "auto"}, "include": ["message.output_text.logprobs"]}
    return body | ({"stream": True} if stream else {})


@dataclass
class Asked:
    """What a stand-in for the guard heard last."""

    path: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""

    def first(self, name: str) -> str | None:
        return next((v.decode() for n, v in self.headers if n.lower() == name.encode()), None)


@pytest.fixture
def listener(request: pytest.FixtureRequest) -> Iterator[tuple[int, Asked]]:
    """(port, what it heard last): allows everything. Over gRPC where the test's `name` is ext_proc."""
    heard = Asked()
    if request.node.callspec.params.get("name") == "ext_proc":
        from tests.servers.envoy_grpc import processor

        with processor(heard) as port:
            yield port, heard
        return

    class Listener(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if (
                "health" not in self.path and self.headers.get("authorization") is not None
            ) or b"texts" in body:
                heard.path, heard.body = self.path, body
                heard.headers = tuple((n.encode(), v.encode()) for n, v in self.headers.items())
            answer = b'{"action": "NONE"}'
            self.send_response(200)
            self.send_header("x-stillwatch-action", "allow")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_GET

    with served(Listener) as port:
        yield port, heard
