"""What the service tells the transparency log: every partition, scan, finding and decision, once."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stillwatch.cli import main
from stillwatch.evidence.keys import new_key
from stillwatch.evidence.log import TransparencyLog
from stillwatch.evidence.read import entries
from stillwatch.evidence.verify import verify
from stillwatch.guard.watch.service import Service, Settings, Source
from stillwatch.guard.watch.told import Telling
from stillwatch.schema import OutputError, ResultError
from stillwatch.store.decisions import Order, Signer, propose
from stillwatch.store.events import of_results
from tests.guard.conftest import Scanned
from tests.guard.watch.test_service import SECRET_TEXT, lines_of


class Journal:
    """A list that takes an event once, as the log does; `fails` events in it goes wrong."""

    def __init__(self, fails: int = -1) -> None:
        self.events: dict[tuple[str, str], None] = {}
        self.fails = fails

    def append(self, kind: str, payload: object) -> None:
        """Keep one event."""
        self.fails -= 1
        if self.fails == -1:
            raise OutputError("the disk is full")
        self.events[kind, json.dumps(payload, sort_keys=True)] = None

    def kinds(self) -> Counter[str]:
        """How many of which kind."""
        return Counter(kind for kind, _ in self.events)


def decided(path: Path) -> Path:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    order = Order(campaign="g-1", action="block", policy="0" * 64, expires=at + timedelta(days=7), at=at)
    propose(path, order, Signer(Ed25519PrivateKey.from_private_bytes(bytes(32))))
    return path


def test_results_and_decisions_are_told_wherever_it_broke_off(demo: Scanned, tmp_path: Path) -> None:
    results = tmp_path / "results"
    for name in ("000000001-5", "000000002-6"):
        shutil.copytree(demo.results, results / name)
    (results / "current").write_text("000000002-6")
    decisions = decided(tmp_path / "decisions")
    whole = Journal()
    Telling(whole, results, str(decisions)).tell()
    groups = len(json.loads((demo.results / "findings.json").read_text())["groups"])
    assert whole.kinds() == {"decision": 1, "scan": 2, "finding": 2 * groups}
    # So `log take` of such a folder adds nothing.
    assert of_results(results / "000000001-5")[0][1]["run"] == "000000001-5"
    for fails in [*range(4), *range(4, len(whole.events), 29), len(whole.events) - 1]:
        journal = Journal(fails)
        first = Telling(journal, results, str(decisions))
        with pytest.raises(OutputError):
            first.tell()
        # The same process goes on, or another one.
        for telling in (first, Telling(journal, results, str(decisions))):
            telling.tell()
            assert journal.events.keys() == whole.events.keys()
            assert not telling.waits("000000001-5")
            telling.tell()


def test_what_cannot_be_read_hides_nothing_else(demo: Scanned, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(demo.results, results / "000000002-6")
    (results / "000000001-5").mkdir()
    journal = Journal()
    telling = Telling(journal, results, None)
    with pytest.raises(ResultError):
        telling.tell()
    assert journal.kinds()["scan"] == 1
    assert telling.waits("000000001-5")
    assert not telling.waits("000000002-6")
    # Without a journal nothing waits, and nothing is read.
    assert not Telling(None, results, None).waits("000000001-5")
    Telling(None, results, None).tell()


def test_watch_commits_partitions_scans_and_findings(
    demo: Scanned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLWATCH_GUARD_SECRET", SECRET_TEXT)
    (tmp_path / "edge.jsonl").write_text("".join(lines_of(demo.log / "exchanges.parquet")))
    path, key = tmp_path / "log", new_key(tmp_path / "log.pem")
    TransparencyLog.create(path, key, "a.test/log").close()
    call = ["watch", tmp_path / "service", "--snapshot", tmp_path / "snapshot", "--once",
            "--follow", f"edge={tmp_path}/edge.jsonl", "--log", path, "--log-key", tmp_path / "log.pem"]  # fmt: skip
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in call])
    assert not stop.value.code
    proved = verify(path)
    manifest = json.loads((tmp_path / "service" / "partitions" / "manifest.json").read_text())
    assert proved.kinds["partition"] == len(manifest["parts"])
    assert proved.kinds["scan"] == proved.kinds["snapshot"] == 1
    told = {entry.kind: json.loads(entry.payload or b"") for entry in entries(path)}
    run = (tmp_path / "service" / "results" / "current").read_text()
    groups = json.loads((tmp_path / "service" / "results" / run / "findings.json").read_text())["groups"]
    assert proved.kinds["finding"] == len(groups) > 0
    # A scan names the partitions that it read, as they were committed when they were made.
    parts = {json.loads(entry.payload or b"")["sha256"] for entry in entries(path, kind="partition")}
    assert parts == set(told["scan"]["input_sha256"])
    assert told["scan"]["run"] == told["finding"]["run"] == run
    # Killed after the results were there and before the log was told: the next life tells, once.
    shutil.copytree(tmp_path / "service" / "results" / run, tmp_path / "service" / "results" / "000000009-9")
    settings = Settings(
        folder=tmp_path / "service", snapshot=tmp_path / "snapshot",
        sources=(Source("edge", (f"{tmp_path}/edge.jsonl",)),), live=False,
    )  # fmt: skip
    with TransparencyLog(path, key) as log:
        for _ in range(2):
            service = Service(settings, print, journal=log)
            service.begin()
            service.close()
    assert verify(path).kinds == proved.kinds + Counter(scan=1, finding=len(groups))


def test_a_log_that_cannot_be_written_stops_no_scan(
    demo: Scanned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLWATCH_GUARD_SECRET", SECRET_TEXT)
    (tmp_path / "edge.jsonl").write_text("".join(lines_of(demo.log / "exchanges.parquet")))
    said: list[str] = []
    journal = Journal(10**9)
    settings = Settings(
        folder=tmp_path / "service", snapshot=tmp_path / "snapshot",
        sources=(Source("edge", (f"{tmp_path}/edge.jsonl",)),), live=False,
    )  # fmt: skip
    service = Service(settings, said.append, journal=journal)
    while service.step():
        pass
    assert service.begin()
    journal.fails = 0
    outcome = service.finish(wait=True)
    assert outcome is not None
    assert outcome.error is None
    assert (tmp_path / "snapshot").exists()
    assert any("not in the transparency log yet: the disk is full" in line for line in said)
    assert journal.kinds()["scan"] == 0
    service.begin()
    assert journal.kinds()["scan"] == 1
    assert journal.kinds()["finding"] > 0
    service.close()
