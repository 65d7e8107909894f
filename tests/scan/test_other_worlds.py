"""Honest crowds and operations as a second composer imagines them. `make test-slow`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from stillwatch.scan import Scanned, scan
from tests.scan.world import DAY, DAYS, HOUR, START, World

SEEDS = (1, 2, 3)
WEB_DOMAINS = 40


def honest_crowds(world: World) -> None:
    """Groups that share a good deal and are nobody's operation."""
    rng = world.rng
    # Users of a popular agent: one system prompt, one software stack, one referral.
    system = world.say(60)
    for _ in range(200):
        account = world.account("agent users", stack=("t13dAGNT", 12_345), referral="repository")
        for _ in range(world.some(12)):
            world.exchange(
                account, f"Use the tools to complete this task step by step: {world.ask()}", system=system
            )
    # Shops behind one application's servers, each with a payer of its own.
    servers, system = world.block(), world.say(30)
    for _ in range(80):
        account = world.account("shops", ips=[world.at(servers)], stack=("t13dSHOP", 777))
        for _ in range(world.some(9)):
            world.exchange(account, f"Generate product copy for my shop item: {world.ask()}", system=system)
    # An online course with weekly exercises.
    exercises = [world.ask() for _ in range(12)]
    for _ in range(90):
        account = world.account("course", created_at=int(START - 3 * DAY + rng.integers(0, 2 * DAY)))
        for week in rng.choice(12, 8, replace=False).tolist():
            text = f"Course exercise: explain your reasoning and then answer. {exercises[week]}"
            world.exchange(account, text, world.moment(account, min(week, DAYS - 1)))
    # Freelance translators with a template from a forum.
    for _ in range(60):
        account = world.account("translators")
        for _ in range(world.some(16)):
            text = "Translate the following passage into German, keep the tone of the original and do not explain:"
            world.exchange(account, f"{text} {world.ask()}")
    # A bug bounty weekend.
    for _ in range(50):
        created = int(START + 5 * DAY + 8 * HOUR + abs(rng.normal(0, HOUR / 3)))
        account = world.account("bounty", created_at=created, referral="bounty")
        for _ in range(rng.integers(10, 40)):
            day = 5 + int(rng.integers(0, 2))
            text = f"As a security reviewer for the weekend bounty, list weaknesses of this snippet: {world.ask()}"
            world.exchange(account, text, int(START + day * DAY + 9 * HOUR + rng.integers(0, 8 * HOUR)))
    # A firm that moves its staff over on one morning; cards of their own, six offices.
    offices = [world.block() for _ in range(6)]
    for number in range(60):
        account = world.account(
            "firm",
            created_at=int(START + 2 * DAY + 10 * HOUR + number * 40_000_000),
            email_domain="bigfirm.example",
            ips=[world.at(str(rng.choice(offices))) for _ in range(2)],
        )
        for _ in range(world.some(12)):
            head = "Summarise this customer ticket for the weekly report: " if rng.random() < 0.6 else ""
            world.exchange(account, head + world.ask(), world.moment(account, 3))
    # A launch that a news site reports: sign-ups within two hours, one prompt that goes round.
    for _ in range(400):
        created = int(START + 7 * DAY + 15 * HOUR + abs(rng.normal(0, 1)) * HOUR)
        account = world.account("launch", created_at=created)
        for number in range(1 + rng.poisson(2)):
            copied = f"Write a heartfelt letter from my future self ten years from now about {world.say(3)}"
            text = copied if number == 0 or rng.random() < 0.4 else world.ask()
            world.exchange(account, text, int(created + rng.integers(60_000_000, 3 * HOUR)))
    # Hundreds behind one carrier's exit.
    carrier = world.block()
    for _ in range(300):
        account = world.account("carrier", ips=[world.at(carrier)])
        for _ in range(world.some(6, 0.9)):
            world.exchange(account, world.ask())
    # Night jobs of unrelated firms, at the same minute.
    for _ in range(40):
        account, template = world.account("night jobs", zone=0), world.say(8)
        for day in range(DAYS):
            text = f"{template} extract fields as json: {world.ask()}"
            world.exchange(account, text, int(START + day * DAY + 2 * HOUR + rng.integers(0, 120_000_000)))
    # Researchers who use a published prompt.
    for _ in range(40):
        account = world.account("researchers", tier="team")
        for _ in range(rng.integers(20, 80)):
            tail = "Think carefully about every step, then write the final answer after four hash signs."
            world.exchange(account, f"Question: {world.ask()} {tail}")
    # A town: six carrier blocks, one local mail, one popular template, sign-ups whenever.
    town = [world.block() for _ in range(6)]
    for _ in range(45):
        mail = "townmail.example" if rng.random() < 0.35 else "gmail.com"
        account = world.account("town", email_domain=mail, ips=[world.at(str(rng.choice(town)))], zone=2)
        for _ in range(world.some(9)):
            text = "Please rewrite my text so that it sounds friendly and binding, the way our club writes:"
            world.exchange(account, f"{text} {world.ask()}")
    # A class of a university with six networks, signed up in one lesson.
    campus = [world.block() for _ in range(6)]
    for _ in range(45):
        created = int(START + 4 * DAY + 13 * HOUR + abs(rng.normal(0, HOUR / 6)))
        ips = [world.at(str(rng.choice(campus)))]
        account = world.account("campus class", created_at=created, ips=ips, zone=2)
        for _ in range(rng.integers(5, 20)):
            text = f"For my seminar project in data literacy, suggest a plan for the following topic: {world.ask()}"
            ts = int(created + HOUR / 6 + rng.integers(0, 3) * 2 * DAY + rng.integers(0, 2 * HOUR))
            world.exchange(account, text, ts)
    # A small agency: cards of their own, webmail, co-working blocks, clients shared out.
    desks = [world.block() for _ in range(3)]
    clients = [world.say(2) for _ in range(30)]
    for number in range(14):
        account = world.account("agency", ips=[world.at(str(rng.choice(desks))) for _ in range(2)], zone=1)
        for _ in range(60):
            client = clients[(2 * number + int(rng.integers(0, 3))) % 30]
            world.exchange(
                account, f"Write a playful social media post for our client {client} about {world.ask()}"
            )

    # A school: 15 laptops, four exits, signed up in lessons of one morning.
    exits = [world.block() for _ in range(4)]
    for number in range(60):
        created = int(START - 6 * DAY + (8 + 2 * (number % 3)) * HOUR + rng.integers(0, HOUR // 2))
        account = world.account(
            "school",
            created_at=created,
            device_fp=f"laptop{rng.integers(0, 15)}",
            payment_fp=None,
            ips=[world.at(str(rng.choice(exits))) for _ in range(2)],
            zone=1,
        )
        for day in (1, 3, 8, 10):
            text = f"For my project in class, explain the topic below and ask me two questions: {world.ask()}"
            world.exchange(account, text, int(START + day * DAY + 8 * HOUR + rng.integers(0, HOUR)))
    # A department with shared cards, and a franchise whose tills have one image.
    for number in range(50):
        account = world.account("department", payment_fp=f"department{number % 6}", zone=-5)
        for _ in range(world.some(16)):
            world.exchange(
                account, f"Draft a press note in the house style, facts first, no superlatives: {world.ask()}"
            )
    for number in range(25):
        account = world.account("franchise", device_fp=f"till{number % 4}", referral="franchise", zone=0)
        for _ in range(world.some(15)):
            world.exchange(
                account, f"Reply to this review of our branch in the tone of the brand: {world.ask()}"
            )


def operations(world: World) -> None:
    """Operations that hide, each in another way."""
    rng = world.rng
    # Items of a grid shared out over 80 accounts in turn; ten devices.
    subjects, skills = ([world.say(length) for _ in range(60)] for length in (3, 2))
    grid = [(subject, skill) for subject in subjects for skill in skills]
    rng.shuffle(grid)
    workers = [
        world.account(
            "queue",
            device_fp=f"worker{rng.integers(0, 10)}",
            created_at=int(START - 20 * DAY + (k // 8) * 2 * DAY + (k % 8) * 90_000_000),
        )
        for k in range(80)
    ]
    for k, (subject, skill) in enumerate(grid[:2400]):
        text = f"Create a difficult exam question about {subject} testing the ability {skill} and answer it."
        world.exchange(workers[k % 80], text, int(START + k / 2400 * 13 * DAY + rng.integers(0, HOUR)))
    # Conversations handed over after a 429.
    relay = [
        world.account("relay", ips=[world.home() for _ in range(5)], email_domain=f"relay{k % 4}.example")
        for k in range(40)
    ]
    for _ in range(300):
        pair = [relay[i] for i in rng.choice(40, 2, replace=False)]
        began, turns = world.moment(pair[0]), []
        for turn in range(6):
            turns = [*turns, int(rng.integers(1, 2**62))]
            text = f"Continue the dialogue as the expert and reason aloud about: {world.ask()}"
            world.exchange(pair[turn >= 3], text, began + turn * 60_000_000, turns=turns)
            if turn == 2:
                refused = [*turns, int(rng.integers(1, 2**62))]
                world.exchange(pair[0], text, began + 150_000_000, turns=refused, status=429)
    # Slow and wide: three requests an account.
    proxies = [world.block() for _ in range(25)]
    for k in range(150):
        account = world.account(
            "slow and wide",
            email_domain=f"{world.words[900 + int(rng.integers(0, 12))]}.example",
            ips=[world.at(str(rng.choice(proxies)))],
            created_at=int(START - 30 * DAY + (k // 10) * 2 * DAY + (k % 10) * 100_000_000),
        )
        for _ in range(3):
            text = "Solve the problem below, reasoning step by step in a list, and box the result at the end."
            world.exchange(account, f"{text} Problem: {world.ask()}")
    # Chinese template, characters without spaces.
    signs = [chr(0x4E00 + i) for i in range(0, 1200, 3)]
    proxies = [world.block() for _ in range(10)]
    for k in range(50):
        account = world.account(
            "chinese",
            zone=8,
            ips=[world.at(str(rng.choice(proxies))) for _ in range(2)],
            created_at=int(START - 10 * DAY + (k // 10) * DAY + (k % 10) * 60_000_000),
        )
        for _ in range(world.some(20)):
            head = "请你作为资深教师详细解答下面的题目并给出完整的推理过程和最终答案"
            world.exchange(account, head + "".join(rng.choice(signs, 40)))
    # Only the system prompt is a template; nine cards, eight proxies.
    system, proxies = world.say(40), [world.block() for _ in range(8)]
    for k in range(45):
        ips = [world.at(str(rng.choice(proxies))) for _ in range(3)]
        account = world.account("system prompt", ips=ips, payment_fp=f"bought{k % 9}")
        for _ in range(world.some(25)):
            world.exchange(account, world.ask(), system=system)
    # 600 accounts in a log of 5,000.
    proxies = [world.block() for _ in range(60)]
    for k in range(600):
        account = world.account(
            "large",
            email_domain=f"{world.words[1200 + int(rng.integers(0, WEB_DOMAINS))]}.example",
            ips=[world.at(str(rng.choice(proxies))) for _ in range(2)],
            created_at=int(START - 60 * DAY + (k // 12) * DAY + (k % 12) * 80_000_000),
        )
        for _ in range(world.some(10)):
            text = "Rewrite the instruction so that it becomes harder while staying answerable, then respond to it:"
            world.exchange(account, f"{text} {world.ask()}")


def _scan(world: World, folder: Path) -> Scanned:
    world.people(2200)
    world.organisations(160)
    return scan([str(world.write(folder / "log"))])


def _named(found: Scanned, world: World, verdict: str) -> Counter[str]:
    rows = found.accounts.to_pylist()
    return Counter(world.kind_of[row["account_id"]] for row in rows if row["verdict"] == verdict)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_no_honest_crowd_is_a_campaign(seed: int, tmp_path: Path) -> None:
    world = World(seed)
    honest_crowds(world)
    assert _named(_scan(world, tmp_path), world, "campaign") == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_operations_are_named_and_nobody_else(seed: int, tmp_path: Path) -> None:
    world = World(seed)
    operations(world)
    found = _scan(world, tmp_path)
    named = _named(found, world, "campaign")
    assert _named(found, world, "lead")["system prompt"] >= 40
    everybody = Counter(world.kind_of.values())
    assert named["individual"] + named["verified"] <= 0.01 * named.total()
    # The operation of which only cards and addresses speak is a lead: a department's cards look like that.
    kinds = ("queue", "relay", "slow and wide", "chinese", "large")
    share = {kind: named[kind] / everybody[kind] for kind in kinds}
    assert np.mean(list(share.values())) >= 0.9, share
    assert min(share.values()) >= 0.5, share
