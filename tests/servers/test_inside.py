"""The guard inside a real LiteLLM: from no snapshot at all to a campaign that is stripped, in one run of LiteLLM."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stillwatch.sketch.hashing import chain_hash
from tests.guard.test_strip import read
from tests.ingest.conftest import read_all
from tests.servers.conftest import ADDRESS, BLOCKED, BODIES, CHAT, FREE, SYSTEM, Live, aloud
from tests.servers.guarded import SECRET, Front, front
from tests.servers.programs import ROOT, clean_environment, program
from tests.servers.upstream import ANSWER, THOUGHT

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def door(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """LiteLLM that was started before there was a snapshot."""
    folder = tmp_path_factory.mktemp("inside")
    with front("litellm-in-process", folder, folder / "snapshot", keys=live.accounts) as found:
        yield found


def _swap(door: Front, snapshot: Path, answered: Callable[[], bool]) -> None:
    """Replace the snapshot in one step, and wait until it counts."""
    beside = door.folder / "snapshot.new"
    shutil.copy(snapshot, beside)
    os.replace(beside, door.folder / "snapshot")
    deadline = time.monotonic() + 20
    while not answered():
        assert time.monotonic() < deadline, door.log.read_text("utf-8")[-2000:]
        time.sleep(0.1)


def test_from_no_snapshot_to_a_campaign_that_is_refused(door: Front, live: Live) -> None:
    reached = len(door.seen)
    assert door.ask(BLOCKED, CHAT, headers=ADDRESS)[0] == 200
    assert len(door.seen) == reached + 1
    assert "the guard could not be asked (1 so far): no snapshot is loaded" in door.log.read_text("utf-8")
    _swap(door, live.path, lambda: door.ask(BLOCKED, CHAT, headers=ADDRESS)[0] == 403)
    # One that cannot be loaded changes nothing.
    (door.folder / "broken").write_bytes(b"no snapshot")
    _swap(door, door.folder / "broken", lambda: True)
    time.sleep(1.2)
    assert door.ask(BLOCKED, CHAT, headers=ADDRESS)[0] == 403
    assert door.ask(FREE, CHAT, headers=ADDRESS)[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "x" * (20 << 20)}]},
        {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "\ud83d"}]}],
            "tools": [None, 1, {}],
        },
        {
            "messages": [{"role": "user", "content": "hi"}],
            "metadata": "text",
            "extra_headers": 3,
            "logprobs": [],
        },
        {
            "messages": "hi",
            "tools": "x",
            "response_format": 7,
            "metadata": {"stillwatch": {"action": "allow"}},
        },
        {"messages": [], "litellm_metadata": {"stillwatch": 1}},
    ],
    ids=["20 MiB", "half a surrogate", "odd options", "odd messages", "nothing"],
)
def test_odd_bodies_hide_nobody_and_cause_no_error_of_ours(
    door: Front, live: Live, body: dict[str, Any]
) -> None:
    _swap(door, live.path, lambda: door.ask(BLOCKED, CHAT, headers=ADDRESS)[0] == 403)
    log = door.log.read_text("utf-8").count("could not be asked")
    status, _, text = door.ask(BLOCKED, {"model": "m-large", **body}, headers=ADDRESS)
    # What LiteLLM itself cannot read never gets as far as a guardrail.
    assert status in (403, 400, 422) or b"stillwatch" not in text, text
    door.ask(FREE, {"model": "m-large", **body}, headers=ADDRESS)
    assert door.log.read_text("utf-8").count("could not be asked") == log
    assert door.ask(FREE, CHAT, headers=ADDRESS)[0] == 200


def test_strip_in_every_form_of_answer(door: Front, live: Live, acting: Callable[[str], Path]) -> None:
    chat = aloud("/v1/chat/completions", False)
    assert THOUGHT in door.ask(FREE, chat, headers=ADDRESS)[2].decode()

    def stripped() -> bool:
        status, _, text = door.ask(BLOCKED, chat, headers=ADDRESS)
        return status == 200 and THOUGHT not in text.decode()

    _swap(door, acting("strip"), stripped)
    for path in BODIES:
        for stream in (False, True):
            body = aloud(path, stream)
            plain = door.ask(FREE, body, path, ADDRESS)
            assert (plain[0], THOUGHT in plain[2].decode()) == (200, True), (path, stream)
            status, _, text = door.ask(BLOCKED, body, path, ADDRESS)
            words = text.decode()
            assert (status, THOUGHT in words, "-0.125" in words) == (200, False, False), (path, stream, words)
            assert door.seen[-1]["x-stillwatch-action"] == "strip"
            said = json.dumps(read(text)) if stream else words
            assert ANSWER in said or all(f"{word}" in said for word in ANSWER.split())
            if stream:
                first, second = ([e.get("type") for e in read(t) if e != "[DONE]"] for t in (plain[2], text))
                assert [kind for kind in first if kind in set(second)] == second or path == "/v1/messages"
    # Nobody else pays for it.
    assert THOUGHT in door.ask(FREE, chat, headers=ADDRESS)[2].decode()


def test_mark_is_handed_over_and_a_client_cannot_write_it(
    door: Front, live: Live, acting: Callable[[str], Path]
) -> None:
    def marked(path: str = "/v1/chat/completions") -> bool:
        body = {"model": "m-large", **BODIES[path], "extra_headers": {"X-Stillwatch-Action": "forged"}}
        assert door.ask(BLOCKED, body, path, ADDRESS)[0] == 200
        return door.seen[-1].get("x-stillwatch-action") == "mark"

    _swap(door, acting("mark"), marked)
    for path in BODIES:
        assert marked(path)
    body = {**CHAT, "extra_headers": {"x-stillwatch-action": "mark", "x-mine": "1"}}
    assert door.ask(FREE, body, headers=ADDRESS)[0] == 200
    assert (door.seen[-1].get("x-stillwatch-action"), door.seen[-1]["x-mine"]) == (None, "1")


def test_the_log_is_what_a_scan_reads_and_holds_no_text(door: Front, live: Live) -> None:
    _swap(door, live.path, lambda: door.ask(BLOCKED, CHAT, headers=ADDRESS)[0] == 403)
    door.ask(FREE, CHAT, headers=ADDRESS)
    files = door.folder / "events"
    deadline = time.monotonic() + 15
    while True:
        table, log = read_all(*(str(path) for path in sorted(files.iterdir())))
        rows = table.sort_by("ts").to_pylist()
        refused = [row for row in rows if row["blocked_by"] is not None]
        if rows and rows[-1]["status"] == 200 and refused:
            break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert log.format == "canonical"
    # LiteLLM logs requests that it refuses itself without a model.
    assert {refusal.reason for refusal in log.refusals} <= {"model is empty"}
    assert {(row["status"], row["blocked_by"]) for row in refused} == {(403, "stillwatch:block")}
    assert {row["account_id"] for row in refused} == {live.accounts[BLOCKED]}
    last = rows[-1]
    assert (last["account_id"], last["ip"], last["endpoint"]) == (
        live.accounts[FREE], "203.0.113.9", "chat.completions"
    )  # fmt: skip
    assert last["turn_hashes"] == [chain_hash(0, "user", "name a colour")]
    assert last["prompt_sketch"] is not None
    text = b"".join(path.read_bytes() for path in files.iterdir()).decode()
    for secret in ("name a colour", SYSTEM, ANSWER, THOUGHT, "6.6.6.6"):
        assert secret not in text
    assert {path.stat().st_mode & 0o777 for path in files.iterdir()} == {0o600}
    # LiteLLM's own log tells the decision, and nobody's name.
    told = [line for line in door.log.read_text("utf-8").splitlines() if line.startswith('{"action"')]
    assert told
    assert not [line for line in told for name in live.accounts.values() if name in line]


def test_the_hooks_alone(live: Live, tmp_path: Path) -> None:
    """What no configuration of a healthy LiteLLM reaches: run in its environment, without the proxy."""
    python = program("litellm", "STILLWATCH_LITELLM").parent / "python"
    env = clean_environment(
        PYTHONPATH=str(ROOT / "src"), STILLWATCH_GUARD_SECRET=SECRET, LITELLM_LOCAL_MODEL_COST_MAP="True",
        MEMBER=live.accounts[BLOCKED], SNAPSHOT=str(live.path),
    )  # fmt: skip
    script = Path(__file__).with_name("litellm_inside.py")
    done = subprocess.run(
        [str(python), str(script)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "all checks hold"
