"""Groups from candidates: pieces grow together, bystanders leave, two operations are kept apart."""

from __future__ import annotations

import numpy as np
import pytest

from stillwatch.detect.keys import KeyIndex, build_index
from stillwatch.detect.ledger import no_partners
from stillwatch.detect.rhythm import build_rhythm
from stillwatch.scan.refine import Evidence, Views, linked, refine

ACCOUNTS = 4000
SIZE = 40


def _index(rng: np.random.Generator, operations: list[np.ndarray], per_account: int, pool: int) -> KeyIndex:
    """Everybody holds some of 3000 common keys; an operation's accounts hold some of `pool` keys of its own."""
    pairs = [np.column_stack([np.arange(ACCOUNTS).repeat(6), rng.integers(0, 3000, ACCOUNTS * 6)])]
    for number, members in enumerate(operations):
        keys = 3000 + number * pool + rng.integers(0, pool, (len(members), per_account))
        pairs.append(np.column_stack([members.repeat(per_account), keys.ravel()]))
    rows = np.unique(np.concatenate(pairs), axis=0)
    keys = 3000 + pool * len(operations)
    ones = np.ones(len(rows), np.int32)
    return build_index(rows[:, 0].astype(np.int32), rows[:, 1].astype(np.int32), ones, ACCOUNTS, keys)


@pytest.fixture
def evidence() -> Evidence:
    rng = np.random.default_rng(5)
    operations = [np.arange(SIZE), np.arange(SIZE, 2 * SIZE)]
    form, link = _index(rng, operations, 4, 8), _index(rng, operations, 2, 6)
    hours = np.zeros((ACCOUNTS, 24), np.float32)
    silent = build_rhythm(hours, np.zeros(ACCOUNTS + 1, np.int64), np.zeros(0, np.int32), 24)
    return Evidence(Views({"FORM": form, "LINK": link}), silent, np.arange(200), no_partners(ACCOUNTS))


def _quiet(stage: str, done: int, total: int) -> None:
    """No display."""


def test_pieces_of_one_operation_become_one_group(evidence: Evidence) -> None:
    groups = refine(evidence, [np.arange(0, 15), np.arange(12, 30), np.arange(25, 40)], _quiet)
    assert len(groups) == 1
    assert set(groups[0]) <= set(range(SIZE))
    assert len(groups[0]) >= 34


def test_bystanders_leave_and_two_operations_are_kept_apart(evidence: Evidence) -> None:
    mixture = np.concatenate([np.arange(10, 30), np.arange(50, 70), np.arange(100, 140)])
    groups = refine(evidence, [mixture, np.arange(0, 20), np.arange(45, 65)], _quiet)
    assert len(groups) == 2
    for members in groups:
        assert members.max() < 2 * SIZE, "no bystander"
        assert len(np.unique(members // SIZE)) == 1, "one operation"


def test_a_firm_that_only_vouches_for_itself_leaves_an_operation() -> None:
    """With only the mixture as candidate, each half is held together by its own people."""
    rng = np.random.default_rng(8)
    operations = [np.arange(80), np.arange(80, 92)]
    form, link = _index(rng, operations, 4, 8), _index(rng, operations, 2, 3)
    hours = np.zeros((ACCOUNTS, 24), np.float32)
    silent = build_rhythm(hours, np.zeros(ACCOUNTS + 1, np.int64), np.zeros(0, np.int32), 24)
    evidence = Evidence(Views({"FORM": form, "LINK": link}), silent, np.arange(200), no_partners(ACCOUNTS))
    mixture = np.arange(92)
    assert np.isin(operations[1], evidence.settled(mixture)).sum() >= 10, (
        "they hold themselves in the mixture"
    )
    groups = sorted(refine(evidence, [mixture], _quiet), key=len)
    assert [set(g) <= set(o) for g, o in zip(groups, operations[::-1], strict=True)] == [True, True]


def test_unrelated_accounts_are_no_group(evidence: Evidence) -> None:
    assert refine(evidence, [np.arange(100, 160)], _quiet) == []


def test_the_order_of_candidates_does_not_matter(evidence: Evidence) -> None:
    parts = [np.arange(0, 15), np.arange(12, 30), np.arange(45, 65), np.arange(60, 80)]
    one, other = refine(evidence, parts, _quiet), refine(evidence, parts[::-1], _quiet)
    assert [m.tolist() for m in one] == [m.tolist() for m in other]


def test_a_bystander_without_a_link_is_not_a_member_of_a_linked_group(evidence: Evidence) -> None:
    bits = {"FORM": np.full(3, 30.0), "LINK": np.array([9.0, -0.6, 1.5]), "TIME": np.full(3, 3.0)}
    assert evidence.belongs(bits, SIZE, linked(np.full(20, 9.0)))[0].tolist() == [True, False, True]
    # Where nobody is linked, wording and hours have to do.
    assert evidence.belongs(bits, SIZE, linked(np.full(20, 0.5)))[0].tolist() == [True, True, True]
