"""A log replayed as live operation would have met it: scans at intervals, snapshots in force from then on.

Event time throughout. At each boundary the rows so far (of the window) are scanned by the ordinary scan, a snapshot
is made of the results, and the next rows are decided about with it. What would have been refused is refused: it is no
evidence for the scans that follow. Decisions to act are people's; here one is taken for every campaign, `decided_us`
after it is first listed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.campaign.record import iso
from stillwatch.guard.build import Beside, build
from stillwatch.guard.decide import Guard
from stillwatch.guard.enforcement import Allowed
from stillwatch.guard.heard import heard_in
from stillwatch.guard.ladder import NEVER
from stillwatch.guard.logged import Logged
from stillwatch.guard.policy import ACTIONS, MILDEST_ACTING, STRENGTH, Policy
from stillwatch.guard.secret import Secret
from stillwatch.guard.snapshot import Snapshot, load, save
from stillwatch.ingest import Log
from stillwatch.ingest.textfree import text_free
from stillwatch.scan import Options, scan
from stillwatch.schema.errors import EmptyLogError, UsageError
from stillwatch.schema.tables import OWN_REFUSAL, SEPARATOR
from stillwatch.schema.times import DAY_US
from stillwatch.store.results import read_earlier, results_of, write_results
from stillwatch.store.rows import ROWS, shaped

MOST_STEPS = 2000
"""Scans that one replay may take."""


@dataclass(frozen=True, slots=True)
class Operation:
    """How the service is run."""

    every_us: int
    window_us: int = 14 * DAY_US
    takes_us: int = 0
    """From a boundary to the moment when its snapshot is in force."""
    decided_us: int = 0
    """From a campaign's first listing to the decision to act on it; it acts from the next snapshot on."""
    after_us: int = 0
    """No scan before so much of the log's time has passed: to look closely at its end."""
    enforce: bool = True
    """False: nothing is refused, and everything goes on as evidence."""
    seed: int = 0


class LiveCampaign(msgspec.Struct, kw_only=True):
    """One campaign over all scans. Its exchanges are those of everybody whom a scan named in it."""

    campaign: str
    first_lead: str | None = None
    """When a scan first listed it as a lead: the time of the scan's boundary."""
    first_listed: str | None = None
    """And as a campaign."""
    first_cut: str | None = None
    exchanges: int = 0
    before_first_cut: int = 0
    cut: int = 0
    through_after: int = 0
    """Exchanges that were answered after the first cut."""
    accounts: int = 0
    accounts_cut: int = 0
    others_cut: int = 0
    """Accounts that were acted on for it and that no scan named in it."""


class LiveTouched(msgspec.Struct, kw_only=True):
    """An account that would have been acted on."""

    account_id: str
    campaign: str
    named: bool
    known_honest: bool
    first: str
    exchanges: int


class Live(msgspec.Struct, kw_only=True):
    """What live operation would have been."""

    exchanges: int
    accounts: int
    first: str | None
    last: str | None
    scans: int
    scan_s: float
    """Of all scans; the only number that is not the same each time."""
    campaigns: list[LiveCampaign]
    touched: list[LiveTouched]


Told = Callable[[int, int, str], None]
"""Step, steps, what was found."""


@dataclass(slots=True)
class _State:
    """What is known so far."""

    ids: dict[str, int] = field(default_factory=dict)
    """Accounts (principals) by number."""
    who: list[np.ndarray] = field(default_factory=list)
    ts: list[np.ndarray] = field(default_factory=list)
    acted: list[np.ndarray] = field(default_factory=list)
    """Campaign that a row was acted on for, -1 for none."""
    campaign: dict[str, int] = field(default_factory=dict)
    named: dict[int, set[int]] = field(default_factory=dict)
    """Accounts that a scan named in each campaign."""
    listed: dict[str, int] = field(default_factory=dict)
    lead: dict[str, int] = field(default_factory=dict)


def live(
    log: Log,
    policy: Policy,
    secret: Secret,
    how: Operation,
    *,
    honest: frozenset[str] = frozenset(),
    told: Told = lambda step, steps, words: None,
) -> Live:
    """Replay a log; its side tables are those that were opened with it.

    `honest`: accounts known to be honest. EmptyLogError where no row can be used, UsageError where the interval is
    too short for the log's time.
    """
    with tempfile.TemporaryDirectory(prefix="stillwatch-") as name:
        folder = Path(name)
        steps, first = _cut(log, folder, how.every_us)
        side = _side(log, folder)
        state = _State()
        guard: Guard | None = None
        snapshot, earlier = folder / "snapshot", None
        current: Snapshot | None = None
        """What `snapshot` holds."""
        spent, scans = 0.0, 0
        for step in range(steps):
            at = first + step * how.every_us
            if step and step * how.every_us >= how.after_us:
                window = [
                    str(p)
                    for back in range(step - 1, -1, -1)
                    if (step - 1 - back) * how.every_us < how.window_us
                    and (p := _part(folder, back)).exists()
                ]
                begun = time.monotonic()
                found = _scanned(window[::-1], side, earlier, folder, step, how)
                spent += time.monotonic() - begun
                if found is not None:
                    scans += 1
                    earlier = found
                    meta, arrays = build(
                        found,
                        policy,
                        secret,
                        Beside(
                            accounts=log.side.get("accounts"),
                            references=log.side.get("references"),
                            valid_days=365.0,
                            old=current,
                            heard=None if current is None else heard_in(window, secret),
                        ),
                    )
                    save(snapshot, meta, arrays, secret)
                    current = load(snapshot, secret)
                    _note(state, current, found, at)
                    told(step, steps, _words(state, at))
            ready = at + how.takes_us
            following = None if current is None else _in_force(current, state, ready, how)
            if _part(folder, step).exists():
                guard = _decide(folder, step, guard, following, ready, state, how)
            elif following is not None:
                guard = _next(guard, following)
    return _result(state, honest, scans, spent)


def _cut(log: Log, folder: Path, every_us: int) -> tuple[int, int]:
    """The log without text, one file for each interval; (intervals, time of the first boundary)."""
    parts: dict[int, list[pa.RecordBatch]] = {}
    writers: dict[int, pq.ParquetWriter] = {}
    lowest: int | None = None
    try:
        for batch in log.batches():
            for piece in text_free(batch):
                code = piece.column("ts").cast(pa.int64()).to_numpy() // every_us
                for value in np.unique(code).tolist():
                    mine = piece.filter(pa.array(code == value))
                    parts.setdefault(value, []).append(shaped(mine))
                    lowest = value if lowest is None else min(lowest, value)
                if len(parts) > MOST_STEPS:
                    raise UsageError(f"more than {MOST_STEPS} intervals", hint="raise --every")
            for value, batches in parts.items():
                if value not in writers:
                    writers[value] = pq.ParquetWriter(
                        folder / f"raw-{value}.parquet", ROWS, compression="zstd"
                    )
                for piece in batches:
                    writers[value].write_batch(piece)
                batches.clear()
    finally:
        for writer in writers.values():
            writer.close()
    if lowest is None:
        raise EmptyLogError(
            "no row of the log could be used", hint="`stillwatch check` lists why rows were refused"
        )
    if max(writers) - lowest >= MOST_STEPS:
        raise UsageError(
            f"more than {MOST_STEPS} intervals lie between the log's first and last row",
            hint="raise --every, or leave out rows with a wrong time",
        )
    for value in writers:
        (folder / f"raw-{value}.parquet").rename(_part(folder, value - lowest))
    return max(writers) - lowest + 1, lowest * every_us


def _part(folder: Path, step: int) -> Path:
    return folder / f"part-{step:05d}.parquet"


def _side(log: Log, folder: Path) -> dict[str, str]:
    """The side tables as files, so that each scan reads them."""
    tables = dict(log.side)
    if "accounts" not in tables and len(log.owners):
        tables["accounts"] = log.owners.table()
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    return {name: str(folder / f"{name}.parquet") for name in tables}


def _scanned(
    window: list[str], side: dict[str, str], earlier: Path | None, folder: Path, step: int, how: Operation
) -> Path | None:
    """Results of the window's scan; None where there is nothing to scan."""
    if not window:
        return None
    try:
        found = scan(
            window, format="canonical", side=side, options=Options(seed=how.seed),
            earlier=None if earlier is None else read_earlier(earlier),
        )  # fmt: skip
    except EmptyLogError:
        return None
    out = folder / f"results-{step % 2}"
    write_results(out, results_of(found), force=True)
    return out


def _note(state: _State, snapshot: Snapshot, results: Path, at: int) -> None:
    """Who is named in what from this scan on."""
    groups = snapshot.meta.groups
    for group in groups:
        if group.verdict == "campaign":
            state.listed.setdefault(group.id, at)
            state.campaign.setdefault(group.id, len(state.campaign))
        elif group.verdict == "lead":
            state.lead.setdefault(group.id, at)
    table = pq.read_table(results / "accounts.parquet", columns=["account_id", "campaign_id", "verdict"])
    for row in table.to_pylist():
        if row["verdict"] == "campaign":
            number = state.campaign[row["campaign_id"]]
            who = state.ids.setdefault(row["account_id"], len(state.ids))
            state.named.setdefault(number, set()).add(who)


def _words(state: _State, at: int) -> str:
    new = sum(when == at for when in state.listed.values())
    return f"{iso(at)}: {len(state.listed)} campaigns so far, {new} new"


def _in_force(snapshot: Snapshot, state: _State, ready: int, how: Operation) -> Snapshot:
    """The snapshot with an order to act on every campaign whose decision was taken by then."""
    if not how.enforce:
        return snapshot
    orders = {
        name: Allowed(len(ACTIONS), NEVER, True)
        for name, at in state.listed.items()
        if at + how.decided_us <= ready
    }
    policy = msgspec.structs.replace(snapshot.policy, mode="enforce")
    return replace(snapshot, policy=policy, enforced=orders)


def _next(guard: Guard | None, following: Snapshot) -> Guard:
    """The guard of the next snapshot, as a door swaps it."""
    new = Guard(following, clock=lambda: 1, most_accounts=1 << 42)
    if guard is not None:
        new.succeed(guard, 0)
    return new


def _decide(
    folder: Path,
    step: int,
    guard: Guard | None,
    following: Snapshot | None,
    ready: int,
    state: _State,
    how: Operation,
) -> Guard | None:
    """Decide about an interval's rows in the order of time, and mark those that are refused."""
    path = _part(folder, step)
    with pq.ParquetFile(path) as file:
        table = file.read()
    logged = Logged(table.combine_chunks().to_batches()[0])
    ts = logged.ts
    names = table.column("exchange_id").to_pylist()
    order = sorted(range(len(ts)), key=lambda row: (ts[row], names[row]))
    who = np.empty(len(ts), np.int64)
    acted = np.full(len(ts), -1, np.int64)
    for row in order:
        if following is not None and ts[row] >= ready:
            guard, following = _next(guard, following), None
        subject = logged.subject(row)
        verified = subject.end_user_verified and subject.gateway is not None and subject.end_user
        name = f"{subject.account}{SEPARATOR}{subject.end_user}" if verified else str(subject.account)
        who[row] = state.ids.setdefault(name, len(state.ids))
        if guard is None:
            continue
        number = guard.principal(subject)
        if logged.refused[row]:
            guard.weigh(number, None, 0, subject.gateway, int(ts[row]))
            continue
        places: list[int] = []
        logged.look(guard.sight, subject, row, places)
        decision = guard.weigh(number, places, 0, subject.gateway, int(ts[row]))
        strength = STRENGTH[decision.action if how.enforce else decision.would]
        if strength >= MILDEST_ACTING and decision.campaign is not None:
            acted[row] = state.campaign[decision.campaign]
            if how.enforce:
                logged.blocked_by[row] = f"{OWN_REFUSAL}{decision.campaign}"
    if following is not None:
        guard = _next(guard, following)
    if (acted >= 0).any() and how.enforce:
        at = table.schema.get_field_index("blocked_by")
        table = table.set_column(at, table.schema.field(at), pa.array(logged.blocked_by, pa.string()))
        pq.write_table(table, path, compression="zstd")
    state.who.append(who)
    state.ts.append(ts)
    state.acted.append(acted)
    return guard


def _result(state: _State, honest: frozenset[str], scans: int, spent: float) -> Live:
    who, ts, acted = (
        np.concatenate([np.zeros(0, np.int64), *parts]) for parts in (state.who, state.ts, state.acted)
    )
    ids = list(state.ids)
    out: list[LiveCampaign] = []
    touched: list[LiveTouched] = []
    for name, number in state.campaign.items():
        members = np.array(sorted(state.named.get(number, ())), np.int64)
        mine = np.isin(who, members)
        hit = acted == number
        first = int(ts[hit].min()) if hit.any() else None
        cut_accounts = np.unique(who[hit])
        out.append(
            LiveCampaign(
                campaign=name,
                first_lead=None if name not in state.lead else iso(state.lead[name]),
                first_listed=iso(state.listed[name]),
                first_cut=None if first is None else iso(first),
                exchanges=int(mine.sum()),
                before_first_cut=int((mine & (ts < first)).sum()) if first is not None else int(mine.sum()),
                cut=int((mine & hit).sum()),
                through_after=int((mine & ~hit & (ts >= first)).sum()) if first is not None else 0,
                accounts=len(members),
                accounts_cut=int(np.isin(cut_accounts, members).sum()),
                others_cut=int((~np.isin(cut_accounts, members)).sum()),
            )
        )
        for account in cut_accounts.tolist():
            rows = hit & (who == account)
            touched.append(
                LiveTouched(
                    account_id=ids[account].partition(SEPARATOR)[0],
                    campaign=name,
                    named=account in state.named.get(number, ()),
                    known_honest=ids[account].partition(SEPARATOR)[0] in honest,
                    first=iso(int(ts[rows].min())),
                    exchanges=int(rows.sum()),
                )
            )
    return Live(
        exchanges=len(who),
        accounts=len(np.unique(who)),
        first=iso(int(ts.min())) if len(ts) else None,
        last=iso(int(ts.max())) if len(ts) else None,
        scans=scans,
        scan_s=round(spent, 1),
        campaigns=sorted(out, key=lambda c: (c.first_listed or "", c.campaign)),
        touched=sorted(touched, key=lambda t: (t.campaign, t.first, t.account_id)),
    )
