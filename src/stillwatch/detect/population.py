"""The population that a scan looks at, and who may stand in for whom in a matched random group."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt
import xxhash

U64 = npt.NDArray[np.uint64]
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
    """A 63-bit seed from the run's seed, the stage and the members, for what is drawn once and is no test."""
    data = f"{seed}\x1f{stage}\x1f".encode() + np.sort(members).astype("<i8").tobytes()
    return xxhash.xxh3_64_intdigest(data) >> 1


def candidate_digest(members: npt.NDArray[np.integer]) -> bytes:
    """SHA-256 of the members' numbers in rising order, each as 8 bytes, lowest first.

    An account's number is its place, from 0, among all accounts of the log in the order of their ids (by code point).
    """
    return hashlib.sha256(np.sort(members).astype("<i8").tobytes()).digest()


@dataclass(frozen=True, slots=True)
class Draws:
    """The random draws of one test: each has a state of its own, and can be made again without the others.

    Four draws share one SHA-256: the state of draw d (from 0) is bytes 8 (d mod 4) to 8 (d mod 4) + 7, lowest first,
    of the hash of: the seed in decimal digits, byte 31, the stage, byte 31, the candidate's digest (32 bytes), d div
    4 as 8 bytes, lowest first. Splitmix64 goes on from it.
    """

    seed: int
    stage: str
    candidate: bytes

    @classmethod
    def of(cls, seed: int, stage: str, members: npt.NDArray[np.integer]) -> Draws:
        """The draws of the test called `stage` of the candidate `members`."""
        return cls(seed, stage, candidate_digest(members))

    def states(self, first: int, count: int) -> U64:
        """The states of the draws first, first + 1, ..., uint64 (count,)."""
        begun = hashlib.sha256(f"{self.seed}\x1f{self.stage}\x1f".encode() + self.candidate)
        found = bytearray()
        for number in range(first // 4, (first + count + 3) // 4):
            whole = begun.copy()
            whole.update(number.to_bytes(8, "little"))
            found += whole.digest()
        skipped = first % 4
        return np.frombuffer(found, "<u8")[skipped : skipped + count].astype(np.uint64)


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


@nb.njit(nogil=True, cache=True)
def _seat_level(
    code: Any,
    order: Any,
    starts: Any,
    seats: Any,
    excluded: Any,
    per_seat: int,
    offset: int,
    start: Any,
    size: Any,
) -> Any:
    """Donors of one level, stratum after stratum, for those of `seats` (stratum `code` each) that find enough.

    Fills `start` and `size` (seats,) of these; the others keep a size of 0. `offset`: donors of the levels before.
    """
    pool = np.empty(len(order), np.int64)
    used = 0
    rank = np.argsort(code)
    begin = 0
    while begin < len(rank):
        stratum = code[rank[begin]]
        end = begin
        while end < len(rank) and code[rank[end]] == stratum:
            end += 1
        least = max(1, per_seat * (end - begin))
        first = used
        if starts[stratum + 1] - starts[stratum] >= least:
            for i in range(starts[stratum], starts[stratum + 1]):
                if not excluded[order[i]]:
                    pool[used] = order[i]
                    used += 1
        if used - first >= least:
            for i in range(begin, end):
                start[seats[rank[i]]] = offset + first
                size[seats[rank[i]]] = used - first
        else:
            used = first
        begin = end
    return pool[:used].copy()


def seats_for(strata: Strata, members: I64, excluded: Bool) -> Seats:
    """Donor pools for each member. `excluded` bool[accounts] may never be drawn (the candidate itself).

    A stratum with fewer than `DONORS_PER_SEAT` donors per seat is coarsened, in the order of LEVELS.
    """
    start = np.zeros(len(members), np.int64)
    size = np.zeros(len(members), np.int64)
    pools: list[I64] = [np.zeros(0, np.int64)]
    offset = 0
    coarsest = 0
    for level in range(len(LEVELS)):
        seats = np.flatnonzero(size == 0)
        if len(seats) == 0:
            break
        # Whatever donors there are must do at the last level.
        per_seat = 0 if level == len(LEVELS) - 1 else DONORS_PER_SEAT
        code, order = strata.code[level][members[seats]], strata.order[level]
        found = _seat_level(code, order, strata.starts[level], seats, excluded, per_seat, offset, start, size)
        if len(found):
            pools.append(found)
            offset += len(found)
            coarsest = level
    return Seats(np.concatenate(pools), start, size, coarsest)
