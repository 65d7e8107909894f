"""Appeals: when each came in, what a person decided, and who is freed by it. Rows are only added, chained by hash.

A file of JSON lines beside that of the decisions, with the same habits (`store.decisions`): each row holds the
SHA-256 of the row before it, and what is decided is an ed25519 signature (RFC 8032) over the ruling's digest. The
file names accounts and holds the reviewer's notes. What the transparency log is told of a row has neither: the
account is a pseudonym of the purpose `appeal`, the note a keyed digest, and `blind` keeps a row's hash from being
guessed.

An account that a ruling freed stays free until another ruling upholds the action against it. That takes a person, and
results of a later scan: the evidence that was judged to be wrong cannot be used twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from stillwatch.schema.errors import DecisionError, UsageError, Where
from stillwatch.store.chain import has, head_of, read_chain
from stillwatch.store.decisions import Signer, signed
from stillwatch.store.files import alone, write_whole
from stillwatch.store.pseudonyms import Pseudonyms
from stillwatch.store.without import is_of

MOST_NOTE_BYTES = 64 << 10
Outcome = Literal["upheld", "reversed"]
CODES: dict[Outcome, dict[str, str]] = {
    "reversed": {
        "verified_organisation": "one organisation, which the operator has now verified",
        "contract": "a contract permits it",
        "evaluation": "an evaluation or a benchmark",
        "classroom": "a class or a workshop",
        "shared_payer": "one party openly pays for the accounts",
        "shared_software": "a tool or a wording that many use",
        "stolen_key": "somebody else used the account or its key",
        "mistaken_identity": "the evidence was another account's",
        "weak_evidence": "a person finds the evidence too weak",
        "other": "see the note",
    },
    "upheld": {
        "evidence_stands": "nothing that was shown explains the evidence",
        "not_verified": "what was shown could not be verified",
        "no_answer": "what was asked for did not come",
        "new_evidence": "a later scan found it again, on new evidence",
        "other": "see the note",
    },
}
"""Why, in a word and in words; what the log is told is the word."""
_canonical = msgspec.json.Encoder(order="sorted").encode


class Ruling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is decided about one account. Names nobody: that is for the row."""

    account: str
    """Pseudonym, purpose `appeal`."""
    campaign: str | None
    """The group that the action rested on; None where no scan names the account."""
    outcome: Outcome
    code: str
    note: str
    """Keyed digest of the note, hex."""
    results: str
    """Digest of the results folder that was looked at."""
    evidence_until: str
    """End of the log of these results, ISO 8601."""
    received: datetime
    at: datetime

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hex: what is signed."""
        return hashlib.sha256(_canonical(self)).hexdigest()


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the file."""

    number: int
    before: str
    """Hash of the row before; zeros for the first."""
    did: Literal["receive", "decide"]
    at: datetime
    account: str
    """Account id, or the id of a verified user behind a gateway (`schema.tables.SEPARATOR`)."""
    pseudonym: str
    campaign: str | None
    ruling: Ruling | None = None
    """In the row that decides."""
    note: str = ""
    """What the reviewer wrote. Never leaves this file."""
    key: str | None = None
    """`ed25519:` and the public key, base64, of whoever decided."""
    signature: str | None = None
    erased: bool = False
    """Whether account and note were taken out (`forget`). The hash stays: the next row and the log name it."""
    blind: str = ""
    """Keyed digest, hex: without it the row's hash could be guessed from the account's id."""
    hash: str = ""

    @property
    def own_hash(self) -> str:
        """SHA-256 of the canonical JSON of everything but the hash itself, hex."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        # Added later, and no part of what was hashed.
        del plain["hash"], plain["erased"]
        return hashlib.sha256(_canonical(plain)).hexdigest()


@dataclass(frozen=True, slots=True)
class Case:
    """One appeal from its receipt to its end."""

    account: str
    campaign: str | None
    received: datetime
    decided: datetime | None = None
    outcome: Outcome | None = None
    code: str | None = None


def read_appeals(path: Path, head: str | None = None) -> list[Row]:
    """All rows, the chain checked; none where there is no file. DecisionError names the line that was altered.

    `head`: hash of a row that must be there, as a snapshot noted it; a file that was cut off lacks it.
    """
    rows = read_chain(path, Row, "appeals", _sound)
    for row in rows:
        ruling = row.ruling
        if (ruling is not None) != (row.did == "decide") or (
            ruling is not None
            and (ruling.account, ruling.campaign, ruling.at) != (row.pseudonym, row.campaign, row.at)
        ):
            raise DecisionError(
                "the row does not hold the ruling that it names", where=Where(path.name, line=row.number + 1)
            )
    if not has(rows, head):
        raise DecisionError(
            "appeals that were there are missing: the file was cut off, is another one, or was not named",
            where=Where(path.name),
            hint="name the file with --appeals; restore it from a copy if it was damaged",
        )
    return rows


def _sound(row: Row) -> bool:
    # An erased row's hash cannot be computed again: the next row, and the transparency log, vouch for it.
    return (row.account, row.note, row.blind) == ("", "", "") if row.erased else row.hash == row.own_hash


def is_appeals(path: Path) -> bool:
    """Whether the first row of a file is one of appeals."""
    try:
        with path.open("rb") as handle:
            first = json.loads(handle.readline(1 << 20))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and first.get("did") in ("receive", "decide")


def forget(path: Path, account: str) -> int:
    """Take an account, its verified users, and the notes about them out of the file; returns how many rows.

    What stays of a row: when, which group, the ruling with its pseudonym, its signature, and its hash. Nobody is
    freed by an erased row any more: there is no account that it could name.
    """
    with alone(path, "the appeals"):
        rows = read_appeals(path)
        mine = [row for row in rows if is_of(row.account, account)]
        if mine:
            gone = {row.number for row in mine}
            kept = [
                msgspec.structs.replace(row, account="", note="", blind="", erased=True)
                if row.number in gone
                else row
                for row in rows
            ]
            write_whole(path, [msgspec.json.encode(row) + b"\n" for row in kept], "the appeals")
    return len(mine)


def freed(path: Path) -> set[str]:
    """Accounts that an appeal freed and that nothing has bound again. Raises as `read_appeals` and `freed_by`."""
    return freed_by(read_appeals(path))


def freed_by(rows: Sequence[Row], keys: Collection[str] | None = None) -> set[str]:
    """The same of rows that were read. DecisionError where a ruling is not rightly signed.

    `keys`: public keys of whoever may decide; None: any key that signs rightly.
    """
    free: set[str] = set()
    for row in rows:
        if row.ruling is None or row.erased:
            continue
        if not _rightly_signed(row):
            raise DecisionError(f"the ruling in row {row.number + 1} of the appeals is not rightly signed")
        if keys is not None and row.key not in keys:
            raise DecisionError(
                f"the ruling in row {row.number + 1} of the appeals is signed by a key that the policy does not list",
                hint="list it under [[approver]], or have the appeal decided by somebody who is listed",
            )
        if row.ruling.outcome == "reversed":
            free.add(row.account)
        else:
            free.discard(row.account)
    return free


def _rightly_signed(row: Row) -> bool:
    ruling = row.ruling
    return ruling is not None and signed(ruling.outcome, ruling.digest, row.key or "", row.signature or "")


def cases(rows: Sequence[Row]) -> list[Case]:
    """Every appeal, in the order in which they came in. A ruling ends the oldest open appeal of its account."""
    found: list[Case] = []
    waiting: dict[str, list[int]] = {}
    for row in rows:
        if row.ruling is None:
            waiting.setdefault(row.pseudonym, []).append(len(found))
            found.append(Case(row.account or row.pseudonym, row.campaign, row.at))
            continue
        ruling = row.ruling
        who = row.account or row.pseudonym
        case = Case(who, row.campaign, ruling.received, ruling.at, ruling.outcome, ruling.code)
        mine = waiting.get(row.pseudonym, [])
        if mine:
            found[mine.pop(0)] = case
        else:
            found.append(case)
    return sorted(found, key=lambda case: case.received)


def receive(path: Path, account: str, campaign: str | None, names: Pseudonyms, at: datetime) -> Row:
    """Note that an appeal came in: from then on its time counts."""
    _zoned(at)
    return _append(path, names, "receive", account, campaign, at)


def decide(
    path: Path,
    account: str,
    *,
    campaign: str | None,
    outcome: Outcome,
    code: str,
    note: str,
    results: str,
    evidence_until: str,
    names: Pseudonyms,
    signer: Signer,
    at: datetime,
    received: datetime | None = None,
) -> Row:
    """Decide an appeal. `received`: where no receipt was noted; `at` if neither is known.

    UsageError for an unknown code or an empty note; DecisionError where the account is free already, or where an
    account that was freed is to be bound again on evidence that is not newer than what freed it.
    """
    _zoned(at)
    if code not in CODES[outcome]:
        raise UsageError(
            f"{code!r} is no reason for {outcome!r}", hint=f"one of: {', '.join(CODES[outcome])}"
        )
    if not note.strip() or len(note.encode("utf-8", "replace")) > MOST_NOTE_BYTES:
        raise UsageError(
            "the note is empty or longer than 64 KiB",
            hint="say what was looked at, and why it was decided so",
        )
    rows = read_appeals(path)
    open_since = next((c.received for c in cases(rows) if c.account == account and c.decided is None), None)
    came = open_since or received or at
    _zoned(came)
    if came > at:
        raise DecisionError("the appeal would be decided before it came in", hint="check --received and --at")
    ruling = Ruling(
        account=names.of("account", account),
        campaign=campaign,
        outcome=outcome,
        code=code,
        note=names.digest("note", note.encode("utf-8", "replace")).hex(),
        results=results,
        evidence_until=evidence_until,
        received=came,
        at=at,
    )
    return _append(path, names, "decide", account, campaign, at, ruling, note, signer)


def _zoned(at: datetime) -> None:
    if at.tzinfo is None:
        raise DecisionError("the times of an appeal need a time zone")


def _append(
    path: Path,
    names: Pseudonyms,
    did: Literal["receive", "decide"],
    account: str,
    campaign: str | None,
    at: datetime,
    ruling: Ruling | None = None,
    note: str = "",
    signer: Signer | None = None,
) -> Row:
    with alone(path, "the appeals"):
        rows = read_appeals(path)
        if ruling is not None:
            _may(rows, account, ruling, Where(path.name))
        before = head_of(rows)
        row = Row(
            number=len(rows),
            before=before,
            did=did,
            at=at,
            account=account,
            pseudonym=names.of("account", account),
            campaign=campaign,
            ruling=ruling,
            note=note,
            key=None if signer is None else signer.key,
            signature=None
            if signer is None or ruling is None
            else signer.sign(ruling.outcome, ruling.digest),
            blind=names.digest("row", f"{before} {account}".encode("utf-8", "replace")).hex(),
        )
        row = msgspec.structs.replace(row, hash=row.own_hash)
        write_whole(path, [msgspec.json.encode(r) + b"\n" for r in (*rows, row)], "the appeals")
        return row


def _may(rows: Sequence[Row], account: str, ruling: Ruling, where: Where) -> None:
    """Whether this may be decided now. Asked while nobody else can add a row."""
    last = next((r.ruling for r in reversed(rows) if r.account == account and r.ruling is not None), None)
    if last is None or last.outcome == "upheld":
        return
    if ruling.outcome == "reversed":
        raise DecisionError("the account is free already", where=where)
    newer = ruling.results != last.results and ruling.evidence_until > last.evidence_until
    if not newer or ruling.code != "new_evidence":
        raise DecisionError(
            "an appeal freed this account: only newer evidence can bind it again",
            where=where,
            hint=f"scan a log that goes on after {last.evidence_until[:10]}, look at it, "
            "and give --reason-code new_evidence",
        )
