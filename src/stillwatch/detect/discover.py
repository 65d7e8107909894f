"""Stage 3: candidate groups from one view. High recall, no guarantee, replaceable.

Accounts are joined to the 15 others with whom they share the most rarity (ln N/df summed over shared keys); the
Constant Potts Model (Traag et al. 2011, doi:10.1103/PhysRevE.84.016114) cuts that graph at several resolutions;
and the holders of a large key are a candidate of their own, because an operation of 20,000 accounts makes its
own template popular.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import igraph
import numba as nb
import numpy as np

from stillwatch.detect.keys import KeyIndex
from stillwatch.detect.population import F64, I32, I64, Bool, seeded
from stillwatch.engine.threads import each

NEIGHBOURS = 15
EXACT_HOLDERS = 64
"""Keys with more holders give each account a fixed sample of partners instead of all of them."""
SAMPLED_PARTNERS = 24
LEAST_EDGE = 4.0
"""Shared rarity (nats) below which two accounts are no neighbours: one key that fewer than 2 % hold."""
RESOLUTIONS = (0.05, 0.2, 0.5)
LEAST_GROUP = 8
CORE_SHARE = 0.15
CORE_HOLDERS = 5
CORE_LIFT = 5.0
"""A core key is held this many times more often in the group than in the population."""
MERGE_OVERLAP = 0.5
FAIR_SHARE = 0.3
_U = np.uint64


@dataclass(frozen=True, slots=True)
class Candidate:
    """A group that discovery proposes. `members` are sorted account codes."""

    view: str
    members: I64
    origin: str
    """`community` or `one key`."""


@nb.njit(nogil=True, cache=True)
def _neighbours(
    account_offsets: Any,
    keys: Any,
    key_offsets: Any,
    holders: Any,
    weight: Any,
    k: int,
    exact: int,
    sample: int,
    least: float,
) -> Any:
    """For each account, its `k` nearest others: (partner int32 [n, k], nearness [n, k]).

    Nearness is the shared weight over the root of the other's whole weight, so that busy accounts, which share
    something with everybody, are nobody's neighbours; pairs that share less than `least` are left out.
    """
    n = len(account_offsets) - 1
    whole = np.zeros(n, np.float32)
    for a in range(n):
        for i in range(account_offsets[a], account_offsets[a + 1]):
            whole[a] += weight[keys[i]]
    partner = np.full((n, k), -1, np.int32)
    shared = np.zeros((n, k), np.float32)
    score = np.zeros(n, np.float32)
    touched = np.empty(n, np.int32)
    for a in range(n):
        count = 0
        for i in range(account_offsets[a], account_offsets[a + 1]):
            key = keys[i]
            w = weight[key]
            if w <= 0:
                continue
            start = key_offsets[key]
            df = key_offsets[key + 1] - start
            if df <= exact:
                step, first, steps = 1, np.int64(0), df
            else:
                # A deterministic arithmetic walk through the holders, different for each account and key.
                h = (_U(a + 1) * _U(0x9E3779B97F4A7C15)) ^ (_U(key + 1) * _U(0xD6E8FEB86659FD93))
                h ^= h >> _U(29)
                first = np.int64(h % _U(df))
                step = max(1, df // sample)
                steps = sample
            at = first
            for _ in range(steps):
                b = holders[start + at]
                at += step
                if at >= df:
                    at -= df
                if b == a:
                    continue
                if score[b] == 0:
                    touched[count] = b
                    count += 1
                score[b] += w
        for i in range(count):
            b = touched[i]
            s = score[b]
            score[b] = 0
            if s < least:
                continue
            s /= np.sqrt(whole[b])
            # Insertion into the k best; ties go to the smaller account, so the order of keys does not matter.
            last = k - 1
            if s < shared[a, last] or (
                s == shared[a, last] and partner[a, last] >= 0 and b > partner[a, last]
            ):
                continue
            place = last
            while place > 0 and (
                shared[a, place - 1] < s or (shared[a, place - 1] == s and partner[a, place - 1] > b)
            ):
                shared[a, place] = shared[a, place - 1]
                partner[a, place] = partner[a, place - 1]
                place -= 1
            shared[a, place] = s
            partner[a, place] = b
    return partner, shared


def neighbour_graph(index: KeyIndex, weight: F64) -> tuple[I32, I32, F64]:
    """Edges (a < b, nearness) of the k-nearest-neighbour graph, sorted and unique."""
    partner, shared = _neighbours(
        index.account_offsets,
        index.keys,
        index.key_offsets,
        index.holders,
        weight.astype(np.float32),
        NEIGHBOURS,
        EXACT_HOLDERS,
        SAMPLED_PARTNERS,
        LEAST_EDGE,
    )
    source = np.repeat(np.arange(len(partner), dtype=np.int64), NEIGHBOURS)
    target = partner.ravel().astype(np.int64)
    value = shared.ravel().astype(np.float64)
    kept = target >= 0
    low, high = np.minimum(source, target)[kept], np.maximum(source, target)[kept]
    code = low * len(partner) + high
    order = np.lexsort((value[kept], code))
    code, value = code[order], value[kept][order]
    last = np.append(code[1:] != code[:-1], True) if len(code) else np.zeros(0, bool)
    unique = code[last]
    return (
        (unique // len(partner)).astype(np.int32),
        (unique % len(partner)).astype(np.int32),
        value[last],
    )


def communities(low: I32, high: I32, seed: int) -> list[I64]:
    """Communities of at least LEAST_GROUP accounts at each resolution."""
    if len(low) == 0:
        return []
    names, edges = np.unique(np.stack([low, high], axis=1), return_inverse=True)
    graph = igraph.Graph(n=len(names), edges=edges.reshape(-1, 2), directed=False)
    found: list[I64] = []
    for resolution in RESOLUTIONS:
        # igraph draws from Python's generator; a generator of our own keeps the run reproducible.
        igraph.set_random_number_generator(random.Random(seed))
        membership = graph.community_leiden(
            objective_function="CPM", resolution=resolution, n_iterations=4
        ).membership
        igraph.set_random_number_generator(random)
        label = np.asarray(membership)
        order = np.argsort(label, kind="stable")
        bounds = np.flatnonzero(np.diff(label[order])) + 1
        found.extend(
            np.sort(names[part]).astype(np.int64)
            for part in np.split(order, bounds)
            if len(part) >= LEAST_GROUP
        )
    return found


def core_keys(index: KeyIndex, members: I64) -> I64:
    """Keys that at least max(5, 15 %) of the group hold, and far more of it than of everybody else."""
    return index.frequent(members, max(CORE_HOLDERS, CORE_SHARE * len(members)), CORE_LIFT)


def refine(index: KeyIndex, members: I64) -> I64:
    """The members that hold at least one core key; empty when the group has none."""
    core = core_keys(index, members)
    return members[index.hold_any(members, core)] if len(core) else np.zeros(0, np.int64)


def ties(index: KeyIndex, members: I64) -> F64:
    """The rarity (nats) that each member shares with another member, on average. Shape (members,)."""
    key, count = index.held(members)
    return index.sums(members, key, index.weight[key] * (count - 1) / max(1, len(members) - 1))


def cohesive(index: KeyIndex, members: I64) -> I64:
    """The members that share with the group a fair part of what its typical member shares.

    Whoever has a tie of less than `FAIR_SHARE` of the upper quartile hangs on by a stray key. Repeated until
    nobody leaves.
    """
    while len(members) >= LEAST_GROUP:
        tie = ties(index, members)
        keep = tie >= FAIR_SHARE * np.quantile(tie, 0.75)
        if keep.all():
            break
        members = members[keep]
    return members


def merge_near_duplicates(candidates: list[Candidate]) -> list[Candidate]:
    """Of candidates whose members overlap by more than half (Jaccard), keep the largest. Order: by size."""
    ranked = sorted(candidates, key=lambda c: (-len(c.members), c.members.tolist()[:1], c.view, c.origin))
    kept: list[Candidate] = []
    holders: dict[int, list[int]] = {}
    for candidate in ranked:
        shared: dict[int, int] = {}
        for account in candidate.members.tolist():
            for number in holders.get(account, ()):
                shared[number] = shared.get(number, 0) + 1
        size = len(candidate.members)
        if any(both > MERGE_OVERLAP * (size + len(kept[i].members) - both) for i, both in shared.items()):
            continue
        for account in candidate.members.tolist():
            holders.setdefault(account, []).append(len(kept))
        kept.append(candidate)
    return kept


def discover(index: KeyIndex, view: str, single: Bool, seed: int) -> list[Candidate]:
    """All candidates of one view.

    `single` bool[keys] says whose holders are a candidate by themselves.
    """
    low, high, _ = neighbour_graph(index, index.weight)
    parts = communities(low, high, seeded(seed, f"discover {view}", np.zeros(0, np.int64)))
    ends = each(lambda members: cohesive(index, refine(index, members)), parts)
    found = [Candidate(view, members, "community") for members in ends]
    df = index.df()
    for key in np.flatnonzero(single & (df >= LEAST_GROUP) & (index.weight > 0)):
        found.append(Candidate(view, index.held_by(int(key)).astype(np.int64), "one key"))
    return merge_near_duplicates([c for c in found if len(c.members) >= LEAST_GROUP])
