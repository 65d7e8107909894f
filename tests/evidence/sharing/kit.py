"""A campaign as it leaves, made by hand; results folders to share from; and the command as a person runs it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from stillwatch.campaign.techniques import CATALOGUE
from stillwatch.cli import main
from stillwatch.evidence.sharing.outgoing import Listed, Outgoing, Shown
from stillwatch.evidence.sharing.terms import terms
from stillwatch.schema.intel import FamilyFingerprint
from stillwatch.schema.results import ACCOUNT_ROWS
from stillwatch.schema.scoring import nothing_scored
from stillwatch.store.pseudonyms import KeyRing
from stillwatch.store.results import Results, write_results

CAMPAIGN = "g-0123456789ab"
TERMS = terms("amber", 80, datetime(2027, 1, 1), sharer="Example AI")


def record() -> Outgoing:
    """Everything that a record can have, with numbers that mean nothing."""
    prompt = FamilyFingerprint(
        key_id="0a1b2c3d", part="prompt", hashes=[f"{n:05x}" for n in range(9, 90, 9)], least=0.35, accounts=50,
        entities=20, capabilities=["coding"],
    )  # fmt: skip
    system = msgspec.structs.replace(prompt, part="system", accounts=20, entities=10, capabilities=[])
    return Outgoing(
        campaign="campaign-0a1b2c3d-aaaabbbbccccddddeeeeffff22",
        partner="b.example",
        terms=TERMS,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        modified=datetime(2026, 1, 15, tzinfo=UTC),
        valid_from=datetime(2026, 1, 15, tzinfo=UTC),
        first_day=datetime(2026, 1, 1, tzinfo=UTC),
        last_day=datetime(2026, 1, 14, tzinfo=UTC),
        accounts=50,
        exchanges=2000,
        claims=("coordinated", "one_director", "harvest_like"),
        capabilities=("coding", "agents_tools"),
        techniques=(
            Shown(CATALOGUE["AML.T0021"], "Accounts were made in runs that chance does not explain."),
            Shown(CATALOGUE["AML.T0024.002"], "Requests are what a harvest looks like."),
            Shown(CATALOGUE["T1585"], "Accounts were made in runs that chance does not explain."),
            Shown(CATALOGUE["T1090.002"], "Most accounts connect from one small stock of address blocks."),
        ),
        fingerprints=(prompt, system),
        listed=(
            Listed("account-0a1b2c3d-aaaa", "campaign_core"),
            Listed("account-0a1b2c3d-bbbb", "campaign_recruit"),
        ),
        action="throttle",
        action_expires=datetime(2026, 2, 1, tzinfo=UTC),
        revoked=False,
        version="9.9.9",
    )


def folder(path: Path, sample: Callable[..., Results], accounts: int = 23, **text: Any) -> Path:
    """A results folder whose campaign has `accounts` accounts, `acct-0` and on."""
    results = sample(**text)
    row = results.accounts.to_pylist()[0]
    rows = [
        row | {"account_id": f"acct-{n}", "role": "core" if n % 3 else "recruit"} for n in range(accounts)
    ]
    groups = [
        msgspec.structs.replace(results.findings.groups[0], accounts=accounts),
        *results.findings.groups[1:],
    ]
    made = Results(
        msgspec.structs.replace(results.findings, groups=groups),
        pa.Table.from_pylist(rows, ACCOUNT_ROWS),
        results.streams, results.families, results.profiles, results.waterfall, scoring=nothing_scored(),
    )  # fmt: skip
    write_results(path, made)
    return path


def ring(path: Path, *partners: str) -> KeyRing:
    """A ring whose key for `fingerprint` was agreed on with each partner."""
    keys = KeyRing.create(path, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    for number, partner in enumerate(partners):
        keys.agree("fingerprint", partner, bytes([number]) * 32)
        keys.agree("share", partner, bytes([100 + number]) * 32)
    return keys


def run(capsys: pytest.CaptureFixture[str], *words: object, fails: int = 0) -> str:
    """What the command prints; what it says on the other channel if it is to fail with `fails`."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    said = capsys.readouterr()
    assert (stop.value.code or 0) == fails, said.err
    return said.err if fails else said.out
