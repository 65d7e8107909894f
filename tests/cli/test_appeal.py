"""An appeal from its reference to the freed account, as the people do it who answer for it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from stillwatch.cli import main
from stillwatch.evidence.read import entries
from stillwatch.guard import Guard, Secret, Subject, load
from stillwatch.store.appeals import freed, read_appeals
from stillwatch.store.pseudonyms import KeyRing

Run = Callable[..., tuple[int, str, str]]
SECRET = "a secret of the tests, no other"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("STILLWATCH_GUARD_SECRET", SECRET)

    def call(*args: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return call


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with a key, a key ring and a note."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)
    (tmp_path / "anna.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    KeyRing.create(tmp_path / "ring.json")
    (tmp_path / "note.txt").write_text("They showed the benchmark's page.")
    (tmp_path / "policy.toml").write_text('version = 1\n[[rule]]\nname = "all"\naction = "block"\n')
    return tmp_path


def decide(run: Run, desk: Path, who: str, results: Path, *more: str | Path) -> tuple[int, str, str]:
    options = {"--outcome": "reversed", "--reason-code": "evaluation", "--results": results}
    plain = [part for pair in options.items() for part in pair if pair[0] not in more]
    return run(
        "appeal", "decide", who, *plain, "--note-file", desk / "note.txt", "--key", desk / "anna.pem",
        "--appeals", desk / "appeals.jsonl", "--keys", desk / "ring.json", *more,
    )  # fmt: skip


def asked(desk: Path) -> Guard:
    snapshot = load(desk / "snapshot", Secret(SECRET.encode()))
    return Guard(snapshot, clock=lambda: snapshot.meta.last_us + 1)


def test_from_the_reference_of_a_refusal_to_a_freed_account(
    run: Run, desk: Path, scanned: tuple[Path, Path]
) -> None:
    _, results = scanned
    snapshot = ["guard", "snapshot", results, "--out", desk / "snapshot", "--policy", desk / "policy.toml"]
    assert run(*snapshot)[0] == 0
    rows = pq.read_table(results / "accounts.parquet").to_pylist()
    members = sorted(row["account_id"] for row in rows if row["verdict"] == "campaign")
    guard = asked(desk)
    before = {name: guard.decide(Subject(account=name)) for name in members}
    acted = [name for name in members if before[name].would == "block"]
    account, reference = acted[0], str(before[acted[0]].appeal)
    assert account not in reference

    log = ["--log", desk / "log", "--log-key", desk / "log.pem"]
    assert run("log", "init", desk / "log", "--key", desk / "log.pem", "--new-key")[0] == 0
    shown = json.loads(run("appeal", "show", reference, "--results", results, "--json")[1])
    assert shown["review"]["account"] == account
    assert shown["told"]["reference"] == reference
    assert not any(other in json.dumps(shown["told"]) for other in members if other != account)
    told = run("appeal", "show", account, "--results", results, "--only", "told")[1]
    assert f"Quote the reference {reference}." in told
    assert "for the reviewer" not in told

    beside = ["--results", results, "--appeals", desk / "appeals.jsonl", "--keys", desk / "ring.json"]
    assert run("appeal", "receive", reference, *beside, "--received", "2026-03-01", *log)[0] == 0
    assert account in run("appeal", "list", "--appeals", desk / "appeals.jsonl", "--at", "2026-03-04")[1]
    code, said, error = decide(run, desk, reference, results, "--at", "2026-03-05", *log)
    assert (code, error) == (0, "")
    assert f"--appeals {desk / 'appeals.jsonl'}" in said
    assert "issue lists, indicators and bundles of this campaign again" in said
    assert freed(desk / "appeals.jsonl") == {account}

    # The log has both, and neither the account nor the note.
    told_log = [(e.kind, (e.payload or b"").decode()) for e in entries(desk / "log")][1:]
    assert [kind for kind, _ in told_log] == ["appeal", "appeal_reversal"]
    assert not any(account in text or "benchmark" in text for _, text in told_log)
    # Were it not committed, `log take` would add it.
    taken = run("log", "take", desk / "log", desk / "appeals.jsonl", "--key", desk / "log.pem")[1]
    assert taken == "0 events added, 2 were there\n"

    # The guard: it, and nobody else.
    assert run(*snapshot, "--appeals", desk / "appeals.jsonl")[0] == 0
    guard = asked(desk)
    after = {name: guard.decide(Subject(account=name)).would for name in members}
    assert {name for name in members if after[name] != before[name].would} == {account}
    assert after[account] == "allow"
    # A snapshot that is made without the file would block it again.
    code, _, error = run(*snapshot)
    assert (code, "appeals that were there are missing" in error) == (5, True)

    # What is told and shown of it now.
    shown = run("appeal", "show", account, "--results", results, "--appeals", desk / "appeals.jsonl")[1]
    assert "restricts this account" in shown
    assert "An appeal freed this account" in shown
    assert "What the guard would measure of it now" in shown
    assert "They showed the benchmark's page." in shown
    listed = json.loads(run("appeal", "list", "--appeals", desk / "appeals.jsonl", "--json")[1])
    assert listed["free"] == [account]
    assert (listed["months"][0]["reversed"], listed["months"][0]["median_days"]) == (1, 4.0)
    public = run("appeal", "list", "--appeals", desk / "appeals.jsonl", "--public", "--json")[1]
    assert account not in public
    assert json.loads(public)["months"][0]["appeals"] is None
    # The same results bind nobody again.
    again = ["--outcome", "upheld", "--reason-code", "new_evidence"]
    code, _, error = decide(run, desk, account, results, *again)
    assert (code, "only newer evidence" in error) == (5, True)
    assert len(read_appeals(desk / "appeals.jsonl")) == 2
    # Those of a later log may, where a person decides so: it is judged as any other again.
    later = desk / "later"
    shutil.copytree(results, later)
    found = json.loads((later / "findings.json").read_text())
    found["run"]["last_ts"] = "2027-01-01T00:00:00Z"
    (later / "findings.json").write_text(json.dumps(found))
    code, said, _ = decide(run, desk, account, later, *again)
    assert (code, "free no more" in said) == (0, True)
    assert freed(desk / "appeals.jsonl") == set()


def test_what_cannot_be_done_is_said(run: Run, desk: Path, scanned: tuple[Path, Path]) -> None:
    _, results = scanned
    rows = pq.read_table(results / "accounts.parquet").to_pylist()
    member = min(row["account_id"] for row in rows if row["verdict"] == "campaign")
    cleared = min(row["account_id"] for row in rows if row["verdict"] == "cleared")
    show = ["appeal", "show"]
    for call, code, says in (
        ([*show, "0123456789abcdef", "--results", results], 2, "no account of these results has this appeal"),
        ([*show, member, "--results", results, "--html"], 2, "--html needs --out"),
        ([*show, member, "--results", results, "--only", "all"], 2, "told or review"),
        ([*show, member, "--results", results, "--at", "today"], 2, "no time"),
        ([*show, member, "--results", desk], 5, "no results folder"),
        ([*show, member, "--results", results, "--letter", desk / "note.txt"], 3, "no TOML"),
        ([*show, member, "--results", results, "--out", desk / "note.txt"], 4, "cannot be written"),
    ):
        found = run(*call)
        assert found[0] == code, found
        assert says in found[2]
    for who, more, code, says in (
        (member, ["--outcome", "maybe"], 2, "upheld or reversed"),
        (member, ["--reason-code", "because"], 2, "no reason for 'reversed'"),
        (cleared, [], 2, "in no campaign"),
        (member, ["--log", desk / "none", "--log-key", desk / "anna.pem"], 5, "log init"),
        (member, ["--received", "2026-03-02", "--at", "2026-03-01"], 5, "before it came in"),
    ):
        found = decide(run, desk, who, results, *more)
        assert found[0] == code, found
        assert says in found[2]
    (desk / "note.txt").write_bytes(b"\xff")
    assert decide(run, desk, member, results)[0] == 3
    (desk / "note.txt").unlink()
    assert "cannot be read" in decide(run, desk, member, results)[2]
    assert not (desk / "appeals.jsonl").exists()
    for name, text in ((cleared, "on which nobody may act"), ("nobody", "has no account nobody")):
        said = run("appeal", "show", name, "--results", results)[1]
        assert text in said or "the operator's word stands" in said
        assert "restricts this account" in said


def test_whoever_took_the_decision_does_not_uphold_it(
    run: Run, desk: Path, scanned: tuple[Path, Path]
) -> None:
    _, results = scanned
    rows = pq.read_table(results / "accounts.parquet").to_pylist()
    row = min((r for r in rows if r["verdict"] == "campaign"), key=lambda r: r["account_id"])
    decisions = ["--decisions", desk / "decisions.jsonl"]
    propose = [
        "guard",
        "propose",
        row["campaign_id"],
        "--action",
        "throttle",
        "--policy",
        desk / "policy.toml",
    ]
    assert run(*propose, "--key", desk / "anna.pem", *decisions)[0] == 0
    upheld = ["--outcome", "upheld", "--reason-code", "evidence_stands", *decisions]
    code, _, error = decide(run, desk, row["account_id"], results, *upheld)
    assert (code, "must not uphold it" in error) == (2, True)
    code, said, _ = decide(run, desk, row["account_id"], results, *decisions)
    assert (code, "The decision on it (throttle) stays in force for the others." in said) == (0, True)


def test_an_account_that_the_guard_found_after_the_scan_is_told_so_too(
    run: Run, desk: Path, scanned: tuple[Path, Path]
) -> None:
    _, results = scanned
    rows = pq.read_table(results / "accounts.parquet").to_pylist()
    group = min(row["campaign_id"] for row in rows if row["verdict"] == "campaign")
    said = run("appeal", "show", "newcomer", "--results", results, "--campaign", group)[1]
    assert "It rests on recent requests of the account." in said
    assert "more than one kind; ask" in said
    assert f"belonging to the campaign {group}" in said
    reference = re.findall(r"Quote the reference ([0-9a-f]{16})", said.replace("\n ", ""))
    assert reference == [Secret(SECRET.encode()).appeal(Secret(SECRET.encode()).account("newcomer"), group)]
    assert decide(run, desk, "newcomer", results, "--campaign", group)[0] == 0
    assert freed(desk / "appeals.jsonl") == {"newcomer"}


def test_a_dossier_s_files_say_for_whom_they_are(run: Run, desk: Path, scanned: tuple[Path, Path]) -> None:
    _, results = scanned
    rows = pq.read_table(results / "accounts.parquet").to_pylist()
    member = min(row["account_id"] for row in rows if row["verdict"] == "campaign")
    call = ["appeal", "show", member, "--results", results, "--html", "--json", "--at", "2026-03-01"]
    assert run(*call, "--out", desk / "a")[0] == 0
    assert run(*call, "--out", desk / "b", "--only", "told")[0] == 0
    names = {path.name for path in (desk / "a").iterdir()}
    assert names == {f"{name}.{ending}" for name in ("told", "review") for ending in ("txt", "html", "json")}
    assert {path.name for path in (desk / "b").iterdir()} == {
        name for name in names if name.startswith("told")
    }
    for path in (desk / "b").iterdir():
        assert path.read_bytes() == (desk / "a" / path.name).read_bytes()
        assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(desk / "a").st_mode & 0o777 == 0o700
