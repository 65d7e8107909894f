"""Compiled passes against the plain formula that they stand for, on random data."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from stillwatch.detect import members as mb
from stillwatch.detect.confirm import mean_correlation
from stillwatch.detect.direct import _shared_out
from stillwatch.detect.keys import KeyIndex, build_index, without
from stillwatch.detect.population import DONORS_PER_SEAT, LEVELS, build_strata, seats_for
from stillwatch.detect.rhythm import _column_products, _products, build_rhythm

ACCOUNTS, KEYS = 400, 150


@pytest.fixture
def index() -> KeyIndex:
    rng = np.random.default_rng(1)
    rows = np.unique(rng.integers(0, (ACCOUNTS, KEYS), (3000, 2)), axis=0).astype(np.int32)
    made = build_index(rows[:, 0], rows[:, 1], np.ones(len(rows), np.int32), ACCOUNTS, KEYS)
    return without(made, rng.random(KEYS) < 0.4)


def test_the_telling_part_of_an_index_is_its_keys_with_a_weight(index: KeyIndex) -> None:
    part = index.telling
    assert (part.weight > 0).all()
    for account in range(ACCOUNTS):
        mine = part.key[part.keys[part.account_offsets[account] : part.account_offsets[account + 1]]]
        assert mine.tolist() == [k for k in index.of(account).tolist() if index.weight[k] > 0]
    members = np.arange(50)
    place, count = part.held(members)
    assert (index.group_counts(members)[part.key[place]] == count).all()


def test_each_account_is_judged_by_the_innocent_mixture_that_fits_it_best(index: KeyIndex) -> None:
    rng = np.random.default_rng(2)
    base, accounts = mb.background(index, True), np.arange(120)
    group = mb.profile(index, np.arange(30))
    niches = [mb.profile(index, np.sort(rng.choice(ACCOUNTS, 40, replace=False))) for _ in range(9)]
    keys, owner, ratio = mb.ratios(index, accounts, group, base, mb.niches_of(index, niches))
    null = base.share.copy()
    null[group.key] = base.without(group.key, group.count)
    shares = mb.SMOOTH * base.share
    shares[group.key] += (1 - mb.SMOOTH) * group.share
    for account in accounts.tolist():
        mine = np.array([k for k in index.of(account).tolist() if index.weight[k] > 0], np.int64)
        assert keys[owner == account].tolist() == mine.tolist()
        best = np.log(null[mine])
        for niche in niches:
            dense = np.zeros(KEYS)
            dense[niche.key] = niche.share
            for share in mb.MIXTURES[1:]:
                mixed = np.log((1 - share) * null[mine] + share * dense[mine])
                best = mixed if mixed.sum() > best.sum() else best
        assert ratio[owner == account] == pytest.approx(shares[mine] / np.exp(best))

    # One account by itself has the same ratios, to the last digit, and so the same bits.
    every = mb.log_e(index, accounts, group, base, mb.niches_of(index, niches))[0]
    for account in accounts.tolist():
        alone = np.array([account])
        again = mb.ratios(index, alone, group, base, mb.niches_of(index, niches))[2]
        assert (again == ratio[owner == account]).all()
        assert mb.log_e(index, alone, group, base, mb.niches_of(index, niches))[0][0] == every[account]


def test_hours_are_added_up_in_the_same_order_however_many_accounts_go_at_once() -> None:
    rng = np.random.default_rng(3)
    for accounts, hours in ((1030, 338), (7, 3), (0, 5)):
        rows, total = rng.normal(size=(accounts, hours)).astype(np.float32), rng.normal(size=hours)
        plain = np.zeros(accounts)
        for h in range(hours):
            plain += rows[:, h].astype(np.float64) * total[h]
        assert (_products(rows, np.arange(accounts), total) == plain).all()
        assert (_column_products(np.ascontiguousarray(rows.T), total) == plain).all()


def test_quiet_members_do_not_count_in_the_mean_correlation() -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(60, 48)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[::3] = 0
    rhythm = build_rhythm(rows, np.arange(61), np.zeros(60, np.int32), 48)
    members = np.arange(5, 50)
    loud = rows[[m for m in members.tolist() if m % 3]].astype(float)
    pairs = [float(a @ b) for a, b in combinations(loud, 2)]
    assert mean_correlation(rhythm, members) == pytest.approx(np.mean(pairs), abs=1e-6)


def test_every_seat_has_the_donors_of_the_finest_level_that_has_enough() -> None:
    rng = np.random.default_rng(5)
    n = 900
    parts = rng.integers(1, 50, n), rng.integers(0, 3, n).astype(np.uint8), rng.integers(0, 4, n)
    able = rng.random(n) < 0.8
    strata = build_strata(*parts, rng.integers(0, 2, n), rng.integers(0, 2, n), able)
    members = np.sort(rng.choice(n, 25, replace=False))
    excluded = np.zeros(n, bool)
    excluded[members] = True
    seats = seats_for(strata, members, excluded)
    excluded |= ~able
    still = np.ones(len(members), bool)
    for level in range(len(LEVELS)):
        code = strata.code[level]
        for seat in np.flatnonzero(still):
            alike = still & (code[members] == code[members[seat]])
            donors = np.flatnonzero((code == code[members[seat]]) & ~excluded)
            if len(donors) >= DONORS_PER_SEAT * alike.sum() or level == len(LEVELS) - 1:
                found = seats.pool[seats.start[seat] : seats.start[seat] + seats.size[seat]]
                assert sorted(found.tolist()) == donors.tolist()
        enough = {
            c
            for c in np.unique(code[members[still]]).tolist()
            if ((code == c) & ~excluded).sum() >= DONORS_PER_SEAT * (still & (code[members] == c)).sum()
        }
        still &= ~np.isin(code[members], sorted(enough))


def test_pairs_of_requests_that_share_slots_are_counted_between_accounts_only() -> None:
    rng = np.random.default_rng(6)
    owner, first, second = (rng.integers(0, top, 80) for top in (6, 9, 5))
    rows = sorted(set(zip(owner.tolist(), first.tolist(), second.tolist(), strict=True)))
    apart = [(a, b) for a, b in combinations(rows, 2) if a[0] != b[0]]
    counts = (
        len(apart),
        sum(a[1] == b[1] for a, b in apart),
        sum(a[2] == b[2] for a, b in apart),
        sum(a[1:] == b[1:] for a, b in apart),
    )
    # Codes that together need more bits than a number has are sorted one by one.
    for bits in ((4, 3), (31, 31)):
        assert _shared_out(owner, first, second, bits) == counts
