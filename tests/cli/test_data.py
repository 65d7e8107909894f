"""`stillwatch data`: taking tables over, showing them, and what is said when that fails."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.cli import data, main
from stillwatch.schema.errors import InputError, Where


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STILLWATCH_DATA", str(tmp_path / "kept"))
    return tmp_path / "kept"


def _run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(args)
    out = capsys.readouterr()
    return int(stop.value.code or 0), out.out, out.err


def test_supplied_tables_are_kept_and_shown(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    pq.write_table(pa.table({"domain": ["temp.test", "b.test"]}), own / "disposable_email_domains.parquet")
    (own / "hosting_asns.csv").write_text("asn,org\n64500,A\n")
    code, out, _ = _run(capsys, "data", "update", "--tables", str(own))
    assert code == 0
    assert "disposable_email_domains: 2 entries, supplied" in out
    code, out, _ = _run(capsys, "data", "show", "--json")
    listed = {entry["name"]: entry for entry in json.loads(out)["tables"]}
    assert {name for name, entry in listed.items() if entry["present"]} == {
        "disposable_email_domains",
        "hosting_asns",
    }
    assert listed["hosting_asns"]["rows"] == 1
    (kept / "hosting_asns.parquet").unlink()
    _, out, _ = _run(capsys, "data", "show")
    assert "hosting_asns: damaged" in out
    assert "asn_ipv4: missing" in out


def test_what_was_fetched_stays_when_something_else_fails(
    kept: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {"disposable_email_domains": pa.table({"domain": pa.array(["a.test"], pa.large_string())})}
    bad = {"asn_ipv4": InputError("no answer", where=Where("npm:x"))}
    monkeypatch.setattr(data, "fetch_tables", lambda: (good, bad))
    code, out, err = _run(capsys, "data", "update")
    assert code == 3
    assert "disposable_email_domains: 1 entries" in out
    assert "asn_ipv4 was not updated: npm:x: no answer" in err
    assert (kept / "tables.json").exists()


def test_a_folder_without_tables_is_an_error(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = _run(capsys, "data", "update", "--tables", str(tmp_path))
    assert (code, "no lookup table" in err) == (3, True)
    assert not kept.exists()
