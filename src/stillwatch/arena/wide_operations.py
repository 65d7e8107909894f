"""Operations of the scenario `wide` that `field` does not have: probing, agents, wordings in many languages."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stillwatch.arena.operation_kit import Operation, between, common, draw_volumes, enlist, harvest_total
from stillwatch.arena.parameters import Parameters
from stillwatch.arena.pools import work_list
from stillwatch.arena.text import Template
from stillwatch.arena.timing import HOUR_US
from stillwatch.arena.wording import Themed, recased, reworded
from stillwatch.arena.world import Stream, World

MOST_PROBES = 12_000
"""Variants that were tried, by the largest case on record."""


@dataclass(frozen=True)
class ProbeParameters(Parameters):
    """How wordings are tried before the mass use of those that pass."""

    probers: float
    """Share of the accounts that try variants."""
    probes: int
    """Variants tried, one request each."""
    probe_refused: float
    """Share of the tries that the model declines."""
    probe_hours: float
    """Length of the trial, from the start of the log."""
    survivors: int
    """Wordings that go on into mass use."""


@dataclass(frozen=True)
class VariationParameters(Parameters):
    """How far one request is varied."""

    abroad: float
    """Share of the wordings in another language than English."""
    recased: float
    """Share of the wordings in lower case, capitals, or capitals at every word."""


def _probes(world: World, scale: float) -> ProbeParameters:
    drawn = common(world, scale, size=(40, 151), variants=(40, 120))
    total = drawn["size"] * drawn["requests_per_account"]
    return ProbeParameters(
        **drawn,
        probers=between(world, 0.1, 0.25),
        probes=int(min(MOST_PROBES, total * between(world, 0.1, 0.4))),
        probe_refused=between(world, 0.8, 0.97),
        probe_hours=between(world, 24, 96),
        survivors=int(world.rng.integers(2, 6)),
    )


def _probe_then_scale(world: World, name: str, p: ProbeParameters) -> None:
    """A few accounts try many wordings, most of them refused; then the whole pool uses those that passed."""
    volumes = draw_volumes(world, p)
    source = Themed(world.source, "reasoning")
    tried = reworded(world, source, max(4, p.variants), (40, 40))
    begin = world.start_us + int(p.probe_hours * HOUR_US)
    probe = world.stream(
        Stream(
            world.request(program=True), tried, harvest=True, mode="bulk", wander=True, gap_s=20.0,
            refuse=p.probe_refused, window_us=(world.start_us, begin),
        )
    )  # fmt: skip
    kept = world.rng.choice(len(tried.variants), min(max(1, p.survivors), len(tried.variants)), replace=False)
    wording = replace(tried, variants=tuple(tried.variants[int(i)] for i in kept))
    mass = []
    total = harvest_total(volumes, p)
    for ident in work_list(
        world, total, templates=max(1, p.templates), variants=1, obfuscate=p.obfuscate, source=source
    ):
        stream = world.streams[ident]
        assert stream.template is not None
        slots: Template = replace(wording, slots_a=stream.template.slots_a, slots_b=stream.template.slots_b)
        world.streams[ident] = replace(stream, template=slots, window_us=(begin, world.end_us), refuse=0.03)
        mass.append((1.0, ident))
    probers = max(2, round(p.probers * p.size))
    each = p.probes / probers
    volumes[:probers] += int(each)

    def streams(index: int) -> list[tuple[float, int]]:
        if index >= probers:
            return mass
        rest = float(volumes[index]) * (1 - p.cover) - each
        return [(each, probe), *((max(rest, 1.0) / len(mass), ident) for _, ident in mass)]

    enlisted = enlist(world, name, p, volumes, streams)
    for index in enlisted.members[probers:]:
        account = world.accounts[index]
        account.created_us = min(max(account.created_us, world.start_us), begin)
        account.active_us = (begin, world.end_us)


def _agents(world: World, scale: float) -> Parameters:
    drawn = common(world, scale, factor=(6.0, 20.0), cover=(0.0, 0.4))
    return Parameters(**drawn)


def _agentic_harvest(world: World, name: str, p: Parameters) -> None:
    """Long tool loops over one work list of tasks, with an agent's instructions and tools as everybody's."""
    volumes = draw_volumes(world, p)
    streams = work_list(
        world,
        harvest_total(volumes, p) // 6 + 8,
        templates=max(1, p.templates),
        variants=p.variants,
        obfuscate=p.obfuscate,
        source=Themed(world.source, "agentic"),
    )
    public = bool(world.public_tools) and world.rng.random() < 0.5
    tools = int(world.rng.choice(world.public_tools)) if public else int(world.rng.integers(1, 1 << 63))
    system = (
        " ".join(world.source.wording(world.rng, harvest=False))
        .replace("<a>", "the task")
        .replace("<b>", "it")
    )
    for ident in streams:
        stream = world.streams[ident]
        world.streams[ident] = replace(
            stream,
            request=replace(stream.request, tools_hash=tools, reasoning_effort="high"),
            mode="agent",
            mean_length=between(world, 20, 70),
            gap_s=between(world, 4, 20),
            system=system,
        )
    enlist(world, name, p, volumes, [(1.0, ident) for ident in streams], public_tools=public)


def _variations(world: World, scale: float) -> VariationParameters:
    drawn = common(world, scale, variants=(20, 90), templates=(1, 2))
    return VariationParameters(**drawn, abroad=between(world, 0.2, 0.7), recased=between(world, 0.0, 0.5))


def _template_variation(world: World, name: str, p: VariationParameters) -> None:
    """One request in many wordings: clauses reordered, other case, other languages, a new one for every request."""
    volumes = draw_volumes(world, p)
    source = Themed(world.source, "reasoning", abroad=p.abroad)
    side = max(8, int(np.sqrt(harvest_total(volumes, p) * 1.5)))
    template = reworded(world, source, max(1, p.variants), (side, side))
    template = recased(world.rng, template, p.recased)
    number = world.splits
    world.splits += 1
    stream = Stream(
        world.request(program=True), template, harvest=True, mode="bulk", split=number, wander=True,
        obfuscate=p.obfuscate,
    )  # fmt: skip
    enlist(world, name, p, volumes, [(1.0, world.stream(stream))])


WIDE_OPERATIONS: dict[str, Operation] = {
    "probe_then_scale": Operation(_probes, _probe_then_scale),
    "agentic_harvest": Operation(_agents, _agentic_harvest),
    "template_variation": Operation(_variations, _template_variation),
}
"""How each is drawn and built; the docstring of its builder says what it does."""
