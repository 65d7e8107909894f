"""Clients that send slowly, and many streams at once, through each proxy: nobody else waits, nothing breaks off."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.servers.conftest import ADDRESS, BLOCKED, CHAT, FREE, Live
from tests.servers.guarded import Front, front

pytestmark = pytest.mark.server

SLOW, STREAMS = 100, 60
PLAIN = json.dumps(CHAT).encode()
STREAM = json.dumps({**CHAT, "stream": True, "messages": [{"role": "user", "content": "slowly"}]}).encode()


def _head(body: bytes, key: str = FREE) -> bytes:
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {key}\r\n"
        f"x-forwarded-for: {ADDRESS['x-forwarded-for']}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()


async def _several(door: Front) -> None:
    async def begun(half: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(half)
        await writer.drain()
        return reader, writer

    async def asked(key: str) -> bytes:
        reader, writer = await begun(_head(PLAIN, key) + PLAIN)
        answer = await reader.read()
        writer.close()
        return answer[9:12]

    # Half of a head, half of a body.
    heads = [await begun(_head(PLAIN)[:90]) for _ in range(SLOW // 2)]
    bodies = [await begun(_head(PLAIN) + PLAIN[:20]) for _ in range(SLOW // 2)]
    streams = [await begun(_head(STREAM) + STREAM) for _ in range(STREAMS)]
    assert [await asked(key) for key in (FREE, BLOCKED, FREE)] == [b"200", b"403", b"200"]

    async def ended(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], rest: bytes) -> bytes:
        reader, writer = connection
        writer.write(rest)
        answer = await reader.read()
        writer.close()
        return answer

    answers = await asyncio.gather(*(ended(stream, b"") for stream in streams))
    assert {answer[9:12] for answer in answers} == {b"200"}
    assert all(b"[DONE]" in answer for answer in answers)
    late = [ended(c, _head(PLAIN)[90:] + PLAIN) for c in heads] + [ended(c, PLAIN[20:]) for c in bodies]
    assert {answer[9:12] for answer in await asyncio.gather(*late)} == {b"200"}


@pytest.mark.parametrize(
    "name", ["ext_proc", *(pytest.param(n, marks=pytest.mark.slow) for n in ("nginx", "envoy", "caddy"))]
)
def test_nobody_waits_for_the_slow_ones(name: str, live: Live, tmp_path: Path) -> None:
    with front(name, tmp_path, live.path) as door:
        asyncio.run(asyncio.wait_for(_several(door), 60))
        assert door.counted() == 0
        assert door.guard is not None
        assert door.guard.told()["faults"] == 0
