"""Steps that the operations of the scenario `field` share: draw parameters, buy a pool, sign up, rotate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stillwatch.arena.infrastructure import DISPOSABLE, WEBMAIL, Pool, hex_token
from stillwatch.arena.lookalikes import individual_streams
from stillwatch.arena.parameters import Parameters, recorded
from stillwatch.arena.pools import on_off
from stillwatch.arena.timing import DAY_US, HOUR_US
from stillwatch.arena.world import LOG_HOURS, Account, Handover, Stream, World

Build = Callable[[World, str, Any], None]
Draw = Callable[[World, float], Any]


@dataclass(frozen=True)
class Operation:
    """How the parameters of an operation are drawn (world, scale) and how it is added to a world."""

    draw: Draw
    build: Build


@dataclass(frozen=True)
class Enlisted:
    """The accounts (indices) of an operation that was added, its group and its pool."""

    group: int
    members: list[int]
    pool: Pool


def between(world: World, low: float, high: float) -> float:
    """A uniform draw."""
    return float(world.rng.uniform(low, high))


def common(
    world: World,
    scale: float,
    *,
    size: tuple[int, int] = (30, 151),
    factor: tuple[float, float] = (1.5, 14.0),
    requests: float | None = None,
    cover: tuple[float, float] = (0.0, 0.25),
    templates: tuple[int, int] = (1, 4),
    variants: tuple[int, int] = (2, 12),
) -> dict[str, Any]:
    """The fields of `Parameters` with their usual draws; `factor` multiplies an average account's requests."""
    rng = world.rng
    count = max(8, int((size[0] + (size[1] - size[0]) * rng.beta(0.6, 3.6)) * scale))
    mean = world.requested_exchanges / world.requested_accounts
    drawn = mean * float(np.exp(rng.uniform(*np.log(factor))))
    most = max(world.largest_share * world.requested_exchanges / count, 6.0)
    return {
        "size": count,
        "requests_per_account": min(max(6.0, drawn), most) if requests is None else requests,
        "cover": between(world, *cover),
        "templates": int(rng.integers(*templates)) if templates[1] else 0,
        "variants": int(rng.integers(*variants)),
        "obfuscate": between(world, 0.05, 0.4) if rng.random() < 0.3 else 0.0,
        "rotation_hours": 0.0,
        "clean": between(world, 0.0, 0.9),
        "blocks_per_account": between(world, 0.2, 0.6),
        "payments_per_account": between(world, 0.15, 0.6),
        "own_payment": between(world, 0.2, 0.6),
        "disposable": between(world, 0.05, 0.6),
        "virtual": between(world, 0.3, 0.9),
        "batch": int(rng.integers(4, 20)),
        "duty": between(world, 0.5, 0.95),
    }


def draw_volumes(world: World, p: Parameters) -> np.ndarray:
    """Requests of each account, shape (size,)."""
    drawn = world.rng.gamma(6.0, p.requests_per_account / 6.0, p.size)
    out: np.ndarray = np.maximum(2, np.round(drawn)).astype(np.int64)
    return out


def harvest_total(volumes: np.ndarray, p: Parameters) -> int:
    """Harvest requests to expect, with room for chance."""
    expected = float(volumes.sum()) * (1 - p.cover)
    return int(expected + 4 * np.sqrt(expected)) + 8


def buy_pool(world: World, p: Parameters) -> Pool:
    """Addresses, instruments, client software and sign-up runs for one operation."""
    rng = world.rng
    if world.reseller is not None:
        return _from_stock(world, p, world.reseller)
    count = max(2, round(p.size * p.blocks_per_account))
    if p.clean > 0.9:  # ordinary homes that no reseller of exits uses
        blocks = [world.block_at_home(int(rng.integers(12))) for _ in range(count)]
    else:
        proxies = world.network.proxies
        blocks = [int(b) for b in rng.choice(proxies, min(count, len(proxies)), replace=False)]
    if p.clean <= 0.5:
        blocks += [
            int(b) for b in rng.choice(world.network.hosts, int(rng.integers(1, max(2, p.size // 10))))
        ]
    latest = world.start_us + 3 * DAY_US
    back = between(world, 8, 70)
    return Pool(
        blocks=blocks,
        payments=[hex_token(rng) for _ in range(max(2, round(p.size * p.payments_per_account)))],
        stacks=[world.popular_stack(sdk=True) for _ in range(int(rng.integers(1, 4)))],
        batch_size=max(1, p.batch),
        batch_start_us=[
            latest - int(between(world, 0, back) * DAY_US) for _ in range(p.size // max(1, p.batch) + 1)
        ],
        disposable_share=p.disposable,
        virtual_share=p.virtual,
    )


def buy_stock(world: World, accounts: int) -> Pool:
    """What a reseller holds for `accounts` accounts: everybody who buys there gets a part of it."""
    rng = world.rng
    proxies = world.network.proxies
    batch = int(rng.integers(8, 25))
    return Pool(
        blocks=[int(b) for b in rng.choice(proxies, min(len(proxies), max(8, accounts // 5)), replace=False)],
        payments=[hex_token(rng) for _ in range(max(4, accounts // 4))],
        stacks=[world.popular_stack(sdk=True) for _ in range(6)],
        batch_size=batch,
        batch_start_us=[
            world.start_us + int(between(world, -60, 3) * DAY_US) for _ in range(accounts // batch + 1)
        ],
        disposable_share=between(world, 0.2, 0.6),
        virtual_share=between(world, 0.5, 0.9),
    )


def _from_stock(world: World, p: Parameters, stock: Pool) -> Pool:
    """An order from the reseller: its exits and cards are sold again and again, a sign-up run to one buyer or two."""
    rng = world.rng

    def part(things: list[Any], count: float) -> list[Any]:
        chosen = rng.choice(len(things), min(len(things), max(2, round(count))), replace=False)
        return [things[int(i)] for i in chosen]

    runs = p.size // stock.batch_size + 1
    return replace(
        stock,
        blocks=part(stock.blocks, p.size * p.blocks_per_account),
        payments=part(stock.payments, p.size * p.payments_per_account),
        stacks=part(stock.stacks, 3),
        batch_start_us=[
            int(stock.batch_start_us[int(i)]) for i in rng.integers(0, len(stock.batch_start_us), runs)
        ],
    )


def enlist(
    world: World,
    name: str,
    p: Parameters,
    volumes: np.ndarray,
    harvest: list[tuple[float, int]] | Callable[[int], list[tuple[float, int]]],
    pool: Pool | None = None,
    **more: Any,
) -> Enlisted:
    """Sign up the accounts. `harvest`: (weight, stream) for all, or a function of the position in the list.

    `more` is recorded in the truth beside the parameters.
    """
    rng = world.rng
    pool = pool or buy_pool(world, p)
    facts = {"blocks": len(pool.blocks), "payments": len(pool.payments), **more}
    group = world.group("attack", name, **recorded(p), **facts)
    duty = on_off(world)
    members = []
    for index in range(p.size):
        own = harvest(index) if callable(harvest) else harvest
        streams = _shares(own, 1 - p.cover)
        if p.cover > 0:
            streams += _shares(individual_streams(world), p.cover)
        account = _sign_up(world, name, group, index, pool, p, streams, int(volumes[index]))
        account.schedule = duty
        account.schedule_share = float(np.clip(rng.normal(p.duty, 0.08), 0.0, 1.0))
        members.append(len(world.accounts) - 1)
    return Enlisted(group, members, pool)


def _shares(streams: list[tuple[float, int]], whole: float) -> list[tuple[float, int]]:
    total = sum(weight for weight, _ in streams)
    return [(whole * weight / total, ident) for weight, ident in streams]


def _sign_up(
    world: World,
    name: str,
    group: int,
    index: int,
    pool: Pool,
    p: Parameters,
    streams: list[tuple[float, int]],
    volume: int,
) -> Account:
    rng = world.rng
    account = world.person("attack", group, streams, weight=0.0)
    account.operation, account.volume = name, max(1, volume)
    places = 1 if p.clean > 0.9 else int(rng.integers(1, 4))
    account.places = [world.place(int(rng.choice(pool.blocks))) for _ in range(places)]
    account.signup_place = (
        account.places[0] if rng.random() < 0.6 else world.place(int(rng.choice(pool.blocks)))
    )
    account.stacks = [int(rng.choice(pool.stacks))]
    start = pool.batch_start_us[index // pool.batch_size]
    account.created_us = start + int((index % pool.batch_size) * rng.uniform(15, 90) * 1e6)
    paid = rng.random() < 0.75
    own = rng.random() < p.own_payment
    account.payment_fp = (hex_token(rng) if own else str(rng.choice(pool.payments))) if paid else None
    account.payment_kind = ("virtual" if rng.random() < p.virtual else "card") if paid else None
    account.tier = "tier1" if paid else "free"
    account.email_domain = str(rng.choice(DISPOSABLE if rng.random() < p.disposable else WEBMAIL[:6]))
    account.device_fp = hex_token(rng) if rng.random() < 0.7 else None
    return account


def rotate(world: World, enlisted: Enlisted, hours: float, *, within_s: float, relay: int) -> int:
    """Seats with hot standby: after about `hours` an account is stopped and the next takes over in seconds.

    `relay` is the stream of the conversations that are continued. Returns the number of seats.
    """
    rng = world.rng
    members = enlisted.members
    seats = max(1, int(np.ceil(len(members) * hours / LOG_HOURS)))
    for seat in range(seats):
        at = world.start_us + int(rng.uniform(0.2, 30) * HOUR_US)
        own = members[seat::seats]
        for position, index in enumerate(own):
            account = world.accounts[index]
            until = at + int(hours * rng.uniform(0.75, 1.25) * HOUR_US)
            begin, end = min(at, world.end_us - 2 * HOUR_US), min(until, world.end_us)
            account.active_us = (begin, max(end, begin + HOUR_US))
            account.created_us = min(account.created_us, begin - int(rng.uniform(2, 40) * HOUR_US))
            if position + 1 < len(own) and until < world.end_us - 2 * HOUR_US:
                kind = "ban" if rng.random() < 0.6 else "rate_limit"
                for _ in range(int(rng.integers(1, 4))):
                    world.handovers.append(Handover(index, own[position + 1], until, kind, relay, within_s))
            at = until
    return seats


def circle_of(world: World, members: list[int], streams: list[int], **fields: Any) -> int:
    """Let conversations of the streams move among the members; `fields` are set on the streams."""
    world.circles.append(members)
    number = len(world.circles) - 1
    for ident in streams:
        world.streams[ident] = replace(world.streams[ident], circle=number, **fields)
    return number


def chat(world: World, *, thinks: bool, **fields: Any) -> int:
    """A stream of free conversations with settings as a person's; `thinks` asks for reasoning."""
    request = world.request(program=False)
    effort = ("low", "medium", "high")[int(world.rng.integers(3))] if thinks else None
    return world.stream(
        Stream(
            replace(request, reasoning_effort=effort),
            **{"mean_length": between(world, 2, 8), "gap_s": float(world.rng.lognormal(4.0, 0.5)), **fields},
        )
    )
