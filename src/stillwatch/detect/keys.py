"""A view's keys, indexed both ways, with the weight that rarity gives them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stillwatch.detect.population import F64, I32, I64, Bool


@dataclass(frozen=True, slots=True)
class KeyIndex:
    """Who holds what. Key `k` is held by `holders[key_offsets[k]:key_offsets[k+1]]`, sorted by account;
    account `a` holds `keys[account_offsets[a]:account_offsets[a+1]]`, sorted by key.
    """

    account_offsets: I64
    keys: I32
    counts: I32
    key_offsets: I64
    holders: I32
    weight: F64
    """ln(accounts / holders) per key; 0 for public keys and for keys with one holder."""

    @property
    def accounts(self) -> int:
        return len(self.account_offsets) - 1

    @property
    def n_keys(self) -> int:
        return len(self.key_offsets) - 1

    def held_by(self, key: int) -> I32:
        """Accounts that hold `key`, sorted."""
        return self.holders[self.key_offsets[key] : self.key_offsets[key + 1]]

    def of(self, account: int) -> I32:
        """Keys of `account`, sorted."""
        return self.keys[self.account_offsets[account] : self.account_offsets[account + 1]]

    def df(self) -> I64:
        """Holders per key, shape (keys,)."""
        return np.diff(self.key_offsets)

    def group_counts(self, members: I64) -> I64:
        """How many of `members` hold each key, shape (keys,)."""
        lengths = self.account_offsets[members + 1] - self.account_offsets[members]
        first = np.repeat(self.account_offsets[members] - np.cumsum(lengths) + lengths, lengths)
        return np.bincount(self.keys[first + np.arange(lengths.sum())], minlength=self.n_keys)

    def held_by_any(self, keys: I64) -> Bool:
        """Accounts that hold at least one of `keys`, shape (accounts,)."""
        out = np.zeros(self.accounts, bool)
        starts = self.key_offsets[keys]
        lengths = self.key_offsets[keys + 1] - starts
        at = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(int(lengths.sum()))
        out[self.holders[at]] = True
        return out


def build_index(
    account: I32,
    key: I32,
    count: I32,
    accounts: int,
    n_keys: int,
    *,
    worthless: Bool | None = None,
) -> KeyIndex:
    """Index rows sorted by (account, key). `worthless` bool[keys]: keys with weight 0 (public, excluded)."""
    account_offsets = np.searchsorted(account, np.arange(accounts + 1)).astype(np.int64)
    order = np.argsort(key, kind="stable")
    df = np.bincount(key, minlength=n_keys)
    key_offsets = np.concatenate([[0], np.cumsum(df)]).astype(np.int64)
    weight = np.log(accounts / np.maximum(df, 1).astype(float))
    weight[df < 2] = 0
    if worthless is not None:
        weight[worthless] = 0
    return KeyIndex(account_offsets, key, count, key_offsets, account[order].astype(np.int32), weight)


def without(index: KeyIndex, dropped: Bool) -> KeyIndex:
    """The same index with the keys in `dropped` bool[keys] worth nothing."""
    weight: npt.NDArray[np.float64] = np.where(dropped, 0.0, index.weight)
    return KeyIndex(index.account_offsets, index.keys, index.counts, index.key_offsets, index.holders, weight)
