"""What the scenarios `wide` and `september` add: what makes each kind what it is, and who shares what."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from stillwatch.arena import EVERY_OPERATION, leak_check, make
from stillwatch.arena.files import exchange_files
from stillwatch.schema.errors import ResultError, UsageError

SIZE = {"accounts": 1_200, "exchanges": 24_000}


def _make(folder: Path, operation: str, **settings: str) -> Path:
    make("wide", folder, seed=4, operation=operation, settings=settings, **SIZE)
    return folder


def _rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """`$e`: exchanges with `kind`, `operation` and `harvest` from the truth; `$a`: accounts with the same."""
    exchanges = (
        f"(select e.*, t.kind, t.operation, h.harvest from '{folder}/exchanges.parquet' e "
        f"join '{folder}/truth/accounts.parquet' t using (account_id) "
        f"join '{folder}/truth/exchanges.parquet' h using (exchange_id))"
    )
    accounts = (
        f"(select a.*, t.kind, t.operation from '{folder}/accounts.parquet' a "
        f"join '{folder}/truth/accounts.parquet' t using (account_id))"
    )
    return duckdb.sql(query.replace("$e", exchanges).replace("$a", accounts)).fetchall()


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make("wide", tmp_path / name, seed=9, accounts=600, exchanges=6_000)
        make("september", tmp_path / f"{name}s", seed=9, accounts=600, exchanges=6_000)
    for first, second in (("one", "two"), ("ones", "twos")):
        for path in sorted((tmp_path / first).rglob("*.parquet")):
            twin = tmp_path / second / path.relative_to(tmp_path / first)
            assert path.read_bytes() == twin.read_bytes(), path.name


def test_wide_holds_every_operation_and_the_new_look_alikes(tmp_path: Path) -> None:
    made = make("wide", tmp_path / "log", seed=1, **SIZE)
    assert set(made.operations) == set(EVERY_OPERATION)
    assert {"rag", "ci_agent", "batch_labelling", "batch_labelling_people", "translation"} <= set(made.kinds)


def test_probing_is_refused_first_and_then_the_pool_comes(tmp_path: Path) -> None:
    log = _make(
        tmp_path / "log", "probe_then_scale",
        size="40", requests_per_account="60", cover="0", probers="0.1", probes="900", probe_refused="0.9",
        probe_hours="72",
    )  # fmt: skip
    begin = _rows(log, "select min(epoch_us(ts)) from $e")[0][0] + 72 * 3_600_000_000
    early, late = (
        _rows(
            log,
            "select count(distinct account_id), count(*), avg(refused::int) from $e where operation is not null "
            f"and harvest and epoch_us(ts) {sign} {begin}",
        )[0]
        for sign in ("<", ">=")
    )
    assert early[0] == 4
    assert 600 <= early[1] <= 1_300
    assert early[2] == pytest.approx(0.9, abs=0.05)
    assert late[0] >= 36
    assert late[2] < 0.08


def test_agents_of_an_operation_run_long_loops_over_one_list(tmp_path: Path) -> None:
    log = _make(tmp_path / "log", "agentic_harvest", size="20", requests_per_account="120", cover="0")
    steps, tools, turns, calls = _rows(
        log,
        "select count(*), count(distinct tools_hash), count(distinct prompt), sum((newest_role = 'tool')::int) "
        "from $e where operation is not null and harvest",
    )[0]
    assert tools == 1
    assert calls > 0.6 * steps
    assert turns < steps / 3
    # The work list is dealt out: what one account asks, no other does.
    shared = _rows(
        log,
        "select count(*) from (select prompt from $e where operation is not null and harvest group by 1 "
        "having count(distinct account_id) > 1)",
    )[0][0]
    assert shared <= 0.02 * turns


def test_variation_changes_the_language_and_the_case(tmp_path: Path) -> None:
    many = _make(
        tmp_path / "many", "template_variation", size="20", variants="40", abroad="1", recased="0", cover="0"
    )
    heads = [
        p.split("\n")[0]
        for (p,) in _rows(many, "select prompt from $e where operation is not null and harvest")
    ]
    foreign = sum(any(c > "\u00bf" for c in head) for head in heads)
    assert foreign > 0.5 * len(heads)
    loud = _make(
        tmp_path / "loud", "template_variation", size="20", variants="40", abroad="0", recased="1", cover="0"
    )
    heads = [
        p.split("\n")[0]
        for (p,) in _rows(loud, "select prompt from $e where operation is not null and harvest")
    ]
    assert sum(head.upper() == head or head.lower() == head for head in heads) > 0.4 * len(heads)
    with pytest.raises(UsageError, match="share between 0 and 1"):
        _make(tmp_path / "none", "template_variation", abroad="2")
    with pytest.raises(UsageError, match="has no parameter 'probes'"):
        _make(tmp_path / "none", "template_variation", probes="10")


def test_look_alikes_are_what_they_are_said_to_be(tmp_path: Path) -> None:
    log = tmp_path / "log"
    make("wide", log, seed=2, **SIZE)
    agents = _rows(log, "select count(*), count(distinct tools_hash) from $e where kind = 'ci_agent'")[0]
    assert agents[0] > 50
    assert agents[1] == 1
    payers = _rows(
        log,
        "select entity_id, count(*), count(distinct payment_fp) from $a where kind = 'batch_labelling' "
        "and verified group by 1",
    )
    assert payers
    assert all(count >= 8 and cards <= 3 for _, count, cards in payers)
    languages = _rows(
        log, "select avg((regexp_matches(prompt, '[^\\x00-\\x7f]'))::int) from $e where kind = 'translation'"
    )[0][0]
    assert languages > 0.2
    documents = _rows(
        log,
        "select count(*), count(distinct prompt) from $e "
        "where kind = 'rag' and n_messages <= 2 and prompt is not null",
    )[0]
    assert documents[1] < documents[0]


def test_september_buys_from_one_reseller(tmp_path: Path) -> None:
    log = tmp_path / "log"
    made = make("september", log, seed=3, accounts=3_000, exchanges=60_000)
    assert made.attackers == pytest.approx(600, rel=0.1)
    assert len(made.operations) == 6
    cards = _rows(
        log,
        "select payment_fp, count(distinct operation) from $a "
        "where operation is not null and payment_fp is not null group by 1",
    )
    assert sum(n > 1 for _, n in cards) > 10
    honest = {
        card
        for (card,) in _rows(
            log, "select distinct payment_fp from $a where operation is null and payment_fp is not null"
        )
    }
    assert not honest & {card for card, _ in cards}
    blocks = _rows(
        log,
        "select regexp_extract(ip, '(.*)\\.', 1) as b, count(distinct operation) from $e "
        "where operation is not null group by 1",
    )
    assert sum(n > 1 for _, n in blocks) > 10
    groups = pq.read_table(log / "truth" / "groups.parquet").to_pylist()
    covers = [json.loads(g["parameters"]).get("cover") for g in groups if g["operation"] is not None]
    assert max(covers) > 0.1
    with pytest.raises(UsageError, match="cannot hold an operation"):
        make("september", tmp_path / "none", operation="hydra_large")


def test_one_operation_has_a_leak_check_with_a_control(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="needs the extra arena")
    report = leak_check(_make(tmp_path / "log", "template_variation", size="40"), trees=20)
    assert report.control is not None
    assert 1 <= len(report.control) <= 3
    assert all(0 <= value <= 1 for value in (*report.control, report.auc))
    assert "honest groups told apart in the same way" in str(report)
    make("null", tmp_path / "null", seed=1, accounts=300, exchanges=2_000)
    with pytest.raises(ResultError, match="no operation to look for"):
        leak_check(tmp_path / "null")


def test_kinds_of_one_group_are_labelled_alike(tmp_path: Path) -> None:
    make("wide", tmp_path / "log", seed=6, accounts=600, exchanges=6_000)
    truth = pq.read_table(tmp_path / "log" / "truth" / "accounts.parquet").to_pylist()
    kinds = {(r["group_id"], r["kind"]) for r in truth if r["group_id"] is not None}
    assert max(Counter(group for group, _ in kinds).values()) == 1


def test_a_rare_operation_lies_in_one_shard_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillwatch.arena.shards.SHARD", 1_000)
    how: dict[str, Any] = {
        "accounts": 2_000,
        "exchanges": 20_000,
        "operation": "mixing_50",
        "settings": {"size": "30"},
    }
    made = make("rare", tmp_path / "one", seed=5, **how)
    assert made.attackers == 30
    assert made.operations == {"mixing_50": 30}
    log = tmp_path / "one"
    assert sorted(p.name for p in log.glob("exchanges*")) == [
        "exchanges-000.parquet",
        "exchanges-001.parquet",
    ]
    rows = duckdb.sql(
        f"select count(*), count(distinct exchange_id), count(distinct account_id) from '{log}/exchanges-*.parquet'"
    ).fetchall()[0]
    assert rows[0] == rows[1] == made.exchanges
    truth = pq.read_table(log / "truth" / "accounts.parquet")
    assert truth.num_rows == made.accounts == len(set(truth["account_id"].to_pylist()))
    assert set(truth["group_id"].drop_null().to_pylist()) <= set(
        pq.read_table(log / "truth" / "groups.parquet")["group_id"].to_pylist()
    )
    ids = [
        i
        for p in exchange_files(log)
        for i in pq.read_table(p, columns=["exchange_id"])["exchange_id"].to_pylist()
    ]
    assert ids == pq.read_table(log / "truth" / "exchanges.parquet")["exchange_id"].to_pylist()
    # One network and one client software for all; what is popular in one shard is used in the other.
    first, second = (pq.read_table(p, columns=["prompt", "ja4"]).to_pydict() for p in exchange_files(log))
    assert len(set(first["ja4"]) & set(second["ja4"])) > 20
    heads = [{(p or "")[:40] for p in part["prompt"]} for part in (first, second)]
    assert len(heads[0] & heads[1]) > 20
    make("rare", tmp_path / "two", seed=5, **how)
    for path in sorted(log.rglob("*.parquet")):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(log)).read_bytes(), path.name
    report = leak_check(log, trees=5)
    assert report.rows == made.exchanges
