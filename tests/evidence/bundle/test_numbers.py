"""The verifier's arithmetic, which uses the standard library alone, beside that of the scan."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stillwatch.detect import confirm as cf
from stillwatch.detect import members as mb
from stillwatch.detect.score import residual_scores
from stillwatch.evidence.bundle.verify import (
    betting,
    count_tail,
    false_discovery,
    log_mean,
    scores,
    tail_p,
    tree_root,
)
from stillwatch.evidence.merkle import Frontier, leaf_hash

CHANCE = st.floats(0, 1)


@given(st.integers(0, 3000), st.floats(0.001, 3000))
@settings(max_examples=80, deadline=None)
def test_tails_of_poisson_counts(k: int, mean: float) -> None:
    assert count_tail(k, mean, 0, True) == pytest.approx(stats.poisson.sf(k - 1, mean), rel=1e-7, abs=1e-290)
    assert count_tail(k, mean, 0, False) == pytest.approx(stats.poisson.cdf(k, mean), rel=1e-7, abs=1e-290)


@given(st.integers(1, 2000), CHANCE, CHANCE)
@settings(max_examples=80, deadline=None)
def test_tails_of_binomial_counts(trials: int, share: float, at: float) -> None:
    k = round(at * trials)
    p = share * trials / trials
    for upper, exact in ((True, stats.binom.sf(k - 1, trials, p)), (False, stats.binom.cdf(k, trials, p))):
        assert count_tail(k, share * trials, trials, upper) == pytest.approx(exact, rel=1e-6, abs=1e-12)


@given(st.lists(CHANCE, min_size=1, max_size=60))
@settings(max_examples=40, deadline=None)
def test_q_from_all_p(p: list[float]) -> None:
    assert false_discovery(p) == pytest.approx(cf.benjamini_hochberg(np.array(p)).tolist(), rel=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_p_of_a_fitted_tail(seed: int) -> None:
    rng = np.random.default_rng(seed)
    null = rng.lognormal(0, 0.2 + 0.3 * seed, 999)
    for observed in (float(np.quantile(null, 0.95)), float(null.max()), float(null.max() * 3), 1e9):
        above = int((null >= observed).sum())
        assert tail_p(null.tolist(), observed, above) == pytest.approx(cf.tail_p(null, observed), rel=1e-12)


@pytest.mark.parametrize("references", [4, 9, 60])
def test_scores(references: int) -> None:
    rng = np.random.default_rng(references)
    n = references + 3
    evasion, space, size = rng.random(n), 6 * rng.random(n), rng.integers(5, 5000, n)
    known = np.arange(n) < references
    rows: list[dict[str, Any]] = [
        {"evasion": e, "space": s, "size": z}
        for e, s, z in zip(evasion.tolist(), space.tolist(), size.tolist(), strict=True)
    ]
    expected = residual_scores(evasion, space, size, known)
    assert scores(rows[:references], rows) == pytest.approx(expected.tolist(), rel=1e-9)


@given(st.lists(st.tuples(st.floats(1e-9, 1), st.floats(1e-9, 1)), min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_the_betting_score(rows: list[tuple[float, float]]) -> None:
    ratio = np.array([alternative / null for null, alternative in rows])
    bits, stake = np.zeros(1), np.zeros(1)
    mb.account_bits(np.array([0, len(rows)]), ratio, bits, stake)
    assert betting(rows) == pytest.approx(bits[0], abs=1e-9)
    assert log_mean([1.0, 1.0]) == 1.0
    assert math.isclose(log_mean([3.0, -1000.0]), 2.0)


@given(st.integers(0, 40))
def test_the_root_is_that_of_the_log_s_trees(count: int) -> None:
    leaves = [leaf_hash(bytes([n])) for n in range(count)]
    tree = Frontier()
    for leaf in leaves:
        tree.add(leaf)
    assert tree_root(leaves) == tree.root
