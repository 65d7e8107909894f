"""Each draw has a state of its own: it can be made again alone, and the number of a draw is all that it hangs on."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from stillwatch.detect import confirm as cf
from stillwatch.detect.keys import KeyIndex, build_index
from stillwatch.detect.population import Draws, Strata, build_strata
from stillwatch.detect.rhythm import Rhythm
from tests import recomputed as by_hand

ACCOUNTS = 1500


def test_the_state_of_a_draw_is_the_hash_of_seed_stage_candidate_and_number() -> None:
    members = np.array([7, 3, 900])
    candidate = hashlib.sha256(b"".join(n.to_bytes(8, "little") for n in (3, 7, 900))).digest()
    draws = Draws.of(12, "confirm LINK", members)
    states = draws.states(38, 9).tolist()
    for number, state in zip(range(38, 47), states, strict=True):
        text = b"12\x1fconfirm LINK\x1f" + candidate + (number // 4).to_bytes(8, "little")
        word = hashlib.sha256(text).digest()[8 * (number % 4) :][:8]
        assert state == int.from_bytes(word, "little")
        assert draws.states(number, 1).tolist() == [state]
    assert len(set(states)) == 9
    others = [Draws.of(13, "confirm LINK", members), Draws.of(12, "confirm TIME", members)]
    others.append(Draws.of(12, "confirm LINK", members[:2]))
    assert len({int(other.states(40, 1)[0]) for other in [draws, *others]}) == 4


@pytest.fixture(scope="module")
def world() -> tuple[KeyIndex, Rhythm, Strata]:
    """Accounts with five keys of 3,000; a third share one key more, and their hours move together a little."""
    rng = np.random.default_rng(4)
    account = np.concatenate([np.repeat(np.arange(ACCOUNTS), 5), np.arange(500)])
    key = np.concatenate([rng.integers(0, 3000, ACCOUNTS * 5), np.full(500, 3000)])
    pairs = np.unique(np.column_stack([account, key]), axis=0).astype(np.int32)
    index = build_index(pairs[:, 0], pairs[:, 1], np.ones(len(pairs), np.int32), ACCOUNTS, 3001)
    residuals = rng.normal(size=(ACCOUNTS, 48))
    residuals[:500] += 0.2 * rng.normal(size=48)
    residuals /= np.sqrt((residuals**2).sum(axis=1))[:, None]
    loud: Any = np.ones(ACCOUNTS, bool)
    rhythm: Any = type("Loud", (), {"residuals": residuals, "loud": loud})()
    flat = np.zeros(ACCOUNTS, np.int64)
    volume = rng.integers(1, 50, ACCOUNTS)
    return index, rhythm, build_strata(volume, np.zeros(ACCOUNTS, np.uint8), flat, flat, flat, loud)


@pytest.mark.parametrize("size", [30, 450])
def test_null_values_are_the_same_when_they_are_drawn_again(
    world: tuple[KeyIndex, Rhythm, Strata], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, rhythm, strata = world
    members = np.arange(size)
    asked = members, "FORM", {"FORM": index, "LINK": index}, rhythm, strata, 5
    first = cf.confirm(*asked, whole=True)
    assert all(test.null is None for test in first)
    again = cf.confirm(*asked, whole=True, keep=True)
    monkeypatch.setattr(cf, "BLOCKS", ())
    at_once = cf.confirm(*asked, whole=True, keep=True)
    assert first == again == at_once
    assert {test.parts for test in again} == {1 if size <= cf.LARGE_GROUP else cf.SUBGROUPS}
    for test, other in zip(again, at_once, strict=True):
        assert test.null is not None
        assert other.null is not None
        assert test.null.tolist() == other.null.tolist()
        row = {name: getattr(test, name) for name in ("method", "statistic", "parts", "above", "draws")}
        assert by_hand.view_p(row, test.null.tolist()) == test.p


def test_one_draw_is_made_again_without_the_others(
    world: tuple[KeyIndex, Rhythm, Strata], monkeypatch: pytest.MonkeyPatch
) -> None:
    index, _, strata = world
    members, own = np.arange(450), index.telling
    parts = cf.subgroups(members, 5)
    excluded = np.isin(np.arange(ACCOUNTS), members)
    seats = [cf.seats_for(strata, part, excluded) for part in parts]
    draws = Draws.of(5, "confirm LINK", members)
    null = cf.keys_against_null(index, "LINK", parts, seats, draws).null
    assert null is not None
    places = cf._side_by_side(seats, [np.ones(len(s.start), bool) for s in seats])
    held = own.account_offsets, own.keys, own.weight
    count, touched = np.zeros(len(own.key), np.int32), np.empty(len(own.key) + 1, np.int32)
    for number in (0, 31, 32, 517):
        marks, states = np.zeros(ACCOUNTS, np.int32), draws.states(number, 1)
        alone, _ = cf._null_of_keys(1e9, *places, *held, count, touched, marks, 1, number, states, 10)
        assert alone.tolist() == [null[number]]
