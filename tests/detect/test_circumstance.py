"""Circumstances: quiet under their nulls, loud when what they look for is there."""

from __future__ import annotations

import numpy as np
import pytest

from stillwatch.detect import circumstance as ci

RNG_SEED = 8


def test_probing_is_seen_when_declined_requests_come_first() -> None:
    rng = np.random.default_rng(RNG_SEED)
    ts = np.sort(rng.integers(0, 10**9, 400))
    refused = np.zeros(400, bool)
    refused[:90] = rng.random(90) < 0.9
    order = rng.permutation(400)
    found = ci.probing(ts[order], refused[order])
    assert found is not None
    assert found.stands_out
    assert found.observed > 0.7
    assert found.expected < 0.02
    # The same number of declined requests at any time says nothing.
    p = [c.p for c in (ci.probing(ts, rng.permutation(refused)) for _ in range(400)) if c is not None]
    assert np.mean(np.array(p) <= 0.05) < 0.08
    assert ci.probing(ts[:8], refused[:8]) is None
    assert ci.probing(ts, np.zeros(400, bool)) is None


def test_a_pivot_is_measured_against_what_everybody_does() -> None:
    rng = np.random.default_rng(RNG_SEED)
    asked = rng.integers(1, 30, 2_000)
    everybody = np.where(rng.random(2_000) < 0.4, asked, 0)
    members = np.arange(40)
    calm = ci.pivot(everybody, asked, members)
    assert calm is not None
    assert not calm.stands_out
    assert calm.expected == pytest.approx(0.4, abs=0.05)
    moved = everybody.copy()
    moved[members] = asked[members]
    found = ci.pivot(moved, asked, members)
    assert found is not None
    assert found.stands_out
    assert found.observed == 1.0
    assert ci.pivot(moved, np.zeros(2_000, np.int64), members) is None


def _hours(rng: np.random.Generator, accounts: int, floor: float) -> np.ndarray:
    curve = floor + np.exp(-(((np.arange(24) - 14) / 4) ** 2))
    return np.stack(
        [rng.multinomial(200, np.roll(curve, int(rng.integers(24))) / curve.sum()) for _ in range(accounts)]
    )


def test_flat_hours_are_compared_with_accounts_as_busy() -> None:
    rng = np.random.default_rng(RNG_SEED)
    by_hour = np.concatenate([_hours(rng, 30, 1.0), _hours(rng, 970, 0.02)])
    quiet, volume = ci.quiet_shares(by_hour), by_hour.sum(axis=1)
    found = ci.flat_hours(quiet, volume, np.arange(30))
    assert found is not None
    assert found.stands_out
    assert found.observed > 0.15 > found.expected
    p = [
        c.p
        for c in (
            ci.flat_hours(quiet, volume, rng.choice(np.arange(30, 1000), 30, replace=False))
            for _ in range(200)
        )
        if c
    ]
    assert len(p) == 200
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.12
    assert np.isnan(ci.quiet_shares(np.ones((1, 24), np.int64))[0])
    assert ci.quiet_shares(np.full((1, 24), 10))[0] == pytest.approx(8 / 24)
    # The quiet hours may lie across midnight.
    night = np.full((1, 24), 10)
    night[0, [22, 23, 0, 1, 2, 3, 4, 5]] = 0
    assert ci.quiet_shares(night)[0] == 0.0


def test_new_members_at_full_rate_are_compared_with_other_new_accounts() -> None:
    rng = np.random.default_rng(RNG_SEED)
    new = rng.random(3_000) < 0.3
    first = new & (rng.random(3_000) < 0.35)
    members = np.flatnonzero(new)[:25]
    calm = ci.full_throttle(first, new, members)
    assert calm is not None
    assert not calm.stands_out
    first[members] = True
    found = ci.full_throttle(first, new, members)
    assert found is not None
    assert found.stands_out
    assert ci.full_throttle(first, new, np.flatnonzero(~new)[:25]) is None


def test_load_that_moves_leaves_the_sum_flat() -> None:
    rng = np.random.default_rng(RNG_SEED)
    days, members = 14, 30
    bins = days * 24 // ci.BIN_HOURS
    # 120 requests in every bin, dealt to three of the accounts at a time.
    series = np.zeros((members, bins))
    for at in range(bins):
        series[rng.choice(members, 3, replace=False), at] += 40
    found = ci.moving_load(series, 1)
    assert found is not None
    assert found.stands_out
    assert found.observed < 0.01
    assert found == ci.moving_load(series, 1)
    p = [
        c.p
        for c in (ci.moving_load(rng.poisson(3, (members, bins)).astype(float), i) for i in range(150))
        if c
    ]
    assert len(p) == 150
    assert np.mean(np.array(p) <= 0.05) < 0.1
    together = rng.poisson(2 + 20 * (rng.random(bins) < 0.2), (members, bins)).astype(float)
    crowd = ci.moving_load(together, 2)
    assert crowd is not None
    assert not crowd.stands_out
    assert ci.moving_load(np.zeros((members, bins)), 1) is None
