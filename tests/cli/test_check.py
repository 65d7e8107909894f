"""`stillwatch check`: the text as a person reads it, the JSON twin, and what must never be printed."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.cli import main
from stillwatch.ingest import open_log
from stillwatch.ingest.lookup import Lookups
from stillwatch.ingest.lookup.shapes import normal
from stillwatch.scan import scan
from stillwatch.scan.preview import preview
from stillwatch.scan.sight import nameable

GOLDEN = Path(__file__).with_name("check.txt")
SECRETS = ("acct-", "203.0.113.", "what is the weather", "owner-", "k7.test")


def _row(n: int, **changes: object) -> str:
    row = {
        "exchange_id": f"x{n}",
        "ts": f"2026-03-{1 + n // 400:02d}T{n // 60 % 24:02d}:{n % 60:02d}:00Z",
        "account_id": f"acct-{n % 100:03d}",
        "model": "m",
        "prompt": f"what is the weather on day {n}",
        "ip": f"203.0.113.{n % 200}",
    }
    return json.dumps(row | changes) + "\n"


def _log(folder: Path) -> None:
    lines = [_row(n, system="be brief" if n % 3 == 0 else None) for n in range(2500)]
    lines += [_row(n, ts="1970-01-01T00:00:00Z") for n in range(3000, 3005)]
    lines += ["{broken\n", _row(4000, output_tokens="many"), _row(4001, ts="2200-01-01T00:00:00Z")]
    (folder / "log").mkdir()
    (folder / "log" / "part.jsonl").write_text("".join(lines))
    (folder / "log" / "notes.txt").write_text("nothing")
    names = [f"acct-{n:03d}" for n in range(90)]
    accounts = {
        "account_id": names,
        "entity_id": [f"owner-{n // 8}" for n in range(90)],
        "verified": [n < 80 for n in range(90)],
        "email_domain": ["k7.test"] * 90,
    }
    pq.write_table(pa.table(accounts), folder / "log" / "accounts.parquet")


def _run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        main(args)
    return int(stop.value.code or 0), capsys.readouterr().out


def test_the_text_is_the_golden_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _log(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, out = _run(capsys, "check", "log")
    assert code == 0
    assert out == GOLDEN.read_text()
    assert not any(secret in out for secret in SECRETS)
    assert max(map(len, out.splitlines())) <= 100


def test_the_json_twin_says_everything_and_nothing_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _log(tmp_path)
    code, out = _run(capsys, "check", str(tmp_path / "log"), "--json")
    assert code == 0
    assert not any(secret in out for secret in SECRETS)
    found = json.loads(out)
    assert (found["rows"], found["refused"], found["accounts"]) == (2500, 8, 100)
    assert found["references"]["verified_owners"] == 10
    assert found["verdicts"]["by_references"]
    most = found["refusals"][0]
    assert (most["column"], most["rows"], most["first"][0]["row"]) == ("ts", 5, 2501)
    assert {table["present"] for table in found["tables"]} == {False}
    assert found["account_columns"]["verified"] == 80.0


def test_side_tables_may_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _log(tmp_path)
    (tmp_path / "log" / "accounts.parquet").unlink()
    listed = [f"acct-{n:03d},group-{n // 8}" for n in range(80)]
    (tmp_path / "known.csv").write_text("account_id,group_id\n" + "\n".join(listed) + "\n")
    log = str(tmp_path / "log")
    found = json.loads(_run(capsys, "check", log, "--json")[1])
    assert (found["references"]["total"], found["verdicts"]["by_references"]) == (0, False)
    found = json.loads(_run(capsys, "check", log, "--references", str(tmp_path / "known.csv"), "--json")[1])
    assert (found["references"]["listed_groups"], found["verdicts"]["by_references"]) == (10, True)


def test_check_and_scan_say_the_same_about_sight(tmp_path: Path) -> None:
    _log(tmp_path)
    with open_log([str(tmp_path / "log")]) as log:
        before = preview(log).sight
    assert scan([str(tmp_path / "log")]).findings.run.sight == before


def test_a_proxy_and_a_gateway_are_noticed(tmp_path: Path) -> None:
    lines = [_row(n, account_id="acct-x" if n % 4 else f"acct-{n}", ip="203.0.113.9") for n in range(400)]
    (tmp_path / "log.jsonl").write_text("".join(lines))
    kinds = Lookups(
        {"ip_kinds": normal("ip_kinds", pa.table({"cidr": ["203.0.113.0/28"], "kind": ["x"]}), "f")}
    )
    with open_log([str(tmp_path / "log.jsonl")], lookups=kinds) as log:
        remarks = "\n".join(preview(log).remarks)
    assert "One account has 75 % of all rows" in remarks
    assert "One address block has 100 %" in remarks
    assert "100 % of the rows with an address come from hosting networks" in remarks


def test_a_log_without_a_good_row_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.jsonl").write_text(_row(1, ts="1970-01-01T00:00:00Z"))
    code, out = _run(capsys, "check", str(tmp_path / "log.jsonl"))
    assert code == 0
    assert "0 rows of 0 accounts" in out
    assert "lies before 2015" in out
    assert "--map" in out


@pytest.mark.parametrize(("references", "named", "most"), [(9, 1, 1), (99, 1, 10), (99, 3, 30), (8, 1, 0)])
def test_what_references_can_name(references: int, named: int, most: int) -> None:
    assert nameable(references, named) == most
