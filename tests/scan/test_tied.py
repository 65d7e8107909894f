"""Groups that wording and links find together: from tied wordings to accounts, and what is made of them."""

from __future__ import annotations

import numpy as np
import pytest

from stillwatch.detect import confirm as cf
from stillwatch.detect import tied as td
from stillwatch.detect.explain import openness
from stillwatch.detect.keys import KeyIndex, build_index
from stillwatch.scan.conclude import _speaks
from stillwatch.scan.context import Finding, Together
from stillwatch.scan.tied import Growth, starts
from stillwatch.scan.verdict import apart

ACCOUNTS, MEMBERS = 4000, 60
I64 = np.ndarray


def _index(account: I64, key: I64, keys: int) -> KeyIndex:
    pairs = np.unique(np.column_stack([account, key]), axis=0).astype(np.int32)
    return build_index(pairs[:, 0], pairs[:, 1], np.ones(len(pairs), np.int32), ACCOUNTS, keys)


@pytest.fixture(scope="module")
def world() -> tuple[I64, KeyIndex, KeyIndex]:
    """(members, wordings, ties): twenty wordings an account; members use eight of the operation's 40 besides, and
    come from its homes, opened three at a time.
    """
    rng = np.random.default_rng(1)
    members = np.sort(rng.choice(ACCOUNTS, MEMBERS, replace=False))
    account = np.concatenate([np.repeat(np.arange(ACCOUNTS), 20), np.repeat(members, 8)])
    key = np.concatenate([rng.integers(0, 9000, ACCOUNTS * 20), 9000 + rng.integers(0, 40, MEMBERS * 8)])
    words = _index(account, key, 9040)
    home = np.concatenate([np.arange(ACCOUNTS), members, rng.permutation(members)])
    run = 1525 + np.arange(MEMBERS) // 3
    block = np.concatenate([rng.integers(0, 1500, ACCOUNTS), 1500 + rng.integers(0, 25, MEMBERS), run])
    return members, words, _index(home, block, 1525 + MEMBERS // 3)


def test_a_few_tied_holders_grow_to_the_operation(world: tuple[I64, KeyIndex, KeyIndex]) -> None:
    members, words, links = world
    able = np.ones(ACCOUNTS, bool)
    few, ties = td.among(words, able, 5, 50), td.among(links, able, 2, td.RARE_HOLDERS)
    common = td.manners([(words, 50)], [], able)
    tested = td.tied_wordings(few, ties, np.zeros(ACCOUNTS, np.int64), common, able)
    holders = [few.held_by(int(k)).astype(np.int64) for k in tested.key[tested.q <= 0.05]]
    found = starts(ties, holders)
    assert 1 <= len(found) <= 3
    grown = Growth(words, ties, able).grown(found[0][1])
    assert np.isin(members, grown).mean() >= 0.8
    assert np.isin(grown, members).mean() >= 0.9


def test_strangers_turn_into_nothing(world: tuple[I64, KeyIndex, KeyIndex]) -> None:
    members, words, links = world
    able = np.ones(ACCOUNTS, bool)
    able[members] = False
    growth = Growth(words, td.among(links, able, 2, td.RARE_HOLDERS), able)
    rng = np.random.default_rng(2)
    others = np.flatnonzero(able)
    sizes = [len(growth.grown(np.sort(rng.choice(others, 8, replace=False)))) for _ in range(10)]
    assert max(sizes) < 8


def _finding(block: I64) -> Finding:
    finding = Finding(np.arange(10), "FORM AND LINK", "tied wordings", [], 1e-12)
    finding.tested = [cf.Tested("FORM AND LINK", 1e-12, 9.0, 0.1, 0, "Poisson", 0)] * 2
    finding.together = Together(3, 15, 9, 0.1)
    finding.openness = openness(np.arange(10), block, np.full(10, -1), np.zeros(10, np.int64))
    finding.why = "found_together"
    return finding


def test_it_is_listed_where_no_owner_is_in_sight() -> None:
    assert apart(_finding(np.arange(10)))
    assert _speaks(_finding(np.arange(10)), 1e-5)
    assert not _speaks(_finding(np.zeros(10, np.int64)), 1e-5)


def test_two_views_that_found_a_group_do_not_confirm_it() -> None:
    assert not _finding(np.arange(10)).everywhere()
