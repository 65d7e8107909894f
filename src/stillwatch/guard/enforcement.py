"""What may be enforced: decisions that stand, checked against the policy when a snapshot is made and when loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stillwatch.guard.policy import ALONE, MILDEST_ACTING, STRENGTH, Policy, microseconds
from stillwatch.schema.errors import DecisionError
from stillwatch.store.decisions import Standing, signed


@dataclass(frozen=True, slots=True)
class Allowed:
    """What is allowed against one campaign."""

    strength: int
    """Place in `policy.ACTIONS` of the strongest action."""
    expires_us: int
    mapped: bool


def allowed(policy: Policy, decisions: Sequence[Standing]) -> dict[str, Allowed]:
    """By campaign. In shadow mode nothing is asked of the decisions, and nothing is allowed.

    DecisionError where a decision is not what it must be: signed by a proposer whom the policy lists and, beyond
    throttle, by another listed key as well; under this very policy. One bad decision refuses them all: half of an
    order is nobody's order.
    """
    if policy.mode == "shadow":
        return {}
    listed = {approver.key: approver.raw for approver in policy.approvers}
    found: dict[str, Allowed] = {}
    for decision in decisions:
        order, digest = decision.order, decision.order.digest
        what = f"the decision {digest[:12]} on {order.campaign}"
        if order.action not in STRENGTH or STRENGTH[order.action] < MILDEST_ACTING:
            raise DecisionError(f"{what} orders no action that needs one")
        if order.policy != policy.digest:
            raise DecisionError(
                f"{what} was taken under another policy",
                hint="propose it again under the policy as it is now",
            )
        if decision.proposer not in listed or not signed(
            "propose", digest, decision.proposer, decision.proposed
        ):
            raise DecisionError(
                f"{what} is not signed by anybody whom the policy lists",
                hint="list the proposer's key under [[approver]], or revoke the decision",
            )
        others = {
            listed[key]
            for key, signature in decision.approvals
            if key in listed and signed("approve", digest, key, signature)
        } - {listed[decision.proposer]}
        if STRENGTH[order.action] > ALONE and not others:
            raise DecisionError(
                f"{what} goes beyond throttle and has no approval by a second listed key",
                hint="`stillwatch guard approve` with the key of another person",
            )
        mine = Allowed(STRENGTH[order.action], microseconds(order.expires), order.mapped)
        before = found.get(order.campaign)
        if before is None or mine.strength > before.strength:
            found[order.campaign] = mine
    return found
