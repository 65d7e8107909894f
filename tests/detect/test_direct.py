"""Direct tests: their false-positive rate under the null, and their power."""

from __future__ import annotations

import numpy as np

from stillwatch.detect.direct import (
    DAY_US,
    sign_ups,
    signup_batch,
    takeover,
    work_split,
)


def _slots(rng: np.random.Generator, split: bool) -> tuple[np.ndarray, np.ndarray]:
    accounts = np.repeat(np.arange(60), 40)
    if split:
        items = rng.choice(50 * 60, 60 * 40, replace=False)
        first, second = items // 60, items % 60
    else:
        first, second = rng.zipf(1.6, 2400) % 50, rng.integers(0, 60, 2400)
    return accounts, np.column_stack([first + 1, second + 1001]).astype(np.uint64)


def test_a_partition_is_seen_and_independent_users_are_not() -> None:
    rng = np.random.default_rng(1)
    assert work_split(*_slots(rng, split=True)).p < 1e-6
    fired = sum(work_split(*_slots(rng, split=False)).p < 0.05 for _ in range(60))
    assert fired <= 8


def test_accounts_with_private_slots_make_no_claim() -> None:
    rng = np.random.default_rng(2)
    accounts = np.repeat(np.arange(40), 20)
    slots = np.column_stack([accounts + 1, 5000 + rng.integers(0, 30, 800)]).astype(np.uint64)
    assert work_split(accounts, slots).p == 1.0


def test_scripted_sign_ups_are_seen_and_a_viral_day_is_not() -> None:
    rng = np.random.default_rng(3)
    people = 20_000 * DAY_US + rng.integers(0, 30, 5000) * DAY_US + rng.integers(0, DAY_US, 5000)
    launch = 20_010 * DAY_US + np.clip(rng.normal(0.7, 0.05, 600), 0, 0.99) * DAY_US
    script = (
        np.repeat((20_012 + np.arange(5)) * DAY_US + rng.integers(0, DAY_US - 400_000_000, 5), 8)
        + np.tile(np.arange(8), 5) * 40_000_000
    )
    lesson = 20_014 * DAY_US + rng.integers(0, 900_000_000, 30)
    created = np.concatenate([people, launch, script, lesson]).astype(np.int64)
    opened = sign_ups(created, np.zeros(len(created), np.int64))
    assert signup_batch(opened, np.arange(5600, 5640)).p < 1e-6
    assert signup_batch(opened, np.arange(5640, 5670)).p == 1.0, "one session is no script"
    assert signup_batch(opened, np.arange(5000, 5100)).p > 1e-3
    assert signup_batch(opened, np.arange(0, 100)).p > 1e-3


def test_hot_standby_is_seen_and_chance_is_not() -> None:
    rng = np.random.default_rng(4)
    end = rng.integers(2 * DAY_US, 10 * DAY_US, 40)
    begin = np.concatenate([[DAY_US // 2], end[:-1] + 30_000_000])
    zero = np.zeros(40, np.int64)
    members = np.arange(40)
    assert takeover(begin, end, zero, members, 14 * DAY_US, 0).p < 1e-6
    # Within a launch's hour people come and go all the time.
    come = 5 * DAY_US + np.sort(np.abs(rng.normal(0, 2_000_000_000, 40)).astype(np.int64))
    go = come + rng.integers(60_000_000, 1_200_000_000, 40)
    assert takeover(come, go, zero, members, 14 * DAY_US, 0).p > 1e-4
    chance = rng.integers(2 * DAY_US, 10 * DAY_US, 40)
    assert takeover(chance, end, zero, members, 14 * DAY_US, 0).p > 1e-3


def test_dates_without_a_time_of_day_are_no_batch() -> None:
    created = np.random.default_rng(4).integers(20_000, 20_030, 400) * 86_400_000_000
    found = signup_batch(sign_ups(created, np.zeros(400, np.int64)), np.arange(60))
    assert (found.p, found.observed) == (1.0, 0)
