"""A log replayed as live operation: event time, refusals that are no evidence, people known to be honest."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch import arena
from stillwatch.cli import main
from stillwatch.guard import parse_policy
from stillwatch.guard.live import Live, Operation, live
from stillwatch.guard.policy import SHADOW
from stillwatch.ingest import open_log
from stillwatch.schema.errors import EmptyLogError, UsageError
from stillwatch.schema.times import DAY_US
from tests.guard.conftest import SECRET

HOW = Operation(every_us=4 * DAY_US, takes_us=600_000_000)


def _live(log: Path, how: Operation = HOW, honest: frozenset[str] = frozenset()) -> Live:
    with open_log([str(log)]) as opened:
        found = live(opened, parse_policy(SHADOW), SECRET, how, honest=honest)
    return msgspec.structs.replace(found, scan_s=0.0)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live") / "log"
    arena.make("demo", folder, accounts=1_500, exchanges=30_000, seed=3)
    return folder


@pytest.fixture(scope="module")
def found(log: Path) -> Live:
    return _live(log)


def test_campaigns_are_listed_then_cut_and_nobody_acts_before(log: Path, found: Live) -> None:
    assert found.exchanges == pq.read_metadata(log / "exchanges.parquet").num_rows
    assert found.scans >= 3
    cut = [campaign for campaign in found.campaigns if campaign.first_cut is not None]
    assert cut
    for campaign in cut:
        assert str(campaign.first_listed) < str(campaign.first_cut)
        assert campaign.exchanges == campaign.before_first_cut + campaign.cut + campaign.through_after
        assert campaign.cut > 0
    truth = pq.read_table(log / "truth" / "accounts.parquet").to_pylist()
    attackers = {row["account_id"] for row in truth if row["operation"] is not None}
    touched = {entry.account_id for entry in found.touched}
    assert touched <= attackers
    assert len(touched) >= 10


def test_the_order_of_rows_and_of_files_changes_nothing(log: Path, found: Live, tmp_path: Path) -> None:
    table = pq.read_table(log / "exchanges.parquet")
    order = np.random.default_rng(5).permutation(table.num_rows)
    for path in log.glob("*.parquet"):
        if path.name != "exchanges.parquet":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    half = table.num_rows // 2
    pq.write_table(table.take(pa.array(order[:half])), tmp_path / "one.parquet")
    pq.write_table(table.take(pa.array(order[half:])), tmp_path / "two.parquet")
    assert _live(tmp_path) == found


@pytest.mark.slow
def test_a_decision_that_takes_longer_cuts_later_and_watching_cuts_nothing(log: Path, found: Live) -> None:
    late = _live(log, Operation(every_us=4 * DAY_US, takes_us=600_000_000, decided_us=5 * DAY_US))
    soon = {c.campaign: c for c in found.campaigns if c.first_cut is not None}
    for campaign in late.campaigns:
        if campaign.first_cut is not None and campaign.campaign in soon:
            assert campaign.first_cut > str(soon[campaign.campaign].first_cut)
    named = next(t.account_id for t in found.touched)
    watched = _live(log, Operation(every_us=4 * DAY_US, enforce=False), frozenset({named}))
    # It is told what would have been, and nothing is taken from what the scans see.
    assert [t for t in watched.touched if t.known_honest]
    assert {t.account_id for t in watched.touched if t.known_honest} == {named}


def _rows(path: Path, *times: str, blocked: str | None = None) -> Path:
    n = len(times)
    table = pa.table(
        {
            "exchange_id": [str(i) for i in range(n)],
            "ts": pa.array(list(times)).cast(pa.timestamp("us", tz="UTC")),
            "account_id": ["a"] * n,
            "model": ["m"] * n,
            "blocked_by": pa.array([blocked] * n, pa.string()),
        }
    )
    pq.write_table(table, path)
    return path


def test_logs_that_are_hardly_one(tmp_path: Path) -> None:
    one = _live(_rows(tmp_path / "one.parquet", "2026-05-01T00:00:00Z"))
    assert (one.exchanges, one.accounts, one.scans, one.campaigns, one.touched) == (1, 1, 0, [], [])
    ours = _live(
        _rows(
            tmp_path / "ours.parquet", "2026-05-01T00:00:00Z", "2026-05-09T00:00:00Z", blocked="stillwatch:g"
        )
    )
    assert (ours.exchanges, ours.scans) == (2, 0)
    # A clock that stood ten years back: told, and not two thousand scans of nothing.
    far = _rows(tmp_path / "far.parquet", "2016-05-01T00:00:00Z", "2026-05-09T00:00:00Z")
    with pytest.raises(UsageError, match="between the log's first and last row"):
        _live(far, Operation(every_us=DAY_US))
    pq.write_table(pq.read_table(far).slice(0, 0), tmp_path / "none.parquet")
    with pytest.raises(EmptyLogError):
        _live(tmp_path / "none.parquet")


def test_wrong_calls_say_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLWATCH_GUARD_SECRET", "a secret of the tests, no other")
    log = _rows(tmp_path / "one.parquet", "2026-05-01T00:00:00Z")
    for args, words in (
        ([], "name the snapshot"),
        (["--live", "--snapshot", "x"], "makes its own snapshots"),
        (["--live", "--every", "often"], "is no span of time"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["guard", "replay", str(log), *args])
        assert stop.value.code == 2
        assert words in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["guard", "replay", str(log), "--live"])
    assert stop.value.code in (0, None)
    assert "1 exchanges of 1 accounts" in capsys.readouterr().out
