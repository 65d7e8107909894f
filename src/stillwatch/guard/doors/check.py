"""The HTTP service that proxies ask: `/v1/check`, and LiteLLM's Generic Guardrail API. A pure ASGI application.

`/v1/check` and everything under it, whatever the method: the proxy passes on the client's headers, and the body if
it can (Envoy `ext_authz` over HTTP, nginx `auth_request`, Caddy `forward_auth`). 200 lets the request go on, with the
action in `x-stillwatch-action`; 403 and 429 are the refusal itself. With `?only=403` every refusal is 403, because
nginx takes any other status for an error of the service and drops the body: the refusal is in headers then,
`x-stillwatch-status` and `x-stillwatch-answer`. A caller without the right token gets 503, as from a service that is
away: a proxy would hand 401 or 403 on to its clients, as if it were about them.
"""

from __future__ import annotations

import hmac
import time
from collections import Counter
from collections.abc import MutableMapping
from typing import Any

import msgspec

from stillwatch.guard.doors import http
from stillwatch.guard.doors.asgi import Receive, Send, decided, read_body
from stillwatch.guard.doors.http import Identity, refusal, subject_of, tell
from stillwatch.guard.doors.watched import Watched
from stillwatch.guard.sight import MOST_BODY, unwieldy
from stillwatch.guard.subject import Decision, Subject

CHECK, LITELLM = "/v1/check", "/beta/litellm_basic_guardrail_api"
MOST_LITELLM = 8 * MOST_BODY
"""LiteLLM sends every text twice, and who calls only in the body: what is too large to be read would be nobody's."""
TOKEN_HEADER = b"x-stillwatch-token"
Answer = tuple[int, list[tuple[bytes, bytes]], bytes]
_JSON = [(b"content-type", b"application/json")]


class CheckService:
    """The application. `token`: what callers must send in `x-stillwatch-token`; None: whoever reaches it may ask."""

    def __init__(self, guard: Watched, who: Identity, token: str | None = None) -> None:
        self._watched, self._who = guard, who
        self._token = None if token is None else token.encode()
        self._lacked: Counter[str] = Counter()
        self._strangers = 0
        """Callers that were not answered, for want of the token."""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        status, headers, body = await self._answer(scope, receive)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive) -> Answer:
        path = scope["path"]
        if path == "/healthz":
            return 200, _JSON, b'{"status": "ok"}'
        if path == "/readyz":
            return self._ready()
        # Envoy puts the request's own path behind it, and that of `OPTIONS *` begins with no slash.
        check = path == CHECK or path.startswith((f"{CHECK}/", f"{CHECK}*"))
        if not check and path != LITELLM:
            return 404, _JSON, b'{"error": {"message": "no such path"}}'
        if self._token is not None:
            given = next((v for n, v in scope["headers"] if n.lower() == TOKEN_HEADER), b"")
            if not hmac.compare_digest(given, self._token):
                self._strangers += 1
                return 503, _JSON, b'{"error": {"message": "x-stillwatch-token is missing or wrong"}}'
        messages, body = await read_body(receive, MOST_BODY if check else MOST_LITELLM)
        if not check:
            return self._litellm(body)
        # Proxies that pass no body on send an empty one.
        unread = messages[-1].get("more_body", False)
        decision = decided(self._watched, scope, body if body or unread else None, self._who)
        self._lacked.update(decision.lacked)
        refused = refusal(decision)
        about = [
            (b"x-stillwatch-action", decision.action.encode()),
            (b"x-stillwatch-reason", decision.reason.encode()),
            (b"x-stillwatch-lacked", ",".join(decision.lacked).encode()),
        ]
        if refused is None:
            return 200, about, b""
        status, headers, text = refused
        if b"only=403" not in scope.get("query_string", b"").split(b"&"):
            return status, headers + about, text
        about += [(b"x-stillwatch-status", str(status).encode()), (b"x-stillwatch-answer", text)]
        return 403, headers + about, text

    def _decide(self, subject: Subject) -> Decision:
        decision = self._watched.guard.decide(subject)
        self._lacked.update(decision.lacked)
        tell(decision)
        return decision

    def _ready(self) -> Answer:
        guard, watching = self._watched.guard, self._watched
        meta = guard.snapshot.meta
        told = {
            "status": "ready", "mode": guard.snapshot.policy.mode, "campaigns": len(meta.campaigns),
            "accounts": guard.snapshot.accounts, "snapshot_expires_us": meta.expires_us, "swaps": watching.swaps,
            "failed": watching.failed, "problem": watching.problem, "requests": guard.requests,
            "refusals": guard.refusals, "faults": guard.faults, "lacked": self._lacked, "strangers": self._strangers,
            "idle": guard.idle(time.time_ns() // 1000), "untold": http.UNTOLD,
        }  # fmt: skip
        return 200, _JSON, msgspec.json.encode(told)

    def _litellm(self, body: bytes) -> Answer:
        """LiteLLM's own request; its identities are those of the gateway's authentication, not the caller's."""
        try:
            subject = litellm_subject(body, self._who)
        except Exception as error:
            return 200, _JSON, msgspec.json.encode(_verdict(self._watched.guard.fault(error)))
        decision = self._decide(subject)
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


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
