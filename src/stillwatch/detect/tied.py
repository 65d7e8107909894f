"""Stage 3 and 4 at once, for who shows too little in any one view: wordings whose holders are tied to each other.

Who spreads one template over dozens of paraphrases, uses each wording once in an account and puts every account into
an ordinary home leaves no candidate in FORM (nothing is repeated) and none in LINK (a few accounts behind one block
are neighbours). What is left is the conjunction: the holders of one rare wording are also the accounts that share
rare addresses, instruments and sign-up runs.

*The test.* For each wording in few hands: how many of its holders are tied by different rare LINK keys, against the
number that the accounts' own degrees explain.

*What p means.* H0: among accounts that are alike in the sense below, who holds the wording is independent of who is
tied to whom; both the wording's number of holders and each account's number of ties are given (a degree-corrected
block model: Karrer and Newman 2011, doi:10.1103/PhysRevE.83.016107). The pairs of holders i, j are tied at the rate
d_i d_j m / D^2, with d the accounts' numbers of ties, m twice the number of tied pairs and D the sum of d among the
accounts that are alike; p is the upper tail of a Poisson of their sum. Alike are (a) accounts of the same script, and
(b) the `CIRCLE_SHARE` of all accounts whose everyday wording, popular networks, script and time zone are most like
those of single holders: who speaks one language, uses one framework or lives in one region shares rare wordings and
addresses more often than chance. The larger of the two rates counts. Observed is the rank of the graph in which each
LINK key joins two holders at most, which is never more than the number of tied pairs: a household, or an office with
one block, one card and one domain, gives one to three ties however many they are.

*What it assumes.* No common cause of one rare wording and of rare shared addresses that is finer than those circles:
a club that meets behind one router and passes a text around would be found, and so would a firm. That is for the
later stages (openness, verdict) to tell. p is conservative where ties come in cliques, and the test is used up: the
views FORM and LINK can confirm nothing about a group found here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np
from scipy import stats
from scipy.sparse import coo_array, csr_array

from stillwatch.detect.confirm import benjamini_hochberg
from stillwatch.detect.keys import KeyIndex, build_index
from stillwatch.detect.population import F64, I64, Bool

LEAST_HOLDERS = 5
"""Holders from which a wording is tested."""
WORDING_SHARE, WORDING_HOLDERS = 0.01, 50
"""Share and number of accounts up to which a wording is in few hands; beyond both it is everyday language."""
RARE_HOLDERS = 20
"""Accounts up to which a LINK key ties its holders; a block of more is a carrier's, a proxy's or a campus's."""
LEAST_TIES = 3
"""Ties among a wording's holders below which it is not looked at: two are a household and a coincidence."""
CLOSER_P = 0.001
"""p by script alone up to which the circle of the holders is drawn; above, a wording is one among thousands."""
CIRCLE_SHARE, LEAST_CIRCLE = 0.05, 200
"""Share and least number of accounts that stand for the holders: whoever speaks and lives most like them."""
CIRCLE_HOLDERS = 16
"""Holders whose likes are looked for, spread evenly over all."""


@dataclass(frozen=True, slots=True)
class TiedWordings:
    """Outcome per tested wording: parallel arrays, keys sorted."""

    key: I64
    holders: I64
    ties: I64
    """Rank of the graph of the holders in which each rare LINK key joins two of them."""
    expected: F64
    p: F64
    q: F64
    """Benjamini-Hochberg over all tested wordings."""


def among(index: KeyIndex, able: Bool, least: int, most: float) -> KeyIndex:
    """The rows of `able` accounts with keys that weigh something, that at most `most` accounts hold, and of which at
    least `least` holders are able. Keys keep their numbers. `able` bool[accounts].
    """
    account = np.repeat(np.arange(index.accounts, dtype=np.int32), np.diff(index.account_offsets))
    kept = able[account] & (index.weight[index.keys] > 0) & (index.df()[index.keys] <= most)
    held = np.bincount(index.keys[kept], minlength=index.n_keys)
    kept &= held[index.keys] >= least
    return build_index(account[kept], index.keys[kept], index.counts[kept], index.accounts, index.n_keys)


def manners(indexes: list[tuple[KeyIndex, float]], classes: list[I64], able: Bool) -> csr_array:
    """What able accounts have in common with very many others: unit vectors of rarities, shape (accounts, keys).

    Popular keys of each index, from the given number of holders on, and `classes`: codes per account, int64
    (accounts,) each, of which equal ones are one key more (script, time zone).
    """
    n = len(able)
    accounts, keys, weights = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    used = 0
    for index, least in indexes:
        account = np.repeat(np.arange(n), np.diff(index.account_offsets))
        df = index.df()
        kept = able[account] & (df[index.keys] > least)
        accounts.append(account[kept])
        keys.append(index.keys[kept].astype(np.int64) + used)
        weights.append(np.log(n / np.maximum(df, 1)))
        used += index.n_keys
    for codes in classes:
        names, code = np.unique(codes, return_inverse=True)
        accounts.append(np.flatnonzero(able))
        keys.append(code[able].astype(np.int64) + used)
        weights.append(np.log(n / np.bincount(code)))
        used += len(names)
    account, key, weight = np.concatenate(accounts), np.concatenate(keys), np.concatenate(weights)
    length = np.sqrt(np.bincount(account, weight[key] ** 2, n))
    names, place = np.unique(key, return_inverse=True)
    value = (weight[key] / np.maximum(length[account], 1e-9)).astype(np.float32)
    return coo_array((value, (account, place)), shape=(n, len(names))).tocsr()


def circle(common: csr_array, holders: I64, able: Bool) -> I64:
    """The able accounts most like one of the holders, sorted: `CIRCLE_SHARE` of all, in equal parts for each holder.

    Likeness is the cosine of two accounts' vectors of `manners`. Each holder has its own part, so that holders of
    several languages are compared with accounts of several languages. Of many holders `CIRCLE_HOLDERS` are asked.
    """
    outside = able.copy()
    outside[holders] = False
    asked = holders[np.linspace(0, len(holders) - 1, min(CIRCLE_HOLDERS, len(holders))).astype(np.int64)]
    # Last digits must not decide who is in.
    like = np.round((common @ common[asked].T.toarray()).T, 5)
    each = -(-max(LEAST_CIRCLE, int(CIRCLE_SHARE * able.sum())) // len(asked))
    places = np.flatnonzero(outside)
    around = np.zeros(len(able), bool)
    for row in like:
        around[places[_highest(row[places], each)]] = True
    return np.flatnonzero(around)


def _highest(values: F64, count: int) -> I64:
    """Places of the `count` highest values; of equal ones the first."""
    if count >= len(values):
        return np.arange(len(values))
    least = np.partition(values, len(values) - count)[len(values) - count]
    above = np.flatnonzero(values > least)
    return np.concatenate([above, np.flatnonzero(values == least)[: count - len(above)]])


@nb.njit(nogil=True, cache=True)
def _between(key_offsets: Any, holders: Any, code: Any, classes: int) -> Any:
    """Tied pairs between classes of accounts, both ways round, shape (classes, classes)."""
    out = np.zeros((classes, classes))
    for k in range(len(key_offsets) - 1):
        for i in range(key_offsets[k], key_offsets[k + 1]):
            for j in range(i + 1, key_offsets[k + 1]):
                a, b = code[holders[i]], code[holders[j]]
                out[a, b] += 1
                out[b, a] += 1
    return out


@nb.njit(nogil=True, cache=True)
def _rank(members: Any, account_offsets: Any, keys: Any, first: Any, parent: Any) -> int:
    """Rank of the graph of `members` in which each key joins the first two of them that hold it.

    `first` (keys,) and `parent` (accounts,) are scratch; `first` is all -1, and returned so.
    """
    ties = 0
    for a in members:
        parent[a] = a
    for a in members:
        for i in range(account_offsets[a], account_offsets[a + 1]):
            key = keys[i]
            if first[key] == -1:
                first[key] = a
            elif first[key] >= 0:
                one, two = a, first[key]
                while parent[one] != one:
                    one = parent[one]
                while parent[two] != two:
                    two = parent[two]
                if one != two:
                    parent[one] = two
                    ties += 1
                first[key] = -2
    for a in members:
        for i in range(account_offsets[a], account_offsets[a + 1]):
            first[keys[i]] = -1
    return ties


@nb.njit(nogil=True, cache=True)
def _tied(
    tested: Any,
    key_offsets: Any,
    holders: Any,
    account_offsets: Any,
    keys: Any,
    n_keys: int,
    code: Any,
    degree: Any,
    rate: Any,
) -> Any:
    """(ties, expected ties) among the holders of each of `tested`; `rate` of two degrees by class of account."""
    first = np.full(n_keys, -1, np.int64)
    parent = np.empty(len(account_offsets) - 1, np.int64)
    ties, expected = np.zeros(len(tested), np.int64), np.zeros(len(tested))
    for t in range(len(tested)):
        members = holders[key_offsets[tested[t]] : key_offsets[tested[t] + 1]]
        ties[t] = _rank(members, account_offsets, keys, first, parent)
        total = np.zeros(len(rate))
        alone = 0.0
        for a in members:
            total[code[a]] += degree[a]
            alone += degree[a] * degree[a] * rate[code[a], code[a]]
        whole = 0.0
        for one in range(len(rate)):
            for two in range(len(rate)):
                whole += total[one] * total[two] * rate[one, two]
        expected[t] = max(0.0, (whole - alone) / 2)
    return ties, expected


def degrees(ties: KeyIndex) -> I64:
    """Pairs (other account, shared key) of each account, shape (accounts,)."""
    owner = np.repeat(np.arange(ties.accounts), np.diff(ties.account_offsets))
    return np.bincount(owner, ties.df()[ties.keys] - 1, ties.accounts).astype(np.int64)


def ties_by_class(words: KeyIndex, ties: KeyIndex, classes: I64) -> tuple[I64, I64, F64]:
    """(tested keys, ties among the holders of each, ties expected from their degrees and classes alone).

    `words`, `ties`: as `among` gives them. `classes` int64[accounts]: codes from 0 on, such as scripts.
    """
    tested = np.flatnonzero(words.df() >= LEAST_HOLDERS)
    degree = degrees(ties)
    n_classes = int(classes.max(initial=0)) + 1
    met = _between(ties.key_offsets, ties.holders, classes, n_classes)
    whole = np.bincount(classes, degree, n_classes)
    found, expected = _tied(
        tested,
        words.key_offsets,
        words.holders,
        ties.account_offsets,
        ties.keys,
        ties.n_keys,
        classes,
        degree.astype(float),
        met / np.maximum(1.0, np.outer(whole, whole)),
    )
    return tested, found, expected


def tied_wordings(
    words: KeyIndex, ties: KeyIndex, script: I64, common: csr_array, able: Bool
) -> TiedWordings:
    """Test the holders of every wording of `words`; see the module for what p means, `ties_by_class` for the rest.

    Wordings with fewer than `LEAST_TIES`, or with p above `CLOSER_P` by script alone, have p = 1: they are counted.
    """
    tested, found, expected = ties_by_class(words, ties, script)
    degree = degrees(ties)
    asked = (found >= LEAST_TIES) & (upper_tail(found, expected) <= CLOSER_P)
    for place in np.flatnonzero(asked).tolist():
        holders = words.held_by(int(tested[place])).astype(np.int64)
        closer = _in_circle(ties, degree, holders, circle(common, holders, able))
        expected[place] = max(expected[place], closer)
    p = np.where(asked, upper_tail(found, expected), 1.0)
    return TiedWordings(tested, words.df()[tested], found, expected, p, benjamini_hochberg(p))


def upper_tail(found: I64, expected: F64) -> F64:
    """Chance of at least `found` ties where `expected` are, shape (wordings,)."""
    return np.asarray(stats.poisson.sf(found - 1, np.maximum(expected, 1e-12)))


def _in_circle(ties: KeyIndex, degree: I64, holders: I64, around: I64) -> float:
    """Expected ties among `holders` at the rate at which the accounts `around` them are tied to each other."""
    _, count = ties.held(around)
    met, whole = float((count * (count - 1)).sum()), float(degree[around].sum())
    mine = degree[holders].astype(float)
    return float((mine.sum() ** 2 - (mine**2).sum()) / 2 * met / max(1.0, whole) ** 2)


def tied_among(ties: KeyIndex, members: I64) -> I64:
    """The members that share a key with another member."""
    key, count = ties.held(members)
    shared = key[count >= 2]
    return members[ties.hold_any(members, shared)]
