"""Families are found by containment, whatever payload stands around the template."""

from __future__ import annotations

import itertools

import numpy as np

from stillwatch.views.families import find_families
from stillwatch.views.slots import invariant_postings, slot_contents


def _log(rows: list[tuple[int, list[int]]]):  # type: ignore[no-untyped-def]
    account = np.array([a for a, _ in rows], np.int32)
    offsets = np.cumsum([0] + [len(p) for _, p in rows]).astype(np.int64)
    values = np.array([v for _, p in rows for v in p], np.uint64)
    return account, offsets, values, np.zeros(len(rows), np.uint8)


def _mixture(rng: np.random.Generator, template: list[int], holders: int, accounts: int):  # type: ignore[no-untyped-def]
    rows = []
    for account in range(accounts):
        payload = rng.integers(1, 2**63, 120).tolist()
        text = payload[:60] + template + payload[60:] if account < holders else payload
        rows.append((account, text))
    return rows


def test_a_short_template_in_a_long_payload_is_one_family_with_its_holders() -> None:
    rng = np.random.default_rng(1)
    template = rng.integers(1, 2**63, 6).tolist()
    found = find_families(*_log(_mixture(rng, template, 20, 200)), accounts=200)
    assert len(found) == 1
    assert sorted(found.row.tolist()) == list(range(20))
    assert set(found.key.tolist()) == set(template)


def test_result_does_not_depend_on_row_order() -> None:
    rng = np.random.default_rng(2)
    rows = _mixture(rng, rng.integers(1, 2**63, 5).tolist(), 12, 60)
    order = rng.permutation(len(rows))
    one = find_families(*_log(rows), accounts=60)
    two = find_families(*_log([rows[i] for i in order]), accounts=60)
    assert np.array_equal(one.key, two.key)
    assert np.array_equal(one.fingerprint, two.fingerprint)
    assert sorted(one.row.tolist()) == sorted(order[two.row].tolist())


def test_two_phrases_of_different_people_stay_apart_and_a_lone_posting_is_no_family() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.integers(1, 2**63, 4).tolist(), rng.integers(1, 2**63, 4).tolist()
    lone = int(rng.integers(1, 2**63))
    rows = []
    for account in range(30):
        noise = rng.integers(1, 2**63, 20).tolist()
        rows.append((account, noise + (first if account < 15 else second) + noise[:3] + [lone]))
    found = find_families(*_log(rows), accounts=1000)
    assert len(found) == 2
    assert lone not in found.key.tolist()


def test_everyday_clauses_in_one_combination_are_one_family() -> None:
    """Each clause is everybody's and each seam is two shingles; only the combination is one group's."""
    rng = np.random.default_rng(4)
    clauses = rng.integers(1, 2**63, (6, 3)).tolist()
    seams = rng.integers(1, 2**63, (5, 2)).tolist()
    text = list(itertools.chain.from_iterable(itertools.zip_longest(clauses, seams, fillvalue=[])))
    template = list(itertools.chain.from_iterable(text))
    rows = []
    for account in range(300):
        payload = rng.integers(1, 2**63, 40).tolist()
        if account < 20:
            rows.append((account, payload[:20] + template + payload[20:]))
        elif account < 200:
            # Anybody uses two of the clauses, apart from each other.
            one, other = rng.choice(6, 2, replace=False)
            rows.append((account, payload[:20] + clauses[one] + payload[20:] + clauses[other]))
        else:
            rows.append((account, payload))
    found = find_families(*_log(rows), accounts=300)
    whole = found.key_family[np.isin(found.key, np.array(seams, np.uint64).ravel())]
    assert len(set(whole.tolist())) == 1
    assert set(found.key[found.key_family == whole[0]].tolist()) == set(np.ravel(seams).tolist())
    assert sorted(found.row[found.family == whole[0]].tolist()) == list(range(20))


def test_slot_contents_tell_equal_from_different_payloads() -> None:
    keys = np.array([10, 20, 30], np.uint64)
    rows = [[10, 101, 20, 201, 30], [10, 101, 20, 202, 30], [10, 103, 20, 30]]
    offsets = np.cumsum([0] + [len(r) for r in rows]).astype(np.int64)
    values = np.array([v for r in rows for v in r], np.uint64)
    table = slot_contents(np.arange(3), offsets, values, keys)
    assert table.shape == (3, 2)
    assert table[0, 0] == table[1, 0] != table[2, 0]
    assert table[0, 1] != table[1, 1]
    assert table[2, 1] == 0


def test_what_stands_still_is_told_from_slots_that_everybody_fills_alike() -> None:
    rows = [[10, 20, 100 + i % 5, 30, 200 + i % 7, 40] for i in range(70)]
    offsets = np.cumsum([0] + [len(r) for r in rows]).astype(np.int64)
    values = np.array([v for r in rows for v in r], np.uint64)
    still = invariant_postings(np.arange(70), offsets, values)
    assert still.tolist() == [10, 20, 30, 40]
    table = slot_contents(np.arange(70), offsets, values, still)
    assert len(np.unique(table[:, 0])) + len(np.unique(table[:, 1])) == 12


def test_a_template_of_interchangeable_clauses_is_one_family() -> None:
    rng = np.random.default_rng(9)
    clauses = [[rng.integers(1, 2**62, 6).tolist() for _ in range(4)] for _ in range(3)]
    rows = []
    for account in range(30):
        for _ in range(12):
            picked = [part[rng.integers(4)] for part in clauses]
            joints = [(a[-1] * 31 + b[0] * 17) % 2**62 for a, b in itertools.pairwise(picked)]
            text = picked[0] + joints[:1] + picked[1] + joints[1:] + picked[2]
            rows.append((account, text + rng.integers(1, 2**62, 5).tolist()))
    found = find_families(*_log(rows), accounts=1000)
    holders = {f: set() for f in range(len(found))}
    for row, family in zip(found.row.tolist(), found.family.tolist(), strict=True):
        holders[family].add(rows[row][0])
    assert max(len(h) for h in holders.values()) == 30
    assert len(set(found.row.tolist())) == len(rows)
