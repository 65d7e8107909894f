"""An application that streams for as long as its client listens, behind the middleware; started by uvicorn."""

from __future__ import annotations

import asyncio
from typing import Any

from stillwatch.guard.doors.asgi import StillwatchMiddleware


async def streaming(scope: Any, receive: Any, send: Any) -> None:
    """Server-sent events, one every twenty seconds."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": message["type"] + ".complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["method"] != "POST":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        return
    await receive()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
    )
    gone = asyncio.ensure_future(receive())
    while not gone.done():
        await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
        await asyncio.wait([gone], timeout=20)


def bare() -> Any:
    """The application alone."""
    return streaming


def guarded() -> Any:
    """Behind the guard that the environment names."""
    return StillwatchMiddleware(streaming)
