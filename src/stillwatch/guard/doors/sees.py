"""What each gateway shows the guard. The conformance suite holds the real programs to this table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FIELDS = ("key", "user", "prompt", "system", "tools", "format", "address")
"""`key`: the API key; `user`: the user of the key, else its hash; `format`: the output format; `address`: the
client's, behind trusted proxies."""


@dataclass(frozen=True, slots=True)
class Door:
    """One way to ask the guard."""

    title: str
    sees: frozenset[str]
    """Of `FIELDS`."""
    refusal: str
    """What a client meets that is refused."""
    fault: str
    """Where a request is counted that went on because the guard did not answer."""

    def lacks(self) -> frozenset[str]:
        """What a decision about a whole request says that it lacked; without what is about time."""
        shown = {
            "account": self.sees & {"key", "user"},
            "prompt": "prompt" in self.sees,
            "address": "address" in self.sees,
        }
        return frozenset(name for name, seen in shown.items() if not seen)


_BODY = frozenset({"prompt", "system", "tools", "format"})
_WHO = frozenset({"key", "address"})

DOORS: Mapping[str, Door] = {
    "nginx": Door(
        "nginx `auth_request`", _WHO, "403, 429", '`"action":"unavailable"` in its log'
    ),
    "caddy": Door(
        "Caddy `forward_auth`", _WHO, "403, 429", '`"stillwatch_action":"unavailable"` in its log'
    ),
    "envoy": Door(
        "Envoy `ext_authz` over HTTP", _WHO | _BODY, "403, 429", '`"stillwatch_unavailable":"true"` in its log'
    ),
    "ext_proc": Door(
        "Envoy `ext_proc` over gRPC", _WHO | _BODY, "403, 429", '`"stillwatch_unavailable":"1"` in its log'
    ),
    "litellm": Door(
        "LiteLLM's Generic Guardrail API", frozenset({"user", "prompt", "system", "tools", "address"}), "400",
        "`error (fail-open)` in its log",
    ),
    "litellm-in-process": Door(
        "LiteLLM, in its process", frozenset({"user", "address"}) | _BODY, "403, 429", "no service to wait for"
    ),
    "vllm": Door("ASGI middleware (`vllm --middleware`)", _WHO | _BODY, "403, 429", "no service to wait for"),
}  # fmt: skip


def table() -> str:
    """The doors as a table in Markdown."""
    head = ["door", *FIELDS, "a refusal is", "an absent guard is counted as"]
    rows = [head, ["---"] * len(head)]
    for door in DOORS.values():
        rows.append(
            [door.title, *("yes" if f in door.sees else "-" for f in FIELDS), door.refusal, door.fault]
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
