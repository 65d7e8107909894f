"""Honest accounts: individuals, and every kind of honest group that resembles an operation."""

from __future__ import annotations

import numpy as np

from stillwatch.arena.infrastructure import hex_token
from stillwatch.arena.text import TextSource, new_template
from stillwatch.arena.timing import DAY_US, HOUR_US, daily_curve
from stillwatch.arena.world import LOG_DAYS, LOG_HOURS, ZONES, Stream, World

HOUSEHOLD_SHARE = 0.02
"""Share of individuals who live with another customer."""


def individual_streams(world: World) -> list[tuple[float, int]]:
    """What an unrelated person does: chat, now and then a script of their own, sometimes a public program."""
    rng = world.rng
    streams = []
    kind = rng.random()
    if kind < 0.75:
        system = None
        if rng.random() < 0.25:
            system = (
                " ".join(world.source.wording(rng, harvest=False)[:2])
                .replace("<a>", "it")
                .replace("<b>", "that")
            )
        chat = Stream(
            world.request(program=False),
            mean_length=float(rng.uniform(1.5, 7)),
            gap_s=float(rng.lognormal(4.2, 0.5)),
            system=system,
        )
        streams.append((1.0, world.stream(chat)))
    if kind > 0.5:
        streams.append((float(rng.uniform(0.2, 1.5)), script(world)))
    if world.public_streams and rng.random() < 0.12:
        streams.append((float(rng.uniform(0.1, 1.0)), int(rng.choice(world.public_streams))))
    return streams


def script(
    world: World,
    *,
    harvest: bool = False,
    variants: int = 1,
    slots: tuple[int, int] | None = None,
    length: float | None = None,
    source: TextSource | None = None,
) -> int:
    """A bulk stream around one new template; honest and hostile programs are built here alike."""
    rng = world.rng
    size = slots or (int(rng.integers(5, 60)), int(rng.integers(5, 60)))
    template = new_template(rng, source or world.source, harvest=harvest, variants=variants, slots=size)
    return world.stream(
        Stream(
            world.request(program=bool(rng.random() < 0.65)),
            template=template,
            harvest=harvest,
            mode="bulk",
            mean_length=length or float(rng.uniform(3, 20)),
            gap_s=float(rng.lognormal(3.0, 1.0)),
        )
    )


def honest_volume(world: World) -> float:
    """Relative volume of an honest account: lognormal with a heavy tail."""
    return float(min(1 + world.rng.lognormal(1.6, 1.35), 3000))


def add_individuals(world: World, count: int) -> None:
    """Unrelated people; a few live together and share the address and the card."""
    home = None
    for _ in range(count):
        account = world.person("individual", -1, individual_streams(world), weight=honest_volume(world))
        if home is not None and world.rng.random() < HOUSEHOLD_SHARE:
            account.region, account.places, account.signup_place = (
                home.region,
                home.places[:1],
                home.signup_place,
            )
            account.payment_fp, account.payment_kind = home.payment_fp, home.payment_kind
        home = account


def add_coding_agents(world: World, count: int) -> None:
    """Heavy honest users: agent loops around the clock, long prefixes, few user turns."""
    rng = world.rng
    tools = [int(rng.integers(1, 1 << 63)) for _ in range(4)]
    world.public_tools.extend(tools)
    systems = [
        " ".join(world.source.wording(rng, harvest=False))
        .replace("<a>", "the repository")
        .replace("<b>", "the task")
        for _ in range(4)
    ]
    for _ in range(count):
        which = int(rng.integers(4))
        request = world.request(program=True)
        request = type(request)(
            request.max_tokens,
            request.temperature,
            request.stream,
            request.endpoint,
            request.model,
            tools_hash=tools[which],
            reasoning_effort="high",
        )
        agent = Stream(
            request,
            mode="agent",
            mean_length=float(rng.uniform(20, 80)),
            gap_s=float(rng.uniform(4, 25)),
            system=systems[which],
        )
        account = world.person(
            "coding_agent", -1, [(1.0, world.stream(agent))], weight=12 * honest_volume(world)
        )
        account.schedule = np.ones(LOG_HOURS)
        account.schedule_share = float(rng.uniform(0.2, 0.9))


def add_framework(world: World, size: int) -> None:
    """Unrelated users of one open-source program: its prompt and client stack, the rest their own."""
    rng = world.rng
    group = world.group("framework", None, size=size)
    stack = world.popular_stack(sdk=True)
    templates = [script(world, variants=int(rng.integers(1, 4))) for _ in range(int(rng.integers(1, 5)))]
    world.public_streams.append(templates[0])
    for _ in range(size):
        own = individual_streams(world) if rng.random() < 0.5 else []
        chosen = rng.permutation(len(templates))[: int(rng.integers(1, len(templates) + 1))]
        mix = own + [(float(rng.uniform(0.5, 3)), templates[i]) for i in chosen]
        account = world.person("framework", group, mix, weight=honest_volume(world) * 1.5)
        account.stacks = [stack] + account.stacks[:1] * (rng.random() < 0.4)


def add_enterprise(world: World, size: int, form: str) -> None:
    """One firm. `form`: `enterprise_verified`, `enterprise_unverified` or `enterprise_undeclared`."""
    rng = world.rng
    remote = bool(rng.random() < 0.2)
    own_cards = form != "enterprise_verified" and bool(rng.random() < 0.3)
    group = world.group(form, None, size=size, remote_first=remote, own_cards=own_cards)
    region = int(rng.integers(12))
    domain = f"{hex_token(rng, 9)}.example"
    entity = f"org_{hex_token(rng, 12)}" if form != "enterprise_undeclared" else None
    offices = [int(b) for b in rng.choice(world.network.offices, int(rng.integers(1, 4)), replace=False)]
    payer = hex_token(rng)
    stack = world.popular_stack(sdk=True)
    templates = [script(world, variants=int(rng.integers(1, 5))) for _ in range(int(rng.integers(1, 5)))]
    office = daily_curve(
        LOG_HOURS,
        ZONES[region],
        peak=13,
        width=3,
        floor=0.01,
        weekend=0.05,
        first_weekday=world.first_weekday,
    )
    office = office * rng.gamma(2.0, 0.5, LOG_HOURS)
    start = world.signup(region)
    spread = float(rng.uniform(2, 60))
    for _ in range(size):
        count = int(rng.integers(1, len(templates) + 1))
        mix = [(float(rng.uniform(0.5, 3)), templates[i]) for i in rng.permutation(len(templates))[:count]]
        if rng.random() < 0.6:
            mix += individual_streams(world)
        account = world.person(form, group, mix, weight=honest_volume(world) * 1.3, region=region)
        if not remote:
            homes = account.places[:1] if rng.random() < 0.3 else []
            account.places = [
                world.place(b) for b in offices[: int(rng.integers(1, len(offices) + 1))]
            ] + homes
            account.signup_place = account.places[0]
        account.entity_id = entity
        account.verified = None if entity is None else form == "enterprise_verified"
        if rng.random() < (0.15 if own_cards else 0.93):
            account.payment_fp, account.payment_kind = payer, "invoice"
        account.tier = "enterprise" if form == "enterprise_verified" else "tier2"
        if rng.random() < 0.92:
            account.email_domain = domain
        account.schedule, account.schedule_share = office, float(rng.uniform(0.4, 0.95))
        if rng.random() < 0.7:
            account.stacks = [stack]
        joined = start + int(rng.exponential(spread) * DAY_US)
        account.created_us = min(joined, world.end_us - 4 * DAY_US)


def add_benchmark(world: World, size: int) -> None:
    """Unrelated people who run the same public item set, most of them after a release."""
    rng = world.rng
    count = int(rng.integers(150, 600))
    group = world.group("benchmark", None, size=size, items=count)
    streams = public_items(world, count, harvest=False)
    rush = np.full(LOG_HOURS, 0.02)
    hour = int((world.release_us - world.start_us) // HOUR_US)
    rush[hour : hour + 60] += np.exp(-np.arange(len(rush[hour : hour + 60])) / 18.0)
    for _ in range(size):
        mix = [
            (float(rng.uniform(1, 4)), streams[int(rng.integers(len(streams)))]),
            *individual_streams(world),
        ]
        account = world.person("benchmark", group, mix, weight=honest_volume(world) * 1.5)
        account.schedule, account.schedule_share = rush, float(rng.uniform(0.3, 0.8))


def public_items(world: World, count: int, *, harvest: bool) -> list[int]:
    """Streams over one finite item set, in one to three public prompt styles."""
    rng = world.rng
    material = world.source.material(rng, np.zeros(count, dtype=np.int64))
    items = tuple((int(rng.integers(20)), int(rng.integers(20)), text) for text in material)
    streams = []
    for _ in range(int(rng.integers(1, 4))):
        template = new_template(rng, world.source, harvest=harvest, slots=(20, 20))
        streams.append(
            world.stream(
                Stream(
                    world.request(program=True),
                    template=template,
                    harvest=harvest,
                    mode="bulk",
                    mean_length=25,
                    gap_s=6,
                    items=items,
                )
            )
        )
    return streams


def add_classroom(world: World, size: int) -> None:
    """A course: one campus block, shared lessons, the same assignments, each pays alone."""
    rng = world.rng
    group = world.group("classroom", None, size=size)
    region = int(rng.integers(12))
    campus = int(rng.choice(world.network.campuses))
    material = world.source.material(rng, np.zeros(int(rng.integers(10, 40)), dtype=np.int64))
    items = tuple((int(rng.integers(8)), int(rng.integers(8)), text) for text in material)
    template = new_template(rng, world.source, harvest=bool(rng.random() < 0.3), slots=(8, 8))
    task = world.stream(
        Stream(
            world.request(program=False),
            template=template,
            mode="bulk",
            mean_length=4,
            gap_s=240,
            items=items,
        )
    )
    lessons = np.full(LOG_HOURS, 0.01)
    begin = int(rng.integers(8, 17))
    for day in rng.choice(LOG_DAYS, 5, replace=False):
        at = int(day) * 24 + (begin - ZONES[region]) % 24
        lessons[at : at + 2] += 1.0
    first = world.signup(region)
    for _ in range(size):
        mix = [(2.0, task), *individual_streams(world)]
        account = world.person("classroom", group, mix, weight=float(2 + rng.poisson(6)), region=region)
        account.places = [world.place(campus), *account.places[:1]]
        account.program = "education" if rng.random() < 0.6 else account.program
        account.schedule, account.schedule_share = lessons, float(rng.uniform(0.5, 0.9))
        if rng.random() < 0.6:
            account.created_us = min(first + int(rng.uniform(0, 2 * HOUR_US)), world.end_us - 4 * DAY_US)


def add_gateway(world: World, trust: str) -> None:
    """A registered reseller: few accounts, many end users, contract on file."""
    rng = world.rng
    size = int(rng.integers(3, 9))
    group = world.group("gateway", None, size=size, end_user_trust=trust)
    blocks = [int(b) for b in rng.choice(world.network.hosts, 3, replace=False)]
    payer, domain = hex_token(rng), f"{hex_token(rng, 8)}.example"
    for _ in range(size):
        mix: list[tuple[float, int]] = []
        for _ in range(int(rng.integers(4, 12))):
            mix += individual_streams(world)
        account = world.person("gateway", group, mix, weight=40 * (5 + honest_volume(world)))
        account.places = [world.place(b) for b in blocks]
        account.signup_place = account.places[0]
        account.stacks = [world.popular_stack(sdk=True)]
        account.payment_fp, account.payment_kind, account.email_domain = payer, "invoice", domain
        account.contract, account.tier = "gateway", "enterprise"
        account.end_users = [hex_token(rng, 12) for _ in range(int(rng.integers(30, 200)))]
        account.end_user_trust = trust
        account.language = -1
        account.created_us = min(account.created_us, world.start_us - 30 * DAY_US)


def add_viral_launch(world: World, size: int) -> None:
    """A region discovers the service on one day: many sign-ups, the same few networks, separate use."""
    rng = world.rng
    group = world.group("viral_launch", None, size=size)
    region = int(rng.integers(12))
    day = world.start_us + int(rng.integers(1, 8)) * DAY_US
    blocks = [int(b) for b in rng.choice(world.network.mobiles, 3)] + [
        world.block_at_home(region) for _ in range(max(4, size // 8))
    ]
    curve = world.curve(region)[:24]
    cdf = np.cumsum(curve / curve.sum())
    stack = world.popular_stack(sdk=False)
    for _ in range(size):
        account = world.person(
            "viral_launch",
            group,
            individual_streams(world),
            weight=float(min(2 + rng.exponential(8), 25)),
            region=region,
        )
        account.created_us = day + int((np.searchsorted(cdf, rng.random()) + rng.random()) * HOUR_US)
        account.active_us = (account.created_us, world.end_us)
        account.places = [world.place(int(rng.choice(blocks)))]
        account.signup_place = account.places[0]
        account.tier, account.program, account.payment_fp, account.payment_kind = "free", "trial", None, None
        account.referral = "social"
        if rng.random() < 0.6:
            account.stacks = [stack]
