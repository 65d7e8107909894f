"""The generator: same bytes, canonical columns, every kind present, truth consistent with the log."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from stillwatch.arena import MakeSummary, leak_check, make
from stillwatch.arena.operations import OPERATIONS
from stillwatch.schema.errors import OutputError, UsageError
from stillwatch.schema.tables import ACCOUNTS, EXCHANGES, RELEASES, SANCTION_KINDS, SANCTIONS, required

ACCOUNTS_SMALL, EXCHANGES_SMALL = 1200, 24_000
HONEST_KINDS = {
    "individual", "coding_agent", "framework", "enterprise_verified", "enterprise_unverified",
    "enterprise_undeclared", "benchmark", "gateway", "classroom", "viral_launch",
}  # fmt: skip


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MakeSummary]:
    out = tmp_path_factory.mktemp("arena") / "mixed"
    return out, make("mixed", out, seed=3, accounts=ACCOUNTS_SMALL, exchanges=EXCHANGES_SMALL)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make("mixed", tmp_path / name, seed=seed, accounts=400, exchanges=6000)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a")["exchanges.parquet"] != digest(tmp_path / "c")["exchanges.parquet"]


def test_tables_follow_the_canonical_schemas(mixed: tuple[Path, MakeSummary]) -> None:
    out, summary = mixed
    log = pq.read_table(out / "exchanges.parquet")
    for field in log.schema:
        assert EXCHANGES.field(field.name).type == field.type, field.name
    assert set(required(EXCHANGES)) <= set(log.column_names)
    for name in required(EXCHANGES):
        assert log[name].null_count == 0
    assert len(set(log["exchange_id"].to_pylist())) == log.num_rows == summary.exchanges
    moments = log["ts"].cast("int64").to_numpy()
    assert (np.diff(moments) >= 0).all()
    for name, schema in (("accounts", ACCOUNTS), ("sanctions", SANCTIONS), ("releases", RELEASES)):
        assert pq.read_schema(out / f"{name}.parquet").equals(schema)
    assert set(pq.read_table(out / "sanctions.parquet")["kind"].to_pylist()) <= set(SANCTION_KINDS)
    assert out.stat().st_mode & 0o777 == 0o700


def test_size_is_what_was_asked_for(mixed: tuple[Path, MakeSummary]) -> None:
    _, summary = mixed
    assert summary.accounts == ACCOUNTS_SMALL
    assert abs(summary.exchanges / EXCHANGES_SMALL - 1) < 0.05


def test_every_kind_and_operation_is_there(mixed: tuple[Path, MakeSummary]) -> None:
    _, summary = mixed
    assert set(summary.kinds) == HONEST_KINDS | {"attack"}
    assert set(summary.operations) == set(OPERATIONS)


def test_null_has_no_attacker(tmp_path: Path) -> None:
    summary = make("null", tmp_path / "null", accounts=400, exchanges=4000)
    assert summary.attackers == summary.harvest == 0
    assert set(summary.kinds) == HONEST_KINDS


def test_individuals_rarely_send_the_same_prompt(mixed: tuple[Path, MakeSummary]) -> None:
    _, summary = mixed
    assert 0 < summary.duplicate_share <= 0.03


def test_truth_agrees_with_the_log(mixed: tuple[Path, MakeSummary]) -> None:
    out, _ = mixed
    log = pq.read_table(out / "exchanges.parquet", columns=["exchange_id", "account_id", "ts"])
    truth = pq.read_table(out / "truth" / "exchanges.parquet")
    accounts = pq.read_table(out / "truth" / "accounts.parquet")
    assert truth["exchange_id"].equals(log["exchange_id"])
    attackers = set(accounts.filter(pc.equal(accounts["kind"], "attack"))["account_id"].to_pylist())
    harvesting = set(log.filter(truth["harvest"])["account_id"].to_pylist())
    assert harvesting <= attackers
    assert len(harvesting) > 0.95 * len(attackers)
    groups = pq.read_table(out / "truth" / "groups.parquet")
    assert set(accounts["group_id"].drop_null().to_pylist()) <= set(groups["group_id"].to_pylist())
    for text in groups["parameters"].to_pylist():
        json.loads(text)
    created = dict(
        zip(
            *pq.read_table(out / "accounts.parquet", columns=["account_id", "created_at"])
            .to_pydict()
            .values(),
            strict=True,
        )
    )
    assert all(
        t >= created[a] for t, a in zip(log["ts"].to_pylist(), log["account_id"].to_pylist(), strict=True)
    )


def test_ids_do_not_tell_the_kind(mixed: tuple[Path, MakeSummary]) -> None:
    out, _ = mixed
    accounts = pq.read_table(out / "truth" / "accounts.parquet")
    position = np.flatnonzero(np.array(accounts["kind"].to_pylist()) == "attack") / accounts.num_rows
    assert 0.35 < position.mean() < 0.65
    assert len(set(map(len, accounts["account_id"].to_pylist()))) == 1


def test_operations_split_their_work_list(mixed: tuple[Path, MakeSummary]) -> None:
    out, _ = mixed
    log = pq.read_table(out / "exchanges.parquet", columns=["prompt"])
    flags = pq.read_table(out / "truth" / "exchanges.parquet")
    prompts = log.filter(flags["harvest"])["prompt"].to_pylist()
    assert len(set(prompts)) > 0.99 * len(prompts)


def test_hydra_conversations_continue_under_another_account(mixed: tuple[Path, MakeSummary]) -> None:
    out, _ = mixed
    log = pq.read_table(out / "exchanges.parquet", columns=["account_id", "turn_hashes"]).to_pydict()
    accounts = pq.read_table(out / "truth" / "accounts.parquet")
    operation = dict(zip(accounts["account_id"].to_pylist(), accounts["operation"].to_pylist(), strict=True))
    holders: dict[int, set[str]] = {}
    for account, hashes in zip(log["account_id"], log["turn_hashes"], strict=True):
        if len(hashes) >= 3:
            for value in hashes[2:]:
                holders.setdefault(value, set()).add(account)
    crossing = [pair for pair in holders.values() if len(pair) > 1]
    assert len(crossing) >= 5
    assert sum(all(operation[a] == "hydra" for a in pair) for pair in crossing) >= 0.9 * len(crossing)


def test_refuses_to_overwrite_and_unknown_scenarios(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "note").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        make("null", taken, accounts=300, exchanges=600)
    assert (taken / "note").read_text() == "mine"
    with pytest.raises(UsageError, match="no scenario"):
        make("carnival", tmp_path / "x")


def test_single_requests_do_not_give_the_truth_away(mixed: tuple[Path, MakeSummary]) -> None:
    pytest.importorskip("sklearn")
    report = leak_check(mixed[0], trees=30)
    assert 0.3 < report.auc < 0.9
    assert report.average_precision < 0.75
    assert "AUC" in str(report)
