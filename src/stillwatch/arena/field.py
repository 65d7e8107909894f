"""Every operation, or one of them alone: the scenarios `field`, `wide` (all of `field` and more) and `september`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stillwatch.arena.field_operations import FIELD_OPERATIONS
from stillwatch.arena.operation_kit import Operation, buy_stock
from stillwatch.arena.operations import OPERATIONS, add_operation, operation_size
from stillwatch.arena.parameters import override
from stillwatch.arena.timing import HOUR_US
from stillwatch.arena.wide_operations import WIDE_OPERATIONS
from stillwatch.arena.world import LOG_HOURS, World
from stillwatch.schema.errors import UsageError

ALL_OPERATIONS = (*OPERATIONS, *FIELD_OPERATIONS)
"""Every operation of the scenario `field`."""
EVERY_OPERATION = (*ALL_OPERATIONS, *WIDE_OPERATIONS)
"""Every operation there is: those of the scenario `wide`."""
LATER_OPERATIONS: dict[str, Operation] = {**FIELD_OPERATIONS, **WIDE_OPERATIONS}
SCENARIO_OPERATIONS: dict[str, tuple[str, ...]] = {
    "field": ALL_OPERATIONS,
    "wide": EVERY_OPERATION,
    "rare": EVERY_OPERATION,
}
"""What can stand alone in which scenario."""
SEPTEMBER = (
    "hydra_large",
    "serve_and_harvest",
    "agentic_harvest",
    "rubric_grading",
    "trace_replay",
    "probe_then_scale",
)
"""Pools that one reseller supplies."""


def add_field(world: World, operation: str | None, settings: Mapping[str, str]) -> None:
    """Add all operations, or only `operation` with `settings`."""
    scale = max(world.requested_accounts / 20_000, 0.25)
    every = SCENARIO_OPERATIONS[world.scenario]
    names = every if operation is None else (operation,)
    settings, window = _window(world, settings)
    before = len(world.accounts)
    world.largest_share = 0.3 / len(every) if operation is None else 0.035
    for name in names:
        if name in LATER_OPERATIONS:
            _add(world, name, scale, dict(settings))
        else:
            add_operation(world, name, operation_size(world, name, scale), settings)
    if window is not None:
        for account in world.accounts[before:]:
            account.active_us = window
            account.created_us = min(account.created_us, window[0] - HOUR_US)


def _add(world: World, name: str, scale: float, settings: dict[str, str]) -> None:
    """Add one operation; `settings` replace what would be drawn."""
    operation = LATER_OPERATIONS[name]
    operation.build(world, name, override(operation.draw(world, scale), settings))


def add_september(world: World) -> None:
    """Six pools with tasks of their own, a fifth of all accounts, supplied by one reseller: exits, cards, sign-ups.

    After the campaigns that providers reported in 2026: thousands of accounts at a time, each pool harvests something
    else, and its accounts also serve the reseller's other customers.
    """
    rng = world.rng
    total = max(60, world.requested_accounts // 5)
    shares = rng.dirichlet(np.full(len(SEPTEMBER), 3.0))
    sizes = np.maximum(10, np.round(shares * total)).astype(int)
    world.largest_share = 0.12
    world.reseller = buy_stock(world, int(sizes.sum()))
    for name, size in zip(SEPTEMBER, sizes.tolist(), strict=True):
        cover = f"{rng.uniform(0.1, 0.5):.3f}" if name != "serve_and_harvest" else "0"
        volume = world.requested_exchanges / world.requested_accounts * rng.uniform(1.0, 3.0)
        _add(world, name, 1.0, {"size": str(size), "cover": cover, "requests_per_account": f"{volume:.1f}"})
    world.reseller = None


def _window(world: World, settings: Mapping[str, str]) -> tuple[dict[str, str], tuple[int, int] | None]:
    """Settings without `begin_hours` and `span_hours`, and the time between them if one is given.

    An operation of tens of thousands of accounts is composed for the hours in which it takes its first exchanges.
    """
    rest = dict(settings)
    given: dict[str, str] = {name: rest.pop(name) for name in ("begin_hours", "span_hours") if name in rest}
    if not given:
        return rest, None
    window = override(_Window(), given)
    begin, span = window.begin_hours, window.span_hours
    if begin >= LOG_HOURS or span <= 0:
        raise UsageError(
            f"the log has {LOG_HOURS} hours; an operation cannot begin at {begin:g} and last {span:g}"
        )
    first = world.start_us + int(begin * HOUR_US)
    return rest, (first, min(first + int(span * HOUR_US), world.end_us))


@dataclass(frozen=True)
class _Window:
    begin_hours: float = 0.0
    span_hours: float = float(LOG_HOURS)
