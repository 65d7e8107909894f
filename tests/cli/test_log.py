"""`stillwatch log` at a terminal, and what scan, guard and watch commit."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from stillwatch.cli import main
from stillwatch.evidence.read import entries
from stillwatch.store.decisions import Order, Signer, propose, read_decisions
from stillwatch.store.results import results_digest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def inner(*args: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return inner


@pytest.fixture
def log(run: Run, tmp_path: Path) -> Path:
    """A new log; its key is beside it."""
    made = run(
        "log", "init", tmp_path / "log", "--key", tmp_path / "log.pem", "--new-key", "--origin", "a.test/log"
    )
    assert made[0] == 0
    (tmp_path / "vkey").write_text(made[1].split("needs: ")[1])
    return tmp_path / "log"


def with_log(log: Path) -> list[str | Path]:
    return ["--log", log, "--log-key", log.with_name("log.pem")]


def signer(path: Path, number: int) -> Path:
    key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def kinds(log: Path) -> list[str]:
    return [entry.kind for entry in entries(log)]


def test_a_log_is_made_with_its_key_and_nothing_is_replaced(run: Run, log: Path) -> None:
    key = log.with_name("log.pem")
    assert stat.S_IMODE(key.stat().st_mode) == stat.S_IMODE(log.stat().st_mode) == 0o600
    before = key.read_bytes(), log.read_bytes()
    for args in (["--key", key], ["--key", key, "--new-key"], ["--key", key.with_name("x"), "--new-key"]):
        code, _, said = run("log", "init", log, *args)
        assert (code, "a log is never replaced" in said) == (4, True)
    assert run("log", "init", log.with_name("log2"), "--key", key, "--new-key")[0] == 4
    assert run("log", "init", log.with_name("log2"), "--key", key, "--origin", "a b")[0] == 2
    assert run("log", "init", log.with_name("log2"), "--key", key)[0] == 0
    assert (key.read_bytes(), log.read_bytes()) == before
    assert not key.with_name("x").exists()


def test_a_scan_is_committed_with_each_of_its_groups(
    run: Run, log: Path, scanned: tuple[Path, Path], tmp_path: Path
) -> None:
    source, plain = scanned
    out = tmp_path / "results"
    assert run("scan", source, "--out", out, *with_log(log))[0] == 0
    found = list(entries(log))[1:]
    groups = json.loads((out / "findings.json").read_text())["groups"]
    assert [entry.kind for entry in found] == ["scan", *["finding"] * len(groups)]
    told = [json.loads(entry.payload or b"") for entry in found]
    assert told[0]["results"] == results_digest(out) == told[1]["results"]
    assert (told[0]["groups"], told[0]["seed"]) == (len(groups), 0)
    assert [(t["group"], t["verdict"], t["accounts"]) for t in told[1:]] == [
        (g["id"], g["verdict"], g["accounts"]) for g in groups
    ]
    # Taken over from the folder it is the same.
    key = log.with_name("log.pem")
    assert run("log", "take", log, out, "--key", key)[1] == f"0 events added, {len(found)} were there\n"
    assert kinds(log) == ["log", "scan", *["finding"] * len(groups)]
    # No text and no account is in it.
    data = log.read_bytes()
    for line in (out / "findings.json").read_text().split('"'):
        assert len(line) < 60 or line.encode() not in data or len(line) == 64
    # The results are those of a scan without a log.
    assert results_digest(plain) == results_digest(out)


def test_decisions_are_committed_as_they_are_taken_or_taken_over(run: Run, log: Path, tmp_path: Path) -> None:
    policy, decisions = tmp_path / "policy.toml", tmp_path / "decisions.jsonl"
    policy.write_text("version = 1\n")
    anna, bela = signer(tmp_path / "anna.pem", 3), signer(tmp_path / "bela.pem", 4)
    call = [
        "guard",
        "propose",
        "g-17034050a23f",
        "--action",
        "block",
        "--policy",
        policy,
        "--decisions",
        decisions,
    ]
    # The first without a log.
    code, digest, _ = run(*call, "--key", anna)
    assert code == 0
    beside = ["--decisions", decisions, "--key", bela]
    assert run("guard", "approve", digest.strip(), *beside, *with_log(log))[0] == 0
    assert kinds(log) == ["log", "decision", "approval"]
    assert run("guard", "revoke", digest.strip(), *beside, *with_log(log))[0] == 0
    assert kinds(log) == ["log", "decision", "approval", "reversal"]
    key = log.with_name("log.pem")
    assert run("log", "take", log, decisions, "--key", key)[1] == "0 events added, 3 were there\n"
    told = [json.loads(entry.payload or b"") for entry in entries(log)][1:]
    assert [t["row"] for t in told] == [row.hash for row in read_decisions(decisions)]
    assert {t["decision"] for t in told} == {digest.strip()}
    other = log.with_name("other")
    assert run("log", "init", other, "--key", key)[0] == 0
    assert run("log", "take", other, decisions, "--key", key)[1] == "3 events added, 0 were there\n"
    assert run("log", "take", other, tmp_path / "none", "--key", key)[0] == 2


def test_what_is_wrong_with_the_log_is_said_before_the_work(run: Run, log: Path, tmp_path: Path) -> None:
    decisions, anna = tmp_path / "decisions.jsonl", signer(tmp_path / "anna.pem", 3)
    call = [
        "guard",
        "propose",
        "g-1",
        "--action",
        "block",
        "--policy",
        tmp_path / "p",
        "--decisions",
        decisions,
    ]
    (tmp_path / "p").write_text("version = 1\n")
    for options, code, words in (
        (["--log", log], 2, "go together"),
        (["--log-key", log], 2, "go together"),
        (["--log", tmp_path / "none", "--log-key", log.with_name("log.pem")], 5, "log init"),
        (["--log", log, "--log-key", anna], 3, "not the transparency log's own"),
        (["--log", log, "--log-key", tmp_path / "none"], 3, "cannot be read"),
    ):
        found = run(*call, "--key", anna, *options)
        assert found[0] == code
        assert words in found[2]
        assert not decisions.exists()


def test_a_decision_that_could_not_be_committed_is_told(
    run: Run, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decisions, anna = tmp_path / "decisions.jsonl", signer(tmp_path / "anna.pem", 3)
    (tmp_path / "p").write_text("version = 1\n")
    monkeypatch.setattr("stillwatch.cli.decisions.ready", lambda log, key: log.write_bytes(b"broken"))
    code, out, said = run(
        "guard", "propose", "g-1", "--action", "block", "--policy", tmp_path / "p", "--decisions", decisions,
        "--key", anna, *with_log(log),
    )  # fmt: skip
    assert code == 4
    assert len(out.strip()) == 64
    assert "is not in the transparency log" in said
    assert "log take" in said
    assert len(read_decisions(decisions)) == 1


def test_verify_says_what_was_proved_and_where_it_fails(run: Run, log: Path, tmp_path: Path) -> None:
    decisions = tmp_path / "decisions.jsonl"
    (tmp_path / "p").write_text("version = 1\n")
    call = ["guard", "propose", "--action", "block", "--policy", tmp_path / "p", "--decisions", decisions]
    anna, note = signer(tmp_path / "anna.pem", 3), tmp_path / "note"
    assert run(*call, "g-1", "--key", anna, *with_log(log))[0] == 0
    assert run("log", "checkpoint", log, "--out", note)[1] == f"{note}: checkpoint of 2 entries\n"
    older = log.read_bytes()
    assert run(*call, "g-2", "--key", anna, *with_log(log))[0] == 0
    vkey = tmp_path / "vkey"
    code, said, _ = run("log", "verify", log, "--checkpoint", note, "--vkey", vkey)
    assert code == 0
    assert "3 entries" in said
    assert "2 decision, 1 log" in said
    assert f"Key:  {vkey.read_text().strip()}, as expected" in said
    assert f"{note}: the log goes on from its 2 entries" in said
    assert "only a checkpoint can tell" in run("log", "verify", log)[1]
    now = run("log", "checkpoint", log)[1]
    assert now.startswith("a.test/log\n3\n")
    (tmp_path / "now").write_text(now)
    proof = json.loads(run("log", "prove", log, "1")[1])
    assert (proof["index"], proof["checkpoint"]) == (1, now)
    growth = json.loads(run("log", "prove", log, "--since", note)[1])
    assert (growth["from"], growth["checkpoint"]) == (2, now)
    for args in ([], ["1", "--since", note], ["3"], ["99999999999999999999999"]):
        assert run("log", "prove", log, *args)[0] == 2
    shown = run("log", "show", log, "--kind", "decision", "--last", "1")[1]
    assert shown.startswith("2  2")
    assert '"group": "g-2"' in shown
    assert json.loads(run("log", "show", log, "--json")[1].splitlines()[1])["payload"]["group"] == "g-1"
    log.write_bytes(older)
    code, _, said = run("log", "verify", log, "--checkpoint", tmp_path / "now")
    assert code == 5
    assert "entries of the transparency log were removed at its end: 3 were noted, 2 are there" in said
    log.write_bytes(older.replace(b'"g-1"', b'"g-2"'))
    code, out, said = run("log", "verify", log)
    assert (code, out) == (5, "")
    assert "entry 1 does not hold: its payload" in said
    assert run("log", "verify", log, "--vkey", "nonsense")[0] == 3
    assert run("log", "verify", tmp_path / "p")[0] == 5


def test_tables_snapshots_and_what_ran_out_are_committed(
    run: Run, log: Path, scanned: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLWATCH_GUARD_SECRET", "x" * 32)
    few, tables = tmp_path / "few.jsonl", tmp_path / "tables"
    row = '{"exchange_id": "e%d", "ts": "2026-01-01T00:00:00Z", "account_id": "a%d", "model": "m", "prompt": "hi"}\n'
    few.write_text(row % (1, 1) + row % (2, 2) + "{}\n")
    assert run("ingest", few, "--out", tables, *with_log(log))[0] == 0
    assert run("sketch", few, "--out", tmp_path / "sketched", *with_log(log))[0] == 0
    snapshot = tmp_path / "snapshot"
    assert run("guard", "snapshot", scanned[1], "--out", snapshot, *with_log(log))[0] == 0
    told = [(entry.kind, json.loads(entry.payload or b"")) for entry in entries(log)][1:]
    assert [kind for kind, _ in told] == ["partition", "partition", "snapshot"]
    data = (tables / "exchanges.parquet").read_bytes()
    assert told[0][1] == {"file": "exchanges.parquet", "rows": 2, "sha256": hashlib.sha256(data).hexdigest()}
    made = told[2][1]
    assert made["sha256"] == hashlib.sha256(snapshot.read_bytes()).hexdigest()
    assert made["results"] == results_digest(scanned[1])
    groups = json.loads((scanned[1] / "findings.json").read_text())["groups"]
    assert sorted(made["campaigns"]) == sorted(g["id"] for g in groups if g["verdict"] == "campaign")
    # Whoever could not commit then does it later, once.
    for source in (tables, tmp_path / "sketched", snapshot):
        assert (
            run("log", "take", log, source, "--key", log.with_name("log.pem"))[1]
            == "0 events added, 1 were there\n"
        )
    (tmp_path / "half").write_bytes(snapshot.read_bytes()[:-9])
    assert run("log", "take", log, tmp_path / "half", "--key", log.with_name("log.pem"))[0] == 5
    # A decision that ran out.
    decisions, at = tmp_path / "decisions", datetime(2026, 1, 1, tzinfo=UTC)
    order = Order(campaign="g-1", action="block", policy="0" * 64, expires=at + timedelta(days=1), at=at)
    propose(decisions, order, Signer(Ed25519PrivateKey.from_private_bytes(bytes(32))))
    assert run("guard", "decisions", "--decisions", decisions, *with_log(log))[0] == 0
    assert kinds(log)[4:] == ["decision", "expiry"]
    # Without a log nothing is needed that the extra has.
    assert run("guard", "decisions", "--decisions", tmp_path / "none")[0] == 0


def test_the_key_is_changed_at_a_terminal(run: Run, log: Path, tmp_path: Path) -> None:
    old, new = log.with_name("log.pem"), tmp_path / "new.pem"
    assert run("log", "rotate", log, "--key", old, "--new-key", old)[0] == 2
    code, said, _ = run("log", "rotate", log, "--key", old, "--new-key", new, "--make")
    assert code == 0
    assert "destroy it" in said
    assert stat.S_IMODE(new.stat().st_mode) == 0o600
    code, shown, _ = run("log", "verify", log, "--vkey", tmp_path / "vkey")
    assert code == 0
    assert "1 change of the key" in shown
    assert (tmp_path / "vkey").read_text().strip() in shown
    assert said.split("The new one: ")[1].strip() in shown
    code, _, said = run("log", "rotate", log, "--key", old, "--new-key", tmp_path / "more.pem", "--make")
    assert (code, "was changed" in said) == (3, True)
    assert not (tmp_path / "more.pem").exists()
