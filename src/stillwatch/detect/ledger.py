"""What one account held and another took up: conversations (hand-overs) and reasoning blocks (replays).

Both are private: a prefix of two turns and a reasoning block that the model returned are known to whoever received
them. A firm that rotates a pool of keys makes the same moves, so they never name a group by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stillwatch.detect.direct import RARE, Direct
from stillwatch.detect.discover import LEAST_GROUP, communities
from stillwatch.detect.population import F64, I32, I64, Bool

LEAST_MOVES = 2
"""Pairs of accounts below which no group is said to hand over: one may be a person who changed accounts."""
MOST_HOLDERS = 8
"""Accounts with one reasoning block from which it is a published one: in a data set, in a client's tests."""
AFTER_REFUSAL_US = 60_000_000
MOST_BITS = 7.0
"""Most that partners may add to an account's evidence: text travels, and so may a conversation."""

Hashes = np.ndarray[tuple[int], np.dtype[np.uint64]]


@dataclass(frozen=True, slots=True)
class Moves:
    """What changed accounts: parallel arrays, one element per (thing, from, to)."""

    source: I64
    target: I64
    ts: I64
    """When the other account took it up, microseconds."""
    after_refusal: Bool
    """Within 60 s of a 429 or ban of the first account: the cleaner kind."""

    def pairs(self, accounts: int) -> I64:
        """Each move's pair of accounts as one number."""
        return self.source * accounts + self.target


def between(moves: Moves, counted: Bool, accounts: int) -> I64:
    """Distinct pairs of accounts of the `counted` moves (bool[moves]: no known common owner), as numbers, sorted."""
    return np.unique(moves.pairs(accounts)[counted])


def moved(name: str, view: str, pairs: I64, member: Bool) -> Direct:
    """More moves inside than chance? `pairs`: of `between`; `member` bool[accounts].

    lambda = outside pairs x n(n-1) / (N(N-1)). One pair fires nothing.
    """
    n, total = int(member.sum()), len(member)
    inside = int((member[pairs // total] & member[pairs % total]).sum())
    outside = len(pairs) - inside
    expected = outside * n * (n - 1) / max(1, total * (total - 1))
    p = float(stats.poisson.sf(inside - 1, max(expected, RARE))) if inside >= LEAST_MOVES else 1.0
    counts = float(outside), float(n), float(total)
    return Direct(
        name, view, p, inside, expected, inside / max(1, n), least=LEAST_MOVES, floor=RARE, counts=counts
    )


def after_refusals(source: I64, ts: I64, refused_by: I64, refused_us: I64) -> Bool:
    """Which moves come within a minute of a 429 or ban of `source`; `refused_*` in any order."""
    rank = np.lexsort((refused_us, refused_by))
    by, us = refused_by[rank], refused_us[rank]
    after = np.zeros(len(source), bool)
    for i in range(len(source)):
        a, b = np.searchsorted(by, [source[i], source[i] + 1])
        at = np.searchsorted(us[a:b], ts[i], side="right")
        after[i] = at > 0 and ts[i] - us[a + at - 1] <= AFTER_REFUSAL_US
    return after


def _first_holdings(hashes: Hashes, owners: I64, times: I64) -> tuple[Hashes, I64, I64]:
    """First time that each account holds each thing, sorted by thing and account."""
    order = np.lexsort((times, owners, hashes))
    hashes, owners, times = hashes[order], owners[order], times[order]
    fresh = np.ones(len(hashes), bool)
    fresh[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    return hashes[fresh], owners[fresh], times[fresh]


def find_handovers(
    held_hash: Hashes,
    held_by: I64,
    held_us: I64,
    went_on_hash: Hashes,
    went_on_by: I64,
    went_on_us: I64,
    refused_by: I64,
    refused_us: I64,
) -> Moves:
    """Prefixes of at least two user turns that exactly two accounts hold, the second going on where the first was.

    `held_*`: each exchange's running hash after its newest turn; `went_on_*`: each exchange's running hash before
    its newest turn; `refused_*`: 429s and bans, any order. A prefix with three holders or more is public.
    """
    hashes, owners, times = _first_holdings(
        np.concatenate([held_hash, went_on_hash]),
        np.concatenate([held_by, went_on_by]),
        np.concatenate([held_us, went_on_us]),
    )
    _, start, holders = np.unique(hashes, return_index=True, return_counts=True)
    pair = start[holders == 2]
    swap = times[pair] > times[pair + 1]
    earlier, later = np.where(swap, pair + 1, pair), np.where(swap, pair, pair + 1)
    source, target, ts = owners[earlier], owners[later], times[later]
    return Moves(source, target, ts, after_refusals(source, ts, refused_by, refused_us))


def find_replays(
    out_hash: Hashes,
    out_by: I64,
    out_us: I64,
    in_hash: Hashes,
    in_by: I64,
    in_us: I64,
    refused_by: I64,
    refused_us: I64,
) -> Moves:
    """Reasoning blocks that one account was given and another sent back: the ledger of blocks.

    `out_*`: blocks that responses held; `in_*`: blocks that requests carried. A move goes from the account that was
    given the block (where the log does not hold that, from the first that sent it) to each other that sent it. What
    several accounts were given is a constant of the model, what more than `MOST_HOLDERS` have is published.
    """
    given, giver, _ = _first_holdings(out_hash, out_by, out_us)
    names, first, several = np.unique(given, return_index=True, return_counts=True)
    owner_of = giver[first]
    sent, sender, when = _first_holdings(in_hash, in_by, in_us)
    # By time inside each block, so that the first sender stands in for an owner that the log does not know.
    order = np.lexsort((sender, when, sent))
    sent, sender, when = sent[order], sender[order], when[order]
    _, start, of, holders = np.unique(sent, return_index=True, return_inverse=True, return_counts=True)
    source = sender[start][of]
    place = np.minimum(np.searchsorted(names, sent), max(0, len(names) - 1))
    private = holders[of] <= MOST_HOLDERS
    if len(names):
        known = names[place] == sent
        source = np.where(known, owner_of[place], source)
        private &= ~known | (several[place] == 1)
    crossed = np.flatnonzero((source != sender) & private)
    source, target, ts = source[crossed], sender[crossed], when[crossed]
    return Moves(source, target, ts, after_refusals(source, ts, refused_by, refused_us))


@dataclass(frozen=True, slots=True)
class Partners:
    """Who exchanged conversations or reasoning blocks with whom, either way, each pair once."""

    offsets: I64
    """Account a has the partners `other[offsets[a]:offsets[a+1]]`."""
    other: I64

    def of(self, accounts: I64) -> tuple[I64, I64]:
        """(place in `accounts`, partner), one element per partner."""
        lengths = self.offsets[accounts + 1] - self.offsets[accounts]
        first = np.repeat(self.offsets[accounts] - np.cumsum(lengths) + lengths, lengths)
        return np.repeat(np.arange(len(accounts)), lengths), self.other[first + np.arange(int(lengths.sum()))]


def partners(moves: list[tuple[Moves, Bool]], accounts: int) -> Partners:
    """From moves and which of them count (no known common owner)."""
    source = np.concatenate([np.zeros(0, np.int64), *(m.source[counted] for m, counted in moves)])
    target = np.concatenate([np.zeros(0, np.int64), *(m.target[counted] for m, counted in moves)])
    code = np.unique(np.concatenate([source * accounts + target, target * accounts + source]))
    owner, other = code // accounts, code % accounts
    return Partners(np.searchsorted(owner, np.arange(accounts + 1)).astype(np.int64), other)


def no_partners(accounts: int) -> Partners:
    """Nobody exchanges anything."""
    return Partners(np.zeros(accounts + 1, np.int64), np.zeros(0, np.int64))


def partner_groups(found: Partners, seed: int) -> list[I64]:
    """Accounts that hang together by what passes between them: components, and communities inside them."""
    accounts = len(found.offsets) - 1
    owner = np.repeat(np.arange(accounts), np.diff(found.offsets))
    once = owner < found.other
    low, high = owner[once].astype(np.int32), found.other[once].astype(np.int32)
    out = _components(low, high, accounts) + communities(low, high, seed)
    return [members for members in out if len(members) >= LEAST_GROUP]


def _components(low: I32, high: I32, accounts: int) -> list[I64]:
    edges = coo_array((np.ones(len(low), np.int8), (low, high)), shape=(accounts, accounts))
    label = connected_components(edges, directed=False)[1]
    order = np.argsort(label, kind="stable")
    return [
        np.sort(part) for part in np.split(order, np.flatnonzero(np.diff(label[order])) + 1) if len(part) > 1
    ]


def partner_bits(found: Partners, group: I64, accounts: I64) -> F64:
    """Bits of `accounts`: is it the group that they exchange things with? Shape (accounts,); 0 without a partner.

    Each partner is a draw: from the group with its members' own share of partners inside (the account itself left
    out), or from anybody with the group's share of the population.
    """
    total = len(found.offsets) - 1
    inside = np.zeros(total, bool)
    inside[group] = True
    owner, other = found.of(group)
    hits = np.bincount(owner, inside[other], len(group))
    every = np.bincount(owner, minlength=len(group)).astype(float)
    place, partner = found.of(accounts)
    mine = np.bincount(place, inside[partner], len(accounts))
    all_mine = np.bincount(place, minlength=len(accounts)).astype(float)
    member = inside[accounts]
    # Without the account's own partners, and without its end of theirs.
    rest_hits = np.maximum(hits.sum() - np.where(member, 2 * mine, 0.0), 0.0)
    rest = np.maximum(every.sum() - np.where(member, all_mine + mine, 0.0), 0.0)
    share = (rest_hits + 0.5) / (rest + 1.0)
    usual = len(group) / total
    bits = mine * np.log2(share / usual) + (all_mine - mine) * np.log2((1 - share) / (1 - usual))
    bits = np.where((rest_hits > 0) & (all_mine > 0), bits, 0.0)
    return np.asarray(np.clip(bits, -MOST_BITS, MOST_BITS))
