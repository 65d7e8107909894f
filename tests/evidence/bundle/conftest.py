"""Two campaigns of one scanned world, committed to a log, and their bundles; and ways to forge a bundle."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stillwatch.evidence.bundle import archive
from stillwatch.evidence.bundle.build import Source, build
from stillwatch.evidence.bundle.statement import envelope, statement
from stillwatch.evidence.keys import Key, vkey
from stillwatch.evidence.log import TransparencyLog
from stillwatch.evidence.read import checkpoint
from stillwatch.store.decisions import Order, Signer, approve, propose, read_decisions
from stillwatch.store.events import of_decisions, of_results
from stillwatch.store.pseudonyms import KeyRing, Pseudonyms
from stillwatch.store.results import read_results
from tests.evidence.conftest import KEY, ORIGIN, OTHER, ticking

AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
SIGNER, STRANGER = OTHER, Key(Ed25519PrivateKey.from_private_bytes(b"\7" * 32))
VKEY = vkey(ORIGIN, KEY.public)
Files = dict[str, bytes]


@dataclass(frozen=True)
class Made:
    """A world with its log, and what is built of it."""

    log: Path
    results: Path
    source: Source
    names: Pseudonyms
    noted: str
    """A checkpoint from before the scan was committed."""
    campaigns: list[str]
    """Largest first: the first one has decisions about it."""
    files: dict[str, Files]
    """Of each campaign."""

    @property
    def first(self) -> Files:
        return self.files[self.campaigns[0]]

    @property
    def small(self) -> Files:
        """The bundle that is checked fastest."""
        return self.files[self.campaigns[-1]]


def committed(folder: Path, results: Path, campaign: str) -> tuple[Path, Path, Path]:
    """(log, file of decisions, checkpoint noted before): the scan, and a decision about the campaign."""
    audit, decisions, noted = folder / "audit.log", folder / "decisions.jsonl", folder / "noted.txt"
    people = [Signer(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (5, 6)]
    order = Order(campaign=campaign, action="block", policy="0" * 64, expires=AT.replace(month=5), at=AT)
    approve(decisions, propose(decisions, order, people[0]).digest, people[1], AT)
    with TransparencyLog.create(audit, KEY, ORIGIN, ticking()) as log:
        log.append("note", {"nothing": 0})
        noted.write_text(checkpoint(audit)[1])
        log.append_all(of_results(results))
        log.append_all(of_decisions(read_decisions(decisions)))
    return audit, decisions, noted


@pytest.fixture(scope="session")
def made(scanned: tuple[Path, Path]) -> Made:
    """Built once for all processes of a run. Not to be written to."""
    log, results = scanned
    folder = log.parent.with_name("bundled")
    groups = [g for g in read_results(results).findings.groups if g.verdict == "campaign"]
    campaigns = [g.id for g in sorted(groups, key=lambda g: -g.exchanges)]
    with folder.with_name("bundled.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            making = folder.with_name("bundled.making")
            making.mkdir()
            audit, decisions, noted = committed(making, results, campaigns[0])
            names = KeyRing.create(making / "ring.json").agree(
                "bundle", "", b"a bundle's key of 32 bytes here."
            )
            source = Source(results, [str(log)], audit, decisions=decisions, noted=[noted])
            for name in (campaigns[0], campaigns[-1]):
                archive.write(making / f"{name}.zip", build(name, source, names, SIGNER, AT))
            making.rename(folder)
    source = Source(
        results,
        [str(log)],
        folder / "audit.log",
        decisions=folder / "decisions.jsonl",
        noted=[folder / "noted.txt"],
    )
    return Made(
        log,
        results,
        source,
        KeyRing.read(folder / "ring.json").names("bundle"),
        (folder / "noted.txt").read_text(),
        campaigns,
        {name: archive.read(folder / f"{name}.zip") for name in (campaigns[0], campaigns[-1])},
    )


def signed_again(files: Files, key: Key = SIGNER, change: Callable[[Any], None] | None = None) -> Files:
    """What somebody with a key could make of changed files. `change`: of the predicate."""
    predicate = predicate_of(files)
    if change is not None:
        change(predicate)
    return files | {"statement.dsse.json": envelope(statement(files, predicate), key)}


def predicate_of(files: Files) -> Any:
    import base64

    return json.loads(base64.b64decode(json.loads(files["statement.dsse.json"])["payload"]))["predicate"]


def changed(files: Files, name: str, change: Callable[[Any], None]) -> Files:
    """The files with one JSON file changed, signed again by the same key."""
    plain = json.loads(files[name])
    change(plain)
    return signed_again(files | {name: json.dumps(plain).encode()})


def packed(files: Files, folder: Path) -> Path:
    path = folder / "bundle.zip"
    path.write_bytes(archive.pack(files))
    return path
