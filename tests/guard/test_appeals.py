"""Who wins an appeal is let through by the next snapshot, and nobody else is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stillwatch.guard import Guard, Snapshot, Subject, load
from stillwatch.guard.build import Beside, build
from stillwatch.guard.carry import Heard
from stillwatch.guard.policy import SHADOW, parse_policy
from stillwatch.guard.snapshot import save
from stillwatch.guard.watch.rescan import Files, Job
from stillwatch.guard.watch.rescan import run as rescan
from stillwatch.guard.watch.told import Telling
from stillwatch.schema import DecisionError
from stillwatch.schema.scoring import nothing_scored
from stillwatch.schema.times import DAY_US
from stillwatch.store.appeals import Row, decide, read_appeals
from stillwatch.store.decisions import Signer
from stillwatch.store.pseudonyms import Pseudonyms
from stillwatch.store.results import read_results, write_results
from tests.guard.conftest import SECRET, Scanned

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ANNA, BELA = (Signer(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2))
NAMES = Pseudonyms("0a1b2c3d", "appeal", bytes(32))
POLICY = """version = 1
silent_days = 365

[[rule]]
name = "all"
action = "block"
roles = ["core", "recruit", "found"]
"""


def reversal(path: Path, account: str, **changes: Any) -> list[Row]:
    plain: dict[str, Any] = {
        "campaign": "g-1", "outcome": "reversed", "code": "evaluation", "note": "seen", "results": "a" * 64,
        "evidence_until": "2026-01-01T00:00:00Z", "names": NAMES, "signer": ANNA, "at": NOW,
    }  # fmt: skip
    decide(path, account, **(plain | changes))
    return read_appeals(path)


def would(snapshot: Snapshot, subjects: list[Subject]) -> dict[str, str]:
    """What each account's last request meets, once all of them were asked about."""
    guard = Guard(snapshot, history=False, clock=lambda: snapshot.meta.last_us + 1)
    found = {str(s.account): guard.decide(s).would for s in subjects}
    assert guard.faults == 0
    return found


@pytest.fixture(scope="module")
def blocked(demo: Scanned, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Subject], dict[str, str]]:
    """The members' requests, and what they met before anybody appealed."""
    members = {row["account_id"] for row in demo.members()}
    subjects = [subject for subject in demo.subjects() if subject.account in members]
    path = tmp_path_factory.mktemp("before") / "snapshot"
    before = would(load(demo.made(path, POLICY), SECRET), subjects)
    assert list(before.values()).count("block") > 20
    return subjects, before


def test_blocked_before_allowed_after_and_the_others_stay_blocked(
    demo: Scanned, blocked: tuple[list[Subject], dict[str, str]], tmp_path: Path
) -> None:
    subjects, before = blocked
    account = min(name for name, action in before.items() if action == "block")
    rows = reversal(tmp_path / "appeals.jsonl", account)
    path = demo.made(tmp_path / "snapshot", POLICY, appeals=rows)
    after = load(path, SECRET)
    assert would(after, subjects) == before | {account: "allow"}
    # What it shows inline would find it; it is not held against it either.
    unnamed = Guard(after, names=False, history=False)
    for subject in subjects:
        unnamed.decide(subject)
    mine = unnamed.bits(Subject(account=account))
    assert max(bits[3] for bits in mine.values()) > 0
    decision = unnamed.decide(next(s for s in subjects if s.account == account))
    assert (decision.would, decision.campaign) == ("allow", None)
    assert path.read_bytes() == demo.made(tmp_path / "again", POLICY, appeals=rows).read_bytes()
    # Bound again on newer evidence, it is blocked again.
    rows = reversal(
        tmp_path / "appeals.jsonl", account, outcome="upheld", code="new_evidence", results="b" * 64,
        evidence_until="2026-02-01T00:00:00Z", signer=BELA,
    )  # fmt: skip
    again = load(demo.made(tmp_path / "bound", POLICY, appeals=rows), SECRET)
    assert would(again, subjects) == before


def test_a_freed_account_that_the_scan_did_not_see_is_found_by_nothing(
    demo: Scanned, blocked: tuple[list[Subject], dict[str, str]], tmp_path: Path
) -> None:
    """It sends what members send. The same from somebody whom nobody freed is found."""
    subjects, before = blocked
    policy = POLICY.replace("silent_days", "found_risk = 1e-3\nsilent_days")
    mine: dict[str, list[Subject]] = {name: [] for name, action in before.items() if action == "block"}
    for subject in subjects:
        if subject.account in mine:
            mine[str(subject.account)].append(subject)
    without = load(demo.made(tmp_path / "without", policy), SECRET)
    ends = {name: _last(without, [_as(s, f"new-{name}") for s in sent]) for name, sent in mine.items()}
    twins = sorted(f"new-{name}" for name, would in ends.items() if would == "block")
    assert twins
    rows = reversal(tmp_path / "appeals.jsonl", twins[0])
    made = load(demo.made(tmp_path / "snapshot", policy, appeals=rows), SECRET)
    row = int(np.searchsorted(made.arrays.account_hash, np.uint64(SECRET.account(twins[0]))))
    assert made.arrays.account_excused[row] == 1
    for twin in twins:
        end = _last(made, [_as(s, twin) for s in mine[twin.removeprefix("new-")]])
        assert end == ("allow" if twin == twins[0] else "block")


def _last(snapshot: Snapshot, subjects: list[Subject]) -> str:
    guard = Guard(snapshot, history=False)
    return [guard.decide(subject).would for subject in subjects][-1]


def _as(subject: Subject, account: str) -> Subject:
    return Subject(
        account=account, prompt=subject.prompt, system=subject.system, system_hash=subject.system_hash,
        tools_hash=subject.tools_hash, format_hash=subject.format_hash, ip=subject.ip, ts_us=subject.ts_us,
    )  # fmt: skip


def test_a_campaign_that_goes_on_because_it_is_refused_lets_the_freed_one_go(
    demo: Scanned, blocked: tuple[list[Subject], dict[str, str]], tmp_path: Path
) -> None:
    before = blocked[1]
    account = min(name for name, action in before.items() if action == "block")
    old = load(demo.made(tmp_path / "old", POLICY), SECRET)
    rows = reversal(tmp_path / "appeals.jsonl", account)
    # The next scan sees nobody of the campaigns: they are silent, and go on.
    nobody = np.zeros(0, np.uint64)
    silent = Heard(nobody, nobody.astype(np.int64), nobody.astype(bool))
    results = _without_groups(demo, tmp_path / "results")
    for appeals, free in (((), set()), (rows, {account})):
        meta, arrays = build(
            results, parse_policy(POLICY), SECRET, Beside(old=old, heard=silent, appeals=appeals)
        )
        save(tmp_path / "new", meta, arrays, SECRET)
        new = load(tmp_path / "new", SECRET)
        guard = Guard(new, clock=lambda new=new: new.meta.last_us + 1)
        acted = {name for name, action in before.items() if action == "block"}
        now = {name: guard.decide(Subject(account=name)).would for name in acted}
        assert {name for name, action in now.items() if action == "allow"} == free


def _without_groups(demo: Scanned, out: Path) -> Path:
    """Results of a scan, two days later, that found nothing."""
    found = read_results(demo.results)
    run = found.findings.run
    run = msgspec.structs.replace(run, last_ts=_later(run.last_ts))
    empty = replace(
        found,
        findings=msgspec.structs.replace(found.findings, run=run, groups=[]),
        scoring=nothing_scored(),
        **{
            name: getattr(found, name).slice(0, 0)
            for name in ("accounts", "streams", "families", "profiles", "waterfall")
        },
    )
    write_results(out, empty)
    return out


def _later(ts: str) -> str:
    at = datetime.fromisoformat(ts).timestamp() + 2 * DAY_US / 1e6
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_where_the_policy_lists_keys_only_those_free_somebody(demo: Scanned, tmp_path: Path) -> None:
    rows = reversal(tmp_path / "appeals.jsonl", "acct-1")
    policy = SHADOW + f'\n[[approver]]\nname = "bela"\nkey = "{BELA.key}"\n'
    with pytest.raises(DecisionError, match="does not list"):
        demo.made(tmp_path / "snapshot", policy, appeals=rows)
    policy = policy.replace(BELA.key, ANNA.key)
    assert (
        load(demo.made(tmp_path / "snapshot", policy, appeals=rows), SECRET).meta.appeals_head
        == rows[-1].hash
    )


def test_watch_frees_without_a_scan_and_notices_a_file_that_is_gone(
    demo: Scanned,
    blocked: tuple[list[Subject], dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STILLWATCH_GUARD_SECRET", SECRET.value.decode())
    account = min(name for name, action in blocked[1].items() if action == "block")
    (tmp_path / "policy.toml").write_text(POLICY)
    path, journal = tmp_path / "appeals.jsonl", Told()
    files = Files(
        policy=str(tmp_path / "policy.toml"), accounts=str(demo.log / "accounts.parquet"), appeals=str(path)
    )
    job = Job(
        logs=[], scan=False, results=str(demo.results), snapshot=str(tmp_path / "snapshot"), files=files
    )
    for rows in (0, 1):
        if rows:
            reversal(path, account)
        assert rescan(job).campaigns > 0
        guard = Guard(load(tmp_path / "snapshot", SECRET), clock=lambda: demo.snapshot.meta.last_us + 1)
        assert guard.decide(Subject(account=account)).would == ("allow" if rows else "block")
        Telling(journal, tmp_path / "none", None, str(path)).tell()
        assert journal.kinds == ["appeal_reversal"] * rows
    for gone in (files, msgspec.structs.replace(files, appeals=None)):
        path.unlink(missing_ok=True)
        with pytest.raises(DecisionError, match="appeals that were there are missing"):
            rescan(msgspec.structs.replace(job, files=gone))


class Told:
    """Kinds of what a journal was told."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def append(self, kind: str, payload: object) -> None:
        """Keep its kind."""
        self.kinds.append(kind)
