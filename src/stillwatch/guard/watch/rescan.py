"""One scan of the window and the snapshot that comes of it, in a process of its own: its memory is given back.

`python -m stillwatch.guard.watch.rescan` reads a `Job` as JSON from standard input and prints one line, an `Outcome`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.campaign.freed import Freed
from stillwatch.engine.memory import peak_memory_mib
from stillwatch.guard.build import Beside, build
from stillwatch.guard.heard import heard_in
from stillwatch.guard.keys import read_api_keys
from stillwatch.guard.policy import SHADOW, parse_policy, read_policy
from stillwatch.guard.secret import Secret, read_secret
from stillwatch.guard.snapshot import Snapshot, load, save
from stillwatch.ingest import read_side
from stillwatch.ingest.lookup import read_lookups
from stillwatch.report.html import render
from stillwatch.scan import Options, scan
from stillwatch.scan.partner import Intel
from stillwatch.schema.errors import SnapshotError, StillwatchError, UsageError
from stillwatch.sketch import default_rules, load_rules
from stillwatch.store.appeals import freed_by, read_appeals
from stillwatch.store.chain import head_of
from stillwatch.store.decisions import read_decisions
from stillwatch.store.results import read_earlier, results_of, write_results
from stillwatch.store.told import note_aside, told_in


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """Files that people keep, by what they are; read anew for each snapshot. None where there is none."""

    policy: str | None = None
    accounts: str | None = None
    keys: str | None = None
    decisions: str | None = None
    secret: str | None = None
    sanctions: str | None = None
    releases: str | None = None
    references: str | None = None
    rules: str | None = None
    appeals: str | None = None
    intel: str | None = None
    """Store of partners' indicators; with `key_ring`."""
    key_ring: str | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done."""

    logs: list[str]
    """Partitions of the window."""
    scan: bool = True
    """False: no scan, only a new snapshot of `results`."""
    results: str
    """Folder that the results are written to, or are in."""
    earlier: str | None = None
    """Results of the scan before: ids of groups go on."""
    owners: str | None = None
    """Accounts table of what the logs say, where `files.accounts` is None."""
    snapshot: str
    files: Files = Files()
    seed: int = 0
    valid_days: float = 14.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How it went."""

    error: str | None = None
    """What was wrong; everything else is 0 then, and nothing was replaced."""
    rows: int = 0
    accounts: int = 0
    campaigns: int = 0
    leads: int = 0
    scan_s: float = 0.0
    build_s: float = 0.0
    peak_mib: float = 0.0
    first_us: int = 0
    last_us: int = 0
    snapshot_bytes: int = 0
    """Size of the snapshot."""
    refused: int = 0
    """Rows that the scan refused: they came more than once."""
    kept: int = 0
    """Campaigns that the scan lists no more and that go on because they are refused."""
    note: str | None = None


def run(job: Job) -> Outcome:
    """Scan (if there are logs), write the results, and replace the snapshot. Raises StillwatchError's kinds."""
    files = job.files
    # What people write by hand comes first: a mistake in it must not cost a scan.
    policy, name = (
        (parse_policy(SHADOW), "shadow")
        if files.policy is None
        else (read_policy(Path(files.policy)), Path(files.policy).name)
    )
    secret = read_secret(None if files.secret is None else Path(files.secret))
    snapshot = Path(job.snapshot)
    old, lost = _old(snapshot, secret, files)
    head = old.meta.decisions_head if files.decisions and old is not None else None
    decisions = [] if files.decisions is None else read_decisions(Path(files.decisions), head)
    known = old.meta.appeals_head or None if old is not None else None
    appeals = read_appeals(Path(files.appeals or "appeals"), known) if files.appeals or known else []
    api_keys = [] if files.keys is None else read_api_keys(Path(files.keys))
    began = time.monotonic()
    results = Path(job.results)
    if job.scan:
        side = {
            name: path
            for name, path in (
                ("accounts", files.accounts or job.owners),
                ("sanctions", files.sanctions),
                ("releases", files.releases),
                ("references", files.references),
            )
            if path is not None
        }
        scanned = scan(
            job.logs,
            options=Options(seed=job.seed),
            format="canonical",
            side=side,
            lookups=read_lookups(),
            rules=default_rules() if files.rules is None else load_rules(Path(files.rules)),
            freed=None if files.appeals is None else Freed(head_of(appeals), frozenset(freed_by(appeals))),
            earlier=None if job.earlier is None else read_earlier(Path(job.earlier)),
            intel=_told(files)[0],
        )
        found = results_of(scanned)
        write_results(results, replace(found, report_html=render(found)), force=True)
        if files.intel is not None:
            note_aside(Path(files.intel), scanned.heard)
    scan_s = time.monotonic() - began
    began = time.monotonic()
    meta, arrays = build(
        results,
        policy,
        secret,
        Beside(
            accounts=_accounts(files.accounts or job.owners),
            references=None if files.references is None else read_side("references", files.references),
            api_keys=api_keys,
            decisions=decisions,
            appeals=appeals,
            policy_name=name,
            valid_days=job.valid_days,
            old=old,
            heard=None if old is None else heard_in(job.logs, secret),
            intel=_told(files)[1].told,
        ),
    )
    save(snapshot, meta, arrays, secret)
    verdicts = [group.verdict for group in meta.groups]
    kept = [group for group in meta.groups if group.kept]
    return Outcome(
        rows=scanned.findings.run.exchanges if job.scan else 0,
        refused=len(scanned.refusals) if job.scan else 0,
        accounts=len(arrays["account_hash"]),
        campaigns=verdicts.count("campaign"),
        leads=verdicts.count("lead"),
        scan_s=round(scan_s, 3),
        build_s=round(time.monotonic() - began, 3),
        peak_mib=peak_memory_mib(),
        first_us=meta.first_us,
        last_us=meta.last_us,
        snapshot_bytes=snapshot.stat().st_size,
        kept=len(kept),
        note=lost,
    )


def _old(path: Path, secret: Secret, files: Files) -> tuple[Snapshot | None, str | None]:
    """The snapshot that is to be replaced; and what is lost where it cannot be read."""
    if not path.exists():
        return None, None
    try:
        return load(path, secret), None
    except SnapshotError as error:
        if files.decisions is not None or files.appeals is not None:
            # It knew how far the decisions and appeals went: without it nobody can tell whether some are missing.
            raise
        return (
            None,
            f"the snapshot before could not be read: campaigns that are refused do not go on ({error.what})",
        )


def _told(files: Files) -> tuple[Intel, Intel]:
    """What partners say, for the scan and for the guard."""
    if files.intel is None or files.key_ring is None:
        return Intel(), Intel()
    return told_in(Path(files.intel), Path(files.key_ring))


def _accounts(path: str | None) -> pa.Table | None:
    return None if path is None else read_side("accounts", path)


def write_accounts(path: Path, table: pa.Table) -> None:
    """Write what the logs say about owners where a scan finds it."""
    pq.write_table(table, path, compression="zstd")


def _end_with(parent: int) -> None:
    """End when the service ends: otherwise its next life would scan beside this one."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main() -> None:
    """Read the job, do it, say how it went. Exits with 0 also where it failed: the outcome says so."""
    try:
        job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    except msgspec.DecodeError as error:
        raise UsageError("the job cannot be read") from error
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        outcome = run(job)
    except StillwatchError as error:
        outcome = Outcome(error=str(error))
    # Nobody is left to be told where the service was killed meanwhile.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
