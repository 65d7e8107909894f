"""FAN-OUT: accounts with more users behind them than one account has."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from stillwatch.detect.fanout import LEAST_EXCHANGES, fan_out, wide_accounts
from stillwatch.views import fanout

NAMES = ("claimed clients", "languages")
ACCOUNTS = 5000


def _log(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Busy accounts have more of everything: that is no fan-out."""
    volume = rng.geometric(0.02, ACCOUNTS)
    return volume, np.stack([1 + rng.binomial(volume, 0.01), 1 + rng.binomial(2, 0.1, ACCOUNTS)])


def test_a_pool_with_many_clients_is_wide_and_random_or_busy_groups_are_not() -> None:
    rng = np.random.default_rng(1)
    volume, diversity = _log(rng)
    pool = np.arange(40)
    volume[pool] += LEAST_EXCHANGES
    diversity[0, pool] += 12
    wide, able = wide_accounts(volume, diversity, np.ones(ACCOUNTS, bool))
    found = fan_out(wide, able, NAMES, pool)
    assert found.p < 1e-20
    assert found.detail == "claimed clients"
    assert not found.alone, "it never singles a group out"
    busy = np.argsort(-volume)[:60]
    assert fan_out(wide, able, NAMES, np.sort(busy)).p > 0.01
    rest = np.arange(40, ACCOUNTS)
    p = [fan_out(wide, able, NAMES, np.sort(rng.choice(rest, 50, replace=False))).p for _ in range(100)]
    assert float(np.mean(np.array(p) <= 0.05)) <= 0.08


def test_quiet_accounts_and_registered_gateways_say_nothing() -> None:
    volume = np.full(300, LEAST_EXCHANGES - 1)
    diversity = np.ones((2, 300), np.int64)
    diversity[:, :20] = 50
    wide, able = wide_accounts(volume, diversity, np.ones(300, bool))
    assert fan_out(wide, able, NAMES, np.arange(20)).p == 1.0
    wide, able = wide_accounts(volume + 50, diversity, np.arange(300) >= 20)
    assert fan_out(wide, able, NAMES, np.arange(20)).p == 1.0


def test_an_update_is_no_other_client_and_missing_columns_are_nothing() -> None:
    agents = ["OpenAI/Python 1.30.1", "OpenAI/Python 2.0", "curl/8.5.0", None]
    batch = pa.RecordBatch.from_pydict({"user_agent": pa.array(agents), "x": pa.array([1, 2, 3, 4])})
    found = dict(fanout.values(batch, np.array([1, 1, 2, 0], np.uint8)))
    client = found["claimed_clients"]
    assert client[0] == client[1] != client[2]
    assert client[3] == 0
    assert found["languages"].tolist() == [1, 1, 2, 0]
    assert not found["tool_sets"].any()
    assert "end_users" not in found
