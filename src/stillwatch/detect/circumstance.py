"""Circumstances: what fits a campaign and fits honest people too. They are told, and decide nothing.

probing          requests that the model declined come first, and the mass of requests after them
pivot            members ask a new model within a day of its release, more than others do
flat hours       members' quiet hours are less quiet than those of equally busy accounts
full throttle    new members work at their usual rate on their first day, more often than other new accounts
moving load      members' shares change while their sum stays flat

Each is compared with the rest of the log, because a release, a launch or an agent framework moves everybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from stillwatch.detect.population import I64, seeded

Bools = np.ndarray[Any, np.dtype[np.bool_]]
Floats = np.ndarray[Any, np.dtype[np.float64]]

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
LEVEL = 1e-3
"""Level at which a circumstance is told as one; else it is told that there is none."""
EARLY = 0.25
"""Share of a group's requests, in the order of time, that counts as early."""
BUSY = 48
"""Requests from which an account's hours of the day say something."""
QUIET_HOURS = 8
LEAST = 5
"""Members or events without which nothing is said."""
BIN_HOURS = 6
DRAWS = 199
MOST_MEMBERS = 300


@dataclass(frozen=True, slots=True)
class Circumstance:
    """One comparison: `observed` in the group, `expected` elsewhere, and how unlikely that is by chance."""

    name: str
    p: float
    observed: float
    expected: float

    @property
    def stands_out(self) -> bool:
        """Whether it is worth telling."""
        return self.p <= LEVEL


def probing(ts: I64, refused: Bools) -> Circumstance | None:
    """Were the group's early requests declined far more often than its later ones?

    `ts` int64, `refused` bool (requests of the group's own families,). Hypergeometric: which of the requests were
    declined does not depend on when. None where nothing was declined.
    """
    total, declined = len(ts), int(refused.sum())
    early = round(EARLY * total)
    if early < LEAST or declined < LEAST:
        return None
    first = refused[np.argsort(ts, kind="stable")[:early]]
    p = float(stats.hypergeom.sf(int(first.sum()) - 1, total, declined, early))
    later = (declined - int(first.sum())) / (total - early)
    return Circumstance("probing", p, float(first.mean()), later)


def pivot(asked_new: I64, asked: I64, members: I64) -> Circumstance | None:
    """Do members ask the new model on the day after its release more often than others?

    `asked_new`, `asked` int64 (accounts,): requests within a day of the release, to the new model and in all. An
    account has moved if most of its requests ask the new model. Binomial with the others' rate.
    """
    active = asked > 0
    moved = active & (2 * asked_new > asked)
    inside = np.zeros(len(asked), bool)
    inside[members] = True
    mine, others = int((active & inside).sum()), int((active & ~inside).sum())
    if mine < LEAST or others < LEAST:
        return None
    rate = (int((moved & ~inside).sum()) + 1) / (others + 2)
    hits = int((moved & inside).sum())
    return Circumstance("pivot", float(stats.binom.sf(hits - 1, mine, rate)), hits / mine, rate)


def quiet_shares(by_hour: I64) -> Floats:
    """Share of the requests in each account's eight quietest hours in a row; NaN for fewer than `BUSY` requests.

    `by_hour` int64 (accounts, 24): requests by hour of the day.
    """
    total = by_hour.sum(axis=1)
    wrapped = np.concatenate((by_hour, by_hour[:, : QUIET_HOURS - 1]), axis=1)
    sums = np.cumsum(np.concatenate((np.zeros((len(by_hour), 1), np.int64), wrapped), axis=1), axis=1)
    least = (sums[:, QUIET_HOURS:] - sums[:, :-QUIET_HOURS]).min(axis=1)
    out: Floats = np.where(total >= BUSY, least / np.maximum(total, 1), np.nan)
    return out


def flat_hours(quiet: Floats, volume: I64, members: I64) -> Circumstance | None:
    """Are members' quiet hours less quiet than those of others who are as busy?

    `quiet` as `quiet_shares` gives it. Members are compared with accounts of their own range of volume by
    Mann and Whitney's test (1947).
    """
    mine = quiet[members]
    mine = mine[~np.isnan(mine)]
    if len(mine) < LEAST:
        return None
    low, high = np.quantile(volume[members][~np.isnan(quiet[members])], (0.1, 0.9))
    like = (volume >= low) & (volume <= high) & ~np.isnan(quiet)
    like[members] = False
    others = quiet[like]
    if len(others) < LEAST:
        return None
    p = float(stats.mannwhitneyu(mine, others, alternative="greater").pvalue)
    return Circumstance("flat_hours", p, float(np.median(mine)), float(np.median(others)))


def full_throttle(first_day: Bools, new: Bools, members: I64) -> Circumstance | None:
    """Do new members reach their usual rate on the day they signed up more often than other new accounts?

    `new` bool (accounts,): signed up inside the log; `first_day` bool: within a day of that at its later daily mean.
    """
    inside = np.zeros(len(new), bool)
    inside[members] = True
    mine, others = int((new & inside).sum()), int((new & ~inside).sum())
    if mine < LEAST or others < LEAST:
        return None
    rate = (int((first_day & new & ~inside).sum()) + 1) / (others + 2)
    hits = int((first_day & new & inside).sum())
    return Circumstance("full_throttle", float(stats.binom.sf(hits - 1, mine, rate)), hits / mine, rate)


def moving_load(series: Floats, seed: int) -> Circumstance | None:
    """Does load move between members while their sum stays flat?

    `series` float64 (members, bins of `BIN_HOURS` over whole days). Statistic: variance of the sum over the sum of
    variances, 1 for independent members, less if one takes up what another drops. Null: every member's series is
    shifted by whole days of its own, which keeps each one's hours of the day; p is the normal tail of its logarithm.
    """
    days = series.shape[1] * BIN_HOURS // 24
    spread = series.var(axis=1).sum()
    if len(series) < LEAST or days < 4 or spread <= 0:
        return None
    rng = np.random.default_rng(seeded(seed, "moving_load", np.arange(len(series))))
    observed = float(series.sum(axis=0).var() / spread)
    width = 24 // BIN_HOURS
    values = []
    place = np.arange(series.shape[1])
    for _ in range(DRAWS):
        shift = rng.integers(0, days, len(series))[:, None] * width
        drawn = np.take_along_axis(series, (place[None, :] + shift) % (days * width), axis=1)
        values.append(float(np.log(drawn.sum(axis=0).var() / spread)))
    middle, width_of = float(np.mean(values)), max(float(np.std(values)), 1e-9)
    p = float(stats.norm.cdf((np.log(max(observed, 1e-12)) - middle) / width_of))
    return Circumstance("moving_load", p, observed, float(np.exp(middle)))
