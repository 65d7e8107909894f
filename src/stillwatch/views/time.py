"""TIME: when accounts are active, beyond what their time zone's daily profile explains.

An account's time-zone block is read from its own activity; nothing here knows a country.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stillwatch.views.base import I32, I64

HOUR_US = 3_600_000_000
ENOUGH = 20
"""Exchanges below which an account has no time-zone estimate and sits TIME out."""
FLAT = 4
UNKNOWN = 5
FLAT_BELOW = 0.25
"""Length of the mean direction of activity on the 24 h circle below which an account runs round the clock."""

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Activity:
    """Exchanges per account and hour, sorted by (account, hour): parallel arrays and row offsets per account."""

    offsets: I64
    hour: I32
    count: I32
    hours: int

    @property
    def accounts(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True, slots=True)
class TimeView:
    """Time-zone block per account and the profile of each block."""

    activity: Activity
    block: npt.NDArray[np.uint8]
    """0..3: quarter of the day in which activity centres; FLAT: round the clock; UNKNOWN: too few exchanges."""
    profile: F32
    """Mean relative activity per block and hour of the log, shape (6, hours); each row has mean 1."""

    def residuals(self, accounts: npt.NDArray[np.int64]) -> F32:
        """Unit residual vectors, shape (len(accounts), hours); zero where an account sits TIME out."""
        activity = self.activity
        out = np.zeros((len(accounts), activity.hours), np.float32)
        starts, ends = activity.offsets[accounts], activity.offsets[accounts + 1]
        lengths = ends - starts
        at = np.repeat(np.arange(len(accounts)), lengths)
        source = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        out[at, activity.hour[source]] = np.sqrt(activity.count[source])
        mean = out.mean(axis=1, keepdims=True)
        out -= mean * self.profile[self.block[accounts]]
        out[self.block[accounts] == UNKNOWN] = 0
        norm = np.linalg.norm(out, axis=1, keepdims=True)
        return np.asarray(np.divide(out, norm, out=np.zeros_like(out), where=norm > 0), np.float32)


def build_time_view(activity: Activity, first_hour: int) -> TimeView:
    """Estimate blocks and profiles. `first_hour` is the log's first hour since 1970, UTC."""
    n = activity.accounts
    owner = np.repeat(np.arange(n), np.diff(activity.offsets))
    angle = 2 * np.pi * ((activity.hour + first_hour) % 24) / 24
    weight = np.sqrt(activity.count)
    total = np.bincount(owner, weight, n)
    x = np.bincount(owner, weight * np.cos(angle), n)
    y = np.bincount(owner, weight * np.sin(angle), n)
    exchanges = np.bincount(owner, activity.count, n)
    direction = np.mod(np.arctan2(y, x), 2 * np.pi)
    block = np.minimum((direction / (np.pi / 2)).astype(np.uint8), 3)
    length = np.divide(np.hypot(x, y), total, out=np.zeros(n), where=total > 0)
    block[length < FLAT_BELOW] = FLAT
    block[exchanges < ENOUGH] = UNKNOWN
    profile = np.ones((6, activity.hours), np.float32)
    share = weight / np.maximum(total, 1e-9)[owner]
    for code in range(5):
        members = block == code
        if members.sum() >= 20:
            rows = members[owner]
            summed = np.bincount(activity.hour[rows], share[rows], activity.hours)
            profile[code] = summed / max(summed.mean(), 1e-12)
    return TimeView(activity, block, profile)
