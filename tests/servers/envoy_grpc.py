"""Stands for the guard's gRPC service: allows everything, and keeps what Envoy showed it last."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from stillwatch.guard.doors.ext_proc import ExternalProcessor, Pairs
from stillwatch.guard.doors.grpc_server import GrpcDoor
from stillwatch.guard.doors.http import Identity
from stillwatch.guard.subject import Decision, Subject
from tests.servers.programs import free_port


@contextmanager
def processor(heard: Any) -> Iterator[int]:
    """Its port. `heard`: gets `path`, `headers` and `body` of each request."""

    def decide(_: Subject) -> Decision:
        return Decision(action="allow", would="allow", shadow=False, reason="nothing_known")

    def note(_: str, headers: Pairs, body: bytes | None) -> None:
        named = dict(headers)
        if named[b":path"] != b"/healthz":
            heard.path, heard.headers, heard.body = named[b":path"].decode(), tuple(headers), body or b""

    port = free_port()
    loop = asyncio.new_event_loop()
    service: Any = SimpleNamespace(strangers=0)
    door = GrpcDoor(f"127.0.0.1:{port}", service, ExternalProcessor(decide, Identity(), note))
    loop.run_until_complete(door.start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        asyncio.run_coroutine_threadsafe(door.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
