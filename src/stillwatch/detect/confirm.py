"""Stage 4: is a candidate coordinated? p-values on the views that did not find it.

The null is exchangeability within strata: a matched random group stands in for the candidate, seat by seat. After
`MOST_DRAWS` draws with too few exceedances a generalised Pareto tail is fitted to the largest null values
(Knijnenburg et al. 2009, doi:10.1093/bioinformatics/btp211), by moments and with a shape of at least 0, so that
it errs on the careful side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numba as nb
import numpy as np

from stillwatch.detect.keys import KeyIndex
from stillwatch.detect.population import (
    F64,
    I64,
    U64,
    Bool,
    Draws,
    Seats,
    Strata,
    candidate_digest,
    seats_for,
    seeded,
)
from stillwatch.detect.rhythm import Rhythm
from stillwatch.detect.scratch import Scratch

VIEWS = ("FORM", "LINK", "TIME")
MOST_DRAWS = 999
STOP_AFTER = 10
"""Exceedances after which drawing stops: the candidate is ordinary."""
BLOCKS = (32, 128, 384)
"""Numbers of draws, multiples of four, up to which states are made at once."""
TAIL = 100
"""Largest null values that the tail is fitted to."""
LARGE_GROUP = 200
SUBGROUPS = 15
LEAST_IN_TIME = 5
_scratch = Scratch()


@dataclass(frozen=True, slots=True)
class Tested:
    """A p-value with how it came about."""

    view: str
    p: float
    statistic: float
    expected: float
    """Mean of the statistic over matched random groups."""
    draws: int
    method: str
    """`permutation`, `permutation with fitted tail`, `none` (the view could not see the group)."""
    level: int
    """Coarsest matching level used (index into `population.LEVELS`)."""
    above: int = 0
    """Null values that reach the statistic."""
    parts: int = 1
    """Parts of a large candidate, of which the median counts."""
    null: F64 | None = field(default=None, compare=False)
    """The null values, where they were kept."""


@nb.njit(nogil=True, cache=True)
def co_occurrence(
    members: Any, account_offsets: Any, keys: Any, weight: Any, count: Any, touched: Any
) -> float:
    """Sum over keys of weight x pairs of members that share the key; all weights are above 0 (`KeyIndex.telling`).

    `count` (keys,) is zeroed scratch, `touched` (keys+1,) scratch.
    """
    total = 0.0
    n = 0
    for m in members:
        for i in range(account_offsets[m], account_offsets[m + 1]):
            key = keys[i]
            held = count[key]
            # Strangers share little, so that the weight is hardly ever looked up.
            if held > 0:
                total += weight[key] * held
            touched[n] = key
            n += held == 0
            count[key] = held + 1
    for i in range(n):
        count[touched[i]] = 0
    return total


@nb.njit(nogil=True, cache=True)
def _next(state: Any) -> Any:
    """splitmix64 (Steele et al. 2014): the next state; the draw is its avalanche."""
    return state + np.uint64(0x9E3779B97F4A7C15)


@nb.njit(nogil=True, cache=True)
def _avalanche(z: Any) -> Any:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@nb.njit(nogil=True, cache=True)
def _draw(pool: Any, start: Any, size: Any, used: Any, mark: int, out: Any, state: Any) -> Any:
    """Fill `out` with one account per seat, none twice (`used` holds the mark of the last draw), from `state` on."""
    for s in range(len(start)):
        account = pool[start[s]]
        for _ in range(50):
            state = _next(state)
            account = pool[start[s] + np.int64(_avalanche(state) % np.uint64(size[s]))]
            if used[account] != mark:
                break
        used[account] = mark
        out[s] = account


@nb.njit(nogil=True, cache=True)
def _null_of_keys(
    observed: float,
    pool: Any,
    start: Any,
    size: Any,
    bounds: Any,
    account_offsets: Any,
    keys: Any,
    weight: Any,
    count: Any,
    touched: Any,
    used: Any,
    mark: int,
    first: int,
    states: Any,
    stop: int,
) -> Any:
    """(null values of the draws first, first + 1, ..., how many reach `observed`): up to `stop` that do."""
    out = np.empty(len(start), np.int64)
    null = np.empty(len(states))
    above = 0
    for d in range(len(states)):
        part = (first + d) % (len(bounds) - 1)
        a, b = bounds[part], bounds[part + 1]
        _draw(pool, start[a:b], size[a:b], used, mark + first + d, out, states[d])
        null[d] = co_occurrence(out[: b - a], account_offsets, keys, weight, count, touched)
        if null[d] >= observed:
            above += 1
            if above >= stop:
                return null[: d + 1], above
    return null, above


@nb.njit(nogil=True, cache=True)
def _correlation(members: Any, residuals: Any, loud: Any, total: Any, seen: Any) -> float:
    """Mean pairwise correlation of unit rows. `loud` bool[accounts]: rows that are not all zeros; no other counts.

    `total` (hours,) and `seen` (members,) are scratch.
    """
    hours = residuals.shape[1]
    there = 0
    for m in members:
        if loud[m]:
            seen[there] = m
            there += 1
    if there < 2:
        return 0.0
    total[:] = 0.0
    # Eight rows in one pass: memory is asked for all of them at once. Every hour adds up in the members' order.
    eights = there - there % 8
    for i in range(0, eights, 8):
        a, b, c, d = (
            residuals[seen[i]],
            residuals[seen[i + 1]],
            residuals[seen[i + 2]],
            residuals[seen[i + 3]],
        )
        e, f, g, k = (
            residuals[seen[i + 4]],
            residuals[seen[i + 5]],
            residuals[seen[i + 6]],
            residuals[seen[i + 7]],
        )
        for h in range(hours):
            first = (((total[h] + a[h]) + b[h]) + c[h]) + d[h]
            total[h] = (((first + e[h]) + f[h]) + g[h]) + k[h]
    for i in range(eights, there):
        row = residuals[seen[i]]
        for h in range(hours):
            total[h] += row[h]
    square = 0.0
    for h in range(hours):
        square += total[h] * total[h]
    return (square - there) / (there * (there - 1))


@nb.njit(nogil=True, cache=True)
def _null_of_time(
    observed: float,
    pool: Any,
    start: Any,
    size: Any,
    bounds: Any,
    residuals: Any,
    loud: Any,
    used: Any,
    mark: int,
    first: int,
    states: Any,
    stop: int,
) -> Any:
    """As `_null_of_keys`."""
    out, seen = np.empty(len(start), np.int64), np.empty(len(start), np.int64)
    total = np.zeros(residuals.shape[1])
    null = np.empty(len(states))
    above = 0
    for d in range(len(states)):
        part = (first + d) % (len(bounds) - 1)
        a, b = bounds[part], bounds[part + 1]
        _draw(pool, start[a:b], size[a:b], used, mark + first + d, out, states[d])
        null[d] = _correlation(out[: b - a], residuals, loud, total, seen)
        if null[d] >= observed:
            above += 1
            if above >= stop:
                return null[: d + 1], above
    return null, above


def _in_blocks(
    draws: Draws, most: int, kernel: Callable[[int, U64, int], tuple[F64, int]]
) -> tuple[F64, int]:
    """(null values, how many reach what was observed) of up to `most` draws, fewer where `STOP_AFTER` did.

    `kernel` makes the draws from a number on, given their states and how many exceedances end it. Most candidates
    stop early, and a state costs as much as a small group's draw: states are made when they are needed.
    """
    null: list[F64] = []
    done, above = 0, 0
    for end in (*(end for end in BLOCKS if end < most), most):
        values, reached = kernel(done, draws.states(done, end - done), STOP_AFTER - above)
        null.append(values)
        above += reached
        if above >= STOP_AFTER:
            break
        done = end
    return np.concatenate(null), above


def tail_p(null: F64, observed: float) -> float:
    """P(null >= observed) from a generalised Pareto tail over the largest TAIL values of `null`.

    Sums are exact before they are rounded, so that whoever computes p again gets the same digits.
    """
    ranked = np.sort(null)
    floor = (np.sum(null >= observed) + 1) / (len(null) + 1)
    if len(ranked) <= TAIL:
        return float(floor)
    threshold = float(ranked[-TAIL] + ranked[-TAIL - 1]) / 2
    excess = [value - threshold for value in ranked[-TAIL:].tolist()]
    mean = math.fsum(excess) / TAIL
    variance = math.fsum((value - mean) ** 2 for value in excess) / (TAIL - 1)
    if observed <= threshold or variance <= 0 or mean <= 0:
        return float(floor)
    shape = min(max(0.5 * (1 - mean * mean / variance), 0.0), 0.45)
    scale = mean * (1 - shape)
    far = (observed - threshold) / scale
    tail = math.exp(-far if shape < 1e-9 else -math.log1p(shape * far) / shape)
    return min(1.0, max(TAIL / len(null) * tail, 1e-15))


def _conclude(view: str, null: F64, above: int, observed: float, level: int, parts: int) -> Tested:
    """Parts of a large candidate are combined as twice the median p (valid under any dependence; Rüger 1978).

    One null serves all parts, so the part of the median statistic is the part of the median p.
    """
    if above >= STOP_AFTER:
        # Besag & Clifford 1991: after a fixed number of exceedances p = exceedances / draws.
        p, method = above / len(null), "permutation"
    else:
        p, method = tail_p(null, observed), "permutation with fitted tail"
    if parts > 1:
        p = min(1.0, 2 * p)
    return Tested(view, p, float(observed), float(null.mean()), len(null), method, level, above, parts, null)


def _side_by_side(seats: Sequence[Seats], chosen: Sequence[Bool]) -> tuple[I64, I64, I64, I64]:
    """(pool, start, size, bounds) of the `chosen` seats of each part: part `i` has seats bounds[i]:bounds[i+1]."""
    before = np.cumsum([0, *(len(s.pool) for s in seats)])
    return (
        np.concatenate([s.pool for s in seats]),
        np.concatenate([s.start[c] + b for s, c, b in zip(seats, chosen, before[:-1], strict=True)]),
        np.concatenate([s.size[c] for s, c in zip(seats, chosen, strict=True)]),
        np.cumsum([0, *(int(c.sum()) for c in chosen)]).astype(np.int64),
    )


def keys_against_null(
    index: KeyIndex,
    view: str,
    parts: Sequence[I64],
    seats: Sequence[Seats],
    draws: Draws,
    most: int = MOST_DRAWS,
) -> Tested:
    """Rarity-weighted co-occurrence of the candidate, or of its `parts`, against groups that match them in turn."""
    own = index.telling
    count, touched = _scratch.of_keys(len(own.key))
    each = sorted(
        co_occurrence(members, own.account_offsets, own.keys, own.weight, count, touched) for members in parts
    )
    observed = each[len(each) // 2]
    level = max(s.level for s in seats)
    if observed <= 0 or min(len(s.pool) for s in seats) == 0:
        return Tested(view, 1.0, float(observed), 0.0, 0, "none", level, parts=len(parts))
    places = _side_by_side(seats, [np.ones(len(s.start), bool) for s in seats])
    marks = _scratch.marks(index.accounts, most)

    def kernel(first: int, states: U64, stop: int) -> Any:
        held = own.account_offsets, own.keys, own.weight
        return _null_of_keys(observed, *places, *held, count, touched, *marks, first, states, stop)

    return _conclude(view, *_in_blocks(draws, most, kernel), observed, level, len(parts))


def mean_correlation(rhythm: Rhythm, members: I64) -> float:
    """Mean pairwise correlation of the members' unit residuals; quiet members do not count."""
    residuals = rhythm.residuals
    total, seen = np.zeros(residuals.shape[1]), np.empty(len(members), np.int64)
    return float(_correlation(members, residuals, rhythm.loud, total, seen))


def time_against_null(
    rhythm: Rhythm, parts: Sequence[I64], seats: Sequence[Seats], draws: Draws, most: int = MOST_DRAWS
) -> Tested:
    """Mean pairwise correlation of hourly residuals of the candidate, or of its `parts`; else as for keys."""
    seen = [rhythm.loud[members] for members in parts]
    visible = [i for i, loud in enumerate(seen) if loud.sum() >= LEAST_IN_TIME]
    level = max(s.level for s in seats)
    if 2 * len(visible) <= len(parts) or min(len(s.pool) for s in seats) == 0:
        return Tested("TIME", 1.0, 0.0, 0.0, 0, "none", level, parts=len(parts))
    # A part that TIME cannot see has p = 1.
    blind = [-np.inf] * (len(parts) - len(visible))
    each = blind + sorted(mean_correlation(rhythm, parts[i]) for i in visible)
    observed = each[len(each) // 2]
    places = _side_by_side([seats[i] for i in visible], [seen[i] for i in visible])
    marks = _scratch.marks(len(rhythm.loud), most)

    def kernel(first: int, states: U64, stop: int) -> Any:
        return _null_of_time(observed, *places, rhythm.residuals, rhythm.loud, *marks, first, states, stop)

    return _conclude("TIME", *_in_blocks(draws, most, kernel), observed, level, len(parts))


def subgroups(members: I64, seed: int) -> list[I64]:
    """The groups that are tested: the candidate itself, or SUBGROUPS fixed random parts of a large one."""
    if len(members) <= LARGE_GROUP:
        return [members]
    rng = np.random.default_rng(seeded(seed, "subgroups", members))
    return [np.sort(rng.choice(members, LARGE_GROUP, replace=False)) for _ in range(SUBGROUPS)]


SETTLED_P = 1e-9
"""A view's p at which the views after it are not drawn: nothing that they say changes the candidate's q."""


def confirm(
    members: I64,
    found_in: str,
    indexes: dict[str, KeyIndex],
    rhythm: Rhythm,
    strata: Strata,
    seed: int,
    *,
    whole: bool = False,
    keep: bool = False,
) -> list[Tested]:
    """Test a candidate on every view but the one that found it, in the order of `indexes`, TIME last.

    Unless `whole`, TIME is left out where a view before it has settled the matter. `keep` keeps the null values. The
    stage of the draws is `confirm` and the view, the candidate is `members`.
    """
    excluded = np.zeros(strata.accounts, bool)
    excluded[members] = True
    parts = subgroups(members, seed)
    seats = [seats_for(strata, part, excluded) for part in parts]
    candidate = candidate_digest(members)
    tested = []
    for view, index in indexes.items():
        if view == found_in:
            continue
        draws = Draws(seed, f"confirm {view}", candidate)
        tested.append(keys_against_null(index, view, parts, seats, draws))
    if whole or not settled(tested):
        draws = Draws(seed, "confirm TIME", candidate)
        tested.append(time_against_null(rhythm, parts, seats, draws))
    return tested if keep else [replace(test, null=None) for test in tested]


def settled(tested: Sequence[Tested]) -> bool:
    """Whether the views before TIME leave nothing to ask it."""
    return min(test.p for test in tested) <= SETTLED_P


def other_views(found_in: str) -> int:
    """Views on which a candidate is tested: all of `VIEWS` but the one that found it."""
    return len(VIEWS) - (found_in in VIEWS)


def partial_conjunction(tested: list[Tested], views: int = 2) -> float:
    """p of "at least one other view confirms": Bonferroni over the `views` that a candidate is tested on.

    Views that could not see the group count too: leaving them out would be a choice made after looking.
    """
    seen = [t.p for t in tested if t.method != "none"]
    return min(1.0, views * min(seen)) if seen else 1.0


def benjamini_hochberg(p: F64) -> F64:
    """q-values (Benjamini & Hochberg 1995), shape (tests,)."""
    n = len(p)
    order = np.argsort(p, kind="stable")
    ranked = p[order] * n / np.arange(1, n + 1)
    q = np.empty(n)
    q[order] = np.minimum(1.0, np.minimum.accumulate(ranked[::-1])[::-1])
    return q
