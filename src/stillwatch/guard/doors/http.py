"""What an HTTP request tells about who sends it, and how a refusal is written."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from stillwatch.guard.doors.coded import unpacked
from stillwatch.guard.subject import Decision, Subject
from stillwatch.schema.errors import UsageError

Headers = Iterable[tuple[bytes, bytes]]
LOG = logging.getLogger("stillwatch.guard")
"""One line of JSON for each decision against somebody, done or not."""
UNTOLD = 0
"""Lines that the log's handlers raised an error about."""
STATUS = {"block": 403, "challenge": 403, "throttle": 429}
"""Actions that are a refusal, and its status."""
_WORDS = {
    "block": "This request was refused.",
    "challenge": "This account has to be confirmed before it goes on.",
    "throttle": "Too many requests for now.",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Which headers are to be believed. By default none is but the credential itself."""

    account_header: str | None = None
    """Header in which the proxy in front names the authenticated account. The proxy must remove it from clients."""
    proxies: int = 0
    """Proxies in front that each add an address to `x-forwarded-for`: the client's is so many from the right. What
    stands left of it the client may have written itself. 0: the connection's own address."""


def identity(environment: Mapping[str, str] | None = None) -> Identity:
    """By the environment: STILLWATCH_GUARD_ACCOUNT_HEADER, STILLWATCH_GUARD_PROXIES."""
    env = os.environ if environment is None else environment
    proxies = env.get("STILLWATCH_GUARD_PROXIES") or "0"
    if not proxies.isdecimal() or int(proxies) > 16:
        raise UsageError("STILLWATCH_GUARD_PROXIES must be a number from 0 to 16")
    return Identity(env.get("STILLWATCH_GUARD_ACCOUNT_HEADER") or None, int(proxies))


def subject_of(headers: Headers, peer: str | None, body: bytes | None, who: Identity) -> Subject:
    """The subject of a request. `body` None: the door does not see it; `peer`: the connection's address.

    A header that comes twice counts as its first, lists as all of them in order. Compressed bodies are unpacked.
    """
    found: dict[bytes, bytes] = {}
    forwarded: list[bytes] = []
    codings: list[bytes] = []
    for name, value in headers:
        # Servers hand names on in lower case, as the specification says; others may not.
        if not name.islower():
            name = name.lower()
        if name == b"x-forwarded-for":
            forwarded += value.split(b",")
        elif name == b"content-encoding":
            codings += value.split(b",")
        elif name not in found:
            found[name] = value
    account = None
    if who.account_header is not None:
        account = found.get(who.account_header.lower().encode(), b"").decode("latin-1").strip() or None
    credential = found.get(b"authorization", b"").decode("latin-1")
    # Split as many servers do: at any white space.
    scheme, *token = credential.split(None, 1) or [""]
    key = token[0].strip() if token and scheme.lower() == "bearer" else None
    key = key or found.get(b"x-api-key", b"").decode("latin-1").strip() or None
    ip = peer
    if who.proxies:
        ip = forwarded[-who.proxies].decode("latin-1").strip() if len(forwarded) >= who.proxies else None
    if codings and body:
        body = unpacked(codings, body)
    return Subject(account=account, api_key=key, body=body, ip=ip)


def header(headers: Headers, name: bytes) -> str | None:
    """The first header of this name (in lower case), None where it is not there."""
    return next((v.decode("latin-1") for n, v in headers if n.lower() == name), None)


def tell(decision: Decision) -> None:
    """Log what is done, or would be if everything were enforced. A decision holds no account, address or text.

    As a warning, so that it is seen in servers that set up no logging for others, as vLLM.
    """
    if decision.would != "allow":
        try:
            LOG.warning(
                "%s",
                msgspec.json.encode(decision).decode(),
                extra={"event": "decision", "fields": msgspec.to_builtins(decision)},
            )
        except Exception:
            # A handler of the application's that fails: a full disk, say. No request is to fail with it.
            global UNTOLD
            UNTOLD += 1


def refusal(decision: Decision) -> tuple[int, list[tuple[bytes, bytes]], bytes] | None:
    """(status, headers, body) of the answer to a request that is refused; None for one that goes on.

    The body has the form in which the public APIs report errors.
    """
    status = STATUS.get(decision.action)
    if status is None:
        return None
    words = _WORDS[decision.action]
    if decision.appeal is not None:
        words += f" To appeal, quote the reference {decision.appeal}."
    error = {
        "type": "rate_limit_error" if status == 429 else "permission_error",
        "code": f"stillwatch_{decision.action}",
        "message": words,
        "appeal": decision.appeal,
    }
    body = msgspec.json.encode({"error": error})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if decision.retry_after_s is not None and status == 429:
        headers.append((b"retry-after", str(decision.retry_after_s).encode()))
    return status, headers, body
