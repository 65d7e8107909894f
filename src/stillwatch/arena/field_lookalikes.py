"""Honest kinds of the scenario `field` that `mixed` does not have, each with the reason why it is honest."""

from __future__ import annotations

from dataclasses import replace

from stillwatch.arena import lookalikes as L
from stillwatch.arena.operation_kit import chat, circle_of
from stillwatch.arena.timing import DAY_US
from stillwatch.arena.wording import Themed, bare_template, data_set, elicit_line, line_template
from stillwatch.arena.world import Account, Stream, World

FORMS = ("enterprise_verified", "enterprise_unverified", "enterprise_undeclared")


def add_field_lookalikes(world: World) -> None:
    """All of them, sized with the requested accounts."""
    scale = max(world.requested_accounts / 20_000, 0.2)

    def several(least: int, full: int) -> int:
        return max(least, round(full * scale))

    for form in FORMS:
        for _ in range(several(1, 3)):
            _themed_firm(world, form, "audit_log", "reasoning")
            _themed_firm(world, form, "llm_judge", "grading")
            _themed_firm(world, form, "text_cleaning", "cleaning")
            _key_rotation(world, form)
    _privacy_gateway(world, several(20, 120))
    _compaction(world, several(20, 150))
    _team_keys(world, several(10, 60))
    _researchers(world, several(15, 60))
    _failover(world)


def firm(world: World, form: str, kind: str) -> list[int]:
    """Accounts (indices) of one firm, as `lookalikes.add_enterprise` makes them, under another name."""
    size = 8 + int(30 * world.rng.beta(0.8, 3.0))
    first = len(world.accounts)
    L.add_enterprise(world, size, form)
    members = list(range(first, len(world.accounts)))
    world.groups[world.accounts[first].group]["kind"] = kind
    for index in members:
        world.accounts[index].kind = kind
    return members


def use(account: Account, streams: list[int]) -> None:
    account.streams = [*account.streams[-1:], *((2.0, ident) for ident in streams)]


def _themed_firm(world: World, form: str, kind: str, task: str) -> None:
    """One task of a firm's own business.

    `audit_log`: regulated firms must keep the reasons for each decision. `llm_judge`: whoever runs a product on a
    model measures its answers by a rubric. `text_cleaning`: notes and traces of one's own systems are made readable.
    """
    source = Themed(world.source, task, abroad=0.3, rubric=0.6 if task == "grading" else 0.0)
    streams = [L.script(world, variants=int(world.rng.integers(1, 5)), source=source) for _ in range(2)]
    if kind == "audit_log":
        line = line_template(elicit_line(world), after=True)
        streams.append(world.stream(Stream(world.request(program=True), template=line, mode="bulk")))
    for index in firm(world, form, kind):
        use(world.accounts[index], streams)


def _key_rotation(world: World, form: str) -> None:
    """A balancer spreads a firm's conversations over its own keys: they change accounts, and one party pays."""
    members = firm(world, form, "key_rotation")
    streams = [chat(world, thinks=bool(world.rng.random() < 0.6)) for _ in range(4)]
    circle_of(world, members, streams, move=float(world.rng.uniform(0.05, 0.5)))
    for index in members:
        use(world.accounts[index], streams)


def _privacy_gateway(world: World, count: int) -> None:
    """Customers of a privacy service share its exits, and it removes user agents and conversation ids."""
    rng = world.rng
    group = world.group("privacy_gateway", None, size=count)
    exits = [int(b) for b in rng.choice(world.network.proxies, 6, replace=False)]
    stack = world.popular_stack(sdk=False)
    for _ in range(count):
        account = world.person(
            "privacy_gateway", group, L.individual_streams(world), weight=L.honest_volume(world)
        )
        account.places = [world.place(int(rng.choice(exits))) for _ in range(3)]
        account.stacks, account.stripped = [stack], True


def _compaction(world: World, count: int) -> None:
    """Long conversations whose client replaces the past by a summary: the prefix changes under one account."""
    for _ in range(count):
        ident = chat(world, thinks=True, mean_length=12.0)
        world.streams[ident] = replace(world.streams[ident], compact=float(world.rng.uniform(0.05, 0.3)))
        world.person("compaction", -1, [(1.0, ident)], weight=L.honest_volume(world) * 2)


def _team_keys(world: World, count: int) -> None:
    """A team that shares one key: many clients, places and habits inside one account, paid by one card."""
    rng = world.rng
    for _ in range(count):
        people = int(rng.integers(4, 16))
        streams = [pair for _ in range(people) for pair in L.individual_streams(world)]
        account = world.person("team_key", -1, streams, weight=L.honest_volume(world) * people / 2)
        account.stacks = [world.popular_stack(sdk=bool(rng.random() < 0.5)) for _ in range(people)]
        account.places += [world.place(world.block_at_home(account.region)) for _ in range(people // 2)]


def _researchers(world: World, count: int) -> None:
    """Unrelated people who run one published set of instructions, as it is: everybody asks all of it."""
    items = data_set(world, 300)
    stream = Stream(world.request(program=True), bare_template(), mode="bulk", items=items)
    ident = world.stream(stream)
    group = world.group("instruction_set", None, size=count)
    for _ in range(count):
        mix = [(2.0, ident), *L.individual_streams(world)]
        world.person("instruction_set", group, mix, weight=L.honest_volume(world))


def _failover(world: World) -> None:
    """A firm's traffic jumps in when its other provider fails: silence, then everything at once."""
    begin = world.start_us + int(world.rng.uniform(3, 10) * DAY_US)
    members = firm(world, "enterprise_undeclared", "failover")
    streams = [L.script(world) for _ in range(2)]
    for ident in streams:
        world.streams[ident] = replace(world.streams[ident], window_us=(begin, begin + DAY_US // 2))
    for index in members:
        use(world.accounts[index], streams)
