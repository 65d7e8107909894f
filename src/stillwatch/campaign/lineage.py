"""Names that last: groups of a new scan keep the ids of the groups of an earlier one that they go on from.

Pure functions on sets of account ids. Two groups are *linked* when they share `LEAST_SHARED` accounts (all, of a
smaller group) that make up `LEAST_PART` of the smaller one: an operation that rotates its accounts shares few with
its past, and chance shares none, for a group is a rare set of accounts. Links are followed from the largest overlap
down, each earlier id going to one group; what is left over says where groups merged or split.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import xxhash

LEAST_SHARED = 3
LEAST_PART = 0.2


@dataclass(frozen=True, slots=True)
class Earlier:
    """Groups of an earlier scan."""

    digest: str
    """Of its results folder, hex."""
    groups: Mapping[str, AbstractSet[str]]
    """Group id -> account ids, all verdicts."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """A group's id and where it comes from, each list sorted."""

    id: str
    merged_from: tuple[str, ...] = ()
    """Earlier groups that are now part of this one and live on in no other under their own id."""
    split_from: tuple[str, ...] = ()
    """Earlier groups of which this is a part, while another group goes on under their id."""


def trace(now: Mapping[str, AbstractSet[str]], earlier: Mapping[str, AbstractSet[str]]) -> dict[str, Lineage]:
    """Lineage of each group of `now` (own id -> accounts), given those of `earlier` (id -> accounts)."""
    where: dict[str, list[str]] = {}
    for old in sorted(earlier):
        for account in earlier[old]:
            where.setdefault(account, []).append(old)
    links: list[tuple[int, float, str, str]] = []
    for own in sorted(now):
        shared: dict[str, int] = {}
        for account in now[own]:
            for old in where.get(account, ()):
                shared[old] = shared.get(old, 0) + 1
        for old, count in shared.items():
            smaller = min(len(now[own]), len(earlier[old]))
            if count >= max(min(LEAST_SHARED, smaller), LEAST_PART * smaller):
                together = len(now[own]) + len(earlier[old]) - count
                links.append((-count, -count / together, old, own))
    links.sort()
    kept: dict[str, str] = {}
    heir: dict[str, str] = {}
    for _, _, old, own in links:
        if own not in kept and old not in heir:
            kept[own], heir[old] = old, own
    taken = set(heir)
    out: dict[str, Lineage] = {}
    for own in sorted(now):
        name = kept.get(own)
        if name is None:
            # A group may hash to the name of an earlier one that another group has inherited.
            name = own
            while name in taken:
                name = f"g-{xxhash.xxh3_64_hexdigest(name.encode())[:12]}"
        taken.add(name)
        linked = sorted(old for _, _, old, mine in links if mine == own and old != name)
        out[own] = Lineage(
            name,
            tuple(old for old in linked if old not in heir),
            tuple(old for old in linked if old in heir),
        )
    return out
