"""Campaigns that are not the usual ones: behind a gateway, found by wording and links together, many inputs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.evidence.bundle import archive
from stillwatch.evidence.bundle.accounts import accounts, named_accounts
from stillwatch.evidence.bundle.build import build
from stillwatch.evidence.bundle.counts import Measured
from stillwatch.evidence.bundle.rows import _mine, passed
from stillwatch.evidence.bundle.verify import check
from stillwatch.ingest import open_log
from stillwatch.schema.errors import OutputError, ResultError
from stillwatch.schema.results import ACCOUNT_ROWS
from stillwatch.schema.tables import SEPARATOR
from stillwatch.store.pseudonyms import Pseudonyms
from tests.conftest import sample_results
from tests.evidence.bundle.conftest import AT, SIGNER, Made, committed

NAMES = Pseudonyms("0" * 8, "bundle", b"k" * 32)


def test_a_campaign_that_was_not_measured_key_by_key(made: Made, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(made.results, results)
    for name in ("scoring_measured", "scoring_profiles"):
        table = pq.read_table(results / f"{name}.parquet")
        pq.write_table(table.slice(0, 0), results / f"{name}.parquet", store_schema=False)
    campaign = made.campaigns[-1]
    audit, decisions, noted = committed(tmp_path, results, campaign)
    source = replace(made.source, results=results, audit=audit, decisions=decisions, noted=[noted])
    shown, left = check(build(campaign, source, made.names, SIGNER, AT))
    assert shown["bits"] == "no bits to compute again"
    assert any("was not measured key by key" in text for text in left)
    assert "2 decisions" in shown["decisions"]


def gateway_rows() -> list[dict[str, Any]]:
    """A member and an honest user of one gateway, its own calls, and somebody else; conversations that pass."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    users = [("gw", "u1"), ("gw", "u2"), ("gw", None), ("solo", None), ("other", None)]
    return [
        {
            "exchange_id": f"e{n}", "ts": at, "account_id": account, "model": "m", "prompt": "hello there",
            "gateway_id": "g" if account == "gw" else None, "end_user_id": user,
            "end_user_trust": "verified" if user else None, "turn_hashes": turns,
            "blocked_by": blocked,
        }
        for n, ((account, user), turns, blocked) in enumerate(
            [(user, [5, 6 + n], None) for n, user in enumerate(users)]
            + [
                (("solo", None), [5, 9, 10], None),
                (("other", None), [5, 6, 7], None),
                (("solo", None), [1], "stillwatch:x"),
            ]
        )
    ]  # fmt: skip


def test_an_honest_user_of_a_gateway_is_not_its_other_user(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row, default=str) + "\n" for row in gateway_rows()))
    member = pa.array(["gw" + SEPARATOR + "u1", "solo"])
    with open_log([str(path)]) as log:
        found = [
            (row["account_id"], row["exchange_id"])
            for b in log.batches()
            for row in _mine(b, member).to_pylist()
        ]
        states = passed(log, member)
    # What Stillwatch refused itself is no evidence.
    assert found == [("gw\x1fu1", "e0"), ("solo", "e3"), ("solo", "e5")]
    # u1 and solo hold state 5 both; nobody named goes on from one that another holds but solo, from 5.
    assert states["held"] == {5}
    with open_log([str(path)]) as log:
        assert passed(log, pa.array(["solo"]))["held"] == set()


def test_users_behind_a_gateway_are_told_apart(tmp_path: Path) -> None:
    sample = sample_results()
    row = sample.accounts.to_pylist()[0]
    rows = [
        row | {"account_id": "gw", "bits_time": time, "e_bits": bits}
        for time, bits in ((0.5, 7.0), (-0.25, 3.0))
    ]
    rows.append(row | {"account_id": "solo"})
    results = replace(sample, accounts=pa.Table.from_pylist(rows, schema=ACCOUNT_ROWS))
    measured = [
        Measured(0, "gw\x1fu1", 0, 0.5),
        Measured(1, "gw\x1fu2", 1, -0.25),
        Measured(2, "solo", 2, -0.5),
    ]
    named = named_accounts(results, row["campaign_id"], measured)
    assert {principal: found["e_bits"] for principal, found in named} == {
        "gw\x1fu1": 7.0,
        "gw\x1fu2": 3.0,
        "solo": 6.25,
    }
    members = accounts(named, measured, NAMES)["members"]
    assert len({member["account"] for member in members}) == 3
    assert NAMES.of("account", "gw\x1fu1") in {member["account"] for member in members}


def test_a_partner_whose_indicator_counted_is_not_in_the_bundle(made: Made, tmp_path: Path) -> None:
    results, campaign = tmp_path / "results", made.campaigns[-1]
    shutil.copytree(made.results, results)
    found = json.loads((results / "findings.json").read_bytes())
    text = "canary-partner reports this wording (TLP:RED, confidence 83 of 100, until 2026-09-01)."
    for group in found["groups"]:
        part = {"kind": "PARTNER", "signal": "partner_decisive", "bits": 0.0, "text": text, "keys": []}
        group["evidence"].append(part)
    (results / "findings.json").write_text(json.dumps(found))
    audit, decisions, noted = committed(tmp_path, results, campaign)
    source = replace(made.source, results=results, audit=audit, decisions=decisions, noted=[noted])
    files = build(campaign, source, made.names, SIGNER, AT)
    check(files)
    for name, data in files.items():
        assert not [word for word in (b"canary", b"TLP:RED", b"83 of 100") if word in data], name
    for name in ("chapters.json", "finding.json", "report.html"):
        assert b"An indicator that a partner shared fits the wording." in files[name], name


def test_nothing_is_written_that_a_verifier_would_refuse(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = made.small
    for name, most, said in (
        ("MOST_FILE", 20_000, "and verifiers take"),
        ("MOST_ALL", 200_000, "the files together"),
        ("MOST_STATEMENT", 1_000, "statement.dsse.json"),
        ("MOST_FILES", 5, "there are 11 files"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(archive, name, most)
            with pytest.raises(OutputError, match=said):
                archive.write(tmp_path / "b.zip", files)
    # What only the verifier counts: the archive's size, and how far a file packs.
    for name, most, said in (("MOST_ARCHIVE", 20_000, "the archive has more"), ("MOST_RATIO", 1, "zip bomb")):
        with monkeypatch.context() as patch:
            patch.setattr(f"stillwatch.evidence.bundle.verify.{name}", most)
            with pytest.raises(OutputError, match=said) as error:
                archive.write(tmp_path / "b.zip", files | {"rows.jsonl": bytes(2 << 20)})
            assert "shorter span" in str(error.value.hint)
    monkeypatch.setattr("stillwatch.evidence.bundle.verify.MOST_STEPS", 20_000)
    with pytest.raises(ResultError, match="too much to be computed") as error:
        build(made.campaigns[-1], made.source, made.names, SIGNER, AT)
    assert "shorter span" in str(error.value.hint)
    assert not (tmp_path / "b.zip").exists()


def test_a_campaign_of_very_many_accounts_shows_as_many_rows_as_there_may_be(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillwatch.evidence.bundle.rows.MOST_ROWS", 7)
    files = build(made.campaigns[-1], made.source, made.names, SIGNER, AT)
    assert files["rows.jsonl"].count(b"\n") == 7
    assert set(files["rows.jsonl"].splitlines()) <= set(made.small["rows.jsonl"].splitlines())
