"""`stillwatch evidence replay`: what agrees, what was changed, what is another input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.cli import evidence as command
from stillwatch.cli import main
from stillwatch.cli.log import commit
from stillwatch.evidence.keys import new_key
from stillwatch.evidence.log import TransparencyLog
from stillwatch.scan import Options, Scanned, scan
from stillwatch.store.events import of_results
from stillwatch.store.results import read_earlier, read_findings, results_of, write_results
from tests.guard.watch.test_service import SECRET_TEXT, lines_of

Run = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True)
class Made:
    """A log, the results of its scan, and the transparency log that holds them."""

    log: Path
    results: Path
    journal: Path


@pytest.fixture(scope="module")
def made(scanned: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    TransparencyLog.create(folder / "log", new_key(folder / "log.pem"), "a.test/log").close()
    commit(folder / "log", folder / "log.pem", lambda: of_results(scanned[1]), "done")
    return Made(*scanned, folder / "log")


_scans: dict[str, Scanned] = {}


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log is scanned by the first replay of this process, and its scan is taken by the others."""

    def again(paths: list[str], **how: Any) -> Scanned:
        if paths[0] not in _scans:
            _scans[paths[0]] = scan(paths, **how)
        return _scans[paths[0]]

    monkeypatch.setattr(command, "run_scan", again)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def inner(*args: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return inner


@pytest.mark.usefixtures("once")
def test_the_recorded_inputs_give_the_recorded_numbers(run: Run, made: Made) -> None:
    code, out, err = run("evidence", "replay", made.results, made.log, "--log", made.journal)
    assert (code, err) == (0, "")
    assert "with seed 0 and configuration" in out
    assert "entry 1 committed these results at 2" in out
    assert (
        "1 input, and the tables accounts, releases, sanctions: the SHA-256 digests are the recorded ones"
        in out
    )
    lines = {line.split()[0]: line for line in out.splitlines()}
    for name in ("claims", "proof_tests", "proof_views", "proof_nulls", "proof_direct", "proof_scores"):
        assert lines[name].endswith(" values, all the same")
    assert lines["All"].endswith("values are what the recorded inputs give")


def changed(made: Made, to: Path, name: str, column: str, value: Any) -> Path:
    """A copy of the results in which somebody wrote another value into one table."""
    shutil.copytree(made.results, to)
    table = pq.read_table(to / f"{name}.parquet")
    rows = table.to_pylist()
    rows[3][column] = value
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), to / f"{name}.parquet")
    return to


@pytest.mark.usefixtures("once")
def test_a_number_that_was_changed_is_found_with_a_code_of_its_own(
    run: Run, made: Made, tmp_path: Path
) -> None:
    results = changed(made, tmp_path / "results", "proof_nulls", "value", 1e6)
    code, out, err = run("evidence", "replay", results, made.log)
    assert code == 7
    assert "1 different" in out
    assert "draw 3, value: recorded 1000000.0, replayed" in err
    assert "the recorded numbers were changed" in err
    code, out, err = run("evidence", "replay", results, made.log, "--json")
    told = json.loads(out)
    assert (code, told["agrees"], told["tables"]["proof_nulls"]["differ"]) == (7, False, 1)
    assert "draw 3" in told["first_difference"]
    # The log would have told at once.
    code, _, err = run("evidence", "replay", results, made.log, "--log", made.journal)
    assert (code, "holds no scan with these results" in err) == (5, True)
    # A computer that computed otherwise is named.
    info = json.loads((results / "run.json").read_text())
    (results / "run.json").write_text(json.dumps(info | {"machine": "riscv64 other"}))
    code, _, err = run("evidence", "replay", results, made.log)
    assert (code, "machine riscv64 other, here" in err) == (7, True)


@pytest.mark.usefixtures("once")
def test_a_claim_that_was_changed_is_found(run: Run, made: Made, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(made.results, results)
    plain = json.loads((results / "findings.json").read_text())
    group = next(g for g in plain["groups"] if g["verdict"] == "campaign")
    group["claims"][0]["p"] = 0.5
    (results / "findings.json").write_text(json.dumps(plain))
    code, _, err = run("evidence", "replay", results, made.log)
    assert code == 7
    assert f"first: claims, campaign_id {group['id']}, claim coordinated, p: recorded 0.5, replayed" in err


def test_what_is_no_replay_of_this_scan_is_said_before_it(
    run: Run, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Scanned:
        raise AssertionError("nothing may be scanned")

    monkeypatch.setattr(command, "run_scan", never)
    log, results = made.log, made.results
    data = (log / "exchanges.parquet").read_bytes()
    other = tmp_path / "other"
    shutil.copytree(log, other)
    (other / "exchanges.parquet").write_bytes(data[:-1] + bytes([data[-1]]))
    accounts = pq.read_table(log / "accounts.parquet")
    pq.write_table(accounts.slice(1), other / "accounts.parquet")
    rules = tmp_path / "rules.yaml"
    for args, code, said in (
        ([log / "exchanges.parquet"], 3, "the scan had a table of accounts, which is not here"),
        ([other], 3, "the table of accounts is another one"),
        ([log / "accounts.parquet"], 3, "accounts.parquet"),
        (["-"], 2, "standard input"),
        ([log, "--rules", rules], 3, "rules.yaml"),
        ([log, "--log", tmp_path / "none"], 5, "none"),
        ([log, "--log", made.journal, "--vkey", "x"], 3, "no key to verify with"),
    ):
        found = run("evidence", "replay", results, *args)
        assert (found[0], said in found[2]) == (code, True), found
    plain = json.loads((results / "findings.json").read_text())
    plain["run"]["config_digest"] = "0" * 64
    shutil.copytree(results, tmp_path / "results")
    (tmp_path / "results" / "findings.json").write_text(json.dumps(plain))
    assert run("evidence", "replay", tmp_path / "results", log)[0] == 2
    for broken in ("proof_views.parquet", "findings.json"):
        (tmp_path / "results" / broken).unlink()
        assert run("evidence", "replay", tmp_path / "results", log)[0] == 5
    assert run("evidence", "replay", log, log)[0] == 5


@pytest.mark.slow
def test_results_under_ids_of_earlier_ones_are_replayed_without_them(
    run: Run, made: Made, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    shutil.copytree(made.results, tmp_path / "earlier")
    plain = (made.results / "findings.json").read_text()
    campaigns = [g.id for g in read_findings(made.results).groups if g.verdict == "campaign"]
    for number, name in enumerate(campaigns):
        plain = plain.replace(name, f"g-{number:012d}")
        path = tmp_path / "earlier" / "accounts.parquet"
        table = pq.read_table(path)
        ids = [f"g-{number:012d}" if old == name else old for old in table.column("campaign_id").to_pylist()]
        pq.write_table(table.set_column(1, table.schema.field(1), pa.array(ids)), path)
    (tmp_path / "earlier" / "findings.json").write_text(plain)
    earlier = read_earlier(tmp_path / "earlier")
    write_results(results, results_of(scan([str(made.log)], options=Options(), earlier=earlier)))
    assert "g-000000000000" in {g.id for g in read_findings(results).groups}
    assert run("evidence", "replay", results, made.log)[0] == 0


@pytest.mark.slow
def test_results_of_watch_are_replayed_from_the_partitions(
    run: Run, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLWATCH_GUARD_SECRET", SECRET_TEXT)
    lines = lines_of(made.log / "exchanges.parquet")
    (tmp_path / "edge.jsonl").write_text("".join(lines[:-2]))
    key = new_key(tmp_path / "log.pem")
    TransparencyLog.create(tmp_path / "log", key, "a.test/log").close()
    service, accounts = tmp_path / "service", ["--accounts", made.log / "accounts.parquet"]
    watch = ["watch", service, "--snapshot", tmp_path / "snapshot", "--once", *accounts,
             "--follow", f"edge={tmp_path}/edge.jsonl",
             "--log", tmp_path / "log", "--log-key", tmp_path / "log.pem"]  # fmt: skip
    assert run(*watch)[0] == 0
    results = service / "results" / (service / "results" / "current").read_text()
    call = ["evidence", "replay", results, service, *accounts, "--log", tmp_path / "log"]
    code, out, err = run(*call)
    assert (code, err) == (0, "")
    assert "committed these results" in out
    # The second scan goes on with the ids of the first; the newest day's partition has grown by a file.
    with (tmp_path / "edge.jsonl").open("a") as edge:
        edge.write("".join(lines[-2:]))
    assert run(*watch)[0] == 0
    newer = service / "results" / (service / "results" / "current").read_text()
    assert newer != results
    assert read_findings(newer).run.previous is not None
    assert run("evidence", "replay", newer, service, *accounts, "--log", tmp_path / "log")[0] == 0
    # Without its partitions a scan cannot be replayed, and that is said.
    for part in (service / "partitions" / "days").glob("*"):
        shutil.rmtree(part)
    assert run("evidence", "replay", newer, service, *accounts)[0] == 3
