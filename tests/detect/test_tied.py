"""Wordings whose holders are tied: p on nulls with shared language and activity, and on a planted group."""

from __future__ import annotations

import numpy as np
import pytest

from stillwatch.detect.keys import KeyIndex, build_index
from stillwatch.detect.tied import (
    _highest,
    among,
    circle,
    manners,
    tied_among,
    tied_wordings,
    ties_by_class,
    upper_tail,
)
from stillwatch.detect.tied_members import tie_bits, wording_bits

ACCOUNTS, LANGUAGES = 3000, 12
I64 = np.ndarray


def _index(account: I64, key: I64) -> KeyIndex:
    pairs = np.unique(np.column_stack([account, key]), axis=0).astype(np.int32)
    return build_index(
        pairs[:, 0], pairs[:, 1], np.ones(len(pairs), np.int32), ACCOUNTS, int(key.max(initial=0)) + 1
    )


def _drawn(
    rng: np.random.Generator, language: I64, busy: I64, keys: int, holders: int, inside: float
) -> KeyIndex:
    """`keys` keys of `holders` accounts each, busy ones first of all, `inside` of the keys within one language."""
    account = []
    for _ in range(keys):
        chance = busy.copy()
        if rng.random() < inside:
            chance = chance * (language == rng.integers(LANGUAGES))
        account.append(rng.choice(ACCOUNTS, holders, replace=False, p=chance / chance.sum()))
    return _index(np.concatenate(account), np.repeat(np.arange(keys), holders))


@pytest.fixture(scope="module")
def crowd() -> tuple[I64, KeyIndex, KeyIndex, KeyIndex]:
    """(language, wordings, links, everyday language) of honest accounts.

    Each language has wordings, addresses and everyday phrases of its own; who is busy holds more of everything.
    Beyond that, who holds a wording has nothing to do with who shares an address.
    """
    rng = np.random.default_rng(3)
    language = rng.integers(0, LANGUAGES, ACCOUNTS)
    busy = rng.gamma(2.0, 1.0, ACCOUNTS) + 0.2
    words = _drawn(rng, language, busy, 1500, 25, 0.9)
    links = _drawn(rng, language, busy, 2500, 2, 0.9)
    account, phrase = np.nonzero(rng.random((ACCOUNTS, 10)) < 0.5)
    everyday = _index(account, language[account] * 10 + phrase)
    return language, words, links, everyday


def test_p_is_uniform_when_language_and_activity_explain_the_ties(
    crowd: tuple[I64, KeyIndex, KeyIndex, KeyIndex],
) -> None:
    language, words, links, _ = crowd
    _, found, expected = ties_by_class(words, links, language)
    assert found.sum() == pytest.approx(expected.sum(), rel=0.1)
    p = upper_tail(found, expected)
    middle = (p + upper_tail(found + 1, expected)) / 2
    assert float(middle.mean()) == pytest.approx(0.5, abs=0.04)
    for level in (0.1, 0.05, 0.01):
        assert float((p <= level).mean()) <= 1.3 * level


def test_language_alone_would_tie_the_holders_of_a_wording(
    crowd: tuple[I64, KeyIndex, KeyIndex, KeyIndex],
) -> None:
    """What the null must be conditioned on: one class for all calls a third of the wordings tied."""
    _, words, links, _ = crowd
    _, found, expected = ties_by_class(words, links, np.zeros(ACCOUNTS, np.int64))
    assert float((upper_tail(found, expected) <= 0.05).mean()) > 0.3


def test_a_language_that_no_script_tells_is_found_by_what_people_say_every_day(
    crowd: tuple[I64, KeyIndex, KeyIndex, KeyIndex],
) -> None:
    language, words, links, everyday = crowd
    able = np.ones(ACCOUNTS, bool)
    one_script = np.zeros(ACCOUNTS, np.int64)
    common = manners([(everyday, 50)], [one_script], able)
    holders = np.flatnonzero(language == 4)[:30]
    assert (language[circle(common, holders, able)] == 4).mean() > 0.8
    tested = tied_wordings(words, links, one_script, common, able)
    assert not (tested.q <= 0.05).any()
    # Without the circle there would be some.
    _, found, expected = ties_by_class(words, links, one_script)
    assert (upper_tail(found, expected) * len(found) <= 0.05).any()


def test_a_planted_group_is_found_and_nothing_else(crowd: tuple[I64, KeyIndex, KeyIndex, KeyIndex]) -> None:
    """60 accounts on 20 blocks, opened in 20 runs; 30 wordings used by 15 of them each."""
    _, words, links, everyday = crowd
    rng = np.random.default_rng(4)
    members = rng.choice(ACCOUNTS, 60, replace=False)
    own = [rng.choice(members, 15, replace=False) for _ in range(30)]
    rows = np.repeat(np.arange(ACCOUNTS), np.diff(words.account_offsets))
    words = _index(
        np.concatenate([rows, *own]),
        np.concatenate([words.keys, np.repeat(words.n_keys + np.arange(30), 15)]),
    )
    rows = np.repeat(np.arange(ACCOUNTS), np.diff(links.account_offsets))
    links = _index(
        np.concatenate([rows, members, members]),
        np.concatenate(
            [links.keys, links.n_keys + rng.integers(0, 20, 60), links.n_keys + 20 + np.arange(60) // 3]
        ),
    )
    able = np.ones(ACCOUNTS, bool)
    common = manners([(everyday, 50)], [], able)
    tested = tied_wordings(words, links, np.zeros(ACCOUNTS, np.int64), common, able)
    found = tested.key[tested.q <= 0.05]
    assert np.count_nonzero(found >= 1500) >= 5
    assert np.count_nonzero(found < 1500) <= 1


def test_a_household_or_an_office_is_one_tie_however_many_they_are() -> None:
    staff = np.arange(10)
    links = _index(np.tile(staff, 3), np.repeat([0, 1, 2], 10))
    words = _index(staff, np.zeros(10, np.int64))
    _, found, expected = ties_by_class(words, links, np.zeros(ACCOUNTS, np.int64))
    assert found.tolist() == [1]
    assert expected[0] > 1


def test_among_keeps_keys_in_few_hands_of_able_accounts() -> None:
    index = _index(np.array([0, 1, 2, 3, 4, 5, 6]), np.array([0, 0, 1, 1, 1, 2, 2]))
    able = np.ones(ACCOUNTS, bool)
    able[5] = False
    kept = among(index, able, 2, 2)
    assert kept.n_keys == 3
    assert [kept.held_by(k).tolist() for k in range(3)] == [[0, 1], [], []]
    assert tied_among(kept, np.array([0, 1, 2])).tolist() == [0, 1]


def test_bits_speak_for_ties_and_wordings_and_leave_the_account_itself_out() -> None:
    members = np.arange(20)
    able = np.ones(ACCOUNTS, bool)
    # Pairs of members share a block; 20 is a neighbour; 21 holds a wording of theirs; 19 is tied to nobody.
    links = _index(
        np.concatenate([np.arange(18), [20, 30, 31]]), np.concatenate([np.arange(18) // 2, [0, 40, 40]])
    )
    words = _index(
        np.concatenate([np.repeat(np.arange(20), 3), [21, 22]]),
        np.concatenate([(np.arange(60) * 7) % 10, [0, 99]]),
    )
    tied = tie_bits(links, members, able)
    assert tied[:18].min() > 4
    assert tied[19] < 0
    assert tied[20] > 4
    assert tied[30] == tied[100] < 0
    said = wording_bits(words, members, able, np.arange(words.accounts))
    assert said[:20].min() > 2
    assert said[21] > 2
    assert said[22] < 0


def test_the_highest_values_are_those_of_a_stable_sort() -> None:
    rng = np.random.default_rng(5)
    for count in (1, 7, 40, 41, 60):
        values = np.round(rng.random(41), 1)
        expected = np.sort(np.argsort(-values, kind="stable")[:count])
        assert np.sort(_highest(values, count)).tolist() == expected.tolist()
