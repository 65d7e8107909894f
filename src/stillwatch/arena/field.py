"""The scenario `field`: every operation, or one of them alone, in a population with every look-alike."""

from __future__ import annotations

from collections.abc import Mapping

from stillwatch.arena.field_operations import FIELD_OPERATIONS, add_field_operation
from stillwatch.arena.operations import OPERATIONS, add_operation, operation_size
from stillwatch.arena.world import World

ALL_OPERATIONS = (*OPERATIONS, *FIELD_OPERATIONS)
"""Every operation of the scenario `field`, and every name that one can ask for alone."""


def add_field(world: World, operation: str | None, settings: Mapping[str, str]) -> None:
    """Add all operations, or only `operation` with `settings`."""
    scale = max(world.requested_accounts / 20_000, 0.25)
    names = ALL_OPERATIONS if operation is None else (operation,)
    world.largest_share = 0.3 / len(ALL_OPERATIONS) if operation is None else 0.035
    for name in names:
        if name in FIELD_OPERATIONS:
            add_field_operation(world, name, scale, dict(settings))
        else:
            add_operation(world, name, operation_size(world, name, scale), settings)
