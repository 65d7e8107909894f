"""From confirmed candidates to groups: each candidate grows and shrinks to the accounts that its own evidence names.

A candidate is a piece of one operation, several operations that share an address block, or an operation with honest
bystanders. The member score (stage 7) is applied to it until it no longer changes: who gains bits in two views stays,
who hangs on by one key leaves. Pieces of one operation end in the same set. What ends as a mixture of several sets
gives way to the denser ones, and every account goes to the group for which its evidence is strongest.

Only accounts of confirmed candidates take part. Whoever discovery missed joins a settled group as a recruit, on
`RECRUIT_BITS` more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from stillwatch.detect import explain as ex
from stillwatch.detect import ledger as ld
from stillwatch.detect import members as mb
from stillwatch.detect.discover import LEAST_GROUP
from stillwatch.detect.keys import KeyIndex
from stillwatch.detect.rhythm import Rhythm, rhythm_bits
from stillwatch.engine.threads import each, workers
from stillwatch.views.base import F64, I32, I64

ROUNDS = 4
SETTLING = 3
SECOND_VIEW_BITS = 1.0
"""A member needs evidence besides the strongest view: e-values of the others that at least double the odds."""
COPIED_BITS = 7.0
"""Most that FORM may add: text travels, so up to one honest account in 128 may hold any wording by copying it."""
PIECE_BITS, PIECE_SECOND_BITS = 5.0, 0.5
RECRUIT_BITS = 2.0
"""Bits that an account which stands in no confirmed candidate needs besides."""
LINKED_BITS = 4.0
"""LINK bits of the typical member from which a group counts as linked: who has no link is then a bystander."""
NEAR_LIFT = 5.0
"""An account that holds no key this much more frequent in the group cannot have enough bits."""
MARGIN_BITS = 1.0
"""Bits, over all views, above the odds that an account picked at random belongs to a group of this size: whoever is
named is at least twice as likely a member as not."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Views:
    """The indexes of the views with keys, and what is computed of them once, however many groups are judged."""

    indexes: dict[str, KeyIndex]
    base: dict[str, mb.Background] = field(init=False)
    _free: dict[str, list[I32]] = field(init=False)
    """Scratch for `members.key_bits` that nobody uses now. As long as all keys of a log, it outlives its thread."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", {v: mb.background(i, v == "FORM") for v, i in self.indexes.items()})
        object.__setattr__(self, "_free", {view: [] for view in self.indexes})

    def bits(self, view: str, members: I64, accounts: I64) -> F64:
        """Bits of `accounts` in one view; a member is compared with the group without itself."""
        index, free = self.indexes[view], self._free[view]
        try:
            place = free.pop()
        except IndexError:
            place = np.full(len(index.telling.key), -1, np.int32)
        found = mb.key_bits(index, members, self.base[view], accounts, place)
        free.append(place)
        return found


@dataclass(frozen=True)
class Evidence:
    """What accounts are judged by."""

    views: Views
    rhythm: Rhythm
    pool: I64
    """Accounts that may be members, sorted."""
    partners: ld.Partners

    @property
    def indexes(self) -> dict[str, KeyIndex]:
        return self.views.indexes

    @property
    def accounts(self) -> int:
        return len(self.rhythm.loud)

    def bits(self, members: I64, accounts: I64) -> dict[str, F64]:
        """Bits of `accounts` per view; a member is compared with the group without itself."""
        found = {view: self.views.bits(view, members, accounts) for view in self.indexes}
        found["TIME"] = rhythm_bits(self.rhythm, members, accounts) + self.taken_up(members, accounts)
        return found

    def taken_up(self, members: I64, accounts: I64) -> F64:
        """Bits from conversations and reasoning blocks that `accounts` exchange with the members.

        They count with TIME: both say who carries on for whom.
        """
        return ld.partner_bits(self.partners, members, accounts)

    def near(self, members: I64) -> I64:
        """Accounts of the pool with enough of what tells the group from others to be worth a look."""
        held = np.zeros(self.accounts, bool)
        for index in self.indexes.values():
            held |= index.held_by_any(index.frequent(members, 2, NEAR_LIFT))
        held[members] = True
        held[self.partners.of(members)[1]] = True
        return self.pool[held[self.pool]]

    def density(self, members: I64) -> float:
        """Shared rarity (nats) per pair of members, over the views with keys."""
        total = 0.0
        for index in self.indexes.values():
            key, counts = index.held(members)
            total += float((counts * (counts - 1) / 2 * index.weight[key]).sum())
        return total / (len(members) * (len(members) - 1) / 2)

    def named(self, members: I64, accounts: I64, own: float | None = None) -> tuple[np.ndarray, F64]:
        """As `belongs`, for `accounts`; TIME is asked only where it can still make a difference.

        `own`: what `linked` says of the members, where `accounts` are not among them.
        """
        bits = {view: self.views.bits(view, members, accounts) for view in self.indexes}
        moved = self.taken_up(members, accounts)
        bits["TIME"] = self.rhythm.most_bits + moved
        least = linked(bits["LINK"][np.isin(accounts, members)]) if own is None else own
        open_to, total = self.belongs(bits, len(members), least)
        asked = np.flatnonzero(open_to)
        bits["TIME"][asked] = rhythm_bits(self.rhythm, members, accounts[asked]) + moved[asked]
        enough, total = self.belongs(bits, len(members), least)
        return enough & open_to, total

    def recruits(self, members: I64) -> tuple[I64, F64]:
        """(accounts of the pool outside `members` that have what it takes, bits over all views)."""
        near = self.near(members)
        near = near[~np.isin(near, members)]
        mine = self.views.bits("LINK", members, members)
        enough, total = self.named(members, near, linked(mine))
        enough &= total >= np.log2(self.accounts / len(members)) + MARGIN_BITS + RECRUIT_BITS
        return near[enough], total[enough]

    def belongs(self, bits: dict[str, F64], size: int, least_link: float = -np.inf) -> tuple[np.ndarray, F64]:
        """(who has enough bits to be a member of a group of `size`, bits over all views)."""
        total = self.total(bits)
        enough = self.plenty(bits, size) & (bits["LINK"] >= least_link)
        return enough & (mb.combine_views(bits) >= SECOND_VIEW_BITS), total

    def total(self, bits: dict[str, F64]) -> F64:
        """Bits over all views."""
        return np.asarray(np.minimum(bits["FORM"], COPIED_BITS) + bits["LINK"] + bits["TIME"])

    def plenty(self, bits: dict[str, F64], size: int) -> np.ndarray:
        """Who has enough bits, whatever view they come from."""
        return np.asarray(self.total(bits) >= np.log2(self.accounts / size) + MARGIN_BITS)

    def step(self, members: I64) -> I64:
        """The accounts that the evidence of `members` names."""
        near = self.near(members)
        return near[self.named(members, near)[0]]

    def settled(self, members: I64) -> I64:
        """The set that `members` turn into; fewer than LEAST_GROUP when nothing holds them together."""
        ends = self.settled_all([members])
        return ends[0] if ends else members[:0]

    def settled_all(self, candidates: Sequence[I64], progress: Progress | None = None) -> list[I64]:
        """What the candidates turn into in at most ROUNDS steps: equal sets once, none below LEAST_GROUP.

        All of them step together, because many soon become the same set, which then is looked at once.
        """
        moving = {members.tobytes(): members for members in candidates}
        ended: dict[bytes, I64] = {}
        with ThreadPoolExecutor(workers()) as pool:
            for number in range(ROUNDS):
                now = [members for members in moving.values() if len(members) >= LEAST_GROUP]
                moving = {}
                # One set is looked at in this thread: many groups are settled side by side.
                steps = pool.map(self.step, now) if len(now) > 1 else map(self.step, now)
                for place, (members, after) in enumerate(zip(now, steps, strict=True)):
                    if progress is not None:
                        progress("members", number * len(now) + place, ROUNDS * len(now))
                    still = np.array_equal(members, after)
                    (ended if still else moving)[after.tobytes()] = after
                moving = {name: members for name, members in moving.items() if name not in ended}
        return [members for members in (ended | moving).values() if len(members) >= LEAST_GROUP]


def linked(bits: F64) -> float:
    """LINK bits that a member needs: none, unless the members are linked to each other.

    Honest users of a public item set share wording and, after a release, hours with an operation that hides among
    them. What they do not share is what its accounts were bought with.
    """
    return SECOND_VIEW_BITS if len(bits) and np.median(bits) >= LINKED_BITS else -np.inf


def refine(evidence: Evidence, candidates: Sequence[I64], progress: Progress) -> list[I64]:
    """Disjoint groups, densest first. Each candidate is a sorted array of accounts of the pool."""
    found = evidence.settled_all(candidates, progress)
    ranked = sorted(found, key=lambda m: (-round(evidence.density(m), 9), m.tolist()))
    taken = np.zeros(evidence.accounts, bool)
    kept: list[I64] = []
    for members in ranked:
        rest = members[~taken[members]]
        if len(rest) < LEAST_GROUP:
            continue
        if len(rest) < len(members):
            rest = evidence.settled(rest)
            rest = rest[~taken[rest]]
            if len(rest) < LEAST_GROUP:
                continue
        kept.append(rest)
        taken[rest] = True
    groups = _exclusive(evidence, kept)
    joined = _joined(evidence, groups)
    groups = groups if len(joined) == len(groups) else _exclusive(evidence, joined)
    return _without_strangers(evidence, groups)


def recruit(evidence: Evidence, groups: Sequence[I64]) -> list[I64]:
    """Recruits of each settled group from the accounts of `evidence.pool`, each to the group with most bits."""
    best = np.full(evidence.accounts, -np.inf)
    owner = np.full(evidence.accounts, -1)
    for number, (found, total) in enumerate(each(evidence.recruits, groups)):
        better = total > best[found]
        best[found[better]], owner[found[better]] = total[better], number
    return [np.flatnonzero(owner == number) for number in range(len(groups))]


def _joined(evidence: Evidence, groups: list[I64]) -> list[I64]:
    """Pieces of one operation become one: the typical member of each has bits for the other, in two views.

    A single account needs more than `PIECE_BITS`; a whole set of accounts, half of which have them, does not.
    """
    if not groups:
        return groups
    home_of = np.full(evidence.accounts, -1)
    for number, group in enumerate(groups):
        home_of[group] = number

    def alike(members: I64) -> np.ndarray:
        # Only groups of which somebody shares something with the members: the others have no bits for them.
        asked = np.unique(home_of[evidence.near(members)])
        asked = asked[asked >= 0]
        out = np.zeros(len(groups), bool)
        others = [groups[number] for number in asked.tolist()]
        bits = evidence.bits(members, np.concatenate(others))
        _, total = evidence.belongs(bits, len(members))
        bounds = np.cumsum([len(other) for other in others])[:-1]
        parts = zip(np.split(total, bounds), np.split(mb.combine_views(bits), bounds), strict=True)
        out[asked] = [
            np.median(whole) >= PIECE_BITS and np.median(second) >= PIECE_SECOND_BITS
            for whole, second in parts
        ]
        return out

    near = np.array(each(alike, groups))
    near &= near.T
    home = np.arange(len(groups))
    for a, b in np.argwhere(np.triu(near, 1)).tolist():
        home[home == home[b]] = home[a]
    return [np.sort(np.concatenate([groups[i] for i in np.flatnonzero(home == h)])) for h in np.unique(home)]


def _without_strangers(evidence: Evidence, groups: list[I64]) -> list[I64]:
    """Teams that only their own people vouch for leave a group; a team of LEAST_GROUP is a group of its own.

    A member is compared with the group without itself, and colleagues on one address block speak for each other: a
    firm that came into a group by way of a mixed candidate would hold itself there.
    """
    kept: list[I64] = []
    teams: list[I64] = []
    for members in groups:
        label = ex.webs(evidence.indexes["LINK"], members)
        sizes = np.bincount(label)
        stays = np.ones(len(members), bool)
        for number in np.flatnonzero((sizes >= 2) & (2 * sizes < len(members))).tolist():
            own = label == number
            bits = evidence.bits(members[~own], members[own])
            if np.median(evidence.belongs(bits, len(members))[1]) <= 0:
                stays &= ~own
                teams.append(members[own])
        kept.append(members[stays])
    taken = np.zeros(evidence.accounts, bool)
    taken[np.concatenate([np.zeros(0, np.int64), *kept])] = True
    for team in teams:
        settled = evidence.settled(team) if len(team) >= LEAST_GROUP else team
        settled = settled[~taken[settled]]
        if len(settled) >= LEAST_GROUP:
            kept.append(settled)
            taken[settled] = True
    return [members for members in kept if len(members) >= LEAST_GROUP]


def _exclusive(evidence: Evidence, groups: list[I64]) -> list[I64]:
    """Every account to the group for which it has most bits, a few times over."""

    def claimed(members: I64) -> tuple[I64, np.ndarray, F64]:
        near = evidence.near(members)
        return near, *evidence.named(members, near)

    for _ in range(SETTLING):
        best = np.full(evidence.accounts, -np.inf)
        owner = np.full(evidence.accounts, -1)
        for number, (near, enough, total) in enumerate(each(claimed, groups)):
            better = enough & (total > best[near])
            best[near[better]], owner[near[better]] = total[better], number
        after = [np.flatnonzero(owner == number) for number in range(len(groups))]
        after = [members for members in after if len(members) >= LEAST_GROUP]
        if len(after) == len(groups) and all(map(np.array_equal, after, groups)):
            break
        groups = after
    return groups
