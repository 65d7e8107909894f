"""Logs that say little: all but the required columns may be missing, and nothing is made of what is not there."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from stillwatch import arena
from stillwatch.scan import scan
from stillwatch.schema.errors import EmptyLogError


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sparse") / "log"
    arena.make("demo", folder, seed=3, accounts=600, exchanges=6000)
    return folder


def _scan(folder: Path, exchanges: pa.Table, accounts: pa.Table | None) -> list[str]:
    pq.write_table(exchanges, folder / "exchanges.parquet")
    if accounts is not None:
        pq.write_table(accounts, folder / "accounts.parquet")
    return [group.verdict for group in scan([str(folder)]).findings.groups]


def test_without_an_accounts_table_nobody_is_accused(log: Path, tmp_path: Path) -> None:
    exchanges = pq.read_table(log / "exchanges.parquet")
    assert "campaign" not in _scan(tmp_path, exchanges, None)


def test_without_payers_mail_and_sign_ups_nobody_is_hidden(log: Path, tmp_path: Path) -> None:
    accounts = pq.read_table(log / "accounts.parquet").drop_columns(
        ["created_at", "payment_fp", "email_domain"]
    )
    exchanges = pq.read_table(log / "exchanges.parquet")
    assert "campaign" not in _scan(tmp_path, exchanges, accounts)


@pytest.mark.parametrize("rows", [1, 40])
def test_required_columns_alone_are_a_log(log: Path, tmp_path: Path, rows: int) -> None:
    exchanges = pq.read_table(log / "exchanges.parquet", columns=["exchange_id", "ts", "account_id", "model"])
    assert _scan(tmp_path, exchanges.slice(0, rows), None) == []


def test_a_log_of_our_own_refusals_is_empty(log: Path, tmp_path: Path) -> None:
    exchanges = pq.read_table(log / "exchanges.parquet").slice(0, 50)
    blocked = exchanges.append_column("blocked_by", pa.array(["stillwatch:g-1"] * 50))
    with pytest.raises(EmptyLogError, match="itself refused"):
        _scan(tmp_path, blocked, None)


def test_an_account_that_only_we_refused_has_no_first_day(log: Path, tmp_path: Path) -> None:
    exchanges = pq.read_table(log / "exchanges.parquet")
    pq.write_table(exchanges, tmp_path / "exchanges.parquet")
    (tmp_path / "accounts.parquet").write_bytes((log / "accounts.parquet").read_bytes())
    before = scan([str(tmp_path)])
    members = before.accounts.filter(pc.equal(before.accounts["role"], "core"))["account_id"].to_pylist()[:3]
    ours = ["stillwatch:g-1" if n in members else None for n in exchanges["account_id"].to_pylist()]
    refused = exchanges.append_column("blocked_by", pa.array(ours, pa.string()))
    pq.write_table(refused, tmp_path / "exchanges.parquet")
    found = scan([str(tmp_path)])
    for group in found.findings.groups:
        assert group.first_ts >= found.findings.run.first_ts
    for row in found.accounts.to_pylist():
        assert (row["first_ts"] is None) == (row["exchanges"] == 0)
