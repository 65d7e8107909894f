"""How many accounts of which kind each scenario holds."""

from __future__ import annotations

from collections.abc import Mapping

from stillwatch.arena import lookalikes as L
from stillwatch.arena.field import add_field, add_september
from stillwatch.arena.field_lookalikes import add_field_lookalikes
from stillwatch.arena.operations import OPERATIONS, add_operation, operation_size
from stillwatch.arena.timing import DAY_US
from stillwatch.arena.wide_lookalikes import add_wide_lookalikes
from stillwatch.arena.world import World


def populate(world: World, operation: str | None = None, settings: Mapping[str, str] | None = None) -> None:
    """Fill the world. Group sizes scale with the requested accounts; the rest are individuals.

    `operation` and its `settings` belong to the scenarios `field` and `wide`: that operation alone instead of all.
    """
    rng = world.rng
    total = world.requested_accounts
    scale = total / 20_000
    small = max(scale, 0.2)
    world.public_streams.extend(L.script(world) for _ in range(6))

    sizes = [int(rng.integers(max(6, int(20 * small)), max(12, int(400 * scale)))) for _ in range(6)]
    sizes.append(max(int(0.012 * total), 12))
    for size in sizes:
        L.add_framework(world, size)
    for _ in range(max(2, round(5 * scale))):
        L.add_benchmark(world, max(10, int(rng.integers(40, 140) * small)))
    for _ in range(max(2, round(12 * scale))):
        L.add_classroom(world, max(10, int(rng.integers(18, 60))))
    for trust in ("verified", "asserted"):
        L.add_gateway(world, trust)
    for _ in range(max(1, round(2 * scale))):
        L.add_viral_launch(world, max(20, int(rng.integers(80, 300) * scale)))
    # A demo is small but still needs enough verified organisations to serve as references.
    organisations = max(6, int(160 * scale))
    if world.scenario == "demo" or total >= 8_000:
        organisations = max(155, organisations)
    widest = 15 if total < 12_000 else 41
    for _ in range(organisations):
        size = 8 + int((widest - 8) * rng.beta(0.7, 3.0))
        L.add_enterprise(world, size, "enterprise_verified")
    for form, count in (("enterprise_unverified", 14), ("enterprise_undeclared", 18)):
        for _ in range(max(2, round(count * scale))):
            L.add_enterprise(world, 8 + int(50 * rng.beta(0.8, 3.0) * min(1.0, small * 2)), form)
    L.add_coding_agents(world, max(5, int(0.012 * total)))

    if world.scenario == "mixed":
        for name in OPERATIONS:
            add_operation(world, name, operation_size(world, name, max(scale, 0.25) if scale < 1 else scale))
    elif world.scenario == "demo":
        add_operation(world, "hydra", int(rng.integers(30, 46)))
        add_operation(world, "slow_wide", int(rng.integers(50, 80)))
    elif world.scenario != "null":
        add_field_lookalikes(world)
        if world.scenario != "field":
            add_wide_lookalikes(world)
        if world.scenario == "september":
            add_september(world)
        elif world.scenario != "rare" or operation is not None:
            add_field(world, operation, settings or {})
    L.add_individuals(world, max(0, total - len(world.accounts)))
    _honest_bans(world)


def _honest_bans(world: World) -> None:
    """Bans and challenges that have nothing to do with harvesting: chargebacks, abuse, mistakes."""
    rng = world.rng
    for index in rng.choice(len(world.accounts), max(3, len(world.accounts) // 250), replace=False).tolist():
        if world.accounts[index].operation is not None:
            continue
        at = world.start_us + int(rng.uniform(1, 13.5) * DAY_US)
        kind = ("ban", "challenge", "restore")[int(rng.integers(3))]
        if kind == "ban":
            account = world.accounts[index]
            first = max(world.start_us, account.created_us)
            at = max(at, first + DAY_US // 2)
            account.active_us = (first, at)
        world.bans.append((at, index, kind, "payment"))
