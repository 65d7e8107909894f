"""The HTTP service that proxies ask: `/v1/check`, and LiteLLM's Generic Guardrail API. A pure ASGI application.

`/v1/check` and everything under it, whatever the method: the proxy passes on the client's headers, and the body if
it can (Envoy `ext_authz` over HTTP, nginx `auth_request`, Caddy `forward_auth`). 200 lets the request go on, with the
action in `x-stillwatch-action`; 403 and 429 are the refusal itself. At `/v1/check-403` every refusal is 403, because
nginx takes any other status for an error of the service and drops the body: the refusal is in headers then,
`x-stillwatch-status` and `x-stillwatch-answer`. A caller without the right token gets 503, as from a service that is
away: a proxy would hand 401 or 403 on to its clients, as if it were about them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping
from typing import Any

import msgspec

from stillwatch.guard.doors import http
from stillwatch.guard.doors.ask import ask, decided, failed
from stillwatch.guard.doors.http import Identity, header, refusal, subject_of
from stillwatch.guard.doors.journal import told
from stillwatch.guard.doors.metrics import Metrics
from stillwatch.guard.doors.serving import (
    JSON,
    METRICS,
    UNREAD,
    Answer,
    Callers,
    Receive,
    Send,
    lifespan,
    read_body,
    respond,
)
from stillwatch.guard.doors.watched import Watched
from stillwatch.guard.sight import MOST_BODY, unwieldy
from stillwatch.guard.subject import Decision, Subject

CHECK, CHECK_403, LITELLM = "/v1/check", "/v1/check-403", "/beta/litellm_basic_guardrail_api"
MOST_LITELLM = 8 * MOST_BODY
"""LiteLLM sends every text twice, and who calls only in the body: what is too large to be read would be nobody's."""
_JSON = [JSON]


class CheckService:
    """The application. `token`: what callers must send in `x-stillwatch-token`; None: whoever reaches it may ask."""

    def __init__(
        self,
        guard: Watched,
        who: Identity,
        token: str | None = None,
        metrics: Metrics | None = None,
        exposition: Callable[[], bytes] | None = None,
        closing: Callable[[], None] | None = None,
    ) -> None:
        """`metrics`: counters that other doors of the process share; `exposition`: what `/metrics` answers.

        `closing` is called when the server has answered its last request.
        """
        self.metrics = metrics or Metrics(guard)
        self._watched, self._who, self._exposition = guard, who, exposition
        self._closing = closing
        self._callers = Callers(token)
        self._names: dict[tuple[str, str, tuple[str, ...]], list[tuple[bytes, bytes]]] = {}
        """What is said of a decision in headers: there are a few dozen of them."""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send, self._closing)
            return
        if scope["type"] != "http":
            return
        await respond(send, await self._answer(scope, receive))

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive) -> Answer:
        path = scope["path"]
        if path == "/healthz":
            return 200, _JSON, b'{"status": "ok"}'
        if path == "/readyz":
            return self._ready()
        if path == "/metrics" and self._exposition is not None:
            return 200, [METRICS], self._exposition()
        # Envoy puts the request's own path behind it, and that of `OPTIONS *` begins with no slash.
        check = path in (CHECK, CHECK_403) or path.startswith((f"{CHECK}/", f"{CHECK}*"))
        if not check and path != LITELLM:
            return 404, _JSON, b'{"error": {"message": "no such path"}}'
        if not self._callers.may(scope["headers"]):
            self.metrics.stranger()
            told("stranger", often=True)
            return 503, _JSON, b'{"error": {"message": "x-stillwatch-token is missing or wrong"}}'
        _, body = await read_body(receive, MOST_BODY if check else MOST_LITELLM)
        trace = None if self.metrics.spans is None else header(scope["headers"], b"traceparent")
        if not check:
            return self._litellm(body or UNREAD, trace)
        # Proxies that pass no body on send an empty one.
        seen = UNREAD if body is None else body or None
        decision = decided(self.metrics, scope, seen, self._who, "check")
        refused = refusal(decision)
        about = self._about(decision)
        if refused is None:
            return 200, about, b""
        status, headers, text = refused
        if path != CHECK_403:
            return status, headers + about, text
        about = [*about, (b"x-stillwatch-status", str(status).encode()), (b"x-stillwatch-answer", text)]
        return 403, headers + about, text

    def _about(self, decision: Decision) -> list[tuple[bytes, bytes]]:
        """Headers about a decision. Not to be changed by who gets them."""
        name = decision.action, decision.reason, decision.lacked
        found = self._names.get(name)
        if found is None:
            found = self._names[name] = [
                (b"x-stillwatch-action", decision.action.encode()),
                (b"x-stillwatch-reason", decision.reason.encode()),
                (b"x-stillwatch-lacked", ",".join(decision.lacked).encode()),
            ]
        return found

    def _ready(self) -> Answer:
        """200 also where the snapshot is too old: every check is then answered with `allow`. If an orchestrator took
        the service away for that, a gateway that fails closed would refuse everybody."""
        watching, seen = self._watched, self.metrics.seen()
        snapshot = watching.guard.snapshot
        expired = snapshot.meta.expires_us <= time.time_ns() // 1000
        told = {
            "status": "expired" if expired else "ready", "mode": snapshot.policy.mode,
            "campaigns": len(snapshot.meta.campaigns), "accounts": snapshot.accounts,
            "snapshot_expires_us": snapshot.meta.expires_us, "swaps": watching.swaps, "failed": watching.failed,
            "problem": watching.problem, "requests": sum(seen.decisions.values()), "refusals": seen.refusals,
            "faults": seen.by_reason("fault"), "lacked": seen.lacked, "strangers": seen.strangers,
            "idle": watching.guard.idle(time.time_ns() // 1000), "untold": http.UNTOLD,
            "uncarried": watching.guard.lost,
            **{tally.name: dict(tally.counts()) for tally in self.metrics.tallies},
        }  # fmt: skip
        return 200, _JSON, msgspec.json.encode(told)

    def _litellm(self, body: bytes, trace: str | None) -> Answer:
        """LiteLLM's own request; its identities are those of the gateway's authentication, not the caller's."""
        try:
            subject = litellm_subject(body, self._who)
        except Exception as error:
            return 200, _JSON, msgspec.json.encode(_verdict(failed(self.metrics, error, "litellm")))
        decision = ask(self.metrics, subject, "litellm", trace)
        return 200, _JSON, msgspec.json.encode(_verdict(decision))


def litellm_subject(body: bytes, who: Identity) -> Subject:
    """The subject of a guardrail request; the account as the importer names it: user id, else key hash.

    The address is there where LiteLLM stands behind proxies (`who.proxies`) and is told to pass their header on.
    """
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Subject(body=b"")
    data = found.get("request_data") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(data, dict):
        return Subject(body=b"")
    account = data.get("user_api_key_user_id") or data.get("user_api_key_hash")
    ip = _address(found.get("request_headers"), who)
    messages = found.get("structured_messages")
    if isinstance(messages, list) and messages and not unwieldy(body):
        return Subject(account=account, body={"messages": messages, "tools": found.get("tools")}, ip=ip)
    texts = found.get("texts")
    prompt = texts[-1] if isinstance(texts, list) and texts else None
    return Subject(account=account, prompt=prompt, ip=ip)


def _address(headers: Any, who: Identity) -> str | None:
    """LiteLLM masks what it was not told to pass on: "[present]"."""
    hops = headers.get("x-forwarded-for") if isinstance(headers, dict) else None
    if not isinstance(hops, str) or hops == "[present]":
        return None
    return subject_of([(b"x-forwarded-for", hops.encode("latin-1", "replace"))], None, None, who).ip


def _verdict(decision: Decision) -> dict[str, str]:
    refused = refusal(decision)
    if refused is None:
        return {"action": "NONE"}
    words = msgspec.json.decode(refused[2])["error"]["message"]
    return {"action": "BLOCKED", "blocked_reason": words}
