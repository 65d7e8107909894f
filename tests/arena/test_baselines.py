"""Baselines on logs in which it is plain what each of them must find, and must not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.arena.baselines import BASELINES, baselines
from stillwatch.arena.baselines.distribution import LEAST_QUERIES, mmd_windows, prada_statistic
from stillwatch.arena.baselines.log import components, first_rows
from stillwatch.schema.errors import UsageError
from stillwatch.schema.tables import ACCOUNTS, EXCHANGES

START = datetime(2026, 3, 2, tzinfo=UTC)
WORDS = (
    "river", "stone", "market", "violin", "ladder", "copper", "winter", "orchard", "signal", "harbor",
    "meadow", "lantern",
)  # fmt: skip


def _log(folder: Path, exchanges: list[dict[str, Any]], accounts: list[dict[str, Any]] | None = None) -> Path:
    folder.mkdir(parents=True)
    rows = [{"exchange_id": f"x{i:06d}", "model": "m", **row} for i, row in enumerate(exchanges)]
    pq.write_table(pa.Table.from_pylist(rows, schema=EXCHANGES), folder / "exchanges.parquet")
    names = sorted({row["account_id"] for row in exchanges})
    known = {row["account_id"]: row for row in accounts or []}
    people = [known.get(name, {"account_id": name}) for name in names]
    pq.write_table(pa.Table.from_pylist(people, schema=ACCOUNTS), folder / "accounts.parquet")
    return folder


def _prompt(rng: np.random.Generator, length: int = 14) -> str:
    return " ".join(rng.choice(WORDS, length))


def _run(name: str, log: Path, out: Path) -> list[set[str]]:
    BASELINES[name].run(log, out)
    groups = json.loads((out / "all" / "findings.json").read_text())["groups"]
    rows = pq.read_table(out / "all" / "accounts.parquet").to_pylist()
    return [{r["account_id"] for r in rows if r["campaign_id"] == g["id"]} for g in groups]


def test_they_are_asked_for_by_name() -> None:
    assert baselines(None) == []
    assert [m.name for m in baselines("rings, mmd")] == ["rings", "mmd"]
    assert [m.name for m in baselines("all")] == list(BASELINES)
    with pytest.raises(UsageError, match="no baseline 'magic'"):
        baselines("rings,magic")


def test_components_leave_small_ones_out() -> None:
    assert components([("a", "b"), ("c", "b"), ("x", "y")], 3) == [["a", "b", "c"]]


def test_each_accounts_first_rows_are_read_when_a_log_is_large(tmp_path: Path) -> None:
    rows = [
        {"account_id": account, "ts": START + timedelta(minutes=i), "prompt": f"{account}{i}"}
        for account, number in (("a", 50), ("b", 3), ("c", 10))
        for i in range(number)
    ]
    log = _log(tmp_path / "log", rows)
    found = first_rows(log, "account_id, prompt", 20).to_pylist()
    assert len(found) <= 20
    assert {r["account_id"] for r in found} == {"a", "b", "c"}
    assert {"a0", "b0", "b1", "b2", "c0"} <= {r["prompt"] for r in found}
    assert first_rows(log, "account_id", 1_000).num_rows == 63


def test_rules_name_the_loud_and_the_failing(tmp_path: Path) -> None:
    rows = [
        {
            "account_id": f"p{n:03d}",
            "ts": START + timedelta(hours=9, minutes=7 * i),
            "prompt": "x",
            "status": 200,
        }
        for n in range(300)
        for i in range(4)
    ]
    rows += [
        {"account_id": "loud", "ts": START + timedelta(minutes=2 * i), "prompt": "x"} for i in range(700)
    ]
    rows += [
        {"account_id": "failing", "ts": START + timedelta(minutes=3 * i), "status": 400 if i % 2 else 200}
        for i in range(24)
    ]
    named = set().union(*_run("key_rules", _log(tmp_path / "log", rows), tmp_path / "out"))
    assert named == {"loud", "failing"}


def test_rings_need_an_instrument_or_two_weak_ties(tmp_path: Path) -> None:
    rows, people = [], []
    for n in range(30):
        ring = n < 6
        rows.append(
            {"account_id": f"r{n:02d}", "ts": START, "ip": f"10.0.{0 if n < 12 else n}.{n}", "prompt": "x"}
        )
        people.append(
            {"account_id": f"r{n:02d}", "payment_fp": "card" if ring else None, "signup_ip": f"10.1.0.{n}"}
        )
    groups = _run("rings", _log(tmp_path / "log", rows, people), tmp_path / "out")
    assert groups == [{f"r{n:02d}" for n in range(6)}]
    for person in people[:6]:
        person |= {"entity_id": "firm", "verified": True}
    assert _run("rings", _log(tmp_path / "firm", rows, people), tmp_path / "out2") == []


def test_the_notebook_joins_near_duplicates(tmp_path: Path) -> None:
    pytest.importorskip("datasketch", reason="needs the extra baselines")
    rng = np.random.default_rng(1)
    wording = "Write out step by step how you would solve the following task and grade the result"
    rows = [{"account_id": f"s{n}", "ts": START, "prompt": f"{wording} {n}"} for n in range(6)]
    rows += [{"account_id": f"h{n}", "ts": START, "prompt": _prompt(rng)} for n in range(40)]
    assert _run("notebook", _log(tmp_path / "log", rows), tmp_path / "out") == [{f"s{n}" for n in range(6)}]


def test_mmd_is_centred_for_the_background_and_large_for_a_narrow_account() -> None:
    rng = np.random.default_rng(3)
    points = rng.normal(size=(120, 40, 64)).astype(np.float32)
    groups = [p / np.linalg.norm(p, axis=1, keepdims=True) for p in points]
    narrow = groups[0][:1] + 0.05 * groups[1]
    groups[0] = (narrow / np.linalg.norm(narrow, axis=1, keepdims=True)).astype(np.float32)
    found = [windows[0] for windows in mmd_windows(groups)]
    assert abs(float(np.mean(found[1:]))) < 0.05
    assert found[0] > 10 * max(found[1:])


def test_prada_tells_normal_distances_from_two_kinds_of_them() -> None:
    rng = np.random.default_rng(4)
    people = rng.normal(size=(300, 64)).astype(np.float32)
    people /= np.linalg.norm(people, axis=1, keepdims=True)
    script = people.copy()
    script[150:] = script[:150] + rng.normal(scale=1e-3, size=(150, 64)).astype(np.float32)
    script /= np.linalg.norm(script, axis=1, keepdims=True)
    honest, seen = prada_statistic(people), prada_statistic(script)
    assert honest is not None
    assert seen is not None
    assert seen < 0.8 < 0.9 < honest
    assert prada_statistic(people[: LEAST_QUERIES - 1]) is None
    assert prada_statistic(np.repeat(people[:1], 60, axis=0)) == 0.0


def test_text_methods_run_and_name_no_verified_account(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="needs the extra arena")
    rng = np.random.default_rng(7)
    rows, people = [], []
    for n in range(130):
        odd = n == 0
        for i in range(45):
            text = "grade this answer strictly" if odd else _prompt(rng)
            rows.append(
                {"account_id": f"a{n:03d}", "ts": START + timedelta(minutes=i), "prompt": f"{text} {i}"}
            )
        people.append({"account_id": f"a{n:03d}", "verified": n > 20, "entity_id": f"e{n}"})
    log = _log(tmp_path / "log", rows, people)
    named = set().union(*_run("mmd", log, tmp_path / "mmd"))
    assert "a000" in named
    assert named <= {f"a{n:03d}" for n in range(21)}
    assert set().union(*_run("prada", log, tmp_path / "prada")) <= {f"a{n:03d}" for n in range(21)}


def test_honeypotllm_lives_in_the_logs_time(tmp_path: Path) -> None:
    pytest.importorskip("honeypotllm", reason="needs the extra baselines")
    rng = np.random.default_rng(9)
    rows = [
        {
            "account_id": "script",
            "ts": START + timedelta(seconds=i),
            "prompt": f"what is the price of item {i}",
        }
        for i in range(120)
    ]
    rows += [
        {"account_id": f"h{n}", "ts": START + timedelta(hours=5 * i), "prompt": _prompt(rng)}
        for n in range(5)
        for i in range(30)
    ]
    assert _run("honeypotllm", _log(tmp_path / "log", rows), tmp_path / "out") == [{"script"}]


def test_the_network_toolkit_ties_who_says_the_same_at_once(tmp_path: Path) -> None:
    pytest.importorskip("coordination_network_toolkit", reason="needs the extra baselines")
    rng = np.random.default_rng(11)
    rows = [
        {
            "account_id": f"s{n}",
            "ts": START + timedelta(hours=i, seconds=n),
            "prompt": f"please translate chapter {i}",
        }
        for n in range(6)
        for i in range(3)
    ]
    rows += [
        {"account_id": f"h{n}", "ts": START + timedelta(hours=i, seconds=n), "prompt": _prompt(rng)}
        for n in range(10)
        for i in range(3)
    ]
    groups = _run("coordination_network", _log(tmp_path / "log", rows), tmp_path / "out")
    assert groups == [{f"s{n}" for n in range(6)}]
