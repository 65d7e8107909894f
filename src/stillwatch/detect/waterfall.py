"""What each key of an account adds to its bits: the steps of the account's waterfall.

A mean over stakes is not a sum over keys, and neither is the mean over views. So the steps are the keys' bits at the
account's best stake, and one closing step makes up the difference to `e_bits`: it stands for the mean over stakes,
for the views that were averaged, and for the strongest view, which is left out so that no view acts alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stillwatch.detect import members as mb
from stillwatch.detect.keys import KeyIndex
from stillwatch.detect.population import F64, I32, I64

Bools = npt.NDArray[np.bool_]

SHOWN = 8
"""Keys of one view and account that are listed one by one; the others are one step together."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Parallel arrays, one element per step. `key` is -1 where the step is several keys together."""

    account: I64
    """Place in the accounts asked for."""
    key: I64
    bits: F64

    def of(self, kept: Bools) -> Steps:
        """The steps of some of the accounts. `kept` bool (accounts asked for,)."""
        rows = kept[self.account]
        return Steps((np.cumsum(kept) - 1)[self.account[rows]], self.key[rows], self.bits[rows])


def steps(
    index: KeyIndex,
    accounts: I64,
    core: I64,
    base: mb.Background,
    niches: mb.Niches,
    fold: I32,
    shown: int = SHOWN,
) -> Steps:
    """Steps of one view for `accounts`, judged by the same profiles as `members.cross_fitted` does."""
    inside = np.isin(accounts, core)
    plans = [(np.flatnonzero(~inside), mb.profile(index, core))]
    for number in range(mb.FOLDS):
        rows = np.flatnonzero(inside & (fold[accounts] == number))
        plans.append((rows, mb.profile(index, core[fold[core] != number])))
    parts = [_steps(index, accounts, rows, group, base, niches, shown) for rows, group in plans if len(rows)]
    account, key, bits = (np.concatenate([p[i] for p in parts]) for i in range(3)) if parts else _none()
    order = np.lexsort((key, account))
    return Steps(account[order], key[order], bits[order])


def _none() -> tuple[I64, I64, F64]:
    return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)


def _steps(
    index: KeyIndex,
    accounts: I64,
    rows: I64,
    group: mb.Profile,
    base: mb.Background,
    niches: mb.Niches,
    shown: int,
) -> tuple[I64, I64, F64]:
    keys, owner, ratio = mb.ratios(index, accounts[rows], group, base, niches)
    at = np.stack([np.log2((1 - s) + s * ratio) for s in mb.STAKES])
    total = np.stack([np.bincount(owner, bits, len(rows)) for bits in at])
    bits = at[total.argmax(axis=0)[owner], np.arange(len(owner))]
    order = np.lexsort((keys, -np.abs(np.round(bits, 9)), owner))
    owner, key, bits = owner[order], keys[order], bits[order]
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    single = rank < shown
    rest = np.bincount(owner[~single], bits[~single], len(rows))
    others = np.unique(owner[~single])
    return (
        rows[np.concatenate([owner[single], others])],
        np.concatenate([key[single], np.full(len(others), -1)]),
        np.concatenate([bits[single], rest[others]]),
    )
