"""Stage 5: direct tests of one director. Each has a null of its own and needs no reference groups.

work split   one item set divided without overlap (a view of FORM)
sign-up      accounts opened by a script (LINK)
take-over    one account begins within two minutes of another's end or ban (TIME)

Conversations and reasoning blocks that move between accounts are in `detect.ledger`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numba as nb
import numpy as np
from scipy import special, stats

from stillwatch.detect.population import I64

SIGNUP_WITHIN_US = 5 * 60 * 1_000_000
TAKEOVER_WITHIN_US = 120 * 1_000_000
LOCAL_US = 15 * 60 * 1_000_000
"""Half-width of the window from which the local rate of endings is read: within a launch's hour rates change."""
RARE = 1e-3
"""Least mean of what is hardly ever seen."""
DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
PRIOR_SIGNUPS = 50.0
"""Sign-ups of the average day that are added to a day's own, so that a quiet day has a profile too."""


@dataclass(frozen=True, slots=True)
class Direct:
    """Outcome of one direct test. `observed` events where `expected` were expected under the null."""

    name: str
    view: str
    p: float
    observed: int
    expected: float
    reach: float = 1.0
    """Share of the group that the observed events can concern: a few accounts' director is not the group's."""
    alone: bool = True
    """Whether it can single a group out; else it only counts beside a test that did."""
    detail: str = ""
    """What was counted, where a test has several kinds, in words."""
    tail: str = "upper"
    """`upper`: p = P(X >= observed). `lower`: P(X <= observed)."""
    least: int = 1
    """Observed events below which p is 1."""
    floor: float = 0.0
    """Least mean that p is computed with: of rare events the expectation is not known better."""
    trials: int = 0
    """Of a binomial X; 0: X is Poisson."""
    times: float = 1.0
    """Bonferroni factor inside the test: p has been multiplied by it, up to 1."""
    counts: tuple[float, ...] = ()
    """What `expected` follows from, as `schema.proof` says for each test."""

    @property
    def mean(self) -> float:
        """Mean of X."""
        return max(self.expected, self.floor)


NO_SPLIT = Direct("work_split", "FORM", 1.0, 0, 0.0, tail="lower", least=0)
"""Of a group that has no item set to divide."""


@nb.njit(nogil=True, cache=True)
def _equal_pairs(ranked: Any) -> int:
    """Pairs of equal values among sorted ones."""
    pairs, run = 0, 0
    for i in range(len(ranked)):
        run = run + 1 if i > 0 and ranked[i] == ranked[i - 1] else 0
        pairs += run
    return pairs


def _codes(values: np.ndarray[tuple[int], Any]) -> tuple[I64, int]:
    """(dense code of each value, bits that the codes need)."""
    names, code = np.unique(values, return_inverse=True)
    return code.astype(np.int64), max(1, len(names) - 1).bit_length()


def _shared_out(owner: I64, first: I64, second: I64, bits: tuple[int, int]) -> tuple[int, int, int, int]:
    """Pairs of distinct (account, first, second) of different accounts: all, equal in `first`, `second`, both.

    Codes of parallel arrays (rows,); those of `first` and `second` need `bits`. All is found by sorting numbers
    that hold two or three codes.
    """
    pair = (first << bits[1]) | second
    width = sum(bits)
    if int(owner.max()).bit_length() + width < 64:
        triple = np.sort((owner << width) | pair)
        owner, pair = triple >> width, triple & ((1 << width) - 1)
    else:
        order = np.lexsort((pair, owner))
        owner, pair = owner[order], pair[order]
    fresh = np.append(True, (owner[1:] != owner[:-1]) | (pair[1:] != pair[:-1]))
    owner, pair = owner[fresh], pair[fresh]
    first, second = pair >> bits[1], pair & ((1 << bits[1]) - 1)
    return (
        len(pair) * (len(pair) - 1) // 2 - _equal_pairs(owner),
        _equal_pairs(np.sort(first)) - _equal_pairs((owner << bits[0]) | first),
        _equal_pairs(np.sort(second)) - _equal_pairs(np.sort((owner << bits[1]) | second)),
        _equal_pairs(np.sort(pair)),
    )


def work_split(account: I64, slots: np.ndarray[tuple[int, int], np.dtype[np.uint64]]) -> Direct:
    """Are items of one family shared out? `account` int64 (rows,), `slots` uint64 (rows, slots), 0 for empty.

    Over pairs of rows of different accounts: P pairs, Pa equal in slot a, Pb equal in slot b, Pab equal in both;
    with independent users Pab is about Pa Pb / P; p = Poisson(Pab; that). The smallest p over slot pairs is
    multiplied by their number. Accounts with private slots make no claim: Pa is 0.
    """
    best = NO_SPLIT
    pairs = list(combinations(range(slots.shape[1]), 2))
    if not pairs:
        return best
    owner, _ = _codes(account)
    columns = [_codes(column) for column in slots.T]
    for a, b in pairs:
        there = np.flatnonzero((slots[:, a] != 0) & (slots[:, b] != 0))
        if len(there) < 10:
            continue
        # A repeated item of one account is one draw: repeats are habits, not independent draws.
        (first, wide), (second, narrow) = columns[a], columns[b]
        total, equal_first, equal_second, both = _shared_out(
            owner[there], first[there], second[there], (wide, narrow)
        )
        if total == 0:
            continue
        expected = equal_first * equal_second / total
        p = float(special.pdtr(both, expected)) * len(pairs)
        if p < best.p:
            counts = float(total), float(equal_first), float(equal_second)
            best = replace(
                best, p=p, observed=both, expected=expected, times=float(len(pairs)), counts=counts
            )
    return best


def coarse(created_us: I64) -> bool:
    """Whether sign-up times are dates or hours: then whoever came on one day seems to have come at once."""
    return len(created_us) > 0 and float((created_us % HOUR_US == 0).mean()) > 0.5


@dataclass(frozen=True, slots=True)
class SignUps:
    """When all accounts of a log were opened: what `signup_batch` compares every group with."""

    created_us: I64
    """int64 (accounts,), 0 where unknown."""
    mail_class: I64
    """int64 (accounts,)."""
    coarse: bool
    hour: I64
    """Hours since 1970 in which at least one was opened, sorted."""
    count: I64
    """Accounts opened in each of them."""
    by_clock: I64
    """Accounts opened at each hour of the day, int64 (24,)."""

    def on(self, day: int) -> I64:
        """Accounts opened in each hour of one day (since 1970), int64 (24,)."""
        out = np.zeros(24, np.int64)
        a, b = np.searchsorted(self.hour, [day * 24, day * 24 + 24])
        out[self.hour[a:b] - day * 24] = self.count[a:b]
        return out


def sign_ups(created_us: I64, mail_class: I64) -> SignUps:
    """Count the sign-ups of a log, once for all groups."""
    known = created_us[created_us > 0]
    hour, count = np.unique(known // HOUR_US, return_counts=True)
    by_clock = np.bincount(hour % 24, count, minlength=24).astype(np.int64)
    return SignUps(created_us, mail_class, coarse(known), hour, count, by_clock)


def signup_batch(population: SignUps, members: I64) -> Direct:
    """Opened by a script? Given the day and the mail class, sign-ups follow the population's hours of that day.

    Counted are successive sign-ups of one class within five minutes (never more than the pairs that the expectation
    counts). The day on which most members signed up is left out: a course, a launch or a move of a firm's staff is
    one session, which explains it; a script comes again.
    """
    created_us = population.created_us
    known = members[created_us[members] > 0]
    none = Direct("signup_batch", "LINK", 1.0, 0, 0.0)
    if len(known) < 5 or population.coarse:
        return none
    # Everybody else's hours: the group does not explain itself.
    mine = created_us[known] // HOUR_US
    hour_of_day = population.by_clock - np.bincount(mine % 24, minlength=24) + 1.0
    average = hour_of_day / hour_of_day.sum()
    observed, concerned, expected = 0, 0, 0.0
    counts: list[float] = []
    days, busy = np.unique(created_us[known] // DAY_US, return_counts=True)
    known = known[created_us[known] // DAY_US != days[busy.argmax()]]
    day, kind = created_us[known] // DAY_US, population.mail_class[known]
    for d, k in np.unique(np.column_stack([day, kind]), axis=0).tolist():
        times = np.sort(created_us[known[(day == d) & (kind == k)]])
        if len(times) < 2:
            continue
        close = np.diff(times) <= SIGNUP_WITHIN_US
        observed += int(close.sum())
        concerned += int((np.append(close, False) | np.append(False, close)).sum())
        that_day = population.on(d) - np.bincount(mine[mine // 24 == d] % 24, minlength=24)
        profile = that_day + PRIOR_SIGNUPS * average
        profile = profile / profile.sum()
        # Two draws from one hour lie within five minutes of each other with probability about 2 x 5 / 60.
        chance = float((profile**2).sum()) * 2 * SIGNUP_WITHIN_US / HOUR_US
        expected += len(times) * (len(times) - 1) / 2 * chance
        counts += [float(len(times)), chance]
    if observed == 0:
        return none
    p = float(stats.poisson.sf(observed - 1, expected))
    reach = concerned / len(members)
    return Direct("signup_batch", "LINK", p, observed, expected, reach, counts=tuple(counts))


def takeover(
    first_us: I64, last_us: I64, banned_us: I64, members: I64, log_end_us: int, log_start_us: int
) -> Direct:
    """Does one account begin just when another ends or is banned?

    `first_us`, `last_us`, `banned_us` int64 (accounts,), 0 where there is none. A member counts when its first
    exchange comes at most two minutes after another member's end; the expectation is the local rate of the
    group's endings within a quarter of an hour either side.
    """
    starts = first_us[members]
    ends = np.where(banned_us[members] > 0, banned_us[members], last_us[members])
    # Whoever is active on the log's first or last day has no known beginning or end.
    begins = starts > log_start_us + DAY_US
    finished = (ends > 0) & ((ends < log_end_us - DAY_US) | (banned_us[members] > 0))
    ordered = np.sort(ends[finished])
    if begins.sum() < 3 or len(ordered) < 3:
        return Direct("takeover", "TIME", 1.0, 0, 0.0)
    at = starts[begins]
    hit = np.searchsorted(ordered, at) - np.searchsorted(ordered, at - TAKEOVER_WITHIN_US)
    near = np.searchsorted(ordered, at + LOCAL_US) - np.searchsorted(ordered, at - LOCAL_US)
    expected = float(np.minimum(near * (TAKEOVER_WITHIN_US / (2 * LOCAL_US)), 1.0).sum())
    observed = int((hit > 0).sum())
    p = float(stats.poisson.sf(observed - 1, max(expected, RARE))) if observed else 1.0
    counts = tuple(near.astype(float).tolist())
    reach = observed / len(members)
    return Direct("takeover", "TIME", p, observed, expected, reach, floor=RARE, counts=counts)
