"""Where a service listens, and who may reach it there."""

from __future__ import annotations

import os

from stillwatch.schema.errors import UsageError

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def host_port(text: str, option: str) -> tuple[str, int]:
    """`HOST:PORT` (an IPv6 address in brackets) in its parts. UsageError for what is none."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise UsageError(f"{option} {text!r} is no HOST:PORT", hint="for example 127.0.0.1:8646")
    return host.removeprefix("[").removesuffix("]"), int(port)


def token_for(variable: str, *hosts: str) -> str | None:
    """The token that callers must send, of the environment; None where there is none.

    UsageError where there is none and one of the addresses can be reached from elsewhere.
    """
    token = os.environ.get(variable) or None
    if token is None and not _LOOPBACK.issuperset(hosts):
        raise UsageError("without a token the service listens on loopback only", hint=f"set {variable}")
    return token
