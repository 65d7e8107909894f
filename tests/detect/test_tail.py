"""The fitted tail against many draws: after 999 draws it must not make a p much smaller than it is."""

from __future__ import annotations

import numpy as np
import pytest

from stillwatch.detect.confirm import MOST_DRAWS, tail_p


def _null(rng: np.random.Generator, draws: int) -> np.ndarray:
    """Rarity-weighted co-occurrence of a random group: a few shared keys of uneven weight."""
    return (rng.poisson(1.2, (draws, 12)) * rng.gamma(2.0, 1.0, 12)).sum(axis=1)


def test_the_tail_is_the_share_of_draws_where_there_are_enough() -> None:
    null = np.random.default_rng(0).normal(size=MOST_DRAWS)
    observed = float(np.quantile(null, 0.97))
    assert tail_p(null, observed) == pytest.approx(0.03, abs=0.012)


@pytest.mark.slow
def test_the_fitted_tail_agrees_with_a_hundred_thousand_draws() -> None:
    ratios = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        weights = np.random.default_rng(1000 + seed)
        whole = _null(weights, 100_000)
        observed = float(np.quantile(whole, 1 - 1e-4))
        true = (whole >= observed).mean()
        ratios.append(tail_p(rng.choice(whole, MOST_DRAWS), observed) / true)
    assert np.median(ratios) >= 0.8, "typically not smaller than the truth"
    assert np.median(ratios) <= 6, "and not so large that it loses its power"
    assert np.quantile(ratios, 0.05) >= 0.1, "seldom an order of magnitude too small"
