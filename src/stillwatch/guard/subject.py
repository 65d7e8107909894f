"""What a door tells the guard about a request, and what it hears back."""

from __future__ import annotations

from typing import Any

import msgspec

from stillwatch.guard.policy import Action


class Subject(msgspec.Struct, kw_only=True, gc=False):
    """One request as a door sees it; None is "this door does not see it". Values of other types count as None.

    Whoever fills it says what the caller cannot forge: the account behind the authenticated key, the gateway by
    configuration, the address that the proxy saw.
    """

    account: str | None = None
    api_key: str | None = None
    """The key itself; used where `account` is None. It is hashed at once and kept nowhere."""
    api_key_sha256: str | None = None
    """Or its SHA-256, hex, as LiteLLM passes it on."""
    gateway: str | None = None
    """Registered gateway through which the call came."""
    end_user: str | None = None
    end_user_verified: bool = False
    """Whether the gateway vouches for `end_user`. If so, the user is judged, not the gateway's account."""
    prompt: str | None = None
    """The newest text that the user wrote."""
    system: str | None = None
    system_hash: int | None = None
    tools_hash: int | None = None
    format_hash: int | None = None
    body: bytes | dict[str, Any] | None = None
    """Instead of the five above: the request's JSON, in any of the public APIs' forms."""
    ip: str | None = None
    ts_us: int | None = None
    """When the request came, microseconds since 1970; the clock where it is None or no possible time."""
    refused: bool = False
    """Stillwatch refused it already (another worker, or a row of a log): counted, and no evidence."""


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What to do with one request, and why. Safe to log: no text, address or account in it."""

    action: Action
    """What to do now."""
    would: Action
    """What would be done if everything were enforced."""
    shadow: bool
    """Whether `action` is milder than `would` because nothing is enforced here."""
    reason: str
    """Code: see docs/guard.md."""
    campaign: str | None = None
    rule: str | None = None
    line: int | None = None
    """Of the rule in the policy file."""
    retry_after_s: int | None = None
    expires_us: int | None = None
    """When this decision ends by itself."""
    appeal: str | None = None
    """Reference for an appeal. It depends on the secret: it says nothing about any account to whoever reads it."""
    bits: float | None = None
    """Evidence for membership, over all views but the strongest."""
    lacked: tuple[str, ...] = ()
    """Inputs that the decision had to do without."""
    partners: tuple[str, ...] = ()
    """Partners a fingerprint of whom the request's wording fits: a tag, which changes no action. Not for callers."""


INPUTS = ("account", "prompt", "address", "time", "body", "hours")
"""What may be lacked, by bit. `hours`: the scan did not rank this account's hours against a campaign's; `body`: it
could not be read or is larger than the guard reads."""
ACCOUNT, PROMPT, ADDRESS, TIME, BODY, HOURS = (1 << i for i in range(len(INPUTS)))
LACKED = tuple(
    tuple(name for i, name in enumerate(INPUTS) if mask >> i & 1) for mask in range(1 << len(INPUTS))
)
"""Names of every combination."""
