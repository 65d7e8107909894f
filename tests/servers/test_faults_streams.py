"""Ten thousand streams at once through the middleware, under uvicorn: the guard adds nothing to any of them."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import sys
from pathlib import Path

import pytest

from tests.servers.conftest import CHAT, Live
from tests.servers.guarded import SECRET
from tests.servers.programs import ROOT, clean_environment, free_port, running

pytestmark = [pytest.mark.server, pytest.mark.slow]

STREAMS = 10_000
BODY = json.dumps({**CHAT, "user": "u" * 16_000}).encode()
"""Larger than what a stream may cost: none is kept."""


def test_streams_cost_the_guard_nothing(
    live: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    count = min(STREAMS, limit - 1_000)
    cost = {}
    for what in ("bare", "guarded"):
        (tmp_path / what).mkdir()
        cost[what] = _cost(what, live, tmp_path / what, count)
    with capsys.disabled():
        print(f"\n{count:,} streams: " + ", ".join(f"{k} {v / 1024:.2f} KiB each" for k, v in cost.items()))
    # The body that was read is handed on and forgotten: what stays are a few objects.
    assert cost["guarded"] - cost["bare"] < 4 << 10


def _cost(what: str, live: Live, folder: Path, count: int) -> float:
    """Bytes of resident memory a stream."""
    port = free_port()
    env = clean_environment(
        PYTHONPATH=f"{ROOT / 'src'}:{ROOT}",
        STILLWATCH_GUARD_SECRET=SECRET,
        STILLWATCH_GUARD_SNAPSHOT=str(live.path),
    )
    command = [
        *(sys.executable, "-m", "uvicorn", "--factory", f"tests.servers.sse_app:{what}", "--port", str(port)),
        *("--log-level", "error", "--no-access-log", "--backlog", "4096"),
    ]
    with running(
        command, f"http://127.0.0.1:{port}/healthz", folder=folder, env=env, timeout_s=90
    ) as process:
        asyncio.run(_open(port, 200))
        before = _resident(process.pid)
        after = asyncio.run(_open(port, count, process.pid))
        return (after - before) / count


async def _open(port: int, count: int, pid: int | None = None) -> int:
    """Open that many streams, and read the first event of each; resident memory of `pid` while all are open."""
    room = asyncio.Semaphore(200)

    async def one(number: int) -> asyncio.StreamWriter:
        async with room:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer sk-{number}\r\n"
                f"content-length: {len(BODY)}\r\n\r\n"
            )
            writer.write(head.encode() + BODY)
            first = await reader.readuntil(b"data: {}\n\n")
            assert first.startswith(b"HTTP/1.1 200")
            return writer

    writers = await asyncio.gather(*(one(number) for number in range(count)))
    found = _resident(pid) if pid is not None else 0
    for writer in writers:
        writer.close()
    return found


def _resident(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10
