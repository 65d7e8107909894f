"""What the transparency log is told of scans and decisions: digests, counts, ids of groups; no text, no account.

The same results or rows give the same events, so that they may be told again after a crash.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.schema.errors import ResultError, Where
from stillwatch.schema.journal import Json
from stillwatch.store.appeals import Row as Appeal
from stillwatch.store.decisions import Did, Row
from stillwatch.store.erasures import first_digest, read_erasures
from stillwatch.store.public import public_group
from stillwatch.store.results import read_findings, results_digest

Event = tuple[str, dict[str, Json]]
"""Kind and payload, as `schema.Journal` takes them."""
KINDS: dict[Did, str] = {
    "propose": "decision",
    "approve": "approval",
    "revoke": "reversal",
    "expire": "expiry",
}
APPEALS = ("appeal", "appeal_reversal")
MOST_INPUTS = 1000
"""Inputs that a scan's event names one by one; more are named by the digest of all."""


RUN = re.compile(r"\d{9}-\d+")
"""How `watch` names the results folder of one of its scans."""


def of_results(folder: Path) -> list[Event]:
    """A scan (`scan`: what was read, and how) and each of its groups (`finding`). ResultError if it cannot be read.

    `results` is `results_digest`; a group's `sha256` is that of its object in findings.json as canonical JSON (sorted
    keys, no spaces, UTF-8), `public` that of the form that may leave (`public_group`). A scan of `watch` is told from
    another one with the same outcome by its folder's name.
    """
    run = folder.name if RUN.fullmatch(folder.name) else None
    # A folder from which an account was taken out is told of as it was written, and what was done to it after that.
    scan, digest = read_findings(folder).run, first_digest(folder, results_digest(folder))
    inputs = sorted(entry.digest for entry in scan.inputs)
    told: dict[str, Json] = {
        "results": digest,
        "version": scan.version,
        "config": scan.config_digest,
        "seed": scan.seed,
        "tables": {table.name: table.digest for table in scan.tables},
        "inputs": len(inputs),
        "inputs_sha256": hashlib.sha256("\n".join(inputs).encode()).hexdigest(),
        "input_sha256": [*inputs] if len(inputs) <= MOST_INPUTS else None,
        "accounts": scan.accounts,
        "exchanges": scan.exchanges,
        "refused": scan.refused,
        "previous": scan.previous,
    }
    if run is not None:
        told["run"] = run
    groups = json.loads((folder / "findings.json").read_bytes())["groups"]
    found = [_finding(group, digest, run) for group in groups]
    return [("scan", told | {"groups": len(groups)}), *found, *of_erasures(folder)]


def of_erasures(folder: Path) -> list[Event]:
    """Each account that was taken out of a folder, as one `forgotten`."""
    return [("forgotten", erasure.payload) for erasure in read_erasures(folder)]


def _finding(group: dict[str, Json], results: str, run: str | None) -> Event:
    told: dict[str, Json] = {name: group[name] for name in ("verdict", "why", "accounts", "exchanges")}
    told |= {"group": group["id"], "results": results, "sha256": _sha256(group)}
    told |= {"public": _sha256(public_group(group))}
    return "finding", told if run is None else told | {"run": run}


def _sha256(plain: Mapping[str, Json]) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def of_tables(folder: Path) -> list[Event]:
    """Each table that was written to a folder (`ingest`, `sketch`), as one `partition`. ResultError if unreadable."""
    events: list[Event] = []
    for path in sorted(folder.glob("*.parquet")):
        try:
            data = path.read_bytes()
            rows = pq.read_metadata(path).num_rows
        except (OSError, pa.ArrowException) as error:
            raise ResultError("a table is missing or damaged", where=Where(path.name)) from error
        told: dict[str, Json] = {"file": path.name, "rows": rows, "sha256": hashlib.sha256(data).hexdigest()}
        events.append(("partition", told))
    return events + of_erasures(folder)


def of_decisions(rows: Sequence[Row]) -> list[Event]:
    """Each row of a file of decisions, by its hash: `decision`, `approval`, `reversal`, `expiry`."""
    events: list[Event] = []
    for row in rows:
        told: dict[str, Json] = {"row": row.hash, "number": row.number, "decision": row.digest}
        if row.order is not None:
            told |= {"group": row.order.campaign, "action": row.order.action, "policy": row.order.policy}
        events.append((KINDS[row.did], told))
    return events


def of_appeals(rows: Sequence[Appeal]) -> list[Event]:
    """Each row of a file of appeals, by its hash: `appeal`, or `appeal_reversal` where an account is freed.

    The account is the row's pseudonym, the note its keyed digest: neither can be guessed without the key ring.
    """
    events: list[Event] = []
    for row in rows:
        told: dict[str, Json] = {"row": row.hash, "number": row.number, "did": row.did}
        told |= {"account": row.pseudonym, "group": row.campaign}
        ruling = row.ruling
        if ruling is not None:
            told |= {"ruling": ruling.digest, "outcome": ruling.outcome, "reason": ruling.code}
            told |= {"note": ruling.note, "results": ruling.results}
        reversed_now = ruling is not None and ruling.outcome == "reversed"
        events.append((APPEALS[reversed_now], told))
    return events
