"""Conversations and reasoning blocks that change accounts."""

from __future__ import annotations

import numpy as np

from stillwatch.detect.ledger import (
    MOST_HOLDERS,
    Moves,
    Partners,
    between,
    find_handovers,
    find_replays,
    moved,
    no_partners,
    partner_bits,
    partner_groups,
    partners,
)

NOBODY = np.zeros(0, np.int64)


def _edges(moves: Moves) -> list[tuple[int, int]]:
    return sorted(zip(moves.source.tolist(), moves.target.tolist(), strict=True))


def test_handovers_inside_a_group_are_seen_and_public_prefixes_are_not() -> None:
    hashes = np.array([11, 12, 13, 13, 13], np.uint64)
    moves = find_handovers(
        hashes, np.array([0, 2, 5, 6, 7]), np.array([10, 10, 1, 2, 3]),
        np.array([11, 12], np.uint64), np.array([1, 3]), np.array([30, 40]),
        np.array([0]), np.array([25]),
    )  # fmt: skip
    assert _edges(moves) == [(0, 1), (2, 3)]
    assert moves.after_refusal.tolist() == [True, False]
    member = np.zeros(1000, bool)
    member[:4] = True
    assert moved("handover", "HANDOVER", between(moves, np.ones(2, bool), 1000), member).p < 1e-4
    few = np.arange(1000) < 2
    assert moved("handover", "HANDOVER", between(moves, np.ones(2, bool), 1000), few).p == 1.0, (
        "one pair may be one person"
    )
    assert moved("handover", "HANDOVER", between(moves, np.zeros(2, bool), 1000), member).p == 1.0, (
        "one known owner"
    )


def test_a_block_that_comes_back_under_another_account_is_a_move() -> None:
    """Given to 0 and sent by 0 (ordinary), by 1 and by 2; a block nobody in the log was given is 3's, then 4's."""
    out = np.array([21, 22], np.uint64)
    sent = np.array([21, 21, 21, 23, 23, 22], np.uint64)
    moves = find_replays(
        out, np.array([0, 5]), np.array([10, 10]),
        sent, np.array([0, 1, 2, 4, 3, 5]), np.array([20, 30, 40, 60, 50, 20]), NOBODY, NOBODY,
    )  # fmt: skip
    assert _edges(moves) == [(0, 1), (0, 2), (3, 4)]


def test_constants_and_published_blocks_are_nobodys() -> None:
    """One block that the model gives to two accounts, one that many accounts send."""
    many = np.arange(10, 10 + MOST_HOLDERS + 1)
    sent = np.concatenate([np.full(2, 31), np.full(len(many), 32)]).astype(np.uint64)
    moves = find_replays(
        np.array([31, 31, 32], np.uint64), np.array([0, 1, 2]), np.zeros(3, np.int64),
        sent, np.concatenate([[3, 4], many]), np.arange(len(sent)), NOBODY, NOBODY,
    )  # fmt: skip
    assert _edges(moves) == []
    assert _edges(find_replays(*[np.zeros(0, np.uint64), NOBODY, NOBODY] * 2, NOBODY, NOBODY)) == []


def test_moves_all_over_a_log_are_no_evidence_against_a_group() -> None:
    rng = np.random.default_rng(1)
    source, target = rng.integers(0, 400, (2, 3000))
    moves = Moves(source, target, np.zeros(3000, np.int64), np.zeros(3000, bool))
    pairs = between(moves, np.ones(3000, bool), 400)
    p = []
    for draw in range(100):
        member = np.zeros(400, bool)
        member[np.random.default_rng(draw).choice(400, 40, replace=False)] = True
        p.append(moved("replay", "TRACE", pairs, member).p)
    assert float(np.mean(np.array(p) <= 0.05)) <= 0.12


def _partners(edges: list[tuple[int, int]], accounts: int) -> Partners:
    source, target = np.array(edges).T
    moves = Moves(source, target, np.zeros(len(edges), np.int64), np.zeros(len(edges), bool))
    return partners([(moves, np.ones(len(edges), bool))], accounts)


def test_a_chain_of_standbys_is_proposed_and_pairs_of_strangers_are_not() -> None:
    found = _partners([(i, i + 1) for i in range(20)] + [(50, 51), (60, 61), (61, 60)], 100)
    groups = partner_groups(found, 1)
    assert {tuple(g) for g in map(np.ndarray.tolist, groups)} >= {tuple(range(21))}
    assert all(set(g.tolist()) <= set(range(21)) for g in groups)
    assert partner_groups(_partners([(50, 51)], 100), 1) == []


def test_partners_inside_speak_for_a_member_partners_outside_against() -> None:
    ring = [(i, (i + 1) % 12) for i in range(12)]
    found = _partners([*ring, (0, 30), (40, 3), (41, 60), (41, 61), (42, 62)], 1000)
    group = np.arange(12)
    bits = partner_bits(found, group, np.array([5, 0, 40, 41, 500]))
    assert bits[0] > 4
    assert 0 < bits[1] < bits[0] + 1e-9, "one partner of three outside"
    assert bits[2] > 0, "an outsider whose only partner is a member"
    assert bits[3] < 0, "partners of its own"
    assert bits[4] == 0, "nobody"


def test_a_members_own_partners_do_not_make_the_groups_share() -> None:
    """Strangers of whom one pair exchanged something: neither end vouches for the other."""
    found = _partners([(0, 1)], 1000)
    assert partner_bits(found, np.arange(12), np.array([0, 1])).tolist() == [0.0, 0.0]
    assert partner_bits(no_partners(1000), np.arange(12), np.arange(20)).tolist() == [0.0] * 20
