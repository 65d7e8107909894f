"""`stillwatch guard propose`, `approve`, `revoke`, `decisions`: what two people sign to act on a campaign."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from stillwatch.cli.log import LogFile, LogKey, commit, ready
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
from stillwatch.store.events import of_decisions

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
    log: LogFile = None,
    log_key: LogKey = None,
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
    ready(log, log_key)
    print(propose(decisions, order, read_signer(key)).digest)
    _commit(log, log_key, decisions)


def approve_command(
    digest: Digest, decisions: Decisions, key: Key, log: LogFile = None, log_key: LogKey = None
) -> None:
    """Approve a decision that somebody else proposed."""
    ready(log, log_key)
    approve(decisions, _whole(decisions, digest), read_signer(key), datetime.now(UTC))
    print("approved; it counts from the next snapshot on")
    _commit(log, log_key, decisions)


def revoke_command(
    digest: Digest, decisions: Decisions, key: Key, log: LogFile = None, log_key: LogKey = None
) -> None:
    """Take a decision back."""
    ready(log, log_key)
    revoke(decisions, _whole(decisions, digest), read_signer(key), datetime.now(UTC))
    print("revoked; it no longer counts from the next snapshot on")
    _commit(log, log_key, decisions)


def _commit(log: Path | None, log_key: Path | None, decisions: Path) -> None:
    """All rows, not only the new one: whoever was interrupted before committed none."""
    commit(
        log, log_key, lambda: of_decisions(read_decisions(decisions)), f"what was decided is in {decisions}"
    )


def decisions_command(decisions: Decisions, log: LogFile = None, log_key: LogKey = None) -> None:
    """Check the file of decisions, note what ran out, and list what stands."""
    now = datetime.now(UTC)
    ready(log, log_key)
    expire(decisions, now)
    if log is not None and read_decisions(decisions):
        _commit(log, log_key, decisions)
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
