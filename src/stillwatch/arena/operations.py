"""Hostile accounts: coordinated harvesting operations and imitators of each reason to clear.

Every constant is drawn per seed from a range and recorded in `truth/groups.parquet`. The text of an operation
is composed by the same code as honest programs; what makes it an operation is hidden common control: one work
list handed out without overlap, one script that signs accounts up, one pool of addresses and instruments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from stillwatch.arena.infrastructure import Pool, hex_token
from stillwatch.arena.lookalikes import individual_streams, public_items
from stillwatch.arena.parameters import FirstParameters, override
from stillwatch.arena.pools import draw_pool, member, on_off, work_list
from stillwatch.arena.timing import DAY_US, HOUR_US
from stillwatch.arena.world import LOG_DAYS, LOG_HOURS, ZONES, Handover, Stream, World

OPERATIONS = (
    "blatant_fleet", "hydra", "cover_50", "cover_70", "cover_90", "slow_wide",
    "imitate_benchmark", "imitate_classroom", "imitate_customer", "imitate_gateway", "imitate_contract",
)  # fmt: skip


def operation_size(world: World, name: str, scale: float) -> int:
    """Accounts of one operation: mostly small, 30 to 150 at full size, a wide one at least 80."""
    low, high = (80, 151) if name == "slow_wide" else (30, 151)
    size = int(low + (high - low) * world.rng.beta(0.6, 3.6))
    return max(8, int(size * scale))


def add_operation(world: World, name: str, size: int, settings: Mapping[str, str] | None = None) -> None:
    """Add one operation of `OPERATIONS` with `size` accounts; `settings` replace what would be drawn."""
    rng = world.rng
    size = override(FirstParameters(size, 0.0, 0.0, 0, 0, 0.0, 0.0), settings or {}).size
    cover = {"cover_50": 0.5, "cover_70": 0.7, "cover_90": 0.9}.get(name, float(rng.uniform(0.0, 0.25)))
    if name == "blatant_fleet":
        cover = 0.0
    if name == "hydra":
        cover = float(rng.uniform(0.2, 0.6))
    mean_per_day = world.requested_exchanges / world.requested_accounts / LOG_DAYS
    factor = (
        float(np.exp(rng.uniform(np.log(1.5), np.log(14))))
        if name != "blatant_fleet"
        else float(rng.uniform(15, 40))
    )
    if name.startswith("cover"):
        factor = max(factor, 4.0)
    per_account = max(6.0, mean_per_day * factor * LOG_DAYS)
    cap = world.largest_share * world.requested_exchanges / size
    per_account = min(per_account, max(cap, 6.0))
    if name == "slow_wide":
        per_account = 3.0
    if name in ("imitate_classroom", "imitate_benchmark"):
        per_account = min(per_account, 40.0)
    variants = int(rng.integers(1, 3)) if name == "blatant_fleet" else int(rng.integers(2, 12))
    obfuscate = float(rng.uniform(0.05, 0.4)) if rng.random() < 0.35 and name != "blatant_fleet" else 0.0
    clean = float(rng.random())
    drawn = FirstParameters(size, cover, per_account, variants, 0, obfuscate, clean)
    asked = override(drawn, settings or {})
    cover, per_account, variants = asked.cover, asked.requests_per_account, asked.variants
    obfuscate, clean = asked.obfuscate, asked.clean
    volumes = np.maximum(3, rng.gamma(6.0, per_account / 6.0, size)).astype(int)
    if name == "slow_wide" and per_account == drawn.requests_per_account:
        volumes = rng.integers(2, 5, size)
    total = int(volumes.sum() * (1 - cover)) + 8
    templates = int(rng.integers(1, 4))
    templates = asked.templates or templates
    harvest = work_list(world, total, templates=templates, variants=variants, obfuscate=obfuscate)
    pool = draw_pool(world, size, clean=clean)
    parameters: dict[str, Any] = {
        "size": size,
        "cover": round(cover, 3),
        "requests_per_account": round(per_account, 1),
        "variants": variants,
        "templates": templates,
        "obfuscate": round(obfuscate, 3),
        "clean_addresses": round(clean, 3),
        "blocks": len(pool.blocks),
        "payments": len(pool.payments),
        "batch": pool.batch_size,
    }
    group = world.group("attack", name, **parameters)
    duty = on_off(world)
    members: list[int] = []
    for index in range(size):
        streams = [((1 - cover) / len(harvest), ident) for ident in harvest]
        if cover > 0:
            own = individual_streams(world)
            whole = sum(w for w, _ in own)
            streams += [(cover * w / whole, ident) for w, ident in own]
        account = member(world, name, group, index, pool, streams, int(volumes[index]))
        account.schedule, account.schedule_share = duty, float(rng.uniform(0.5, 0.95))
        if name == "blatant_fleet":
            account.schedule_share = 1.0
        members.append(len(world.accounts) - 1)
    _SHAPES.get(name, _plain)(world, group, members, pool, harvest)


def _plain(world: World, group: int, members: list[int], pool: Pool, harvest: list[int]) -> None:
    """No further disguise."""


def _slow_wide(world: World, group: int, members: list[int], pool: Pool, harvest: list[int]) -> None:
    """Two to four requests per account, all within about two days."""
    rng = world.rng
    length = float(rng.uniform(1.6, 2.6))
    start = world.start_us + int(rng.uniform(1, LOG_DAYS - length - 0.5) * DAY_US)
    for index in members:
        account = world.accounts[index]
        account.active_us = (start, start + int(length * DAY_US))
        if account.created_us > start - HOUR_US:
            account.created_us -= 5 * DAY_US


def _hydra(world: World, group: int, members: list[int], pool: Pool, harvest: list[int]) -> None:
    """Seats with a hot standby: an account lives 36 to 60 hours, the next takes over within seconds."""
    rng = world.rng
    chains = max(1, int(np.ceil(len(members) * 48 / LOG_HOURS)))
    request = replace(world.request(program=False), reasoning_effort="high")
    relay = world.stream(Stream(request, mean_length=8, gap_s=30))
    world.groups[group]["parameters"]["chains"] = chains
    for chain in range(chains):
        at = world.start_us + int(rng.uniform(0.2, 30) * HOUR_US)
        own = members[chain::chains]
        for position, index in enumerate(own):
            account = world.accounts[index]
            until = at + int(rng.uniform(36, 60) * HOUR_US)
            account.active_us = (min(at, world.end_us - HOUR_US), min(until, world.end_us))
            account.created_us = min(
                account.created_us, account.active_us[0] - int(rng.uniform(2, 40) * HOUR_US)
            )
            account.shuffle_agents = True
            account.language = -1
            account.stacks = pool.stacks[:1]
            if position + 1 < len(own) and until < world.end_us - HOUR_US:
                kind = "ban" if rng.random() < 0.6 else "rate_limit"
                for _ in range(int(rng.integers(1, 4))):
                    world.handovers.append(Handover(index, own[position + 1], until, kind, relay))
            at = until
    while_alive = [w for w in members if world.accounts[w].active_us is not None]
    for index in while_alive:
        life = world.accounts[index].active_us
        assert life is not None
        if life[1] <= life[0]:
            world.accounts[index].active_us = (world.end_us - 2 * HOUR_US, world.end_us)


def _imitate_benchmark(world: World, group: int, members: list[int], pool: Pool, harvest: list[int]) -> None:
    """Also runs a public item set, after the release, like honest benchmark users."""
    rng = world.rng
    public = [
        s
        for s, stream in enumerate(world.streams)
        if stream.items is not None and not stream.harvest and len(stream.items) > 100
    ]
    streams = public[:3] or public_items(world, 200, harvest=False)
    for index in members:
        world.accounts[index].streams.append((float(rng.uniform(0.3, 0.9)), int(rng.choice(streams))))


def _imitate_classroom(world: World, group: int, members: list[int], pool: Pool, harvest: list[int]) -> None:
    """One site, daytime hours, low volume, education claimed."""
    rng = world.rng
    campus = int(rng.choice(world.network.campuses))
    region = int(rng.integers(12))
    lessons = np.full(LOG_HOURS, 0.01)
    begin = int(rng.integers(8, 17))
    for day in rng.choice(LOG_DAYS, 6, replace=False):
        at = int(day) * 24 + (begin - ZONES[region]) % 24
        lessons[at : at + 3] += 1.0
    for index in members:
        account = world.accounts[index]
        account.places = [world.place(campus), *account.places[:1]]
        account.schedule = lessons
        account.program = "education" if rng.random() < 0.5 else None


def _imitate_customer(world: World, group: int, members: list[int], pool: Pool, harvest: list[int]) -> None:
    """A front: a few members belong to a verified customer, or all declare one without proof."""
    rng = world.rng
    declared = bool(rng.random() < 0.5)
    world.groups[group]["parameters"]["declares"] = declared
    verified = sorted({a.entity_id for a in world.accounts if a.verified and a.entity_id})
    entity = f"org_{hex_token(rng, 12)}"
    for position, index in enumerate(members):
        account = world.accounts[index]
        if declared:
            account.entity_id, account.verified = entity, False
        elif position < 2 and verified:
            account.entity_id, account.verified = verified[int(rng.integers(len(verified)))], True


def _imitate_gateway(world: World, group: int, members: list[int], pool: Pool, harvest: list[int]) -> None:
    """Passes on invented end users, as a reseller would; nobody registered it."""
    rng = world.rng
    for index in members:
        account = world.accounts[index]
        account.end_users = [hex_token(rng, 12) for _ in range(int(rng.integers(5, 60)))]
        account.end_user_trust = "asserted"


def _imitate_contract(world: World, group: int, members: list[int], pool: Pool, harvest: list[int]) -> None:
    """Claims an evaluation agreement: research programme, high tier, made-up entity, no contract."""
    rng = world.rng
    entity = f"org_{hex_token(rng, 12)}"
    for index in members:
        account = world.accounts[index]
        account.entity_id, account.verified = (entity, False) if rng.random() < 0.8 else (None, None)
        account.program = "research"
        account.tier = "tier3"


_SHAPES = {
    "slow_wide": _slow_wide,
    "hydra": _hydra,
    "imitate_benchmark": _imitate_benchmark,
    "imitate_classroom": _imitate_classroom,
    "imitate_customer": _imitate_customer,
    "imitate_gateway": _imitate_gateway,
    "imitate_contract": _imitate_contract,
}
