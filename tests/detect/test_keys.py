"""Who holds what: counting by sorting and by a place for every key say the same."""

from __future__ import annotations

import numpy as np
import pytest

from stillwatch.detect import keys
from stillwatch.detect.scratch import MOST_SIZES, Scratch


@pytest.mark.parametrize("size", [0, 1, 7, 60, 300])
def test_keys_of_a_group_are_counted_alike_in_both_ways(size: int) -> None:
    rng = np.random.default_rng(size)
    accounts, n_keys = 300, 2000
    pairs = np.unique(rng.integers(0, accounts * n_keys, 6000))
    account, key = (pairs // n_keys).astype(np.int32), (pairs % n_keys).astype(np.int32)
    index = keys.build_index(account, key, np.ones(len(key), np.int32), accounts, n_keys)
    members = np.sort(rng.choice(accounts, size, replace=False)).astype(np.int64)
    named, held = index.held(members)
    expected, counts = np.unique(key[np.isin(account, members)], return_counts=True)
    assert named.tolist() == expected.tolist()
    assert held.tolist() == counts.tolist()
    asked = rng.choice(n_keys, 50, replace=False).astype(np.int64)
    assert index.counts_of(members, asked).tolist() == index.group_counts(members)[asked].tolist()
    assert index.df_of(asked).tolist() == index.df()[asked].tolist()
    total = int((index.account_offsets[members + 1] - index.account_offsets[members]).sum())
    if size in (1, 300):
        assert (total < n_keys // keys.SPARSE) == (size == 1), "both ways are tried"


def test_scratch_is_kept_and_marks_never_repeat() -> None:
    scratch = Scratch()
    count, touched = scratch.of_keys(50)
    assert scratch.of_keys(50)[0] is count
    assert not count.any()
    assert len(touched) == 51
    used, first = scratch.marks(9, 999)
    used[:] = first + 998
    again, second = scratch.marks(9, 10)
    assert again is used
    assert second > used.max()
    assert scratch.marks(10, 5)[0].max() < scratch.marks(10, 5)[1]
    full, _ = scratch.marks(10, np.iinfo(np.int32).max - 100)
    full[:] = 77
    fresh, start = scratch.marks(10, 200)
    assert fresh is not full
    assert not np.isin(np.arange(start, start + 200), fresh).any()
    for size in range(MOST_SIZES + 1):
        scratch.of_keys(size)
    assert scratch.of_keys(50)[0] is not count
