"""The population that a scan looks at, and who may stand in for whom in a matched random group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

DONORS_PER_SEAT = 20
LEVELS = (
    "activity, time zone, kind of mail, sign-up, tier",
    "activity, time zone, kind of mail, sign-up",
    "activity, time zone, kind of mail",
    "activity, time zone",
    "activity",
    "none",
)
"""Matching levels, finest first: what a donor has in common with the member it stands in for."""


@dataclass(frozen=True, slots=True)
class Strata:
    """Stratum codes per account and level, shape (levels, accounts); donors sorted by stratum for each level."""

    code: I64
    order: I64
    starts: tuple[I64, ...]

    @property
    def accounts(self) -> int:
        return self.code.shape[1]


@dataclass(frozen=True, slots=True)
class Seats:
    """One matched random group is drawn by picking, for each seat, any account of `pool[start:start+size]`."""

    pool: I64
    start: I64
    size: I64
    level: int
    """Coarsest level that a seat needed (index into LEVELS)."""


def seeded(seed: int, stage: str, members: npt.NDArray[np.integer]) -> int:
    """A 63-bit seed from the run's seed, the stage and the members: draws do not depend on order or threads."""
    data = f"{seed}\x1f{stage}\x1f".encode() + np.sort(members).astype("<i8").tobytes()
    return xxhash.xxh3_64_intdigest(data) >> 1


def build_strata(
    volume: I64, block: npt.NDArray[np.uint8], mail_kind: I64, signup_month: I64, tier: I64, donors: Bool
) -> Strata:
    """Strata from exchanges per account (its decile is used), time-zone block, kind of mail (own domain, provider,
    unknown), sign-up month and tier codes, int64 (accounts,) each.

    `donors` bool[accounts]: who may stand in for a member. The staff of one organisation may not: colleagues sit on
    addresses and domains of their own, and beside them any two strangers on one carrier look tied.
    """
    n = len(volume)
    # Deciles of distinct volumes: ties stay together, whatever the order of accounts.
    edges = np.quantile(volume, np.arange(1, 10) / 10) if n else np.zeros(9)
    decile = np.searchsorted(np.unique(edges), volume, side="left")
    parts = [decile, block.astype(np.int64), _dense(mail_kind), _dense(signup_month), _dense(tier)]
    levels = [parts[: len(parts) - coarser] for coarser in range(len(LEVELS))]
    codes = np.zeros((len(LEVELS), n), np.int64)
    for index, chosen in enumerate(levels):
        code = np.zeros(n, np.int64)
        for part in chosen:
            code = code * (int(part.max(initial=0)) + 1) + part
        codes[index] = np.unique(code, return_inverse=True)[1]
    able = np.flatnonzero(donors)
    order = np.stack([able[np.argsort(code[able], kind="stable")] for code in codes])
    starts = tuple(
        np.concatenate(
            [[0], np.cumsum(np.bincount(code[able], minlength=int(code.max(initial=0)) + 1))]
        ).astype(np.int64)
        for code in codes
    )
    return Strata(codes, order, starts)


def _dense(values: I64) -> I64:
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def seats_for(strata: Strata, members: I64, excluded: Bool) -> Seats:
    """Donor pools for each member. `excluded` bool[accounts] may never be drawn (the candidate itself).

    A stratum with fewer than `DONORS_PER_SEAT` donors per seat is coarsened, in the order of LEVELS.
    """
    start = np.zeros(len(members), np.int64)
    size = np.zeros(len(members), np.int64)
    open_seats = np.ones(len(members), bool)
    pools: list[I64] = []
    offset = 0
    coarsest = 0
    for level in range(len(LEVELS)):
        if not open_seats.any():
            break
        code = strata.code[level][members]
        for stratum in np.unique(code[open_seats]):
            chosen = open_seats & (code == stratum)
            a, b = strata.starts[level][stratum], strata.starts[level][stratum + 1]
            donors = strata.order[level][a:b]
            donors = donors[~excluded[donors]]
            last = level == len(LEVELS) - 1
            if len(donors) < DONORS_PER_SEAT * int(chosen.sum()) and not last:
                continue
            if len(donors) == 0:
                continue
            pools.append(donors)
            start[chosen], size[chosen] = offset, len(donors)
            offset += len(donors)
            open_seats &= ~chosen
            coarsest = level
    pool = np.concatenate(pools) if pools else np.zeros(0, np.int64)
    return Seats(pool, start, size, coarsest)
