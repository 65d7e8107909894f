"""Hostile accounts: coordinated harvesting operations and imitators of each reason to clear.

Every constant is drawn per seed from a range and recorded in `truth/groups.parquet`. The text of an operation
is composed by the same code as honest programs; what makes it an operation is hidden common control: one work
list handed out without overlap, one script that signs accounts up, one pool of addresses and instruments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stillwatch.arena.infrastructure import DISPOSABLE, WEBMAIL, hex_token
from stillwatch.arena.lookalikes import individual_streams, public_items, script
from stillwatch.arena.timing import DAY_US, HOUR_US
from stillwatch.arena.world import LOG_DAYS, LOG_HOURS, ZONES, Account, Handover, Stream, World

OPERATIONS = (
    "blatant_fleet", "hydra", "cover_50", "cover_70", "cover_90", "slow_wide",
    "imitate_benchmark", "imitate_classroom", "imitate_customer", "imitate_gateway", "imitate_contract",
)  # fmt: skip


@dataclass(frozen=True)
class Pool:
    """What an operation buys once and reuses: addresses, instruments, client software, sign-up batches."""

    blocks: list[int]
    payments: list[str]
    stacks: list[int]
    batch_size: int
    batch_start_us: list[int]
    disposable_share: float
    virtual_share: float


def _pool(world: World, size: int, *, clean: float) -> Pool:
    rng = world.rng
    hosting = 0 if clean > 0.5 else int(rng.integers(1, max(2, size // 10)))
    count = max(3, int(size * rng.uniform(0.2, 0.6)))
    blocks = [
        int(b)
        for b in rng.choice(world.network.proxies, min(count, len(world.network.proxies)), replace=False)
    ]
    blocks += [int(b) for b in rng.choice(world.network.hosts, hosting)]
    batch = int(rng.integers(4, 20))
    latest = world.start_us + 3 * DAY_US
    starts = [latest - int(rng.uniform(0, rng.uniform(8, 70)) * DAY_US) for _ in range(size // batch + 1)]
    return Pool(
        blocks=blocks,
        payments=[hex_token(rng) for _ in range(max(2, int(size * rng.uniform(0.15, 0.6))))],
        stacks=[world.popular_stack(sdk=True) for _ in range(int(rng.integers(1, 4)))],
        batch_size=batch,
        batch_start_us=starts,
        disposable_share=float(rng.uniform(0.05, 0.6)),
        virtual_share=float(rng.uniform(0.3, 0.9)),
    )


def _member(
    world: World, name: str, group: int, index: int, pool: Pool, streams: list[tuple[float, int]], volume: int
) -> Account:
    rng = world.rng
    account = world.person("attack", group, streams, weight=0.0)
    account.operation, account.volume = name, max(1, volume)
    account.places = [world.place(int(rng.choice(pool.blocks))) for _ in range(int(rng.integers(1, 4)))]
    account.signup_place = (
        account.places[0] if rng.random() < 0.6 else world.place(int(rng.choice(pool.blocks)))
    )
    account.stacks = [int(rng.choice(pool.stacks))]
    start = pool.batch_start_us[index // pool.batch_size]
    account.created_us = start + int((index % pool.batch_size) * rng.uniform(15, 90) * 1e6)
    paid = rng.random() < 0.75
    account.payment_fp = (
        (str(rng.choice(pool.payments)) if rng.random() < 0.6 else hex_token(rng)) if paid else None
    )
    account.payment_kind = ("virtual" if rng.random() < pool.virtual_share else "card") if paid else None
    account.tier = "tier1" if paid else "free"
    account.email_domain = (
        str(rng.choice(DISPOSABLE)) if rng.random() < pool.disposable_share else str(rng.choice(WEBMAIL[:6]))
    )
    account.device_fp = hex_token(rng) if rng.random() < 0.7 else None
    return account


def _on_off(world: World) -> np.ndarray:
    """The director's duty pattern: blocks of on and off hours shared by all accounts."""
    rng = world.rng
    length = int(rng.integers(2, 9))
    on = (rng.random(LOG_HOURS // length + 1) < rng.uniform(0.25, 0.6)).repeat(length)[:LOG_HOURS]
    out: np.ndarray = on * rng.gamma(2.0, 0.5, LOG_HOURS) + 0.02
    return out


def _harvest(world: World, total: int, *, templates: int, variants: int, obfuscate: float) -> list[int]:
    """Streams that share one work list of `total` items; no item is handed out twice."""
    rng = world.rng
    side = int(np.ceil(np.sqrt(max(16, total) * 1.3)))
    wide = max(6, int(side * rng.uniform(0.6, 1.6)))
    conversational = bool(rng.random() < 0.5)
    split = world.splits
    world.splits += 1
    first = script(
        world, harvest=True, variants=variants, slots=(wide, max(6, int(np.ceil(total * 1.3 / wide))))
    )
    shared = world.streams[first].template
    assert shared is not None
    out = []
    for index in range(templates):
        ident = first if index == 0 else script(world, harvest=True, variants=variants, slots=(2, 2))
        stream = world.streams[ident]
        assert stream.template is not None
        template = replace(stream.template, slots_a=shared.slots_a, slots_b=shared.slots_b)
        stream = replace(stream, template=template, split=split, obfuscate=obfuscate)
        if conversational:
            stream = replace(stream, mode="chat", mean_length=float(rng.uniform(2, 5)))
        world.streams[ident] = stream
        out.append(ident)
        # Several workers, each with settings of its own, run the same template.
        for _ in range(int(rng.integers(1, 4))):
            request = world.request(program=bool(rng.random() < 0.65))
            out.append(world.stream(replace(stream, request=request)))
    return out


def operation_size(world: World, name: str, scale: float) -> int:
    """Accounts of one operation: mostly small, 30 to 150 at full size, a wide one at least 80."""
    low, high = (80, 151) if name == "slow_wide" else (30, 151)
    size = int(low + (high - low) * world.rng.beta(0.6, 3.6))
    return max(8, int(size * scale))


def add_operation(world: World, name: str, size: int) -> None:
    """Add one operation of `OPERATIONS` with `size` accounts."""
    rng = world.rng
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
    cap = 0.035 * world.requested_exchanges / size
    per_account = min(per_account, max(cap, 6.0))
    if name == "slow_wide":
        per_account = 3.0
    if name in ("imitate_classroom", "imitate_benchmark"):
        per_account = min(per_account, 40.0)
    variants = int(rng.integers(1, 3)) if name == "blatant_fleet" else int(rng.integers(2, 12))
    obfuscate = float(rng.uniform(0.05, 0.4)) if rng.random() < 0.35 and name != "blatant_fleet" else 0.0
    clean = float(rng.random())
    volumes = np.maximum(3, rng.gamma(6.0, per_account / 6.0, size)).astype(int)
    if name == "slow_wide":
        volumes = rng.integers(2, 5, size)
    total = int(volumes.sum() * (1 - cover)) + 8
    templates = int(rng.integers(1, 4))
    harvest = _harvest(world, total, templates=templates, variants=variants, obfuscate=obfuscate)
    pool = _pool(world, size, clean=clean)
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
    duty = _on_off(world)
    members: list[int] = []
    for index in range(size):
        streams = [((1 - cover) / len(harvest), ident) for ident in harvest]
        if cover > 0:
            own = individual_streams(world)
            whole = sum(w for w, _ in own)
            streams += [(cover * w / whole, ident) for w, ident in own]
        account = _member(world, name, group, index, pool, streams, int(volumes[index]))
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
