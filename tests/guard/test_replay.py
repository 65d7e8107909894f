"""A log decided about again: who would have been acted on, when, after how much, and who besides."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.cli import main
from stillwatch.guard import load
from stillwatch.guard.logged import COLUMNS
from stillwatch.guard.policy import SHADOW
from stillwatch.guard.replay import Replay, replay
from stillwatch.ingest import open_log
from tests.guard.conftest import SECRET, Scanned


def _replay(log: Path, snapshot: Path, **how: object) -> Replay:
    with open_log([str(log)], columns=COLUMNS) as opened:
        return replay(opened, load(snapshot, SECRET), **how)  # type: ignore[arg-type]


def test_named_members_are_cut_from_their_first_exchange(demo: Scanned) -> None:
    found = _replay(demo.log / "exchanges.parquet", demo.path)
    members = {(r["account_id"], r["campaign_id"]): r["exchanges"] for r in demo.members()}
    assert {(t.account_id, t.campaign) for t in found.touched} <= set(members)
    assert sum(c.exchanges for c in found.campaigns) == sum(members.values())
    for campaign in found.campaigns:
        assert campaign.cut + campaign.let_through == campaign.exchanges
        assert campaign.accounts_cut <= campaign.accounts_named
        assert campaign.others_touched == campaign.known_honest_touched == 0
    assert sum(c.cut for c in found.campaigns) == found.rules[0].exchanges > 0
    assert found.refused_before == 0


def test_profiles_alone_find_members_that_nobody_named(demo: Scanned, tmp_path: Path) -> None:
    policy = SHADOW.replace('mode = "shadow"', 'mode = "shadow"\nfound_risk = 0.001')
    found = _replay(demo.log / "exchanges.parquet", demo.made(tmp_path / "snapshot", policy), names=False)
    members = {r["account_id"] for r in demo.members()}
    touched = {t.account_id for t in found.touched}
    assert len(touched & members) >= 10
    # One in a thousand honest accounts is the most that this policy risks.
    assert len(touched - members) <= 5
    cut = [c for c in found.campaigns if c.first_cut is not None]
    assert all(0 < c.before_first_cut <= c.let_through for c in cut)


def test_known_honest_accounts_that_are_touched_are_counted(demo: Scanned) -> None:
    named = demo.members()[0]["account_id"]
    found = _replay(demo.log / "exchanges.parquet", demo.path, honest=[named])
    hit = [t for t in found.touched if t.known_honest]
    assert {t.account_id for t in hit} <= {named}
    assert sum(c.known_honest_touched for c in found.campaigns) == len(hit)


def test_order_of_rows_and_own_refusals_change_nothing(demo: Scanned, tmp_path: Path) -> None:
    table = pq.read_table(demo.log / "exchanges.parquet")
    member = demo.members()[0]["account_id"]
    mine = table.filter(pa.compute.equal(table.column("account_id"), member))
    ids = pa.array([f"again-{i}" for i in range(mine.num_rows)])
    mine = mine.set_column(mine.column_names.index("exchange_id"), "exchange_id", ids)
    refused = mine.append_column("blocked_by", pa.array(["stillwatch:g-1"] * mine.num_rows))
    whole = pa.concat_tables([table, refused], promote_options="default")
    (tmp_path / "log").mkdir()
    pq.write_table(
        whole.take(pa.array(range(whole.num_rows - 1, -1, -1))), tmp_path / "log" / "exchanges.parquet"
    )
    plain, changed = (_replay(p, demo.path) for p in (demo.log / "exchanges.parquet", tmp_path / "log"))
    assert changed.refused_before == mine.num_rows
    changed.refused_before = 0
    assert changed == plain


def test_the_command_prints_and_writes(
    demo: Scanned, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLWATCH_GUARD_SECRET", "a secret of the tests, no other")
    log, out = str(demo.log / "exchanges.parquet"), tmp_path / "touched.csv"

    def run(*args: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main(("guard", "replay", log, "--snapshot", str(demo.path), *args))
        return int(stop.value.code or 0), capsys.readouterr().out

    code, text = run("--touched", str(out))
    assert code == 0
    assert "rule members (line 4, block)" in text
    assert "0 accounts touched that no campaign names" in text
    with out.open() as handle:
        rows = list(csv.DictReader(handle))
    code, text = run("--json")
    assert code == 0
    assert [r["account_id"] for r in rows] == [t["account_id"] for t in json.loads(text)["touched"]]
    monkeypatch.setenv("STILLWATCH_GUARD_SECRET", "another secret, of nobody")
    assert run()[0] == 5


def test_a_log_without_text_is_decided_about_as_with_it(demo: Scanned, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["sketch", str(demo.log), "--out", str(tmp_path / "bare")])
    texts = _replay(demo.log / "exchanges.parquet", demo.path, names=False)
    bare = _replay(tmp_path / "bare" / "exchanges.parquet", demo.path, names=False)
    assert texts == bare
    named = _replay(tmp_path / "bare" / "exchanges.parquet", demo.path)
    assert named == _replay(demo.log / "exchanges.parquet", demo.path)
    assert named.touched
