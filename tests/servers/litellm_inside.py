"""Checks of the guardrail class in LiteLLM's environment, without the proxy. Run by test_inside; our tests never
import it."""

import asyncio
import hashlib
import os
import sys
from types import SimpleNamespace

from litellm.proxy._types import ProxyException, UserAPIKeyAuth
from litellm.types.utils import Choices, Message, ModelResponse

from stillwatch.guard.doors.http import Identity
from stillwatch.guard.doors.litellm import StillwatchGuardrail, subject
from stillwatch.guard.doors.sees import DOORS
from stillwatch.ingest.bodies import asking_columns

MEMBER = UserAPIKeyAuth(api_key="sk-1", user_id=os.environ["MEMBER"])
OTHER = UserAPIKeyAuth(api_key="sk-2")


def guardrail(**more):
    return StillwatchGuardrail(
        guardrail_name="stillwatch", event_hook=["pre_call", "post_call"], default_on=True, **more
    )


def ask(guard, who, call_type="acompletion", **body):
    """The status of the refusal, 200 for what goes on; the very same data comes back."""
    data = {"messages": [{"role": "user", "content": "hello"}], "metadata": {}, **body}
    try:
        assert asyncio.run(guard.async_pre_call_hook(who, None, data, call_type)) is data
    except ProxyException as error:
        return int(error.code), error
    return 200, data


class Broken:
    """A guard with an error in it."""

    guard = SimpleNamespace(decide=lambda subject: 1 / 0)


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
WHOLE = {
    "messages": [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "name a colour"},
    ],
    "tools": [TOOL],
    "response_format": {"type": "json_object"},
    "proxy_server_request": {"headers": {"x-forwarded-for": "6.6.6.6, 203.0.113.9"}},
    "metadata": {"requester_ip_address": "10.0.0.1"},
}


def sees():
    """The door sees what the table of the doors says."""
    found = subject(MEMBER, WHOLE, Identity(None, 1))
    columns = asking_columns(found.body)
    shown = {
        "key": found.api_key or found.api_key_sha256, "user": found.account == os.environ["MEMBER"],
        "prompt": columns.get("prompt") == "name a colour", "system": columns.get("system") == "You are terse.",
        "tools": columns.get("tools_hash"), "format": columns.get("format_hash"),
        "address": found.ip == "203.0.113.9",
    }  # fmt: skip
    assert {name for name, seen in shown.items() if seen} == DOORS["litellm-in-process"].sees
    # A key without a user stands for itself, as in LiteLLM's logs; without proxies the address is the connection's.
    alone = subject(OTHER, WHOLE, Identity())
    assert (alone.account, alone.ip) == (hashlib.sha256(b"sk-2").hexdigest(), "10.0.0.1")
    assert subject(OTHER, {}, Identity(None, 1)).ip is None
    assert (
        subject(UserAPIKeyAuth(api_key="sk-2", team_id="t", org_id="o"), {}, Identity()).account
        == alone.account
    )


def main():
    sees()
    guard = guardrail(snapshot=os.environ["SNAPSHOT"])
    status, error = ask(guard, MEMBER)
    assert (status, error.type, error.openai_code) == (403, "permission_error", "stillwatch_block")
    assert os.environ["MEMBER"] not in str(error)
    assert ask(guard, OTHER)[0] == 200
    # Only calls that a model answers in text.
    assert ask(guard, MEMBER, "aembedding")[0] == 200
    recorded = {"metadata": {}}
    ask(guard, MEMBER, **recorded)
    (entry,) = recorded["metadata"]["standard_logging_guardrail_information"]
    assert (entry["guardrail_status"], entry["guardrail_response"]["action"]) == (
        "guardrail_intervened",
        "block",
    )
    assert os.environ["MEMBER"] not in str(entry)

    # Whatever breaks, the request goes on and is counted.
    guard.guard = Broken
    assert (ask(guard, MEMBER)[0], guard.faults) == (200, 1)
    assert (ask(guard, None)[0], guard.faults) == (200, 2)
    closed = guardrail(snapshot="/nowhere/snapshot", fail_closed=True)
    status, error = ask(closed, OTHER)
    assert (status, closed.faults, closed.guard.guard) == (503, 1, None)
    opened = guardrail(snapshot="/nowhere/snapshot", events="/proc/nowhere")
    assert (ask(opened, OTHER)[0], opened.faults, opened.events) == (200, 1, None)
    assert "no snapshot" in opened.guard.problem or "cannot" in opened.guard.problem

    # Answers that are to be stripped.
    noted = {"metadata": {"stillwatch": {"action": "strip"}}}
    message = Message(content="yes", role="assistant", reasoning_content="thus", thinking_blocks=[
        {"type": "thinking", "thinking": "thus", "signature": "s"}])  # fmt: skip
    answer = ModelResponse(id="a", choices=[Choices(index=0, finish_reason="stop", message=message)])
    answer._hidden_params["model_id"] = "m"
    kept = asyncio.run(guard.async_post_call_success_hook({"metadata": {}}, OTHER, answer))
    assert kept is answer
    less = asyncio.run(guard.async_post_call_success_hook(noted, OTHER, answer))
    assert (less.choices[0].message.content, less._hidden_params["model_id"]) == ("yes", "m")
    assert "thus" not in less.model_dump_json()
    for odd in (None, 3, [], {"choices": None}, SimpleNamespace()):
        assert asyncio.run(guard.async_post_call_success_hook(noted, OTHER, odd)) is odd
    assert guard.answers.unread >= 4

    async def chunks():
        yield b'event: x\ndata: {"type": "content_block_delta", "delta": {"type": "thinking_'
        for chunk in (b'delta"}}\n\n', b"data: [DONE]\n", 3, None, "data: text\n\n"):
            yield chunk

    async def streamed(data):
        return [c async for c in guard.async_post_call_streaming_iterator_hook(OTHER, chunks(), data)]

    assert asyncio.run(streamed(noted))[-1].endswith("data: text\n\n")
    assert b"thinking" not in b"".join(c for c in asyncio.run(streamed(noted)) if isinstance(c, bytes))
    assert len(asyncio.run(streamed({}))) == 6
    source = chunks()
    assert guard.async_post_call_streaming_iterator_hook(OTHER, source, {}) is source

    for name in ("duckdb", "igraph", "scipy", "sklearn", "typer"):
        assert name not in sys.modules, name
    print("all checks hold")


main()
