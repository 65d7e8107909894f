"""Operations of the scenario `field` that `mixed` does not have, each with parameters that one can set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from stillwatch.arena.operation_kit import (
    Operation,
    between,
    buy_pool,
    chat,
    circle_of,
    common,
    draw_volumes,
    enlist,
    harvest_total,
    rotate,
)
from stillwatch.arena.parameters import Parameters
from stillwatch.arena.pools import work_list
from stillwatch.arena.timing import HOUR_US
from stillwatch.arena.wording import Themed, bare_template, data_set, elicit_line, line_template, reworded
from stillwatch.arena.world import Stream, World


def _drawn(**fields: Any) -> Callable[[World, float], Parameters]:
    return lambda world, scale: Parameters(**common(world, scale, **fields))


def _weights(streams: list[int]) -> list[tuple[float, int]]:
    return [(1.0, ident) for ident in streams]


def _list_of(world: World, p: Parameters, volumes: np.ndarray, task: str | None = None) -> list[int]:
    """Streams of one work list about a task, or about whatever operations ask for."""
    source = None if task is None else Themed(world.source, task, rubric=0.8 if task == "grading" else 0.0)
    return work_list(
        world,
        harvest_total(volumes, p),
        templates=max(1, p.templates),
        variants=p.variants,
        obfuscate=p.obfuscate,
        source=source,
    )


def _templates(task: str | None = None) -> Callable[[World, str, Parameters], None]:
    def build(world: World, name: str, p: Parameters) -> None:
        volumes = draw_volumes(world, p)
        enlist(world, name, p, volumes, _weights(_list_of(world, p, volumes, task)))

    return build


def _serve_and_harvest(world: World, name: str, p: Parameters) -> None:
    """Relayed end users of a resale service: no template; conversations move between accounts as seats are free."""
    rng = world.rng
    volumes = draw_volumes(world, p)
    pool = buy_pool(world, p)
    own: list[list[int]] = []
    for _ in range(p.size):
        people = int(rng.integers(6, 25))
        own.append([chat(world, thinks=bool(rng.random() < 0.6), harvest=True) for _ in range(people)])
    move, replay = between(world, 0.02, 0.12), between(world, 0.01, 0.06)
    enlisted = enlist(
        world,
        name,
        p,
        volumes,
        lambda i: _weights(own[i]),
        pool,
        move=round(move, 4),
        replay=round(replay, 4),
    )
    circle_of(
        world, enlisted.members, [ident for streams in own for ident in streams], move=move, replay=replay
    )
    for index in enlisted.members:
        account = world.accounts[index]
        account.shuffle_agents, account.language = True, -1
        account.stacks = pool.stacks[:1]


def _trace_replay(world: World, name: str, p: Parameters) -> None:
    """Traces are cleaned by template, and blocks that one account was given are sent back under others."""
    volumes = draw_volumes(world, p)
    streams = _list_of(world, p, volumes, "cleaning")
    for ident in streams:
        stream = world.streams[ident]
        world.streams[ident] = replace(stream, request=replace(stream.request, reasoning_effort="high"))
    share = between(world, 0.05, 0.3)
    enlisted = enlist(world, name, p, volumes, _weights(streams), replay=round(share, 4))
    circle_of(world, enlisted.members, streams, replay=share)


def _injected_line(world: World, name: str, p: Parameters) -> None:
    """Whatever is asked, one fixed line that asks for reasoning stands before or after it."""
    template = line_template(elicit_line(world), after=bool(world.rng.random() < 0.5))
    streams = [
        world.stream(Stream(world.request(program=False), template=template, harvest=True, mode="bulk"))
        for _ in range(3)
    ]
    enlist(world, name, p, draw_volumes(world, p), _weights(streams))


def _sweep(world: World, name: str, p: Parameters) -> None:
    """One set of instructions, sent as they are, each by one account only."""
    volumes = draw_volumes(world, p)
    items = data_set(world, harvest_total(volumes, p))
    number = world.splits
    world.splits += 1
    stream = Stream(
        world.request(program=True), bare_template(), harvest=True, mode="bulk", split=number, items=items
    )
    enlist(world, name, p, volumes, [(1.0, world.stream(stream))])


def _best_of_k(world: World, name: str, p: Parameters) -> None:
    """Every item is asked several times, by accounts at random, so that the best answer can be chosen."""
    volumes = draw_volumes(world, p)
    times = int(world.rng.integers(3, 17))
    streams = _list_of(world, p, volumes)
    for ident in streams:
        world.streams[ident] = replace(world.streams[ident], repeat=times)
    enlist(world, name, p, volumes, _weights(streams), k=times)


def _worst(world: World, scale: float) -> Parameters:
    drawn = common(world, scale, size=(60, 181), cover=(0.75, 0.9), variants=(30, 80), requests=42.0)
    return Parameters(
        **drawn
        | {
            "clean": 0.95,
            "blocks_per_account": between(world, 0.5, 0.9),
            "payments_per_account": between(world, 0.5, 0.9),
            "own_payment": between(world, 0.5, 0.9),
            "disposable": between(world, 0.0, 0.2),
            "batch": int(world.rng.integers(2, 5)),
            "duty": between(world, 0.2, 0.5),
        }
    )


def _worst_case(world: World, name: str, p: Parameters) -> None:
    """Two to four requests a day, nine in ten of them cover, every wording in few hands, addresses of homes."""
    volumes = draw_volumes(world, p)
    side = max(8, int(np.sqrt(harvest_total(volumes, p) * 1.5)))
    template = reworded(world, Themed(world.source, "reasoning"), p.variants, (side, side))
    number = world.splits
    world.splits += 1
    stream = Stream(
        world.request(program=False), template, harvest=True, mode="bulk", split=number, wander=True
    )
    enlist(world, name, p, volumes, [(1.0, world.stream(stream))])


def _large(world: World, scale: float) -> Parameters:
    drawn = common(world, scale, size=(300, 1201), cover=(0.2, 0.6))
    return Parameters(**drawn | {"rotation_hours": between(world, 36, 60)})


def _hydra_large(world: World, name: str, p: Parameters) -> None:
    """Hot standby in hundreds of seats; all of it asks the new model within a day of its release."""
    volumes = draw_volumes(world, p)
    enlisted = enlist(world, name, p, volumes, _weights(_list_of(world, p, volumes)))
    relay = chat(world, thinks=True, mean_length=8.0, gap_s=30.0)
    rotate(world, enlisted, p.rotation_hours, within_s=9.0, relay=relay)
    pivot = world.release_us + int(between(world, 1, 24) * HOUR_US)
    for index in enlisted.members:
        account = world.accounts[index]
        account.shuffle_agents, account.language = True, -1
        account.stacks = enlisted.pool.stacks[:1]
        account.pivot_us = pivot


def _shell_company(world: World, name: str, p: Parameters) -> None:
    """Every account declares one owner that nobody has verified."""
    volumes = draw_volumes(world, p)
    enlisted = enlist(world, name, p, volumes, _weights(_list_of(world, p, volumes)))
    entity = f"org_{int(world.rng.integers(1, 1 << 48)):012x}"
    for index in enlisted.members:
        world.accounts[index].entity_id, world.accounts[index].verified = entity, False


FIELD_OPERATIONS: dict[str, Operation] = {
    **{
        f"mixing_{share:02d}": Operation(
            _drawn(cover=(1 - share / 100, 1 - share / 100), factor=(4.0, 14.0)), _templates()
        )
        for share in (5, 10, 25, 50)
    },
    "serve_and_harvest": Operation(
        _drawn(size=(40, 151), cover=(0.0, 0.0), templates=(0, 0)), _serve_and_harvest
    ),
    "trace_replay": Operation(_drawn(), _trace_replay),
    "injected_line": Operation(_drawn(), _injected_line),
    "rubric_grading": Operation(_drawn(), _templates("grading")),
    "instruction_sweep": Operation(_drawn(templates=(0, 0)), _sweep),
    "best_of_k": Operation(_drawn(), _best_of_k),
    "worst_case": Operation(_worst, _worst_case),
    "hydra_large": Operation(_large, _hydra_large),
    "shell_company": Operation(_drawn(size=(60, 301)), _shell_company),
}
"""How each is drawn and built; the docstring of its builder says what it does."""
