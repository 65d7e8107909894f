"""What is kept is listed with its age; what is too old goes, and the log is told before it does."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from stillwatch.cli import main
from stillwatch.evidence.privacy import retain
from stillwatch.evidence.privacy.retain import delete, kept_in
from stillwatch.evidence.privacy.rewrite import tables_digest
from stillwatch.evidence.read import entries
from stillwatch.evidence.verify import verify
from stillwatch.schema.errors import ResultError, UsageError
from stillwatch.store.partitions import Partitions
from stillwatch.store.results import results_digest
from tests.evidence.privacy.conftest import DAY, Kept

LATER = datetime(2026, 1, 3, 12, tzinfo=UTC)


def events(kept: Kept) -> Path:
    """Requests that LiteLLM's hook noted, long ago."""
    folder = kept.root / "noted"
    folder.mkdir()
    for name, at in (
        ("litellm-1-2-0.jsonl", DAY.timestamp()),
        ("litellm-1-2-1.jsonl", LATER.timestamp() + 99),
    ):
        (folder / name).write_text("{}\n")
        os.utime(folder / name, (at, at))
    (folder / "notes.txt").write_text("mine")
    os.utime(folder / "notes.txt", (0, 0))
    return folder


def test_everything_with_an_age_is_listed(kept: Kept) -> None:
    events(kept)
    found = [
        (k.kind, k.path.name, k.first and k.first.day, k.last and k.last.day) for k in kept_in([kept.root])
    ]
    assert found == [
        ("events", "litellm-1-2-0.jsonl", 1, 1),
        ("results", "results", 1, 3),
        ("partitions", "partitions", 1, 3),
        ("tables", "tables", 1, 3),
        ("events", "litellm-1-2-1.jsonl", 3, 3),
    ]
    old = kept_in([kept.root], LATER)
    assert [(k.kind, k.days) for k in old] == [
        ("events", ()), ("partitions", ("2026-01-01", "2026-01-02")), ("tables", ()),
    ]  # fmt: skip
    with pytest.raises(ResultError, match="no such folder"):
        kept_in([kept.root / "none"])


def test_what_is_too_old_goes_and_the_log_says_which(kept: Kept) -> None:
    folder, digest = events(kept), tables_digest(kept.root / "tables")
    with kept.open() as log:
        gone = delete([kept.root], LATER, log)
        assert delete([kept.root], LATER, log) == []
    assert [k.kind for k in gone] == ["events", "partitions", "tables"]
    assert sorted(path.name for path in kept.root.iterdir()) == ["noted", "results", "service"]
    assert sorted(path.name for path in folder.iterdir()) == ["litellm-1-2-1.jsonl", "notes.txt"]
    partitions = Partitions(kept.root / "service" / "partitions")
    assert {part.day for part in partitions.manifest.parts} == {"2026-01-03"}
    assert partitions.position("edge3") == 3
    partitions.close()
    told = [json.loads(entry.payload or b"") for entry in entries(kept.log, kind="deleted")]
    assert [event["what"] for event in told] == ["events", "tables"]
    assert told[1] == {"what": "tables", "sha256": digest}
    assert verify(kept.log).kinds["partition_deleted"] == 3


def test_results_that_a_service_goes_on_from_stay(kept: Kept) -> None:
    results = kept.root / "service" / "results"
    for name in ("000000001-5", "000000002-6"):
        shutil.copytree(kept.root / "results", results / name)
    (results / "current").write_text("000000002-6")
    late = datetime(2027, 1, 1, tzinfo=UTC)
    assert [k.path.name for k in kept_in([results], late) if k.in_use] == ["000000002-6"]
    delete([results], late)
    assert sorted(path.name for path in results.iterdir()) == ["000000002-6", "current"]


@pytest.mark.parametrize("at", ["told", "moved", "half", "done"])
def test_killed_meanwhile_it_is_told_once_and_goes(
    kept: Kept, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def half(path: Path) -> None:
        if at == "half":
            (path / "findings.json").unlink()
        if at == "done":
            real(path)
        raise Killed

    def replace(*_: Any) -> None:
        raise Killed

    results, late, real = kept.root / "results", datetime(2027, 1, 1, tzinfo=UTC), shutil.rmtree
    digest = results_digest(results)
    with monkeypatch.context() as patch, kept.open() as log:
        if at == "told":
            patch.setattr(retain.os, "replace", replace)
        patch.setattr(retain.shutil, "rmtree", half)
        with pytest.raises(Killed):
            delete([results], late, log)
    with kept.open() as log:
        if results.exists():
            delete([results], late, log)
        else:
            delete([kept.root], late, log)
    assert not [path for path in kept.root.iterdir() if "results" in path.name]
    told = [json.loads(entry.payload or b"") for entry in entries(kept.log, kind="deleted")]
    assert told.count({"what": "results", "sha256": digest}) == 1
    verify(kept.log)


def test_a_running_service_keeps_its_partitions(kept: Kept) -> None:
    partitions = Partitions(kept.root / "service" / "partitions")
    with pytest.raises(UsageError, match="another process"):
        delete([kept.root / "service"], LATER)
    partitions.close()


def test_at_a_terminal(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*args: str | Path) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        return int(stop.value.code or 0), capsys.readouterr().out

    code, said = run("retain", "show", kept.root, "--at", "2026-02-01")
    assert code == 0
    assert [line.split()[:4] for line in said.splitlines()[1:]] == [
        ["results", "2026-01-01", "2026-01-03", "28"],
        ["partitions", "2026-01-01", "2026-01-03", "28"],
        ["tables", "2026-01-01", "2026-01-03", "28"],
    ]
    call = ("retain", "apply", kept.root, "--older", "28d", "--at", "2026-01-31T12:00Z")
    assert "Nothing was deleted" in run(*call)[1]
    assert (kept.root / "tables").exists()
    code, said = run(*call, "--yes")
    assert f"deleted: 2 days of {kept.root / 'service' / 'partitions'}" in said
    assert f"deleted: {kept.root / 'tables'}" in said
    assert not (kept.root / "tables").exists()
    assert "Nothing is older than 28d" in run(*call, "--yes")[1]
    for odd in ("28", "0d", "-1d", "1e9d", "99999d"):
        assert run(*call[:4], odd)[0] == 2
    assert run("retain", "show", kept.root, "--at", "soon")[0] == 2
