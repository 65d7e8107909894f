"""Stage 7: evidence per account and campaign, in bits.

A betting score: E = mean over stakes of the product over an account's keys of (1 - stake) + stake x pi_group/pi_null.
Under "this account is no member" its expectation is at most 1, so large values are evidence (e-values, Vovk & Wang
2021, doi:10.1214/20-AOS2020). The null is the largest likelihood over mixtures of the background with any one
honest group or public family (universal inference, Wasserman et al. 2020, doi:10.1073/pnas.1922664117): the pooled
background alone is not the null of an honest niche user. Each (account, key) counts once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
ALPHA = 0.01
FOLDS = 4
REPEATED = 2
"""Uses from which a prompt family counts for an account: a template is what somebody repeats."""
FEW = 10
"""Exchanges up to which an account shows too little for a second use of a family to be asked of it."""
RECRUIT_LIFT = 5.0
"""How many times more frequent a key of two members is among them than elsewhere, to be typical of them."""
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
def account_ratios(
    begins: Any,
    places: Any,
    null: Any,
    alternative: Any,
    offsets: Any,
    niche: Any,
    drawn: Any,
    niches: int,
    out: Any,
) -> None:
    """Likelihood ratio of each key of each account, against the null that fits the account best, into `out`.

    Account a has the rows `begins[a]:begins[a+1]`; a row is a key: its place in the table of `niches` niches
    (`offsets`, `niche` and `drawn`, as in `Niches`), its share under the background and under the group. A scan calls
    this for many accounts and the guard for one, so that both get the same bits to the last digit: sums run in the
    order of rows, niches in their order.
    """
    mixtures = len(MIXTURES) - 1
    # Rows that a niche draws, as a list: head[niche] is the first, following[i] the one after i.
    head = np.full(niches, -1, np.int32)
    for a in range(len(begins) - 1):
        first, n = begins[a], begins[a + 1] - begins[a]
        draws = 0
        for r in range(n):
            draws += offsets[places[first + r] + 1] - offsets[places[first + r]]
        best, best_total = np.empty(n), 0.0
        for r in range(n):
            best[r] = math.log(null[first + r])
            best_total += best[r]
        if draws:
            following, row, share = np.empty(draws, np.int32), np.empty(draws, np.int32), np.empty(draws)
            d = 0
            for r in range(n - 1, -1, -1):
                for i in range(offsets[places[first + r]], offsets[places[first + r] + 1]):
                    row[d], share[d], following[d] = r, drawn[i], head[niche[i]]
                    head[niche[i]] = d
                    d += 1
            plain = np.empty((mixtures, n))
            for m in range(mixtures):
                for r in range(n):
                    plain[m, r] = math.log((1 - MIXTURES[m + 1]) * null[first + r])
            now = np.empty(n)
            for k in range(niches):
                # A niche that draws no key of the account explains it less than the background does.
                if head[k] < 0:
                    continue
                for m in range(mixtures):
                    weight = MIXTURES[m + 1]
                    total = 0.0
                    i = head[k]
                    for r in range(n):
                        if i >= 0 and row[i] == r:
                            now[r] = math.log((1 - weight) * null[first + r] + weight * share[i])
                            i = following[i]
                        else:
                            now[r] = plain[m, r]
                        total += now[r]
                    if total > best_total:
                        best_total = total
                        best[:] = now
                head[k] = -1
        for r in range(n):
            out[first + r] = alternative[first + r] / math.exp(best[r])


@nb.njit(nogil=True, cache=True)
def account_bits(begins: Any, ratio: Any, bits: Any, stake: Any) -> None:
    """Betting score of each account from the ratios of its keys: log2 of the mean over stakes, and the best stake."""
    total = np.empty(len(STAKES))
    for a in range(len(begins) - 1):
        most, best = -np.inf, 0
        for s in range(len(STAKES)):
            total[s] = 0.0
            for r in range(begins[a], begins[a + 1]):
                total[s] += math.log2((1 - STAKES[s]) + STAKES[s] * ratio[r])
            if total[s] > most:
                most, best = total[s], s
        bits[a], stake[a] = log_mean(total, most), best


@nb.njit(nogil=True, cache=True)
def log_mean(bits: Any, most: float) -> float:
    """log2 of the mean of e-values given in bits; `most` is the largest of them."""
    mean = 0.0
    for value in bits:
        mean += 2.0 ** (value - most)
    return most + math.log2(mean / len(bits))


def likelihoods(group: Profile, base: Background) -> tuple[F64, F64]:
    """(null, alternative) of the keys of `group`. Of every other key they are its share, and `SMOOTH` times that."""
    share = SMOOTH * base.share[group.key]
    share += (1 - SMOOTH) * group.share
    return base.without(group.key, group.count), share


def ratios(
    index: KeyIndex, accounts: I64, group: Profile, base: Background, niches: Niches
) -> tuple[I64, I64, F64]:
    """(key, place in `accounts`, likelihood ratio) of each account's keys, against the null that fits it best."""
    places, begins, ratio = _ratios(index, accounts, group, base, niches)
    owner = np.repeat(np.arange(len(accounts)), np.diff(begins))
    return index.telling.key[places], owner, ratio


def _ratios(
    index: KeyIndex, accounts: I64, group: Profile, base: Background, niches: Niches
) -> tuple[I32, I64, F64]:
    """(place in `index.telling` of each row, first row of each account and their number, ratio of each row)."""
    part = index.telling
    lengths = part.account_offsets[accounts + 1] - part.account_offsets[accounts]
    begins = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.repeat(part.account_offsets[accounts] - begins[:-1], lengths) + np.arange(begins[-1])
    places = part.keys[rows]
    null, alternative = base.share.copy(), SMOOTH * base.share
    null[group.key], alternative[group.key] = likelihoods(group, base)
    keys = part.key[places]
    out = np.empty(len(places))
    account_ratios(
        begins,
        places,
        null[keys],
        alternative[keys],
        niches.offsets,
        niches.niche,
        niches.share,
        niches.count,
        out,
    )
    return places, begins, out


def log_e(
    index: KeyIndex, accounts: I64, group: Profile, base: Background, niches: Niches
) -> tuple[F64, F64]:
    """(bits, best stake's index) of each account for one view, shape (accounts,)."""
    _, begins, ratio = _ratios(index, accounts, group, base, niches)
    bits, stake = np.zeros(len(accounts)), np.zeros(len(accounts))
    account_bits(begins, ratio, bits, stake)
    return bits, stake


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


@nb.njit(nogil=True, cache=True)
def combined(bits: Any, out: Any) -> None:
    """`combine_views` of bits (views, accounts) into `out` (accounts,)."""
    views, accounts = bits.shape
    others = np.empty(views - 1)
    for a in range(accounts):
        strongest = 0
        for v in range(1, views):
            if bits[v, a] > bits[strongest, a]:
                strongest = v
        n, most = 0, -np.inf
        for v in range(views):
            if v != strongest:
                others[n] = bits[v, a]
                most = max(most, others[n])
                n += 1
        out[a] = log_mean(others, most)


def combine_views(bits: dict[str, F64]) -> F64:
    """Mean of the e-values over all views but the largest, in bits: one view cannot act alone.

    A sum over few views in the order in which they stand: FORM, LINK, TIME everywhere.
    """
    stacked = np.stack([np.asarray(part, np.float64) for part in bits.values()])
    out = np.zeros(stacked.shape[1])
    combined(stacked, out)
    return out


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
