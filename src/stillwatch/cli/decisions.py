"""`stillwatch guard propose`, `approve`, `revoke`, `decisions`: what two people sign to act on a campaign."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from stillwatch.guard.policy import ACTIONS, read_policy
from stillwatch.schema.errors import UsageError
from stillwatch.store.decisions import (
    Order,
    approve,
    expire,
    propose,
    read_decisions,
    read_signer,
    revoke,
    standing,
)

Decisions = Annotated[Path, typer.Option("--decisions", help="File of decisions (JSON lines).")]
Key = Annotated[Path, typer.Option("--key", help="Your private ed25519 key (PEM).")]
Digest = Annotated[str, typer.Argument(help="The decision's digest, or how it begins.")]


def propose_command(
    campaign: Annotated[str, typer.Argument(help="A campaign's id (g-...).")],
    action: Annotated[str, typer.Option(help="The strongest action that may be taken.")],
    policy: Annotated[Path, typer.Option("--policy", help="The policy under which it is taken.")],
    decisions: Decisions,
    key: Key,
    days: Annotated[float, typer.Option(help="When it ends, in days from now.")] = 7.0,
    mapped: Annotated[bool, typer.Option("--mapped", help="The pool is known: act on all of it.")] = False,
    reason: Annotated[str, typer.Option(help="Why, in words, without names.")] = "",
) -> None:
    """Propose to act on a campaign; prints the digest that somebody else approves."""
    if action not in ACTIONS[2:]:
        raise UsageError(f"{action!r} is no action to order", hint=f"one of: {', '.join(ACTIONS[2:])}")
    if not 0 < days <= 365:
        raise UsageError("--days must be more than 0 and at most 365")
    now = datetime.now(UTC).replace(microsecond=0)
    order = Order(
        campaign=campaign,
        action=action,
        policy=read_policy(policy).digest,
        expires=now + timedelta(days=days),
        mapped=mapped,
        reason=reason,
        at=now,
    )
    print(propose(decisions, order, read_signer(key)).digest)


def approve_command(digest: Digest, decisions: Decisions, key: Key) -> None:
    """Approve a decision that somebody else proposed."""
    approve(decisions, _whole(decisions, digest), read_signer(key), datetime.now(UTC))
    print("approved; it counts from the next snapshot on")


def revoke_command(digest: Digest, decisions: Decisions, key: Key) -> None:
    """Take a decision back."""
    revoke(decisions, _whole(decisions, digest), read_signer(key), datetime.now(UTC))
    print("revoked; it no longer counts from the next snapshot on")


def decisions_command(decisions: Decisions) -> None:
    """Check the file of decisions, note what ran out, and list what stands."""
    now = datetime.now(UTC)
    expire(decisions, now)
    for decision in standing(read_decisions(decisions), now):
        order = decision.order
        print(
            json.dumps(
                {
                    "digest": order.digest,
                    "campaign": order.campaign,
                    "action": order.action,
                    "mapped": order.mapped,
                    "expires": order.expires.isoformat(),
                    "approvals": len(decision.approvals),
                }
            )
        )


def _whole(path: Path, begin: str) -> str:
    """The digest of the standing decision that begins so."""
    found = {d.order.digest for d in standing(read_decisions(path), datetime.now(UTC))}
    found = {digest for digest in found if digest.startswith(begin)}
    if len(begin) < 8 or len(found) != 1:
        raise UsageError(
            f"{len(found)} standing decisions begin so" if len(begin) >= 8 else "give at least 8 digits",
            hint="`stillwatch guard decisions` lists them",
        )
    return found.pop()
