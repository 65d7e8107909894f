"""Stage 7 in TIME: how an account's hours follow a group's, as an e-value calibrated on the population.

e = 0.5 / sqrt(p) (Vovk & Wang 2021, doi:10.1214/20-AOS2020), p the rank among accounts outside the group. Accounts
with a time-zone estimate are ranked by the correlation of their hourly residuals with the group's sum; quieter ones
by the mean log-likelihood ratio of the hours in which they were active, among accounts active in as many hours.
A member is compared with the group without itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stillwatch.detect.population import F64, I32, I64, Bool

LEAST_SEEN = 5
"""Members that TIME must be able to see before it says anything about a group."""
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
    quiet_rows: I64
    """Account of each active hour of the quiet accounts."""
    quiet_hours: I32
    """Hour of the log of each of them."""
    lengths: I64
    """Active hours per account."""
    offsets: I64
    """Rows of each account in `hours`, as in the activity table."""
    hours: I32
    share: F64
    """Share of all active (account, hour) pairs in each hour of the log."""
    kind: I64
    """Class of active hours per account."""


def build_rhythm(residuals: F32, offsets: I64, hours: I32, log_hours: int) -> Rhythm:
    """Index the activity table: `offsets` int64 (accounts+1,), `hours` int32, sorted by (account, hour)."""
    loud = np.any(residuals != 0, axis=1)
    lengths = np.diff(offsets)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    quiet = ~loud[owner]
    share = np.bincount(hours, minlength=log_hours) + 0.5
    return Rhythm(
        residuals,
        loud,
        owner[quiet],
        hours[quiet],
        lengths,
        offsets,
        hours,
        share / share.sum(),
        np.searchsorted(CLASSES, lengths, side="right"),
    )


def rhythm_bits(rhythm: Rhythm, group: I64) -> F64:
    """Bits of every account for one group, shape (accounts,); 0 where TIME cannot see the account or the group."""
    bits = np.zeros(len(rhythm.loud))
    inside = np.zeros(len(rhythm.loud), bool)
    inside[group] = True
    seen = group[rhythm.loud[group]]
    if len(seen) >= LEAST_SEEN:
        total = rhythm.residuals[seen].sum(axis=0, dtype=np.float32)
        value = rhythm.residuals @ total
        own = (total[None, :] - rhythm.residuals[seen]).astype(np.float32)
        norm = np.maximum(np.linalg.norm(own, axis=1), 1e-9)
        # A unit vector's correlation with the rest is its product with the whole, less the product with itself.
        mine = (value[seen] - 1.0) / norm
        value = value / max(float(np.linalg.norm(total)), 1e-9)
        value[seen] = mine
        chosen = rhythm.loud
        bits[chosen] = _ranked(value[chosen].astype(np.float64), inside[chosen])
    if len(group) >= LEAST_SEEN:
        _quiet_bits(rhythm, group, inside, bits)
    return bits


def _quiet_bits(rhythm: Rhythm, group: I64, inside: Bool, bits: F64) -> None:
    starts, lengths = rhythm.offsets[group], rhythm.lengths[group]
    rows = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(int(lengths.sum()))
    counts = np.bincount(rhythm.hours[rows], minlength=len(rhythm.share)).astype(float)
    total = counts.sum()
    at, owner = rhythm.quiet_hours, rhythm.quiet_rows
    member = inside[owner]
    held = counts[at] - member
    whole = total - np.where(member, rhythm.lengths[owner], 0)
    base = rhythm.share[at]
    ratio = np.log((held + PRIOR_HOURS * base) / (whole + PRIOR_HOURS) / base)
    n = len(bits)
    mean = np.bincount(owner, ratio, n) / np.maximum(1, rhythm.lengths)
    quiet = ~rhythm.loud & (rhythm.lengths > 0)
    for kind in range(len(CLASSES) + 1):
        chosen = quiet & (rhythm.kind == kind)
        if chosen.any():
            bits[chosen] = _ranked(mean[chosen], inside[chosen])


def _ranked(value: F64, inside: Bool) -> F64:
    """log2(0.5 / sqrt(p)), p the share of outsiders with at least this value."""
    # Sums of single-precision products may differ in their last digits from machine to machine.
    value = np.round(value, 6)
    null = np.sort(value[~inside])
    p = (1 + len(null) - np.searchsorted(null, value)) / (len(null) + 1)
    return np.asarray(np.log2(0.5 / np.sqrt(p)))
