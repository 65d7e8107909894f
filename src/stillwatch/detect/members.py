"""Stage 7: evidence per account and campaign, in bits.

A betting score: E = mean over stakes of the product over an account's keys of (1 - stake) + stake x pi_group/pi_null.
Under "this account is no member" its expectation is at most 1, so large values are evidence (e-values, Vovk & Wang
2021, doi:10.1214/20-AOS2020). The null is the largest likelihood over mixtures of the background with any one
honest group or public family (universal inference, Wasserman et al. 2020, doi:10.1073/pnas.1922664117): the pooled
background alone is not the null of an honest niche user. Each (account, key) counts once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np

from stillwatch.detect.keys import KeyIndex
from stillwatch.detect.population import F64, I32, I64
from stillwatch.engine.holders import grouped

STAKES = (0.02, 0.05, 0.1, 0.2, 0.5)
MIXTURES = (0.0, 0.25, 0.5, 0.75)
"""Share of an honest niche's profile in the null mixture."""
AT_ONCE = 1 << 20
"""Rows of niches whose likelihoods are held at once: 24 bytes each."""
ALPHA = 0.01
FOLDS = 4
SMOOTH = 0.1
"""Share of the background in a group's profile: a key that no member holds is not impossible for a member."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A group's keys of one view, as probabilities of drawing that key. Sparse: `key` sorted."""

    key: I64
    share: F64
    count: I64
    """Members that hold each key."""


@dataclass(frozen=True, slots=True)
class Background:
    """The whole population's rows: the null of an account that is no member."""

    share: F64
    """Probability of drawing each key, shape (keys,)."""
    rows: float
    less_group: bool
    """Whether the null of a key leaves the group's own holders out. So it is with wording, of which a group may have
    all holders there are; not with addresses, where a neighbour of the group's proxies is one holder too."""

    def without(self, key: I64, held: I64) -> F64:
        """The null of `key`, which `held` members hold."""
        share = self.share[key]
        return np.maximum(share - held / self.rows, 1.0 / self.rows) if self.less_group else share


def profile(index: KeyIndex, members: I64) -> Profile:
    """How often each key is drawn from the members' (account, key) rows; keys of a single member are left out."""
    key, counts = index.held(members)
    total = max(1, int(counts.sum()))
    several = counts >= 2
    return Profile(key[several], counts[several] / total, counts[several])


def background(index: KeyIndex, less_group: bool = False) -> Background:
    """The null of one view."""
    df = index.df().astype(float)
    rows = max(1.0, df.sum())
    return Background(np.maximum(df, 1.0) / rows, rows, less_group)


@dataclass(frozen=True, slots=True)
class Niches:
    """Profiles of honest groups and public families that an innocent account may come from, key after key.

    Key `p` of `index.telling` is drawn by niche `niche[i]` with probability `share[i]`, `offsets[p] <= i <
    offsets[p+1]`, in the order of niches.
    """

    offsets: I64
    niche: I32
    share: F64
    count: int


def niches_of(index: KeyIndex, profiles: Sequence[Profile]) -> Niches:
    """The profiles of all niches in one table; keys that weigh nothing tell nothing about an account."""
    place = np.full(index.n_keys, -1, np.int64)
    place[index.telling.key] = np.arange(len(index.telling.key))
    key = place[np.concatenate([np.zeros(0, np.int64), *(p.key for p in profiles)])]
    share = np.concatenate([np.zeros(0), *(p.share for p in profiles)])
    niche = np.repeat(np.arange(len(profiles), dtype=np.int32), [len(p.key) for p in profiles])
    order, offsets = grouped(key, len(index.telling.key))
    return Niches(offsets, niche[order], share[order], len(profiles))


@nb.njit(nogil=True, cache=True)
def _drawn(keys: Any, offsets: Any, niche: Any, share: Any, niches: int) -> Any:
    """(where each niche starts, row, share): the rows whose key each niche draws, and how often it does."""
    starts = np.zeros(niches + 1, np.int64)
    for r in range(len(keys)):
        for i in range(offsets[keys[r]], offsets[keys[r] + 1]):
            starts[niche[i] + 1] += 1
    for n in range(niches):
        starts[n + 1] += starts[n]
    at = starts.copy()
    row = np.empty(starts[niches], np.int32)
    drawn = np.empty(starts[niches])
    for r in range(len(keys)):
        for i in range(offsets[keys[r]], offsets[keys[r] + 1]):
            n = niche[i]
            row[at[n]] = r
            drawn[at[n]] = share[i]
            at[n] += 1
    return starts, row, drawn


@nb.njit(nogil=True, cache=True)
def _best_mixture(
    starts: Any, row: Any, mixed: Any, plain: Any, owner: Any, begins: Any, best_total: Any, best: Any
) -> None:
    """Log likelihood of each row under its account's best mixture so far: changes `best_total` and `best`.

    `mixed` (mixtures, rows that a niche draws), `plain` (mixtures, rows). An account that a niche draws no key of is
    less likely under it than under the background, and is not looked at.
    """
    for n in range(len(starts) - 1):
        for m in range(len(mixed)):
            i = starts[n]
            while i < starts[n + 1]:
                o = owner[row[i]]
                first, total = i, 0.0
                for r in range(begins[o], begins[o + 1]):
                    if i < starts[n + 1] and row[i] == r:
                        total += mixed[m, i]
                        i += 1
                    else:
                        total += plain[m, r]
                if total <= best_total[o]:
                    continue
                best_total[o] = total
                i = first
                for r in range(begins[o], begins[o + 1]):
                    if i < starts[n + 1] and row[i] == r:
                        best[r] = mixed[m, i]
                        i += 1
                    else:
                        best[r] = plain[m, r]


def ratios(
    index: KeyIndex, accounts: I64, group: Profile, base: Background, niches: Niches
) -> tuple[I64, I64, F64]:
    """(key, place in `accounts`, likelihood ratio) of each account's keys, against the null that fits it best."""
    part = index.telling
    lengths = part.account_offsets[accounts + 1] - part.account_offsets[accounts]
    begins = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.repeat(part.account_offsets[accounts] - begins[:-1], lengths) + np.arange(begins[-1])
    places, owner = part.keys[rows], np.repeat(np.arange(len(accounts)), lengths)
    keys = part.key[places]
    outside = base.share.copy()
    outside[group.key] = base.without(group.key, group.count)
    null = outside[keys]
    group_share = SMOOTH * base.share
    group_share[group.key] += (1 - SMOOTH) * group.share
    alternative = group_share[keys]
    # The likelihood of an account under each innocent mixture; the largest one is the null to beat.
    best = np.log(null)
    best_total = np.bincount(owner, best, len(accounts))
    starts, row, drawn = _drawn(places, niches.offsets, niches.niche, niches.share, niches.count)
    shares = np.array(MIXTURES[1:])[:, None]
    plain = np.log((1 - shares) * null)
    for first, end in _pieces(starts):
        a, b = starts[first], starts[end]
        mixed = np.log((1 - shares) * null[row[a:b]] + shares * drawn[a:b])
        _best_mixture(starts[first : end + 1] - a, row[a:b], mixed, plain, owner, begins, best_total, best)
    return keys, owner, alternative / np.exp(best)


def _pieces(starts: I64) -> Iterator[tuple[int, int]]:
    """(first, end) of stretches of niches with at most about `AT_ONCE` rows, or of one niche."""
    first = 0
    while first < len(starts) - 1:
        end = int(np.searchsorted(starts, starts[first] + AT_ONCE, side="right")) - 1
        end = max(first + 1, end)
        yield first, end
        first = end


def log_e(
    index: KeyIndex, accounts: I64, group: Profile, base: Background, niches: Niches
) -> tuple[F64, F64]:
    """(bits, best stake's index) of each account for one view, shape (accounts,)."""
    _, owner, ratio = ratios(index, accounts, group, base, niches)
    stakes = np.stack([np.bincount(owner, np.log2((1 - s) + s * ratio), len(accounts)) for s in STAKES])
    most = stakes.max(axis=0)
    bits = most + np.log2(np.exp2(stakes - most).mean(axis=0))
    return bits, stakes.argmax(axis=0).astype(float)


@nb.njit(nogil=True, cache=True)
def _key_bits(
    account_offsets: Any,
    keys: Any,
    accounts: Any,
    inside: Any,
    place: Any,
    outsider: Any,
    insider: Any,
    absent: Any,
    out: Any,
) -> None:
    """Betting score of each account. `place[key]` is the row of the two tables of log2 stakes, -1 for other keys."""
    stakes = len(absent)
    total = np.zeros(stakes)
    for i in range(len(accounts)):
        a = accounts[i]
        total[:] = 0.0
        missing = 0
        table = insider if inside[a] else outsider
        for j in range(account_offsets[a], account_offsets[a + 1]):
            row = place[keys[j]]
            if row < 0:
                missing += 1
            else:
                for s in range(stakes):
                    total[s] += table[row, s]
        most = -np.inf
        for s in range(stakes):
            total[s] += missing * absent[s]
            most = max(most, total[s])
        mean = 0.0
        for s in range(stakes):
            mean += 2.0 ** (total[s] - most)
        out[i] = most + np.log2(mean / stakes)


def key_bits(index: KeyIndex, group: I64, base: Background, accounts: I64, place: I32) -> F64:
    """Bits of `accounts` for one view against the plain background, shape (accounts,).

    A member of `group` is judged by the profile of the others (leave one out). `base`: `background(index)`;
    `place` int32 (telling keys of `index`,): scratch, all -1, returned so. For ranking inside a scan: `log_e` has the
    null of honest niches.
    """
    part = index.telling
    at, counts = part.held(group)
    rows = int((index.account_offsets[group + 1] - index.account_offsets[group]).sum())
    total, size = float(max(1, rows)), len(group)
    several = counts >= 2
    at, held = at[several], counts[several].astype(float)
    key = part.key[at]
    others = np.where(held - 1 >= 2, held - 1, 0.0)
    stakes = np.array(STAKES)
    share, null = base.share[key], base.without(key, counts[several])
    null_inside = base.without(key, counts[several] - 1)
    lift = (SMOOTH * share + (1 - SMOOTH) * held / total) / null
    whole = max(1.0, total * (size - 1) / size)
    lift_inside = (SMOOTH * share + (1 - SMOOTH) * others / whole) / null_inside
    inside = np.zeros(index.accounts, bool)
    inside[group] = True
    out = np.zeros(len(accounts))
    place[at] = np.arange(len(at), dtype=np.int32)
    _key_bits(
        part.account_offsets,
        part.keys,
        accounts,
        inside,
        place,
        np.log2(1 - stakes + stakes * lift[:, None]),
        np.log2(1 - stakes + stakes * lift_inside[:, None]),
        np.log2(1 - stakes + stakes * SMOOTH),
        out,
    )
    place[at] = -1
    return out


def cross_fitted(
    index: KeyIndex, accounts: I64, core: I64, base: Background, niches: Niches, fold: I32
) -> F64:
    """Bits of `accounts`; a core member is judged by the profile of the folds that it is not in.

    `fold` int32 (accounts of the population,): a fixed hash of the account, 0..FOLDS-1.
    """
    whole = profile(index, core)
    bits = log_e(index, accounts, whole, base, niches)[0]
    inside = np.isin(accounts, core)
    for number in range(FOLDS):
        rows = np.flatnonzero(inside & (fold[accounts] == number))
        if len(rows):
            rest = profile(index, core[fold[core] != number])
            bits[rows] = log_e(index, accounts[rows], rest, base, niches)[0]
    return bits


def combine_views(bits: dict[str, F64]) -> F64:
    """Mean of the e-values over all views but the largest, in bits: one view cannot act alone."""
    stacked = np.sort(np.stack(list(bits.values())), axis=0)[:-1]
    most = stacked.max(axis=0)
    return np.asarray(most + np.log2(np.exp2(stacked - most).mean(axis=0)))


def e_benjamini_hochberg(
    bits: F64, alpha: float = ALPHA, pairs: int = 0
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which pairs are named (e-BH, Wang & Ramdas 2022, doi:10.1111/rssb.12489).

    `bits` of the pairs of which anything is known; `pairs`: ALL pairs tested, where those have no bits.
    """
    n = len(bits)
    order = np.argsort(-bits, kind="stable")
    passed = np.flatnonzero(bits[order] >= np.log2(max(n, pairs) / (alpha * np.arange(1, n + 1))))
    named = np.zeros(n, bool)
    if len(passed):
        named[order[: passed[-1] + 1]] = True
    return named
