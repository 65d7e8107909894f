"""Stage 7 in TIME: how an account's hours follow a group's, as an e-value calibrated on the population.

e = 0.5 / sqrt(p) (Vovk & Wang 2021, doi:10.1214/20-AOS2020), p the rank among accounts outside the group. Accounts
with a time-zone estimate are ranked by the correlation of their hourly residuals with the group's sum; quieter ones
by how much more the group was active in their hours than at the same time of other days, among accounts active in
as many hours: who merely lives in the group's time zone gains nothing. A member is compared with the group without
itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from stillwatch.detect.population import F64, I32, I64, Bool

LEAST_SEEN = 5
"""Members that TIME must be able to see before it says anything about a group."""
SAMPLE = 4096
"""Accounts that stand for the population in a rank."""
DAY = 24
PRIOR_HOURS = 10.0
"""Active hours of the whole population that are added to a group's own."""
LEAST_SPREAD = 0.2
"""Nats that are added (as a variance) to how much the group's activity at one time of day differs between days."""
BLOCK = 512
"""Accounts whose sums are held at once."""
CLASSES = np.array([2, 3, 4, 5, 7, 10, 15, 25])
"""Lower edges of the classes of active hours in which quiet accounts are ranked; the first class is one hour."""

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Rhythm:
    """What TIME knows of the population, computed once."""

    residuals: F32
    """Unit residuals, shape (accounts, hours); rows of zeros for quiet accounts."""
    loud: Bool
    """Accounts with a residual."""
    lengths: I64
    """Active hours per account."""
    offsets: I64
    """Rows of each account in `hours`, as in the activity table."""
    hours: I32
    share: F64
    """Share of all active (account, hour) pairs in each hour of the log."""
    kind: I64
    """Class of active hours per quiet account, -1 for loud accounts and for those that were never active."""
    loud_sample: I64
    """Accounts that stand for the population, sorted: loud ones, and quiet ones of every class."""
    quiet_sample: I64
    loud_columns: F32
    """Residuals of `loud_sample`, shape (hours, sampled accounts): what every group is compared with."""

    @property
    def most_bits(self) -> float:
        """The most that TIME can say about an account."""
        return float(np.log2(0.5 * np.sqrt(SAMPLE + 1)))


def build_rhythm(residuals: F32, offsets: I64, hours: I32, log_hours: int) -> Rhythm:
    """Index the activity table: `offsets` int64 (accounts+1,), `hours` int32, sorted by (account, hour)."""
    loud = np.any(residuals != 0, axis=1)
    lengths = np.diff(offsets)
    share = np.bincount(hours, minlength=log_hours) + 0.5
    kind = np.searchsorted(CLASSES, lengths, side="right")
    kind[loud | (lengths == 0)] = -1
    sample = _sample(np.flatnonzero(loud))
    quiet = [_sample(np.flatnonzero(kind == k), SAMPLE // 4) for k in range(len(CLASSES) + 1)]
    return Rhythm(
        residuals,
        loud,
        lengths,
        offsets,
        hours,
        share / share.sum(),
        kind,
        sample,
        np.sort(np.concatenate(quiet)),
        np.ascontiguousarray(residuals[sample].T),
    )


def _sample(accounts: I64, most: int = SAMPLE) -> I64:
    """At most `most` of them, spread by a fixed hash of the account's number."""
    if len(accounts) <= most:
        return accounts
    spread = (accounts.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return np.sort(accounts[np.argsort(spread, kind="stable")[:most]])


def rhythm_bits(rhythm: Rhythm, group: I64, accounts: I64) -> F64:
    """Bits of `accounts` for one group; 0 where TIME cannot see the account or the group."""
    bits = np.zeros(len(accounts))
    inside = np.zeros(len(rhythm.loud), bool)
    inside[group] = True
    seen = group[rhythm.loud[group]]
    chosen = np.flatnonzero(rhythm.loud[accounts])
    if len(seen) >= LEAST_SEEN and len(chosen):
        total = rhythm.residuals[seen].sum(axis=0, dtype=np.float64)
        square = float((total * total).sum())
        product = _products(rhythm.residuals, accounts[chosen], total)
        member = inside[accounts[chosen]]
        # A unit vector's product with the rest of its group is its product with the whole, less 1; and the rest's
        # square is the whole's, less twice that product, plus 1.
        rest = np.where(member, square - 2 * product + 1.0, square)
        value = (product - member) / np.sqrt(np.maximum(rest, 1e-18))
        null = _column_products(rhythm.loud_columns, total)[~inside[rhythm.loud_sample]]
        bits[chosen] = _ranked(value, null / max(np.sqrt(square), 1e-9))
    if len(group) >= LEAST_SEEN:
        _quiet_bits(rhythm, group, inside, accounts, bits)
    return bits


def _quiet_bits(rhythm: Rhythm, group: I64, inside: Bool, accounts: I64, bits: F64) -> None:
    counts = np.bincount(rhythm.hours[_rows(rhythm, group)], minlength=len(rhythm.share)).astype(float)
    asked = np.flatnonzero(rhythm.kind[accounts] >= 0)
    if len(asked) == 0:
        return
    mine = _hours_of(rhythm, counts, inside, accounts[asked])
    outside = rhythm.quiet_sample[~inside[rhythm.quiet_sample]]
    others = _hours_of(rhythm, counts, inside, outside)
    for kind in np.unique(rhythm.kind[accounts[asked]]):
        chosen = rhythm.kind[accounts[asked]] == kind
        bits[asked[chosen]] = _ranked(mine[chosen], others[rhythm.kind[outside] == kind])


def _rows(rhythm: Rhythm, accounts: I64) -> I64:
    starts, lengths = rhythm.offsets[accounts], rhythm.lengths[accounts]
    return np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(int(lengths.sum()))


def _hours_of(rhythm: Rhythm, counts: F64, inside: Bool, accounts: I64) -> F64:
    """How much more active than at the same time of other days the group was in each account's hours, standardised.

    Activity is the log-likelihood ratio of an hour: the group's profile over everybody's.
    """
    whole = counts.sum()
    ratio = _ratio(counts, whole, rhythm.share)
    usual, spread = _usual(rhythm.share, ratio)
    of_day = np.arange(len(ratio)) % DAY
    total, variance = _added(accounts, rhythm.offsets, rhythm.hours, ratio - usual[of_day], spread[of_day])
    members = np.flatnonzero(inside[accounts])
    if len(members):
        lengths = rhythm.lengths[accounts[members]]
        at = rhythm.hours[_rows(rhythm, accounts[members])]
        others = _ratio(counts[at] - 1, whole - np.repeat(lengths, lengths), rhythm.share[at])
        owner = np.repeat(np.arange(len(members)), lengths)
        total[members] = np.bincount(owner, others - usual[at % DAY], len(members))
    return np.asarray(total / np.sqrt(np.maximum(variance, LEAST_SPREAD**2)))


def _ratio(held: F64, whole: Any, base: F64) -> F64:
    return np.asarray(np.log((held + PRIOR_HOURS * base) / (whole + PRIOR_HOURS) / base))


def _usual(share: F64, ratio: F64) -> tuple[F64, F64]:
    """(mean, variance) of the hours' `ratio` per hour of the day, each day weighted by everybody's activity."""
    hour = np.arange(len(share)) % DAY
    weight = np.maximum(np.bincount(hour, share, DAY), 1e-300)
    mean = np.bincount(hour, share * ratio, DAY) / weight
    return mean, np.bincount(hour, share * (ratio - mean[hour]) ** 2, DAY) / weight + LEAST_SPREAD**2


@nb.njit(nogil=True, cache=True)
def _products(residuals: Any, accounts: Any, total: Any) -> Any:
    """Each account's residual times `total`, added up in one fixed order: the last digits are the same everywhere."""
    out = np.zeros(len(accounts))
    # One account's sum waits for its last addition; those of eight accounts do not wait for each other.
    eights = len(accounts) - len(accounts) % 8
    for i in range(0, eights, 8):
        a, b = residuals[accounts[i]], residuals[accounts[i + 1]]
        c, d = residuals[accounts[i + 2]], residuals[accounts[i + 3]]
        e, f = residuals[accounts[i + 4]], residuals[accounts[i + 5]]
        g, k = residuals[accounts[i + 6]], residuals[accounts[i + 7]]
        va = vb = vc = vd = ve = vf = vg = vk = 0.0
        for h in range(len(total)):
            t = total[h]
            va += a[h] * t
            vb += b[h] * t
            vc += c[h] * t
            vd += d[h] * t
            ve += e[h] * t
            vf += f[h] * t
            vg += g[h] * t
            vk += k[h] * t
        out[i], out[i + 1], out[i + 2], out[i + 3] = va, vb, vc, vd
        out[i + 4], out[i + 5], out[i + 6], out[i + 7] = ve, vf, vg, vk
    for i in range(eights, len(accounts)):
        row = residuals[accounts[i]]
        for h in range(len(total)):
            out[i] += row[h] * total[h]
    return out


@nb.njit(nogil=True, cache=True)
def _column_products(columns: Any, total: Any) -> Any:
    """As `_products`, of all `columns` (hours, accounts), in the same order of hours: many accounts at a time."""
    hours, n = columns.shape
    out = np.zeros(n)
    fours = hours - hours % 4
    for first in range(0, n, BLOCK):
        part = out[first : first + BLOCK]
        for h in range(0, fours, 4):
            a, b = columns[h, first : first + BLOCK], columns[h + 1, first : first + BLOCK]
            c, d = columns[h + 2, first : first + BLOCK], columns[h + 3, first : first + BLOCK]
            ta, tb, tc, td = total[h], total[h + 1], total[h + 2], total[h + 3]
            for i in range(len(part)):
                part[i] = (((part[i] + a[i] * ta) + b[i] * tb) + c[i] * tc) + d[i] * td
        for h in range(fours, hours):
            row = columns[h, first : first + BLOCK]
            for i in range(len(part)):
                part[i] += row[i] * total[h]
    return out


@nb.njit(nogil=True, cache=True)
def _added(accounts: Any, offsets: Any, hours: Any, first: Any, second: Any) -> Any:
    """Sums of `first` and of `second` (hours of the log,) over each account's hours."""
    one, two = np.zeros(len(accounts)), np.zeros(len(accounts))
    for i in range(len(accounts)):
        for j in range(offsets[accounts[i]], offsets[accounts[i] + 1]):
            one[i] += first[hours[j]]
            two[i] += second[hours[j]]
    return one, two


def _ranked(value: npt.NDArray[np.floating[Any]], null: npt.NDArray[np.floating[Any]]) -> F64:
    """log2(0.5 / sqrt(p)), p the share of `null` with at least this value."""
    # Sums of logarithms may differ in their last digits from machine to machine.
    null = np.sort(np.round(null.astype(np.float64), 6))
    p = (1 + len(null) - np.searchsorted(null, np.round(value.astype(np.float64), 6))) / (len(null) + 1)
    return np.asarray(np.log2(0.5 / np.sqrt(p)))
