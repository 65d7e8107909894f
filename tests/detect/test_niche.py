"""The honest user of a niche prompt that a campaign uses too: ninety days of it must not make a member."""

from __future__ import annotations

import numpy as np
import pytest

from stillwatch.detect import members as mb
from stillwatch.detect.keys import KeyIndex, build_index

ACCOUNTS, COMMON, NICHE, OWN = 6_000, 4_000, 6, 10
CAMPAIGN = np.arange(60)
PEOPLE = np.arange(60, 260)
"""Users of the niche: fifteen keys each, a fifth of them the niche's."""


def _form(uses: int) -> KeyIndex:
    """The campaign holds keys of its own and the niche's; each account and key has been seen `uses` times."""
    rng = np.random.default_rng(12)
    everybody = np.column_stack([np.arange(ACCOUNTS).repeat(12), rng.integers(0, COMMON, ACCOUNTS * 12)])
    niche = [np.column_stack([np.full(3, a), COMMON + rng.choice(NICHE, 3, replace=False)]) for a in PEOPLE]
    campaign = [
        np.column_stack([np.full(8, a), np.concatenate((COMMON + rng.choice(NICHE, 3, replace=False), own))])
        for a in CAMPAIGN
        for own in [COMMON + NICHE + rng.choice(OWN, 5, replace=False)]
    ]
    rows = np.unique(np.concatenate([everybody, *niche, *campaign]), axis=0)
    seen = np.full(len(rows), uses, np.int32)
    return build_index(
        rows[:, 0].astype(np.int32), rows[:, 1].astype(np.int32), seen, ACCOUNTS, COMMON + NICHE + OWN
    )


def _bits(uses: int, *, known: bool) -> np.ndarray:
    form = _form(uses)
    niches = mb.niches_of(form, [mb.profile(form, PEOPLE[:100])] if known else [])
    fold = (np.arange(ACCOUNTS) % mb.FOLDS).astype(np.int32)
    accounts = np.concatenate([CAMPAIGN, PEOPLE[100:]])
    return mb.cross_fitted(form, accounts, CAMPAIGN, mb.background(form), niches, fold)


@pytest.mark.parametrize("known", [True, False])
def test_ninety_days_are_worth_what_one_day_is(known: bool) -> None:
    assert _bits(1, known=known).tolist() == _bits(90, known=known).tolist()


def test_a_niche_that_is_known_explains_its_users() -> None:
    """The users of the niche who were cleared explain the others; without them a bit is left, and it stays one."""
    plain, explained = _bits(90, known=False)[60:], _bits(90, known=True)[60:]
    assert np.median(plain) > np.median(explained) + 0.5
    assert np.quantile(plain, 0.99) < 5
    assert np.quantile(explained, 0.99) < 2
    assert np.median(_bits(90, known=True)[:60]) > 10, "the campaign's own members are still seen"


def test_wording_alone_makes_no_member_even_where_the_niche_is_not_known() -> None:
    form = _bits(90, known=False)
    rng = np.random.default_rng(3)
    link = np.concatenate([rng.normal(15, 3, 60), np.minimum(0, rng.normal(-1, 1, 100))])
    time = np.concatenate([rng.normal(4, 2, 60), np.minimum(0.5, rng.normal(-0.5, 0.5, 100))])
    total = mb.combine_views({"FORM": form, "LINK": link, "TIME": time})
    assert (total[60:] < 1).all()
    assert np.median(total[:60]) > 3
