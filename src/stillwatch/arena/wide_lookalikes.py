"""Honest kinds of the scenario `wide` that `field` does not have, each with the reason why it is honest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stillwatch.arena import lookalikes as L
from stillwatch.arena.field_lookalikes import FORMS, firm, use
from stillwatch.arena.wording import Themed, data_set
from stillwatch.arena.world import LOG_HOURS, Stream, World


def add_wide_lookalikes(world: World) -> None:
    """All of them, sized with the requested accounts."""
    scale = max(world.requested_accounts / 20_000, 0.2)

    def several(least: int, full: int) -> int:
        return max(least, round(full * scale))

    _rag(world, several(15, 90))
    _ci_agents(world, several(10, 60))
    for form in FORMS:
        for _ in range(several(1, 2)):
            _labelling_firm(world, form)
    _labelling_people(world, several(12, 60))
    _translators(world, several(20, 140))


def _rag(world: World, count: int) -> None:
    """Unrelated developers put their own documents into one published prompt: the wording is the library's."""
    group = world.group("rag", None, size=count)
    public = L.script(world, source=Themed(world.source, "support"), slots=(30, 30))
    world.public_streams.append(public)
    stream = world.streams[public]
    for _ in range(count):
        # A few dozen documents of one's own come back again and again.
        own = replace(stream, items=data_set(world, int(world.rng.integers(10, 60)), slots=(30, 30)))
        mix = [(2.0, world.stream(own)), *L.individual_streams(world)]
        world.person("rag", group, mix, weight=L.honest_volume(world) * 2)


def _ci_agents(world: World, count: int) -> None:
    """Agents that a build server starts after commits: bursts, machine clients, addresses of hosting providers."""
    rng = world.rng
    group = world.group("ci_agent", None, size=count)
    blocks = [
        int(b) for b in rng.choice(world.network.hosts, min(8, len(world.network.hosts)), replace=False)
    ]
    stack = world.popular_stack(sdk=True)
    tools = int(rng.integers(1, 1 << 63))
    world.public_tools.append(tools)
    system = (
        " ".join(world.source.wording(rng, harvest=False))
        .replace("<a>", "the change")
        .replace("<b>", "the tests")
    )
    for _ in range(count):
        request = replace(world.request(program=True), tools_hash=tools)
        agent = Stream(
            request,
            mode="agent",
            mean_length=float(rng.uniform(6, 30)),
            gap_s=float(rng.uniform(3, 15)),
            system=system,
        )
        account = world.person(
            "ci_agent", group, [(1.0, world.stream(agent))], weight=6 * L.honest_volume(world)
        )
        account.places = [world.place(int(rng.choice(blocks))) for _ in range(3)]
        account.stacks = [stack]
        commits = np.full(LOG_HOURS, 0.005)
        commits[rng.integers(0, LOG_HOURS, int(rng.integers(10, 60)))] += 1.0
        account.schedule, account.schedule_share = commits, float(rng.uniform(0.6, 0.95))


def _labelling_firm(world: World, form: str) -> None:
    """A firm labels a data set of its own over several keys: shared out without overlap, paid by one party."""
    number = world.splits
    world.splits += 1
    side = 160
    first = L.script(world, source=Themed(world.source, "support"), slots=(side, side))
    world.streams[first] = replace(world.streams[first], split=number)
    for index in firm(world, form, "batch_labelling"):
        use(world.accounts[index], [first])


def _labelling_people(world: World, count: int) -> None:
    """Unrelated people who label texts of their own with a published prompt."""
    group = world.group("batch_labelling_people", None, size=count)
    public = L.script(world, source=Themed(world.source, "grading", rubric=0.5), length=25.0)
    world.public_streams.append(public)
    for _ in range(count):
        mix = [(3.0, public), *L.individual_streams(world)]
        world.person("batch_labelling_people", group, mix, weight=L.honest_volume(world) * 2)


def _translators(world: World, count: int) -> None:
    """People who translate, with the few wordings that everybody uses, in many languages."""
    group = world.group("translation", None, size=count)
    common = [
        L.script(world, source=Themed(world.source, "translation", abroad=0.4), slots=(40, 40))
        for _ in range(3)
    ]
    for _ in range(count):
        chosen = world.rng.permutation(3)[: int(world.rng.integers(1, 3))]
        mix = [*((2.0, common[int(i)]) for i in chosen), *L.individual_streams(world)]
        account = world.person("translation", group, mix, weight=L.honest_volume(world) * 1.5)
        account.language = -1
