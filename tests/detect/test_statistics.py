"""Confirmation, conformal naming and membership on data with known truth."""

from __future__ import annotations

import numpy as np
import pytest

from stillwatch.detect.confirm import benjamini_hochberg, keys_against_null, subgroups, tail_p
from stillwatch.detect.explain import benchmark, classroom, openness, web
from stillwatch.detect.keys import KeyIndex, build_index, lighter
from stillwatch.detect.members import background, combine_views, e_benjamini_hochberg, key_bits
from stillwatch.detect.population import Draws, build_strata, seats_for
from stillwatch.detect.score import coincidences, conformal, item_space


def _population(rng: np.random.Generator, shared: int, group: int = 40) -> KeyIndex:
    """3,000 accounts with five of 4,000 keys each; the first `group` hold `shared` common keys besides."""
    account = np.repeat(np.arange(3000), 5)
    key = rng.integers(0, 4000, 15_000)
    account = np.concatenate([account, np.repeat(np.arange(group), shared)])
    key = np.concatenate([key, np.tile(4000 + np.arange(shared), group)])
    pairs = np.unique(np.column_stack([account, key]), axis=0).astype(np.int32)
    return build_index(pairs[:, 0], pairs[:, 1], np.ones(len(pairs), np.int32), 3000, 4000 + shared)


def _p(index: KeyIndex, members: np.ndarray, seed: int) -> float:
    rng = np.random.default_rng(0)
    strata = build_strata(
        rng.integers(1, 50, 3000),
        np.zeros(3000, np.uint8),
        np.zeros(3000, np.int64),
        rng.integers(0, 4, 3000),
        np.zeros(3000, np.int64),
        np.ones(3000, bool),
    )
    excluded = np.zeros(3000, bool)
    excluded[members] = True
    parts = subgroups(members, seed)
    seats = [seats_for(strata, part, excluded) for part in parts]
    return keys_against_null(index, "LINK", parts, seats, Draws.of(seed, "test", members)).p


def test_random_groups_are_confirmed_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(5)
    index = _population(rng, 0)
    p = [_p(index, np.sort(rng.choice(3000, 40, replace=False)), i) for i in range(120)]
    assert sum(value <= 0.05 for value in p) <= 13
    assert 0.35 < float(np.mean(p)) < 0.65


def test_a_group_with_shared_keys_is_confirmed() -> None:
    assert _p(_population(np.random.default_rng(6), 1), np.arange(40), 1) < 1e-4


@pytest.mark.parametrize(("staff_stand_in", "light"), [(False, True), (True, False)])
def test_strangers_on_popular_carriers_are_not_tied(staff_stand_in: bool, light: bool) -> None:
    """2,000 consumers on three carriers and four mail providers, 1,000 people on networks and domains of their firms.

    The right null says nothing about random consumers; with staff as donors and every carrier's pairs in full it
    would call nearly all of them coordinated.
    """
    rng = np.random.default_rng(11)
    consumers, firms = np.arange(2000), np.arange(2000, 3000)
    pairs = [
        np.column_stack([consumers, rng.choice(3, 2000, p=[0.5, 0.3, 0.2])]),
        np.column_stack([consumers, 3 + rng.integers(0, 4, 2000)]),
        np.column_stack([consumers, 7 + rng.integers(0, 1500, 2000)]),
        np.column_stack([firms, 1507 + (firms - 2000) // 10]),
    ]
    rows = np.concatenate(pairs).astype(np.int32)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    index = build_index(rows[:, 0], rows[:, 1], np.ones(len(rows), np.int32), 3000, 1607)
    if light:
        index = lighter(index, 30)
    flat = np.zeros(3000, np.int64)
    donors = np.ones(3000, bool) if staff_stand_in else np.arange(3000) < 2000
    strata = build_strata(rng.integers(1, 50, 3000), np.zeros(3000, np.uint8), flat, flat, flat, donors)
    p = []
    for draw in range(60):
        members = np.sort(rng.choice(consumers, 50, replace=False))
        excluded = np.zeros(3000, bool)
        excluded[members] = True
        seats = [seats_for(strata, members, excluded)]
        draws = Draws.of(draw, "test", members)
        p.append(keys_against_null(index, "LINK", [members], seats, draws).p)
    share = float(np.mean(np.array(p) <= 0.05))
    assert share >= 0.9 if staff_stand_in else share <= 0.15


def test_parts_of_a_large_group_are_compared_with_one_null() -> None:
    rng = np.random.default_rng(9)
    index = _population(rng, 0)
    p = [_p(index, np.sort(rng.choice(3000, 600, replace=False)), i) for i in range(60)]
    assert sum(value <= 0.05 for value in p) <= 6
    assert _p(_population(rng, 1, 400), np.arange(400), 1) < 1e-4


def test_the_fitted_tail_errs_on_the_careful_side() -> None:
    rng = np.random.default_rng(7)
    truth = 1e-4
    found = [tail_p(rng.exponential(size=999), -np.log(truth)) for _ in range(40)]
    assert np.median(found) >= truth / 2
    assert np.median(found) < 50 * truth


def test_benjamini_hochberg_by_hand() -> None:
    assert benjamini_hochberg(np.array([0.01, 0.04, 0.03])).tolist() == [0.03, 0.04, 0.04]


def test_with_nine_references_little_can_be_named_and_the_output_says_how_many_it_takes() -> None:
    score = np.concatenate([np.arange(9.0), np.full(8, 99.0), np.full(38, 3.0)])
    reference = np.arange(len(score)) < 9
    outcome = conformal(score, reference, ~reference)
    assert outcome.p_min == 0.1
    assert (outcome.q > 0.10).all()
    assert outcome.needed == 57
    many = np.concatenate([np.linspace(0, 5, 200), score[9:]])
    reference = np.arange(len(many)) < 200
    assert (conformal(many, reference, ~reference).q[:8] <= 0.10).all()


def test_item_space_orders_a_wide_harvest_above_a_narrow_habit() -> None:
    rng = np.random.default_rng(8)
    wide, narrow = rng.integers(0, 10**9, 2000), rng.integers(0, 40, 2000)
    assert item_space(2000, coincidences(wide)) > item_space(2000, coincidences(narrow)) + 2


def test_openness_names_the_strongest_channel() -> None:
    unknown = np.full(4, -1)
    found = openness(np.array([1, 1, 1, 2]), np.array([-1, -1, 5, 6]), unknown, np.array([3, 3, 3, 3]))
    assert (found.share, found.kind, found.evasion) == (0.75, "payment", 0.25)


def test_a_log_that_does_not_say_who_pays_proves_no_evasion() -> None:
    unknown = np.full(9, -1)
    assert openness(unknown, unknown, unknown, unknown).evasion == 0.0
    # One kind alone may be a gap in the log.
    assert openness(unknown, np.arange(9), unknown, unknown).evasion == 0.0
    assert openness(np.arange(9), np.arange(9), unknown, unknown).evasion > 0.8


def test_members_without_a_payer_hide_nobody() -> None:
    payer = np.array([7, 7, 7, 7, -1, -1, -1])
    assert openness(payer, np.full(7, -1), np.full(7, -1), np.full(7, 3)).share == 1.0


def test_a_stock_of_addresses_is_one_web_and_teams_are_many() -> None:
    rng = np.random.default_rng(6)
    members, crowd = np.arange(40), 4000
    noise = np.column_stack([np.arange(crowd).repeat(2), 100 + rng.integers(0, 1000, crowd * 2)])
    stock = np.column_stack([members.repeat(2), rng.integers(0, 20, 80)])
    teams = np.column_stack([members, members // 4])
    for own, low, high in ((stock, 0.9, 1.0), (teams, 0.0, 0.3)):
        account, key = np.unique(np.concatenate([own, noise]), axis=0).T.astype(np.int32)
        index = build_index(account, key, np.ones(len(key), np.int32), crowd, 1100)
        assert low <= web(index, members) <= high
    assert web(index, rng.choice(crowd, 40, replace=False)) <= 0.2


def test_a_wording_that_only_the_group_uses_counts_in_a_large_group_too() -> None:
    account = np.concatenate([np.arange(600), np.arange(5000).repeat(3)])
    key = np.concatenate([np.zeros(600, int), 1 + np.random.default_rng(1).integers(0, 3000, 15_000)])
    rows = np.unique(np.column_stack([account, key]), axis=0).astype(np.int32)
    index = build_index(rows[:, 0], rows[:, 1], np.ones(len(rows), np.int32), 5000, 3001)
    group, scratch = np.arange(600), np.full(3001, -1, np.int32)
    plain, own = (key_bits(index, group, background(index, less), group, scratch) for less in (False, True))
    assert np.median(own) > np.median(plain) + 4
    outsider = key_bits(index, group, background(index, True), np.arange(600, 5000), scratch)
    assert outsider.max() < np.median(own)


def test_a_benchmark_clears_only_on_the_groups_total() -> None:
    account, item = np.repeat(np.arange(10), 50), np.tile(np.arange(50), 10)
    outsiders = np.full(50, 9)
    assert benchmark(account, item, outsiders, 10).clears
    harvest_account = np.concatenate([account, np.repeat(np.arange(10), 50)])
    harvest_item = np.concatenate([item, 50 + np.arange(500)])
    assert not benchmark(harvest_account, harvest_item, np.append(outsiders, np.zeros(500, int)), 10).clears


def test_a_class_with_one_payer_or_large_totals_is_no_class() -> None:
    site, small = np.zeros(20, np.int64), np.full(20, 12)
    assert classroom(site, np.arange(20), small, 2.0, 0.9).clears
    assert not classroom(site, np.zeros(20, np.int64), small, 2.0, 0.9).clears
    assert not classroom(site, np.arange(20), small * 50, 2.0, 0.9).clears
    # Twenty people at one site who never ask the same thing do not take one course.
    assert not classroom(site, np.arange(20), small, 2.0, 0.0).clears


def test_one_view_cannot_act_alone() -> None:
    bits = {"FORM": np.array([200.0]), "LINK": np.array([0.0]), "TIME": np.array([0.0])}
    assert combine_views(bits)[0] <= 0.0


def test_e_bh_counts_every_pair() -> None:
    bits = np.concatenate([np.full(5, 12.0), np.full(10, -5.0)])
    assert e_benjamini_hochberg(bits).sum() == 5
    padded = np.concatenate([bits, np.full(10**6, -np.inf)])
    assert e_benjamini_hochberg(padded).sum() == 0
    rng = np.random.default_rng(1)
    for _ in range(50):
        bits = rng.normal(8, 6, 300)
        padded = np.concatenate([bits, np.full(4_700, -np.inf)])
        named = e_benjamini_hochberg(bits, pairs=5_000)
        assert 0 < named.sum() < 300
        assert named.tolist() == e_benjamini_hochberg(padded)[:300].tolist(), (
            "pairs without bits need no memory"
        )
