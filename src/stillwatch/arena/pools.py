"""What an operation buys and shares: accounts signed up by one script, addresses, instruments, one work list."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stillwatch.arena.infrastructure import DISPOSABLE, WEBMAIL, Pool, hex_token
from stillwatch.arena.lookalikes import script
from stillwatch.arena.text import TextSource
from stillwatch.arena.timing import DAY_US
from stillwatch.arena.world import LOG_HOURS, Account, World


def draw_pool(world: World, size: int, *, clean: float) -> Pool:
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


def member(
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


def on_off(world: World) -> np.ndarray:
    """The director's duty pattern: blocks of on and off hours shared by all accounts."""
    rng = world.rng
    length = int(rng.integers(2, 9))
    on = (rng.random(LOG_HOURS // length + 1) < rng.uniform(0.25, 0.6)).repeat(length)[:LOG_HOURS]
    out: np.ndarray = on * rng.gamma(2.0, 0.5, LOG_HOURS) + 0.02
    return out


def work_list(
    world: World,
    total: int,
    *,
    templates: int,
    variants: int,
    obfuscate: float,
    source: TextSource | None = None,
) -> list[int]:
    """Streams that share one work list of `total` items; no item is handed out twice."""
    rng = world.rng
    side = int(np.ceil(np.sqrt(max(16, total) * 1.3)))
    wide = max(6, int(side * rng.uniform(0.6, 1.6)))
    conversational = bool(rng.random() < 0.5)
    split = world.splits
    world.splits += 1
    first = script(
        world,
        harvest=True,
        variants=variants,
        slots=(wide, max(6, int(np.ceil(total * 1.3 / wide)))),
        source=source,
    )
    shared = world.streams[first].template
    assert shared is not None
    out = []
    for index in range(templates):
        ident = (
            first
            if index == 0
            else script(world, harvest=True, variants=variants, slots=(2, 2), source=source)
        )
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
