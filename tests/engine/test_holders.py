import numpy as np
import pytest

from stillwatch.engine import holders
from stillwatch.engine.holders import count_holders, grouped, holdings, weights


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("at_once", [1 << 25, 1 << 10])
def test_holders_match_sets(threads: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    monkeypatch.setattr(holders, "workers", lambda: threads)
    monkeypatch.setattr(holders, "MOST_AT_ONCE", at_once)
    monkeypatch.setattr(holders, "BUCKET", 1 << 8)
    account = rng.integers(0, 40, 900).astype(np.int32)
    length = rng.integers(0, 30, 900)
    offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    values = rng.integers(0, 2_000, offsets[-1]).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    held: dict[int, set[int]] = {}
    for row, owner in enumerate(account.tolist()):
        for value in values[offsets[row] : offsets[row + 1]].tolist():
            if value:
                held.setdefault(value, set()).add(owner)
    order, starts = grouped(account, 40)
    weight = weights(order, starts, offsets)
    key, count = count_holders(holdings(order, starts, weight, offsets, values), 3, 9)
    expected = {value: len(owners) for value, owners in held.items() if 3 <= len(owners) <= 9}
    assert dict(zip(key.tolist(), count.tolist(), strict=True)) == expected
    assert len(key) == len(expected)


def test_no_values_have_no_holders() -> None:
    order, starts = grouped(np.zeros(3, np.int32), 1)
    offsets = np.zeros(4, np.int64)
    pieces = holdings(order, starts, weights(order, starts, offsets), offsets, np.zeros(0, np.uint64))
    key, count = count_holders(pieces, 1, 9)
    assert len(key) == len(count) == 0
