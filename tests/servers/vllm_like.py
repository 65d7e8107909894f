"""Stands for `vllm serve`: reads the same options, and loads `--middleware` as vLLM's server does.

vLLM wants a GPU or a compiler. It puts the class around its application with Starlette's `add_middleware`, which
calls `cls(app)`; so does this. The application passes requests on to the model of the tests.
"""

from __future__ import annotations

import argparse
import http.client
import importlib
import os
from typing import Any

import uvicorn


class Application:
    """Answers as the model at STILLWATCH_TEST_MODEL does, part by part."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": message["type"] + ".complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        decision = scope.get("state", {}).get("stillwatch")
        headers = {n.decode(): v.decode("latin-1") for n, v in scope["headers"]}
        if decision is not None:
            headers["x-stillwatch-action"] = decision.action
            headers["x-stillwatch-lacked"] = ",".join(decision.lacked)
        connection = http.client.HTTPConnection(
            "127.0.0.1", int(os.environ["STILLWATCH_TEST_MODEL"]), timeout=30
        )
        try:
            connection.request(scope["method"], scope["path"], body, headers)
            answer = connection.getresponse()
            kind = (answer.getheader("content-type") or "").encode()
            await send(
                {"type": "http.response.start", "status": answer.status, "headers": [(b"content-type", kind)]}
            )
            while part := answer.read1():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            connection.close()


def main() -> None:
    """`vllm serve MODEL --host H --port P --middleware NAME`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--middleware", action="append", default=[])
    options = parser.parse_args()
    app: Any = Application()
    for name in options.middleware:
        module, _, object_name = name.rpartition(".")
        app = getattr(importlib.import_module(module), object_name)(app)
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
