"""A view's keys, indexed both ways, with the weight that rarity gives them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from stillwatch.detect.population import F64, I32, I64, Bool
from stillwatch.engine.holders import grouped

SPARSE = 16
"""A group that holds less than this part of all keys is counted by sorting: a place for every key costs more."""


@nb.njit(nogil=True, cache=True)
def _runs(members: Any, account_offsets: Any, keys: Any, total: int) -> Any:
    """`_held` by sorting the `total` keys that the members hold, one account after the other."""
    every = np.empty(total, np.int64)
    n = 0
    for m in members:
        for i in range(account_offsets[m], account_offsets[m + 1]):
            every[n] = keys[i]
            n += 1
    every.sort()
    held = np.empty(total, np.int64)
    used = 0
    for i in range(total):
        if i == 0 or every[i] != every[i - 1]:
            every[used] = every[i]
            held[used] = 1
            used += 1
        else:
            held[used - 1] += 1
    return every[:used].copy(), held[:used].copy()


@nb.njit(nogil=True, cache=True)
def _held(members: Any, account_offsets: Any, keys: Any, n_keys: int) -> Any:
    """(keys that a member holds, how many members hold each), in no order that anybody should rely on."""
    total = 0
    for m in members:
        total += account_offsets[m + 1] - account_offsets[m]
    if total < n_keys // SPARSE:
        return _runs(members, account_offsets, keys, total)
    count = np.zeros(n_keys, np.int32)
    touched = np.empty(min(total, n_keys), np.int64)
    n = 0
    for m in members:
        for i in range(account_offsets[m], account_offsets[m + 1]):
            key = keys[i]
            if count[key] == 0:
                touched[n] = key
                n += 1
            count[key] += 1
    touched = touched[:n]
    held = np.empty(n, np.int64)
    for i in range(n):
        held[i] = count[touched[i]]
    return touched, held


@nb.njit(nogil=True, cache=True)
def _mark(key: Any, key_offsets: Any, holders: Any, out: Any) -> None:
    for k in key:
        for i in range(key_offsets[k], key_offsets[k + 1]):
            out[holders[i]] = True


@nb.njit(nogil=True, cache=True)
def _any_of(members: Any, account_offsets: Any, keys: Any, wanted: Any) -> Any:
    out = np.zeros(len(members), np.bool_)
    for m in range(len(members)):
        for i in range(account_offsets[members[m]], account_offsets[members[m] + 1]):
            if wanted[keys[i]]:
                out[m] = True
                break
    return out


@nb.njit(nogil=True, cache=True)
def _sums(members: Any, account_offsets: Any, keys: Any, key: Any, worth: Any) -> Any:
    """`key` is sorted: a search costs less than a place for every key of the log."""
    out = np.zeros(len(members))
    for m in range(len(members)):
        for i in range(account_offsets[members[m]], account_offsets[members[m] + 1]):
            at = np.searchsorted(key, keys[i])
            if at < len(key) and key[at] == keys[i]:
                out[m] += worth[at]
    return out


def _ranked(key: I64, count: I64) -> tuple[I64, I64]:
    order = np.argsort(key)
    return key[order], count[order]


@dataclass(frozen=True, slots=True)
class Telling:
    """The part of an index that weighs anything: account `a` holds the keys
    `key[keys[account_offsets[a]:account_offsets[a+1]]]`, in the index's order.

    Most keys have one holder or are public. What is asked of an index again and again, thousands of random groups for
    one candidate, is asked of this part, which fits a core's cache; the sums are the same to the last digit, because
    what is left out adds nothing.
    """

    account_offsets: I64
    keys: I32
    """Places in `key`."""
    key: I64
    """The index's keys that have a weight, sorted."""
    weight: F64

    def held(self, members: I64) -> tuple[I64, I64]:
        """(places in `key` that at least one of `members` holds, how many of them hold each), sorted."""
        return _ranked(*_held(members, self.account_offsets, self.keys, len(self.key)))


@nb.njit(nogil=True, cache=True)
def _weighed(account_offsets: Any, keys: Any, weight: Any) -> Any:
    """(account offsets, places of keys, keys) of the rows whose key has a weight."""
    place = np.full(len(weight), -1, np.int32)
    key = np.empty(len(weight), np.int64)
    n = 0
    for k in range(len(weight)):
        if weight[k] > 0:
            place[k] = n
            key[n] = k
            n += 1
    offsets = np.zeros_like(account_offsets)
    out = np.empty(len(keys), np.int32)
    used = 0
    for a in range(len(account_offsets) - 1):
        for i in range(account_offsets[a], account_offsets[a + 1]):
            if place[keys[i]] >= 0:
                out[used] = place[keys[i]]
                used += 1
        offsets[a + 1] = used
    return offsets, out[:used].copy(), key[:n].copy()


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
    telling: Telling = field(init=False)
    shared: int = field(init=False)
    """Keys with several holders."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shared", int((self.df() >= 2).sum()))
        offsets, keys, key = _weighed(self.account_offsets, self.keys, self.weight)
        object.__setattr__(self, "telling", Telling(offsets, keys, key, self.weight[key]))

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

    def df_of(self, keys: I64) -> I64:
        """Holders of each of `keys`."""
        return np.asarray(self.key_offsets[keys + 1] - self.key_offsets[keys])

    def counts_of(self, members: I64, keys: I64) -> I64:
        """How many of `members` hold each of `keys`."""
        key, count = self.held(members)
        if len(key) == 0:
            return np.zeros(len(keys), np.int64)
        place = np.minimum(np.searchsorted(key, keys), len(key) - 1)
        return np.where(key[place] == keys, count[place], 0)

    def df(self) -> I64:
        """Holders per key, shape (keys,)."""
        return np.diff(self.key_offsets)

    def held(self, members: I64) -> tuple[I64, I64]:
        """(keys that at least one of `members` holds, how many of them hold each), keys sorted."""
        return _ranked(*_held(members, self.account_offsets, self.keys, self.n_keys))

    def group_counts(self, members: I64) -> I64:
        """How many of `members` hold each key, shape (keys,)."""
        counts = np.zeros(self.n_keys, np.int64)
        key, count = _held(members, self.account_offsets, self.keys, self.n_keys)
        counts[key] = count
        return counts

    def held_by_any(self, keys: I64) -> Bool:
        """Accounts that hold at least one of `keys`, shape (accounts,)."""
        out = np.zeros(self.accounts, bool)
        _mark(keys, self.key_offsets, self.holders, out)
        return out

    def hold_any(self, members: I64, keys: I64) -> Bool:
        """Which of `members` hold at least one of `keys`, shape (members,)."""
        wanted = np.zeros(self.n_keys, bool)
        wanted[keys] = True
        return np.asarray(_any_of(members, self.account_offsets, self.keys, wanted))

    def sums(self, members: I64, key: I64, worth: F64) -> F64:
        """The worth of what each member holds, shape (members,).

        `worth` is that of `key`, which is sorted; other keys have none.
        """
        return np.asarray(_sums(members, self.account_offsets, self.keys, key, worth))

    def frequent(self, members: I64, least: float, lift: float) -> I64:
        """Keys that at least `least` members hold, and `lift` times more of them than of everybody, sorted.

        Keys that weigh nothing are not among them.
        """
        place, count = self.telling.held(members)
        key = self.telling.key[place]
        df = self.key_offsets[key + 1] - self.key_offsets[key]
        return key[(count >= least) & (count * self.accounts >= lift * df * len(members))]


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
    order, key_offsets = grouped(key, n_keys)
    df = np.diff(key_offsets)
    weight = np.log(accounts / np.maximum(df, 1).astype(float))
    weight[df < 2] = 0
    if worthless is not None:
        weight[worthless] = 0
    return KeyIndex(
        account_offsets, key, count, key_offsets, account[order].astype(np.int32, copy=False), weight
    )


def without(index: KeyIndex, dropped: Bool) -> KeyIndex:
    """The same index with the keys in `dropped` bool[keys] worth nothing."""
    weight: npt.NDArray[np.float64] = np.where(dropped, 0.0, index.weight)
    return KeyIndex(index.account_offsets, index.keys, index.counts, index.key_offsets, index.holders, weight)


def lighter(index: KeyIndex, most: float) -> KeyIndex:
    """The same index with the weight of keys that more than `most` accounts hold cut in proportion.

    The pairs of holders of a key grow with the square of their number: a carrier or a mail provider of a third of all
    accounts has so many, in any group, that the pairs of all other keys drown in their chance variation.
    """
    weight: npt.NDArray[np.float64] = index.weight * np.minimum(1.0, most / np.maximum(index.df(), 1))
    return KeyIndex(index.account_offsets, index.keys, index.counts, index.key_offsets, index.holders, weight)
