"""Stage 7 in TIME: how an account's hours follow a group's, as an e-value calibrated on the population.

e = 0.5 / sqrt(p) (Vovk & Wang 2021, doi:10.1214/20-AOS2020), p the rank among accounts outside the group. Accounts
with a time-zone estimate are ranked by the correlation of their hourly residuals with the group's sum; quieter ones
by the mean log-likelihood ratio of the hours in which they were active, among accounts active in as many hours.
A member is compared with the group without itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stillwatch.detect.population import F64, I32, I64, Bool

LEAST_SEEN = 5
"""Members that TIME must be able to see before it says anything about a group."""
SAMPLE = 4096
"""Accounts that stand for the population in a rank."""
PRIOR_HOURS = 10.0
"""Active hours of the whole population that are added to a group's own."""
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
    loud_residuals: F32
    quiet_sample: I64

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
        residuals[sample],
        np.sort(np.concatenate(quiet)),
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
        total = rhythm.residuals[seen].sum(axis=0, dtype=np.float32)
        length = max(float(np.linalg.norm(total)), 1e-9)
        mine = rhythm.residuals[accounts[chosen]]
        value = (mine @ total) / length
        member = inside[accounts[chosen]]
        own = total[None, :] - mine[member]
        # A unit vector's product with the rest of its group is its product with the whole, less 1.
        value[member] = (value[member] * length - 1.0) / np.maximum(np.linalg.norm(own, axis=1), 1e-9)
        null = ((rhythm.loud_residuals @ total) / length)[~inside[rhythm.loud_sample]]
        bits[chosen] = _ranked(value, null)
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
    """Mean log-likelihood ratio of each account's active hours: the group's profile over everybody's."""
    at = rhythm.hours[_rows(rhythm, accounts)]
    lengths = rhythm.lengths[accounts]
    owner = np.repeat(np.arange(len(accounts)), lengths)
    member = inside[accounts][owner]
    held = counts[at] - member
    whole = counts.sum() - np.where(member, lengths[owner], 0)
    base = rhythm.share[at]
    ratio = np.log((held + PRIOR_HOURS * base) / (whole + PRIOR_HOURS) / base)
    return np.asarray(np.bincount(owner, ratio, len(accounts)) / np.maximum(1, lengths))


def _ranked(value: npt.NDArray[np.floating[Any]], null: npt.NDArray[np.floating[Any]]) -> F64:
    """log2(0.5 / sqrt(p)), p the share of `null` with at least this value."""
    # Sums of single-precision products may differ in their last digits from machine to machine.
    null = np.sort(np.round(null.astype(np.float64), 6))
    p = (1 + len(null) - np.searchsorted(null, np.round(value.astype(np.float64), 6))) / (len(null) + 1)
    return np.asarray(np.log2(0.5 / np.sqrt(p)))
