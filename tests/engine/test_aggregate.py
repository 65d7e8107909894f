import numpy as np
import pytest

from stillwatch.engine import aggregate
from stillwatch.engine.aggregate import Aggregate


def test_counts_first_and_last_match_a_dictionary() -> None:
    rng = np.random.default_rng(7)
    groups = rng.integers(0, 50, 20_000).astype(np.int32)
    keys = rng.integers(0, 400, 20_000).astype(np.uint64)
    times = rng.integers(0, 10**12, 20_000).astype(np.int64)
    expected: dict[tuple[int, int], list[int]] = {}
    for g, k, t in zip(groups.tolist(), keys.tolist(), times.tolist(), strict=True):
        if k:
            row = expected.setdefault((g, k), [0, t, t])
            row[0] += 1
            row[1] = min(row[1], t)
            row[2] = max(row[2], t)
    table = Aggregate(16)
    for start in range(0, 20_000, 3_000):
        table.add(groups[start : start + 3_000], keys[start : start + 3_000], times[start : start + 3_000])
    got = [a.tolist() for a in table.rows()]
    assert list(zip(got[0], got[1], strict=True)) == sorted(expected)
    assert list(zip(*got[2:], strict=True)) == [tuple(expected[k]) for k in sorted(expected)]


def test_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 9, 999).astype(np.int32)
    keys = rng.integers(1, 99, 999).astype(np.uint64)
    times = rng.integers(0, 10**9, 999).astype(np.int64)
    order = rng.permutation(999)
    one, two = Aggregate(), Aggregate()
    one.add(groups, keys, times)
    two.add(groups[order], keys[order], times[order])
    for a, b in zip(one.rows(), two.rows(), strict=True):
        assert np.array_equal(a, b)


def test_tally_matches_a_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(11)
    monkeypatch.setattr(aggregate, "workers", lambda: 3)
    account = rng.integers(0, 20, 500).astype(np.int32)
    times = rng.integers(0, 10**9, 500).astype(np.int64)
    row = np.sort(rng.integers(0, 500, 3_000)).astype(np.int64)
    name = rng.integers(0, 50, 3_000).astype(np.int32)
    seen: dict[tuple[int, int], list[int]] = {}
    for r, n in zip(row.tolist(), name.tolist(), strict=True):
        seen.setdefault((int(account[r]), n), []).append(int(times[r]))
    got = aggregate.tally(account, times, row, name, 20, 50)
    assert sorted(zip(*(a.tolist() for a in got), strict=True)) == [
        (*pair, len(at), min(at), max(at)) for pair, at in sorted(seen.items())
    ]
