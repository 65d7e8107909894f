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


def test_a_relay_that_claims_many_clients_over_one_stack_borrows_them() -> None:
    """Each client has stacks of its own; the relay claims six of them over one that only one of them has."""
    rng = np.random.default_rng(3)
    client = rng.integers(1, 7, 900).astype(np.uint64)
    stack = client * np.uint64(100) + rng.integers(0, 3, 900).astype(np.uint64)
    account = np.arange(900, dtype=np.int32)
    relay = np.full(6, 900, np.int32)
    found = fanout.borrowed_clients(
        np.append(account, relay),
        np.append(client, np.arange(1, 7, dtype=np.uint64)),
        np.append(stack, np.full(6, 100, np.uint64)),
        901,
    )
    assert found[900] == 5
    assert not found[:900].any()
    # A client that few claim may have any stack, and so may one that many claim from everywhere.
    assert not fanout.borrowed_clients(account[:40], client[:40] * 0 + 1, stack[:40], 40).any()
    anywhere = np.arange(900, dtype=np.uint64)
    assert fanout.borrowed_clients(account, client * np.uint64(0) + np.uint64(1), anywhere, 900).sum() == 900
    nobody = np.zeros(0, np.uint64)
    assert fanout.borrowed_clients(account[:0], nobody, nobody, 3).tolist() == [0, 0, 0]


def test_requests_at_once_are_counted_while_they_are_answered() -> None:
    account = np.array([0, 0, 0, 1, 1, 2, 1], np.int32)
    start = np.array([0, 5, 10, 0, 10, 0, 100])
    took = np.array([10, 20, 5, 10, 5, -1, 0])
    # Account 0: the first ends when the third arrives. Account 1: one after the other. Account 2: not known.
    assert fanout.requests_at_once(account, start, took, 4).tolist() == [2, 1, 0, 0]
    order = np.random.default_rng(0).permutation(7)
    assert fanout.requests_at_once(account[order], start[order], took[order], 4).tolist() == [2, 1, 0, 0]
