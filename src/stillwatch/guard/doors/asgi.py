"""ASGI middleware: for any ASGI application. By the environment if nothing is given to it, for servers
that take the name of a class (`vllm serve --middleware stillwatch.guard.doors.asgi.StillwatchMiddleware`).

Pure ASGI 3 (https://asgi.readthedocs.io/en/latest/specs/www.html), no framework. A request's body is read before the
application sees it, up to `sight.MOST_BODY`; then the application gets it message by message as it came. What is
larger is passed on unread. `strip` is carried out here. The application finds the decision in
`scope["state"]["stillwatch"]` and the action in the header `x-stillwatch-action`: `mark` is handed over to it so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import MutableMapping
from typing import Any

from stillwatch.guard.doors.ask import decided
from stillwatch.guard.doors.carry_out import StripSend, stripped_request, with_action
from stillwatch.guard.doors.http import Identity, identity, refusal
from stillwatch.guard.doors.metrics import Metrics
from stillwatch.guard.doors.serving import UNREAD, App, Message, Receive, Send, read_body
from stillwatch.guard.doors.stripped import Answers
from stillwatch.guard.doors.watched import Watched, watched


class StillwatchMiddleware:
    """Asks the guard about every POST request, and answers those that it refuses."""

    def __init__(self, app: App, guard: Watched | None = None, who: Identity | None = None) -> None:
        """`guard` and `who` by the environment if not given. Raises what `watched` raises."""
        self.app = app
        self.metrics = Metrics(guard or watched())
        """Counters, for whatever the application shows its own by (`prometheus.GuardCollector`)."""
        self._who = who or identity()
        self.answers = Answers()
        self.metrics.tallies.append(self.answers.tally())

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope.get("method") != "POST":
            await self.app(scope, receive, send)
            return
        messages, body = await read_body(receive)
        decision = decided(self.metrics, scope, UNREAD if body is None else body, self._who, "asgi")
        refused = refusal(decision)
        if refused is not None:
            status, headers, answer = refused
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": answer})
            return
        scope.setdefault("state", {})["stillwatch"] = decision
        scope["headers"] = with_action(scope["headers"], decision.action)
        if decision.action == "strip":
            messages = stripped_request(scope, messages, body or UNREAD, body is not None)
            send = StripSend(send, self.answers)
        waiting = deque(messages)
        # An answer may be streamed for an hour: the request's body must not stay in memory with it.
        del messages, body

        async def again() -> Message:
            return waiting.popleft() if waiting else await receive()

        await self.app(scope, again, send)
