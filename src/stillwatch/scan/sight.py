"""What a scan can see of a log, said in the same words before it (`stillwatch check`) and after it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.detect.discover import LEAST_GROUP
from stillwatch.detect.score import LEAST_REFERENCES, LEVEL
from stillwatch.ingest.lookup import COSTS, Lookups
from stillwatch.scan.units import REFERENCE_SIZE
from stillwatch.schema.results import Sight

BUSY = 20
"""Exchanges from which an account's hours say anything."""

READ_BY_SCAN = ("disposable_email_domains", "public_prompts")
"""Lookup tables on which a finding can depend; the others fill `asn` and tell hosting networks in `check`."""

_OF_ROWS = (
    ("FORM prompt families", ("prompt", "prompt_sketch")),
    ("FORM system prompts", ("system", "system_sketch", "system_hash")),
    ("FORM tools and formats", ("tools_hash", "format_hash")),
    ("LINK addresses", ("ip",)),
    ("LINK client stack", ("ja4",)),
    ("TRACE what is asked for", ("prompt", "prompt_sketch")),
    ("FAN-OUT claimed clients", ("user_agent",)),
    ("direct: work split", ("prompt", "prompt_sketch")),
    ("direct: hand-over", ("turn_hashes",)),
    ("direct: replayed reasoning", ("reasoning_in",)),
)
_OF_ACCOUNTS = (
    ("LINK payment", "payment_fp"),
    ("LINK device", "device_fp"),
    ("LINK mail domain", "email_domain"),
    ("LINK referral", "referral"),
    ("LINK sign-up address", "signup_ip"),
    ("LINK sign-up batches", "created_at"),
    ("direct: sign-up batches", "created_at"),
    ("owners that the operator verified", "verified"),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a log holds, counted."""

    rows: int
    filled: Mapping[str, int]
    """Rows with a value, by column of `exchanges`."""
    accounts: int
    busy: int
    """Accounts with at least `BUSY` exchanges."""
    known: Mapping[str, int]
    """Accounts of the log with a value, by column of `accounts`; empty without that table."""
    tables: frozenset[str]
    """Side tables."""


def known_accounts(table: pa.Table | None, ids: Collection[str]) -> dict[str, int]:
    """Accounts of the log (`ids`, distinct) with a value, by column of the accounts table; `verified`: with a yes."""
    if table is None:
        return {}
    inside = table.filter(pc.is_in(table.column("account_id"), pa.array(sorted(ids), pa.string())))
    known = {name: len(inside) - inside.column(name).null_count for name in inside.column_names}
    if "verified" in known:
        known["verified"] = pc.sum(inside.column("verified")).as_py() or 0
    return known


def sights(seen: Seen) -> list[Sight]:
    """Each detector with its state (`on` from one half, `blind` at nothing) and the column behind it."""
    out = []
    for detector, columns in _OF_ROWS:
        best = max(columns, key=lambda name: seen.filled.get(name, 0))
        out.append(_sight(detector, seen.filled.get(best, 0), seen.rows, columns[0], "rows"))
    for detector, name in _OF_ACCOUNTS:
        if "accounts" not in seen.tables:
            out.append(Sight(detector=detector, state="blind", reason=f"no accounts table with {name}"))
            continue
        out.append(_sight(detector, seen.known.get(name, 0), seen.accounts, f"accounts.{name}", "accounts"))
    out.append(_sight("TIME co-activity", seen.busy, seen.accounts, f"{BUSY} exchanges or more", "accounts"))
    banned = "sanctions" in seen.tables
    out.append(
        Sight(
            detector="direct: take-over after bans",
            state="on" if banned else "weak",
            reason="sanctions table" if banned else "no sanctions table: last exchanges stand in",
        )
    )
    return out


def _sight(detector: str, filled: int, total: int, source: str, unit: str) -> Sight:
    share = filled / max(1, total)
    state: Literal["on", "weak", "blind"] = "on" if share >= 0.5 else "weak" if filled else "blind"
    reason = f"{source}: {percent(share)} of {unit}" if filled else f"{source}: in none of the {unit}"
    return Sight(detector=detector, state=state, reason=reason)


def percent(share: float) -> str:
    """Whole per cent; what is not nothing, or not everything, does not look like it."""
    if 0 < share < 0.01:
        return "under 1 %"
    if 0.99 < share < 1:
        return "over 99 %"
    return f"{share:.0%}".replace("%", " %")


def table_sights(lookups: Lookups) -> list[Sight]:
    """One entry for each lookup table that a scan reads: there, or missing and what that costs."""
    rows = {entry.name: entry.rows for entry in lookups.used}
    out = []
    for name in READ_BY_SCAN:
        if name in lookups:
            out.append(Sight(detector=f"table {name}", state="on", reason=f"entries: {rows.get(name, 0):,}"))
            continue
        fault = "is damaged" if name in lookups.damaged else "is missing"
        out.append(Sight(detector=f"table {name}", state="blind", reason=f"it {fault}: {COSTS[name]}"))
    return out


def reference_groups(tables: Mapping[str, pa.Table], ids: Collection[str]) -> tuple[int, int]:
    """(verified owners of `REFERENCE_SIZE` accounts or more, listed groups that large), counted within the log.

    A scan uses those of them that it finds and confirms as coordinated, so it may be fewer.
    """
    accounts, listed = tables.get("accounts"), tables.get("references")
    mine = pa.array(sorted(ids), pa.string())
    taken = pa.array([], pa.string())
    owners = groups = 0
    if accounts is not None and {"entity_id", "verified"} <= set(accounts.column_names):
        known = pc.and_(pc.fill_null(accounts.column("verified"), False), pc.is_valid(accounts["entity_id"]))
        known = accounts.filter(pc.and_(known, pc.is_in(accounts["account_id"], mine)))
        owners = _large(known, "entity_id", REFERENCE_SIZE)
        taken = known.column("account_id").combine_chunks()
    if listed is not None:
        # An account of a verified owner counts there and nowhere else.
        rest = pc.and_(pc.is_in(listed["account_id"], mine), pc.invert(pc.is_in(listed["account_id"], taken)))
        groups = _large(listed.filter(rest), "group_id", LEAST_GROUP)
    return owners, groups


def _large(table: pa.Table, column: str, least: int) -> int:
    sizes = table.group_by(column).aggregate([("account_id", "count")])
    return int(pc.sum(pc.greater_equal(sizes.column("account_id_count"), least)).as_py() or 0)


def nameable(references: int, named: int) -> int:
    """Most tested groups of which `named`, each above all references, can be named: m <= LEVEL k (n + 1)."""
    return int(LEVEL * named * (references + 1) + 1e-9)


__all__ = [
    "BUSY",
    "LEAST_REFERENCES",
    "LEVEL",
    "REFERENCE_SIZE",
    "Seen",
    "known_accounts",
    "nameable",
    "percent",
    "reference_groups",
    "sights",
    "table_sights",
]
