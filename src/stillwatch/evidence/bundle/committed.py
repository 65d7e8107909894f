"""What the transparency log holds of a campaign: the entries that a bundle shows, and whether any is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from stillwatch.evidence.database import ROTATED
from stillwatch.evidence.note import read_checkpoint
from stillwatch.evidence.read import entries, prove_entries
from stillwatch.schema.errors import ResultError, Where
from stillwatch.store.decisions import Row, read_decisions
from stillwatch.store.events import KINDS, of_results

MOST_PARTITIONS = 1000
"""Partitions whose entries are shown; of more, the scan's entry names the digests."""
_canonical = msgspec.json.Encoder(order="sorted").encode


@dataclass(frozen=True, slots=True)
class Committed:
    """Numbers of entries, in the log's order."""

    entries: list[int]
    decisions: list[Row]
    """Rows about the campaign, each of which is among the entries."""


def committed(audit: Path, results: Path, campaign: str, key: str, decisions: Path | None) -> Committed:
    """Find the entries. ResultError where the scan, the finding or a decision is not there, with what commits it.

    `key`: how the log's key is named in that command.
    """
    events = [
        (kind, payload)
        for kind, payload in of_results(results)
        if kind == "scan" or payload.get("group") == campaign
    ]
    wanted = {(kind, json.dumps(payload, sort_keys=True)) for kind, payload in events}
    inputs = {digest for _, payload in events for digest in payload.get("input_sha256") or ()}  # type: ignore[union-attr]
    rows = [] if decisions is None else _about(read_decisions(decisions), campaign)
    hashes = {row.hash for row in rows}
    found: list[int] = []
    partitions: list[int] = []
    about: set[str] = set()
    logged: set[str] = set()
    for number, kind, payload in _payloads(audit):
        if (kind, json.dumps(payload, sort_keys=True)) in wanted:
            wanted.discard((kind, json.dumps(payload, sort_keys=True)))
            found.append(number)
        elif kind == "partition" and payload.get("sha256") in inputs:
            partitions.append(number)
        elif kind == ROTATED:
            found.append(number)
        elif kind in KINDS.values():
            if payload.get("group") == campaign:
                about.add(str(payload["decision"]))
            if payload.get("decision") in about or payload.get("row") in hashes:
                logged.add(str(payload["row"]))
                found.append(number)
    if wanted:
        raise ResultError(
            f"the transparency log lacks the {' and the '.join(sorted({kind for kind, _ in wanted}))} "
            f"of these results",
            where=Where(str(audit)),
            hint=f"stillwatch log take {audit} {results} --key {key}",
        )
    if hashes - logged and decisions is not None:
        raise ResultError(
            "the transparency log does not hold all decisions about the campaign",
            where=Where(str(audit)),
            hint=f"stillwatch log take {audit} {decisions} --key {key}",
        )
    if logged - hashes:
        raise ResultError(
            "the transparency log holds decisions about the campaign",
            where=Where(str(audit)),
            hint="name the file of decisions with --decisions: a bundle does not leave them out",
        )
    shown = partitions if len(partitions) <= MOST_PARTITIONS else []
    return Committed(sorted([0, *found, *shown]), rows)


def _payloads(audit: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    for entry in entries(audit):
        plain = json.loads(entry.payload or b"{}")
        yield entry.number, entry.kind, plain if isinstance(plain, dict) else {}


def _about(rows: Sequence[Row], campaign: str) -> list[Row]:
    mine = {row.digest for row in rows if row.order is not None and row.order.campaign == campaign}
    return [row for row in rows if row.digest in mine]


def log_file(audit: Path, what: Committed, noted: Sequence[Path]) -> dict[str, Any]:
    """`log.json`: entries with their proofs to the newest checkpoint, which goes on from each of the `noted` ones."""
    earlier = [(read_checkpoint(path), path.read_text(encoding="utf-8")) for path in noted]
    proved = prove_entries(audit, what.entries, [checkpoint.size for checkpoint, _ in earlier])
    growth = [
        {"checkpoint": text, "path": grown["path"]}
        for (_, text), grown in zip(earlier, proved["growth"], strict=True)
    ]
    return {
        **proved,
        "growth": growth,
        "decisions": [_canonical(row).decode() for row in what.decisions],
    }
