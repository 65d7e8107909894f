"""A log without text gives the findings of the log with text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stillwatch import arena
from stillwatch.cli import main
from stillwatch.scan import scan
from stillwatch.store.results import encode_findings


def test_findings_are_the_same_without_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arena.make("demo", tmp_path / "log", accounts=400, exchanges=9_000, seed=2)
    with pytest.raises(SystemExit) as stop:
        main(["sketch", str(tmp_path / "log"), "--out", str(tmp_path / "sketched")])
    assert stop.value.code == 0
    assert "without text" in capsys.readouterr().out
    names = ["accounts.parquet", "exchanges.parquet", "releases.parquet", "sanctions.parquet"]
    assert sorted(path.name for path in (tmp_path / "sketched").iterdir()) == names
    full, bare = scan([str(tmp_path / "log")]), scan([str(tmp_path / "sketched")])
    one, two = (json.loads(encode_findings(found.findings)) for found in (full, bare))
    assert one["groups"]
    for found in (one, two):
        found["run"]["inputs"] = []  # digests differ, and nothing else does
    assert one == two
    assert full.accounts.equals(bare.accounts)
    assert full.profiles.equals(bare.profiles)
    columns = [name for name in full.families.column_names if name != "skeleton"]
    assert full.families.select(columns).equals(bare.families.select(columns))
    assert bare.families.column("skeleton").null_count == bare.families.num_rows
