"""The scenario `field`: every operation, or one of them alone, in a population with every look-alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stillwatch.arena.field_operations import FIELD_OPERATIONS, add_field_operation
from stillwatch.arena.operations import OPERATIONS, add_operation, operation_size
from stillwatch.arena.parameters import override
from stillwatch.arena.timing import HOUR_US
from stillwatch.arena.world import LOG_HOURS, World
from stillwatch.schema.errors import UsageError

ALL_OPERATIONS = (*OPERATIONS, *FIELD_OPERATIONS)
"""Every operation of the scenario `field`, and every name that one can ask for alone."""


def add_field(world: World, operation: str | None, settings: Mapping[str, str]) -> None:
    """Add all operations, or only `operation` with `settings`."""
    scale = max(world.requested_accounts / 20_000, 0.25)
    names = ALL_OPERATIONS if operation is None else (operation,)
    settings, window = _window(world, settings)
    before = len(world.accounts)
    world.largest_share = 0.3 / len(ALL_OPERATIONS) if operation is None else 0.035
    for name in names:
        if name in FIELD_OPERATIONS:
            add_field_operation(world, name, scale, dict(settings))
        else:
            add_operation(world, name, operation_size(world, name, scale), settings)
    if window is not None:
        for account in world.accounts[before:]:
            account.active_us = window
            account.created_us = min(account.created_us, window[0] - HOUR_US)


def _window(world: World, settings: Mapping[str, str]) -> tuple[dict[str, str], tuple[int, int] | None]:
    """Settings without `begin_hours` and `span_hours`, and the time between them if one is given.

    An operation of tens of thousands of accounts is composed for the hours in which it takes its first exchanges.
    """
    rest = dict(settings)
    hours = {
        name: override(_Window(), {name: rest.pop(name)})
        for name in ("begin_hours", "span_hours")
        if name in rest
    }
    if not hours:
        return rest, None
    begin = hours["begin_hours"].begin_hours if "begin_hours" in hours else 0.0
    span = hours["span_hours"].span_hours if "span_hours" in hours else LOG_HOURS - begin
    if begin >= LOG_HOURS or span <= 0:
        raise UsageError(
            f"the log has {LOG_HOURS} hours; an operation cannot begin at {begin:g} and last {span:g}"
        )
    first = world.start_us + int(begin * HOUR_US)
    return rest, (first, min(first + int(span * HOUR_US), world.end_us))


@dataclass(frozen=True)
class _Window:
    begin_hours: float = 0.0
    span_hours: float = 0.0
