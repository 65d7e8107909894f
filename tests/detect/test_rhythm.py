"""TIME as evidence about single accounts: who keeps a group's hours, and whom TIME cannot see."""

from __future__ import annotations

import numpy as np

from stillwatch.detect.rhythm import Rhythm, build_rhythm, rhythm_bits

HOURS = 240
EVERYBODY = np.arange(5000)


def _population(rng: np.random.Generator, members: int, others: int, per_account: int) -> Rhythm:
    duty = rng.choice(HOURS, 40, replace=False)
    rows = []
    for number in range(members + others):
        choices = duty if number < members else np.arange(HOURS)
        rows.append(np.sort(rng.choice(choices, per_account, replace=False)))
    offsets = np.arange(members + others + 1, dtype=np.int64) * per_account
    residuals = np.zeros((members + others, HOURS), np.float32)
    if per_account >= 20:
        for number, hours in enumerate(rows):
            residuals[number, hours] = 1.0
        residuals -= residuals.mean(axis=1, keepdims=True)
        residuals /= np.linalg.norm(residuals, axis=1, keepdims=True)
    return build_rhythm(residuals, offsets, np.concatenate(rows).astype(np.int32), HOURS)


def test_members_follow_the_group_and_others_do_not_loud_and_quiet() -> None:
    for per_account in (25, 4):
        rng = np.random.default_rng(per_account)
        rhythm = _population(rng, 20, 2000, per_account)
        bits = rhythm_bits(rhythm, np.arange(20), EVERYBODY[: len(rhythm.loud)])
        assert np.median(bits[:20]) > 2.0
        assert np.exp2(bits[20:]).mean() <= 1.05, "an e-value has mean at most 1 under the null"


def test_an_outsider_who_keeps_the_hours_is_found() -> None:
    rhythm = _population(np.random.default_rng(1), 21, 2000, 25)
    assert rhythm_bits(rhythm, np.arange(20), EVERYBODY[: len(rhythm.loud)])[20] > 3.0


def test_a_group_too_small_to_see_says_nothing() -> None:
    rhythm = _population(np.random.default_rng(2), 4, 200, 25)
    assert not rhythm_bits(rhythm, np.arange(4), np.arange(204)).any()


def test_the_time_zone_alone_is_no_evidence() -> None:
    rng = np.random.default_rng(4)
    zone = rng.integers(0, 24, 6000)
    rows = [
        np.unique((rng.integers(0, 10, 4) * 24 + np.round(rng.normal(14, 3, 4)).astype(int) + shift) % HOURS)
        for shift in zone
    ]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    rhythm = build_rhythm(
        np.zeros((6000, HOURS), np.float32), offsets, np.concatenate(rows).astype(np.int32), HOURS
    )
    neighbours = np.flatnonzero(zone == 8)
    group, others = neighbours[:80], neighbours[80:]
    assert np.exp2(rhythm_bits(rhythm, group, others)).mean() <= 1.1
    assert (rhythm_bits(rhythm, group, others) >= 1.0).mean() <= 0.1
