"""What the transparency log is told of scans and decisions: digests, counts, ids of groups; no text, no account.

The same results or rows give the same events, so that they may be told again after a crash.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from stillwatch.schema.journal import Json
from stillwatch.store.decisions import Did, Row
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
    scan, digest = read_findings(folder).run, results_digest(folder)
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
    return [("scan", told | {"groups": len(groups)}), *(_finding(group, digest, run) for group in groups)]


def _finding(group: dict[str, Json], results: str, run: str | None) -> Event:
    told: dict[str, Json] = {name: group[name] for name in ("verdict", "why", "accounts", "exchanges")}
    told |= {"group": group["id"], "results": results, "sha256": _sha256(group)}
    told |= {"public": _sha256(public_group(group))}
    return "finding", told if run is None else told | {"run": run}


def _sha256(plain: Mapping[str, Json]) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def of_decisions(rows: Sequence[Row]) -> list[Event]:
    """Each row of a file of decisions, by its hash: `decision`, `approval`, `reversal`, `expiry`."""
    events: list[Event] = []
    for row in rows:
        told: dict[str, Json] = {"row": row.hash, "number": row.number, "decision": row.digest}
        if row.order is not None:
            told |= {"group": row.order.campaign, "action": row.order.action, "policy": row.order.policy}
        events.append((KINDS[row.did], told))
    return events
