"""The operations and look-alikes of the scenario `field`: what makes each what it is, and settable parameters."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from stillwatch.arena import make
from stillwatch.arena.field import ALL_OPERATIONS
from stillwatch.schema.errors import UsageError

SIZE = {"accounts": 1500, "exchanges": 24_000}


def _make(folder: Path, operation: str, settings: dict[str, str] | None = None, seed: int = 5) -> Path:
    make("field", folder, seed=seed, operation=operation, settings=settings or {}, **SIZE)
    return folder


def _rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """`e`: exchanges, `a`: truth about accounts, `h`: truth about exchanges."""
    tables = {"e": "exchanges", "a": "truth/accounts", "h": "truth/exchanges", "s": "sanctions"}
    for name, path in tables.items():
        query = query.replace(f"${name}", f"'{folder}/{path}.parquet'")
    return duckdb.sql(query).fetchall()


def _of_operation(folder: Path, what: str) -> list[tuple[Any, ...]]:
    return _rows(
        folder,
        f"select {what} from $e e join $a a using (account_id) join $h h using (exchange_id) "
        "where a.operation is not null order by e.ts",
    )


@pytest.fixture(scope="module")
def relayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _make(tmp_path_factory.mktemp("serve") / "log", "serve_and_harvest", {"size": "20"})


def test_relayed_conversations_change_accounts_and_claim_many_clients_over_one_stack(relayed: Path) -> None:
    rows = _of_operation(relayed, "account_id, turn_hashes, ja4, user_agent, prompt")
    holders = defaultdict(set)
    for account, turns, *_ in rows:
        for value in (turns or [])[1:]:
            holders[value].add(account)
    assert sum(len(names) > 1 for names in holders.values()) >= 10, "conversations move"
    assert len({row[2] for row in rows}) == 1, "one TLS stack"
    assert len({row[3] for row in rows}) > 5, "many claimed clients"
    prompts = [row[4] for row in rows]
    assert len(set(prompts)) > 0.95 * len(prompts), "no template"


@pytest.mark.parametrize("operation", ["serve_and_harvest", "trace_replay"])
def test_reasoning_blocks_come_back_under_other_accounts(operation: str, tmp_path: Path) -> None:
    folder = _make(tmp_path / "log", operation, {"size": "20"})
    moved = _rows(
        folder,
        "with o as (select unnest(reasoning_out) b, account_id giver, ts from $e), "
        "i as (select unnest(reasoning_in) b, account_id sender, ts from $e) "
        "select giver, sender, i.ts > o.ts from o join i using (b) where giver <> sender",
    )
    members = {row[0] for row in _rows(folder, "select account_id from $a where operation is not null")}
    assert sum(giver in members and sender in members for giver, sender, _ in moved) >= 10
    assert all(later for *_, later in moved), "never before it was given"


def test_a_sweep_asks_everything_once_and_a_best_of_k_asks_k_times(tmp_path: Path) -> None:
    sweep = _make(tmp_path / "sweep", "instruction_sweep", {"size": "12", "cover": "0"})
    prompts = [row[0] for row in _of_operation(sweep, "prompt")]
    assert len(set(prompts)) > 0.97 * len(prompts)
    best = _make(
        tmp_path / "best", "best_of_k", {"size": "20", "cover": "0", "variants": "1", "templates": "1"}
    )
    group = _rows(best, f"select parameters from '{best}/truth/groups.parquet' where operation = 'best_of_k'")
    assert json.loads(group[0][0])["k"] >= 3


@pytest.mark.parametrize(
    ("operation", "share"), [("mixing_05", 0.05), ("mixing_25", 0.25), ("worst_case", 0.17)]
)
def test_the_harvest_share_is_what_the_name_says(operation: str, share: float, tmp_path: Path) -> None:
    folder = _make(tmp_path / "log", operation, {"requests_per_account": "60"})
    flags = [row[0] for row in _of_operation(folder, "harvest")]
    assert 0.5 * share < sum(flags) / len(flags) < 1.7 * share


def test_standbys_take_over_within_seconds_of_a_stop(tmp_path: Path) -> None:
    folder = _make(tmp_path / "log", "hydra_large", {"size": "60"})
    continued = _rows(
        folder,
        "with t as (select account_id, ts, unnest(turn_hashes[2:]) turn from $e), "
        "firsts as (select turn, account_id, min(ts) ts from t group by all) "
        "select count(*) from firsts x join firsts y using (turn) join $a a on a.account_id = y.account_id "
        "where x.account_id <> y.account_id and a.operation is not null",
    )
    assert continued[0][0] > 0


def test_settings_are_honoured_recorded_and_checked(tmp_path: Path) -> None:
    folder = _make(tmp_path / "log", "shell_company", {"size": "33", "cover": "0.1"})
    members = _rows(folder, "select count(*) from $a where operation = 'shell_company'")
    assert members[0][0] == 33
    group = _rows(
        folder, f"select parameters from '{folder}/truth/groups.parquet' where operation is not null"
    )
    assert json.loads(group[0][0])["cover"] == 0.1
    entities = duckdb.sql(
        f"select count(distinct entity_id), bool_or(verified) from '{folder}/accounts.parquet' "
        f"join '{folder}/truth/accounts.parquet' using (account_id) where operation is not null"
    ).fetchall()
    assert entities == [(1, False)]
    for bad in ({"cover": "2"}, {"size": "none"}, {"colour": "1"}):
        with pytest.raises(UsageError):
            _make(tmp_path / "bad", "shell_company", bad)
    with pytest.raises(UsageError):
        _make(tmp_path / "bad", "nobody")


def test_all_of_it_is_reproducible_and_holds_every_kind(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make("field", tmp_path / name, seed=2, accounts=3000, exchanges=40_000)
    first, second = ((tmp_path / n / "exchanges.parquet").read_bytes() for n in ("one", "two"))
    assert first == second
    kinds = {row[0] for row in _rows(tmp_path / "one", "select distinct coalesce(operation, kind) from $a")}
    honest = {
        "audit_log", "llm_judge", "text_cleaning", "key_rotation", "privacy_gateway", "compaction", "team_key",
        "instruction_set", "failover",
    }  # fmt: skip
    assert honest | set(ALL_OPERATIONS) <= kinds


def test_an_operation_can_be_composed_for_a_few_hours(tmp_path: Path) -> None:
    made = make(
        "field", tmp_path / "log", seed=2, accounts=400, exchanges=2_000, operation="mixing_50",
        settings={"size": "30", "requests_per_account": "40", "begin_hours": "300", "span_hours": "2"},
    )  # fmt: skip
    assert made.operations == {"mixing_50": 30}
    truth = pq.read_table(tmp_path / "log" / "truth" / "accounts.parquet").to_pylist()
    mine = {row["account_id"] for row in truth if row["operation"] is not None}
    rows = pq.read_table(tmp_path / "log" / "exchanges.parquet", columns=["account_id", "ts"])
    times = [
        t
        for a, t in zip(rows["account_id"].to_pylist(), rows["ts"].cast("int64").to_pylist(), strict=True)
        if a in mine
    ]
    assert len(times) > 600
    assert max(times) - min(times) <= 2 * 3_600_000_000
    with pytest.raises(UsageError, match="cannot begin at 400"):
        make(
            "field",
            tmp_path / "late",
            accounts=400,
            exchanges=2_000,
            operation="mixing_50",
            settings={"begin_hours": "400"},
        )
