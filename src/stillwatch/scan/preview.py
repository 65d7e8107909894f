"""What a scan of a log would be able to see and to decide, before anybody scans: behind `stillwatch check`.

A preview holds counts, column names, paths and reasons. It never holds account ids, addresses or text.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from stillwatch.ingest import Log, coverage
from stillwatch.ingest.coverage import Coverage
from stillwatch.ingest.lookup import COSTS, PACKAGES, Lookups
from stillwatch.scan.sight import (
    BUSY,
    LEAST_REFERENCES,
    LEVEL,
    REFERENCE_SIZE,
    Seen,
    known_accounts,
    nameable,
    percent,
    reference_groups,
    sights,
    table_sights,
)
from stillwatch.schema.refusals import Refusal
from stillwatch.schema.results import Sight

FIRST_ROWS = 3
DAY_US = 86_400_000_000
ODD_SHARE = 0.5
"""Of all rows behind one account or one address block: rather the log's fault than the traffic's."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a refused row stands."""

    file: str
    row: int


class RefusedRows(msgspec.Struct, frozen=True, kw_only=True):
    """Rows refused for one reason."""

    column: str | None
    reason: str
    rows: int
    first: list[Place]


class TableState(msgspec.Struct, frozen=True, kw_only=True):
    """One lookup table."""

    name: str
    present: bool
    damaged: bool
    rows: int | None
    digest: str | None
    without_it: str
    package: str | None


class References(msgspec.Struct, frozen=True, kw_only=True):
    """Groups known to be honest, and what their number allows."""

    verified_owners: int
    """Verified owners of `size` accounts or more in this log."""
    listed_groups: int
    total: int
    size: int
    least: int
    p_min: float
    nameable: list[tuple[int, int]]
    """(k, m): k groups that score above all references can be named if no more than m groups are tested."""


class Verdicts(msgspec.Struct, frozen=True, kw_only=True):
    """Which roads to the verdict `campaign` are open."""

    by_references: bool
    by_direct_tests: bool
    text: list[str]


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `stillwatch check` says."""

    format: str
    files: int
    skipped: list[str]
    """Files in the named folders that are no logs."""
    rows: int
    refused: int
    passed: int
    """Rows passed over because they are no exchanges."""
    accounts: int
    busy_accounts: int
    first_ts: str | None
    last_ts: str | None
    days: int
    columns: dict[str, float]
    """Percent of rows with a value, by column of `exchanges`."""
    side_tables: dict[str, int]
    """Rows by side table."""
    account_columns: dict[str, float]
    """Percent of the log's accounts with a value, by column of the accounts table."""
    sight: list[Sight]
    references: References
    verdicts: Verdicts
    refusals: list[RefusedRows]
    tables: list[TableState]
    remarks: list[str]
    """What looks odd about the log, and what would help."""


def preview(log: Log) -> Preview:
    """Read the log once. Raises what `Log.batches` raises."""
    found = coverage(log)
    ids = found.volumes.keys()
    tables = dict(log.side)
    if "accounts" not in tables and len(log.owners):
        tables["accounts"] = log.owners.table()
    known = known_accounts(tables.get("accounts"), ids)
    busy = sum(count >= BUSY for count in found.volumes.values())
    seen = Seen(found.rows, found.filled, len(ids), busy, known, frozenset(tables))
    owners, listed = reference_groups(tables, ids)
    sight = [*sights(seen), *table_sights(log.lookups)]
    references = _references(owners, listed)
    return Preview(
        format=log.format,
        files=len(log.inputs),
        skipped=list(log.skipped),
        rows=found.rows,
        refused=found.refused,
        passed=found.passed,
        accounts=len(ids),
        busy_accounts=busy,
        first_ts=_iso(found.first_us),
        last_ts=_iso(found.last_us),
        days=_days(found),
        columns={name: round(found.percent(name), 1) for name in found.filled},
        side_tables={name: tables[name].num_rows for name in sorted(tables)},
        account_columns={
            name: round(100 * count / max(1, len(ids)), 1)
            for name, count in known.items()
            if name != "account_id"
        },
        sight=sight,
        references=references,
        verdicts=_verdicts(references, sight),
        refusals=grouped(log.refusals),
        tables=_tables(log.lookups),
        remarks=_remarks(log, found, known, sight),
    )


def grouped(refusals: list[Refusal]) -> list[RefusedRows]:
    """Refusals by column and reason, the most frequent first."""
    found: dict[tuple[str | None, str], list[Refusal]] = {}
    for refusal in refusals:
        found.setdefault((refusal.column, refusal.reason), []).append(refusal)
    ranked = sorted(found.items(), key=lambda entry: (-len(entry[1]), entry[0][1], entry[0][0] or ""))
    return [
        RefusedRows(
            column=column,
            reason=reason,
            rows=len(rows),
            first=[Place(file=row.file, row=row.row) for row in rows[:FIRST_ROWS]],
        )
        for (column, reason), rows in ranked
    ]


def _references(owners: int, listed: int) -> References:
    total = owners + listed
    allowed = [(k, nameable(total, k)) for k in (1, 2, 5, 10)] if total >= LEAST_REFERENCES else []
    return References(
        verified_owners=owners,
        listed_groups=listed,
        total=total,
        size=REFERENCE_SIZE,
        least=LEAST_REFERENCES,
        p_min=1 / (total + 1),
        nameable=allowed,
    )


def _verdicts(references: References, sight: list[Sight]) -> Verdicts:
    total = references.total
    open_ = total >= LEAST_REFERENCES
    text = []
    if open_:
        text.append(
            f"campaign by references: open with {total}. To name k of m tested groups, each above all references, "
            f"about m / ({LEVEL} k) - 1 are needed."
        )
    else:
        text.append(
            f"campaign by references: closed with {total}; {LEAST_REFERENCES} are the least, and "
            f"about m / ({LEVEL} k) - 1 name k of m tested groups."
        )
    direct = [s.detector.removeprefix("direct: ") for s in sight if s.detector.startswith("direct: ")]
    seeing = [
        s.detector.removeprefix("direct: ")
        for s in sight
        if s.detector.startswith("direct: ") and s.state != "blind"
    ]
    if len(seeing) >= 2:
        text.append(f"campaign by direct tests: open; two of these must fire: {', '.join(seeing)}.")
    else:
        missing = ", ".join(name for name in direct if name not in seeing)
        text.append(f"campaign by direct tests: closed; two tests must be able to see, blind are {missing}.")
    if not open_ and len(seeing) < 2:
        text.append("Every group of a scan will be a lead or cleared.")
    return Verdicts(by_references=open_, by_direct_tests=len(seeing) >= 2, text=text)


def _tables(lookups: Lookups) -> list[TableState]:
    used = {entry.name: entry for entry in lookups.used}
    return [
        TableState(
            name=name,
            present=name in used,
            damaged=name in lookups.damaged,
            rows=used[name].rows if name in used else None,
            digest=used[name].digest if name in used else None,
            without_it=cost,
            package=str(PACKAGES[name]) if name in PACKAGES else None,
        )
        for name, cost in COSTS.items()
    ]


HELP = {
    "LINK addresses": "Log the client's address (ip): without it no group can be confirmed by where it comes from.",
    "LINK client stack": "Log the TLS fingerprint (ja4) and the order of header names (header_hash) at the gateway.",
    "LINK payment": "Add payment_fp to the accounts table: a keyed hash of the payment instrument.",
    "LINK sign-up batches": "Add created_at to the accounts table: it also carries a direct test.",
    "direct: hand-over": "Log turn_hashes, or text to make them from: a conversation that goes on elsewhere "
    "is the strongest evidence there is.",
    "direct: replayed reasoning": "Log the hashes of reasoning blocks that requests carry and responses return "
    "(reasoning_in, reasoning_out): a block that comes back under another account is a direct test.",
    "direct: take-over after bans": "Pass a sanctions table (ts, account_id, kind): what takes over after a ban is "
    "then seen.",
    "owners that the operator verified": "Mark verified owners in the accounts table (entity_id, verified): they are "
    "never accused for belonging together, and serve as references.",
    "FORM prompt families": "Log prompts, or their sketches (`stillwatch sketch`): FORM sees nothing without.",
}


def _remarks(log: Log, found: Coverage, known: dict[str, int], sight: list[Sight]) -> list[str]:
    out = []
    if found.rows == 0:
        return ["No row could be used: see the reasons above; --map or a mapping file may help."]
    top = max(found.volumes.values())
    if top > ODD_SHARE * found.rows and len(found.volumes) > 1:
        out.append(
            f"One account has {percent(top / found.rows)} of all rows: if it is a gateway, say so in gateway_id or "
            "contract."
        )
    with_ip = found.filled.get("ip", 0)
    if found.top_block > ODD_SHARE * max(1, with_ip) and with_ip >= 100:
        out.append(
            f"One address block has {percent(found.top_block / with_ip)} of all rows with an address: the log may "
            "hold a proxy's address instead of the client's."
        )
    if with_ip and ("hosting_asns" in log.lookups or "ip_kinds" in log.lookups):
        share = percent(found.hosted / with_ip)
        out.append(f"{share} of the rows with an address come from hosting networks or listed ranges.")
    if found.redacted:
        out.append(
            f"Text was removed from {percent(found.redacted / found.rows)} of all rows before they were logged."
        )
    if "accounts" in log.side:
        strangers = len(found.volumes) - known.get("account_id", 0)
        if strangers:
            share = percent(strangers / len(found.volumes))
            out.append(f"The accounts table does not know {strangers:,} accounts of the log ({share}).")
    states = {s.detector: s.state for s in sight}
    out += [text for detector, text in HELP.items() if states.get(detector, "on") != "on"]
    missing = [t for t in COSTS if t not in log.lookups]
    if missing:
        out.append("`stillwatch data update` fetches lookup tables; --tables DIR takes your own.")
    return out


def _days(found: Coverage) -> int:
    if found.first_us is None or found.last_us is None:
        return 0
    return found.last_us // DAY_US - found.first_us // DAY_US + 1


def _iso(us: int | None) -> str | None:
    if us is None:
        return None
    moment = datetime.fromtimestamp(us // 1_000_000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
