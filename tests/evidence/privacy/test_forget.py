"""After `forget` nothing of an account is left in any file, the log verifies, and a kill leaves before or after."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from stillwatch.cli import main
from stillwatch.evidence.privacy import rewrite
from stillwatch.evidence.privacy.forget import forget, look
from stillwatch.evidence.read import entries
from stillwatch.evidence.verify import verify
from stillwatch.schema.errors import DecisionError, ResultError, UsageError
from stillwatch.store import appeals, swap
from stillwatch.store.decisions import Signer
from stillwatch.store.erasures import NAME, read_erasures
from stillwatch.store.events import of_appeals, of_results, of_tables
from stillwatch.store.partitions import Partitions
from stillwatch.store.pseudonyms import KeyRing
from stillwatch.store.results import read_results, read_scoring, results_digest
from tests.evidence.conftest import KEY
from tests.evidence.privacy.conftest import DAY, GONE, SECRETS, STAYS, Kept
from tests.leaks import everything_in, leaks


def told(kept: Kept, kind: str = "forgotten") -> list[dict[str, Any]]:
    return [json.loads(entry.payload or b"") for entry in entries(kept.log, kind=kind)]


def test_nothing_of_the_account_is_left_and_the_log_verifies(kept: Kept) -> None:
    results, tables = kept.root / "results", kept.root / "tables"
    with kept.open() as log:
        log.append_all(of_results(results) + of_tables(tables))
    found = {secret for _, secret, _ in leaks(everything_in(kept.root), SECRETS)}
    assert found == set(SECRETS)
    before = verify(kept.log)
    was = results_digest(results), rewrite.tables_digest(tables)
    with kept.open() as log:
        changed = forget([kept.root], GONE, "account-00000000-pseudonym", log)
    assert [place.kind for place in changed] == ["results", "other", "partitions", "tables"]
    assert leaks(everything_in(kept.root), SECRETS) == []
    # Nothing is left beside, and what was told is of digests and a pseudonym.
    assert sorted(path.name for path in kept.root.iterdir()) == ["results", "service", "tables"]
    after = verify(kept.log)
    assert after.kinds - before.kinds == {"forgotten": 3, "partition": 5, "partition_deleted": 4}
    by = {event["what"]: event for event in told(kept)}
    assert {event["subject"] for event in by.values()} == {"account-00000000-pseudonym"}
    assert (by["results"]["was"], by["results"]["now"]) == (was[0], results_digest(results))
    assert (by["tables"]["was"], by["tables"]["now"]) == (was[1], rewrite.tables_digest(tables))
    assert leaks([("log", kept.log.read_bytes())], [s for s in SECRETS if s != GONE]) == []
    # Again there is nothing to do and nothing to tell; what `log take` says of the folder is what it said.
    with kept.open() as log:
        assert forget([kept.root], GONE, "account-00000000-pseudonym", log) == []
        assert log.append_all(of_results(results)) == 0
    assert verify(kept.log).entries == after.entries
    assert look([kept.root], GONE) == []


def test_what_stays_is_what_it_was(kept: Kept) -> None:
    scoring, service = read_scoring(kept.root / "results"), kept.root / "service"
    others = [
        row for row in read_results(kept.root / "results").accounts.to_pylist() if row["account_id"] != GONE
    ]
    before = _rows(service / "partitions")
    findings = (kept.root / "results" / "findings.json").read_bytes()
    forget([kept.root], GONE)
    results = read_results(kept.root / "results")
    assert results.accounts.to_pylist() == others
    assert results.waterfall.num_rows == 0
    assert (kept.root / "results" / "findings.json").read_bytes() == findings
    assert f">{STAYS}<" in (kept.root / "results" / "report.html").read_text()
    assert [refusal.raw for refusal in results.refusals] == [None]
    # Numbers of accounts point to the same ones as before.
    now = read_scoring(kept.root / "results")
    names = now["scoring_accounts"].column("account_id").to_pylist()
    assert names == ["acct-0", STAYS]
    held = [(names[row["account"]], row["place"]) for row in now["scoring_held"].to_pylist()]
    assert held == [("acct-0", 7), (STAYS, 8)]
    measured = now["scoring_measured"].to_pylist()
    assert [(names[row["account"]], row["bits_time"]) for row in measured] == [(STAYS, 3 / 4)]
    assert all(now[name].schema == scoring[name].schema for name in now)
    rows = _rows(service / "partitions")
    assert rows == {key: row for key, row in before.items() if row["account_id"] != GONE}
    assert len(rows) == len(before) - 4
    partitions = Partitions(service / "partitions")
    owners = partitions.accounts()
    assert owners is not None
    assert owners.column("account_id").to_pylist() == [STAYS]
    # How far the inputs were read is known as before: nothing comes in twice.
    assert partitions.position("edge3") == 3
    assert partitions.position("edge1") == 1
    partitions.close()
    exchanged = pq.read_table(kept.root / "tables" / "exchanges.parquet")
    assert exchanged.num_rows == 6
    assert exchanged.column("prompt").null_count == 0


def _rows(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    partitions = Partitions(folder)
    partitions.compact()
    found = {
        (part.input, row["exchange_id"]): row
        for part in partitions.manifest.parts
        for row in pq.ParquetFile(folder / part.file).read().to_pylist()
    }
    partitions.close()
    return found


def test_ids_that_are_words_of_the_tables_take_nothing_with_them(kept: Kept) -> None:
    before = {path.name: path.read_bytes() for path in (kept.root / "results").iterdir()}
    for word in ("campaign", "FORM", "core", "payment", "acct", "acct-", "ACCT-1", "acct-1\x1f"):
        with contextlib.suppress(ResultError):
            assert forget([kept.root], word) == []
    kept_now = {path.name: path.read_bytes() for path in (kept.root / "results").iterdir()}
    # Refused rows' bytes go as soon as anybody is forgotten: nobody can tell whose they are.
    assert {name for name in before if before[name] != kept_now[name]} <= {"refused.jsonl", "report.html"}
    for odd in ("", "x" * 1025):
        with pytest.raises(UsageError):
            forget([kept.root], odd)


def test_what_others_wrote_is_named_and_not_touched(kept: Kept) -> None:
    (kept.root / "export.csv").write_text(f"account,ip\n{GONE},203.0.113.77\n")
    (kept.root / "more.csv").write_text(f"account\n{GONE}0\nx{GONE}\n")
    held = look([kept.root], GONE)
    assert [path.name for found in held for path in found.elsewhere] == ["export.csv"]
    with pytest.raises(ResultError, match=r"still mentioned in [^,]*export\.csv\n") as caught:
        forget([kept.root], GONE)
    assert GONE not in str(caught.value)
    assert f"{GONE}," in (kept.root / "export.csv").read_text()
    left = {
        place.split(" ")[-1] for place, _, form in leaks(everything_in(kept.root), SECRETS) if form == "plain"
    }
    assert left == {"export.csv", "more.csv"}


def test_links_are_not_followed(kept: Kept, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(kept.root / "tables", outside)
    before = (outside / "exchanges.parquet").read_bytes()
    (kept.root / "link").symlink_to(outside)
    (kept.root / "tables" / "accounts.parquet").unlink()
    (kept.root / "tables" / "accounts.parquet").symlink_to(outside / "accounts.parquet")
    with pytest.raises(ResultError, match="is a link or holds some"):
        forget([kept.root], GONE)
    with pytest.raises(ResultError, match="no such folder"):
        forget([kept.root / "link"], GONE)
    assert (outside / "exchanges.parquet").read_bytes() == before


def test_a_running_service_is_not_disturbed(kept: Kept) -> None:
    partitions = Partitions(kept.root / "service" / "partitions")
    with pytest.raises(UsageError, match="another process"):
        forget([kept.root], GONE)
    partitions.close()


class Killed(BaseException):
    """The process ends here."""


class Dying:
    """From the `left`-th call of what changes the disk on, nothing is done any more."""

    def __init__(self, left: int) -> None:
        self.left, self.calls = left, 0

    def wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """The function, as long as the process lives."""

        def call(*args: Any, **more: Any) -> Any:
            self.calls += 1
            if self.calls >= self.left:
                raise Killed
            return real(*args, **more)

        return call


CHANGES = (
    (os, "link"), (os, "replace"), (os, "unlink"), (os, "rmdir"), (shutil, "rmtree"), (rewrite, "rmtree"),
    (swap, "_exchange"), (Path, "mkdir"), (Path, "write_bytes"), (Path, "write_text"), (Path, "unlink"),
    (rewrite.pq, "write_table"), (rewrite, "_filter"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("what", "exchanges"),
    [
        ("tables", True),
        pytest.param("tables", False, marks=pytest.mark.slow),
        pytest.param("", True, marks=pytest.mark.slow),
        pytest.param("", False, marks=pytest.mark.slow),
    ],
    ids=["tables", "tables in two steps", "everything", "everything in two steps"],
)
def test_wherever_it_is_killed_each_folder_is_as_before_or_without(
    kept: Kept, exchanges: bool, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, log, root, seen = tmp_path / "whole", kept.log.read_bytes(), kept.root / what, set()
    folders = [name for name in ("results", "tables") if what in ("", name)]
    held = {n: {s for _, s, _ in leaks(everything_in(kept.root / n), SECRETS)} for n in folders}
    assert all(GONE in mine for mine in held.values())
    shutil.move(root, whole)
    # What a power cut loses is another matter; a process that is killed loses nothing that it wrote.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for left in range(1, 1000):
        for path in kept.root.glob("*" if what else "..kept*"):
            shutil.rmtree(path)
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(whole, root)
        kept.log.write_bytes(log)
        dying = Dying(left)
        with pytest.MonkeyPatch.context() as patch, kept.open() as journal:
            if not exchanges:
                patch.setattr(swap, "_exchange", lambda *_: False)
            for place, name in CHANGES:
                if exchanges or name != "_exchange":
                    patch.setattr(place, name, dying.wrapped(getattr(place, name)))
            try:
                forget([root], GONE, "account-1", journal)
                break
            except Killed:
                pass
        for name in folders:
            folder = kept.root / name
            if not exchanges and not folder.exists():
                folder = swap.aside(folder)
            there = {secret for _, secret, _ in leaks(everything_in(folder), SECRETS)}
            done = bool(read_erasures(folder))
            assert there == (set() if done else held[name])
            seen.add((name, done))
        # Another process does it again: it is done, told once, and nothing is left beside.
        with kept.open() as journal:
            forget([root], GONE, "account-1", journal)
        assert leaks(everything_in(root), SECRETS) == []
        assert sorted(path.name for path in root.parent.glob(".*")) == []
        assert verify(kept.log).kinds["forgotten"] == (1 if what else 3)
    assert seen == {(name, done) for name in folders for done in (False, True)}
    assert left > (8 if what else 40)


def test_at_a_terminal(kept: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*args: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    pem, ring = tmp_path / "log.pem", tmp_path / "ring.json"
    pem.write_bytes(KEY._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    KeyRing.create(ring)
    with_log = ["--log", kept.log, "--log-key", pem]
    code, said, _ = run("forget", GONE, kept.root)
    assert code == 0
    assert f"{kept.root / 'tables'}: 5 rows of the account" in said
    assert "Nothing was changed" in said
    assert run("forget", GONE, kept.root, "--yes", *with_log)[0] == 2
    code, said, err = run("forget", GONE, kept.root, "--yes", "--keys", ring, *with_log)
    assert (code, err) == (0, "")
    subject = KeyRing.read(ring).names("erasure").of("account", GONE)
    assert f"Pseudonym in the log: {subject}" in said
    assert {event["subject"] for event in told(kept)} == {subject}
    assert "The account is in none of these." in run("forget", GONE, kept.root)[1]
    # The key is destroyed: nobody can tell any more whom the log means, and it verifies as before.
    KeyRing.read(ring).destroy(subject.split("-")[1])
    assert run("log", "verify", kept.log)[0] == 0


def test_an_appeal_and_what_was_noted_of_it_go_and_the_chain_holds(kept: Kept) -> None:
    path, names = (
        kept.root / "appeals.jsonl",
        KeyRing.create(kept.root.with_name("ring.json")).names("appeal"),
    )
    signer = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    for account in (GONE, STAYS):
        appeals.receive(path, account, "g-1", names, DAY)
        appeals.decide(
            path, account, campaign="g-1", outcome="reversed", code="evaluation", note=f"{account} at {SECRETS[1]}",
            results="0" * 64, evidence_until="2026-01-01", names=names, signer=signer, at=DAY,
        )  # fmt: skip
    before, cases = appeals.read_appeals(path), appeals.cases(appeals.read_appeals(path))
    assert appeals.freed(path) == {GONE, STAYS}
    with kept.open() as log:
        log.append_all(of_appeals(before))
        assert appeals.forget(path, "acct") == 0
        forget([path.parent], GONE, "account-1", log)
        # What is told of it is what was told.
        assert log.append_all(of_appeals(appeals.read_appeals(path))) == 0
    assert {s for p, s, _ in leaks(everything_in(path), SECRETS)} == {SECRETS[1]}
    assert GONE not in path.read_text()
    rows = appeals.read_appeals(path, appeals.head_of(before))
    assert [row.hash for row in rows] == [row.hash for row in before]
    assert [row.erased for row in rows] == [True, True, False, False]
    assert rows[2:] == before[2:]
    assert appeals.freed(path) == {STAYS}
    now = appeals.cases(rows)
    assert [(c.outcome, c.received) for c in now] == [(c.outcome, c.received) for c in cases]
    assert {event["what"] for event in told(kept)} == {"results", "tables", "partitions", "appeals"}
    # A row that says that it was erased and still has something to say is none; nor is one of another chain.
    lines = path.read_bytes().splitlines(keepends=True)
    for change in (
        (b'"note":""', b'"note":"x"'),
        (b'"account":""', b'"account":"x"'),
        (b'"before":"0', b'"before":"1'),
    ):
        assert lines[0].count(change[0])
        path.write_bytes(lines[0].replace(*change, 1) + b"".join(lines[1:]))
        with pytest.raises(DecisionError):
            appeals.read_appeals(path)


def test_erasures_that_do_not_follow_are_found(kept: Kept) -> None:
    forget([kept.root], GONE)
    forget([kept.root], STAYS)
    place = kept.root / "results" / NAME
    first, second = place.read_bytes().splitlines(keepends=True)
    assert len(read_erasures(place.parent)) == 2
    for data in (second + first, first + first, b"{}\n", b"\xff\n", first[:-9] + b"\n", b"[" * 100_000):
        place.write_bytes(data)
        with pytest.raises(ResultError):
            read_erasures(place.parent)


def test_the_demo_forgets_a_member(scanned: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(scanned[1], tmp_path / "results")
    rows = read_results(tmp_path / "results").accounts.to_pylist()
    member = next(row["account_id"] for row in rows if row["verdict"] == "campaign")
    before = read_scoring(tmp_path / "results")
    forget([tmp_path], member)
    assert leaks(everything_in(tmp_path), [member]) == []
    after = read_scoring(tmp_path / "results")
    for name, column in (("scoring_held", "place"), ("scoring_measured", "bits_time")):
        assert _by_account(after, name, column) == {
            who: what for who, what in _by_account(before, name, column).items() if who != member
        }


def _by_account(tables: dict[str, Any], name: str, column: str) -> dict[str, list[float]]:
    ids = np.array(tables["scoring_accounts"].column("account_id").to_pylist())
    who = ids[tables[name].column("account").to_numpy()]
    values = tables[name].column(column).to_numpy()
    order = np.argsort(who, kind="stable")
    names, at = np.unique(who[order], return_index=True)
    return {str(n): part.tolist() for n, part in zip(names, np.split(values[order], at[1:]), strict=True)}
