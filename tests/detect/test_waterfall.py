"""The steps of an account's bits are those that the score multiplies."""

from __future__ import annotations

import numpy as np
import pytest

from stillwatch.detect import members as mb
from stillwatch.detect.keys import KeyIndex, build_index
from stillwatch.detect.waterfall import steps

ACCOUNTS, KEYS = 300, 80


def _index() -> KeyIndex:
    rng = np.random.default_rng(3)
    held = rng.random((ACCOUNTS, KEYS)) < 0.05
    held[:20, :12] = rng.random((20, 12)) < 0.7
    account, key = (part.astype(np.int32) for part in np.nonzero(held))
    return build_index(account, key, np.ones(len(key), np.int32), ACCOUNTS, KEYS)


@pytest.mark.parametrize("shown", [2, 1000])
def test_steps_sum_to_the_best_stake_and_the_closing_step_is_small(shown: int) -> None:
    index, core = _index(), np.arange(20)
    base, fold = mb.background(index), (np.arange(ACCOUNTS) % mb.FOLDS).astype(np.int32)
    niches = mb.niches_of(index, [mb.profile(index, np.arange(50, 90))])
    accounts = np.array([0, 1, 7, 19, 20, 150])
    bits = mb.cross_fitted(index, accounts, core, base, niches, fold)
    found = steps(index, accounts, core, base, niches, fold, shown)
    total = np.bincount(found.account, found.bits, len(accounts))
    # The mean over five stakes is at most the best one, and at least a fifth of it.
    assert np.all(bits <= total + 1e-9)
    assert np.all(bits >= total - np.log2(len(mb.STAKES)) - 1e-9)
    per_account = np.bincount(found.account[found.key >= 0], minlength=len(accounts))
    assert per_account.max() <= shown
    if shown == 2:
        # The strongest keys are the ones that are shown, the others are one step.
        assert np.bincount(found.account[found.key < 0], minlength=len(accounts)).max() == 1


def test_no_accounts_no_steps() -> None:
    index = _index()
    none = steps(
        index, np.zeros(0, np.int64), np.arange(5), mb.background(index), [], np.zeros(ACCOUNTS, np.int32)
    )
    assert len(none.bits) == 0
