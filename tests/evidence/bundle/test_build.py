"""What goes into a bundle, what does not, and when there is none."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stillwatch.evidence.bundle import archive
from stillwatch.evidence.bundle.build import build
from stillwatch.evidence.bundle.rows import commitment
from stillwatch.evidence.log import TransparencyLog
from stillwatch.ingest import open_log
from stillwatch.schema.errors import InputError, OutputError, ResultError, UsageError
from stillwatch.store.events import of_results
from stillwatch.store.pseudonyms import Pseudonyms
from stillwatch.store.public import public_group
from stillwatch.store.results import read_results
from tests.evidence.bundle.conftest import AT, SIGNER, Made, committed
from tests.evidence.conftest import KEY, ORIGIN, ticking


def rows_of(files: dict[str, bytes]) -> list[dict[str, object]]:
    return [json.loads(line)["row"] for line in files["rows.jsonl"].splitlines()]


def members_of(made: Made, campaign: str) -> set[str]:
    rows = pq.read_table(made.results / "accounts.parquet").to_pylist()
    return {row["account_id"] for row in rows if row["campaign_id"] == campaign}


def test_the_same_inputs_give_the_same_bytes(made: Made) -> None:
    name = made.campaigns[-1]
    again = build(name, made.source, made.names, SIGNER, AT)
    assert archive.pack(again) == archive.pack(made.files[name])


def test_no_row_is_of_an_account_that_the_finding_does_not_name(made: Made) -> None:
    exchanges = pq.read_table(made.log / "exchanges.parquet").column("account_id").to_pylist()
    for name, files in made.files.items():
        members = members_of(made, name)
        listed = {row["account"] for row in json.loads(files["accounts.json"])["members"]}
        assert listed == {made.names.of("account", member) for member in members}
        assert {row[0] for row in json.loads(files["counts.json"])["accounts"]} == listed
        found = rows_of(files)
        assert found
        for row in found:
            # The log is one Parquet file, whose rows count from 1.
            owner = exchanges[int(str(row["row"])) - 1]
            assert owner in members
            assert row["account"] == made.names.of("account", owner)


def test_rows_are_those_that_the_streams_count(made: Made) -> None:
    """Of the small campaign every row is shown: each account and family as often as the scan counted it."""
    name = made.campaigns[-1]
    streams = pq.read_table(made.results / "streams.parquet").to_pylist()
    wanted = {
        (made.names.of("account", s["account_id"]), made.names.of("key", s["family_id"])): s["exchanges"]
        for s in streams
        if s["campaign_id"] == name
    }
    found = Counter((row["account"], family) for row in rows_of(made.small) for family in row["families"])  # type: ignore[attr-defined]
    assert found == wanted


def test_what_passes_between_accounts_is_shown_under_one_name(made: Made) -> None:
    left: dict[str, set[object]] = {}
    taken: dict[str, set[object]] = {}
    for row in rows_of(made.first):
        for way, state in row["moves"]:  # type: ignore[attr-defined]
            (left if way in ("held", "block_out") else taken).setdefault(state, set()).add(row["account"])
    both = [state for state in left if len(left[state] | taken.get(state, set())) > 1]
    assert len(both) >= 20


def test_a_row_that_is_shown_can_be_opened(made: Made) -> None:
    """Whoever has the log and the key ring computes the commitment again; nobody else can."""
    row = rows_of(made.small)[0]
    with open_log([str(made.log)]) as log:
        digest = log.inputs[0].digest
        for batch in log.batches():
            places = batch.column("raw_ref").field("row").to_pylist()
            if row["row"] in places:
                found = batch.slice(places.index(row["row"]), 1).to_pylist()[0]
                break
    place = f"{digest}:{row['row']}".encode()
    assert commitment(found, place, made.names) == row["raw"]
    assert commitment({**found, "prompt": "another"}, place, made.names) != row["raw"]
    other = Pseudonyms(made.names.key_id, "bundle", b"y" * 32)
    assert commitment(found, place, other) != row["raw"]


def test_nothing_raw_is_in_it(made: Made) -> None:
    exchanges = pq.read_table(
        made.log / "exchanges.parquet", columns=["exchange_id", "ip", "prompt"]
    ).to_pydict()
    owners = pq.read_table(made.log / "accounts.parquet").to_pydict()
    raw = {*exchanges["exchange_id"], *exchanges["ip"]}
    for name in (
        "account_id",
        "email_domain",
        "payment_fp",
        "device_fp",
        "signup_ip",
        "referral",
        "entity_id",
    ):
        raw |= set(owners.get(name, []))
    raw -= {None}
    begins = {" ".join(prompt.split()[:5]) for prompt in exchanges["prompt"] if prompt}
    keys = {row["key"] for row in pq.read_table(made.results / "profiles.parquet").to_pylist()}
    for name, data in made.first.items():
        if name == "verify.py":
            continue
        text = data.decode()
        assert raw.isdisjoint(re.findall(r"[\w.@:-]+", text)), name
        assert keys.isdisjoint(re.findall(r"[0-9a-f]{16}", text)), name
        words = text.split()
        assert begins.isdisjoint(" ".join(words[at : at + 5]) for at in range(len(words))), name
        assert "skeleton" not in text


def test_wording_is_shown_where_it_is_asked_for_by_name(made: Made) -> None:
    files = build(made.campaigns[-1], made.source, made.names, SIGNER, AT, partner="court", show_text=True)
    shown = [family["skeleton"] for family in json.loads(files["finding.json"])["families"]]
    assert any(shown)
    assert "blanked wording" in files["README.txt"].decode()
    assert "for court" in files["report.html"].decode()


def test_numbers_of_few_outsiders_are_not_told(made: Made) -> None:
    groups = json.loads((made.results / "findings.json").read_bytes())["groups"]
    told = 0
    for group in groups:
        public = public_group(group)
        for part, plain in zip(group["evidence"], public["evidence"], strict=True):
            few = part["keys"] and 0 < part["keys"][0]["background_count"] < 5
            told += bool(few)
            assert ("fewer than 5 of" in plain["text"]) == bool(few)
            assert "keys" not in plain
        for before, after in zip(group["shared"], public["shared"], strict=True):
            assert after["background_count"] == (
                None if 0 < before["background_count"] < 5 else before["background_count"]
            )
        assert "families" not in public
    assert told


def test_only_a_campaign_has_a_bundle(made: Made) -> None:
    groups = read_results(made.results).findings.groups
    lead = next(g.id for g in groups if g.verdict != "campaign")
    with pytest.raises(ResultError, match="no campaign: only what is fit for action"):
        build(lead, made.source, made.names, SIGNER, AT)
    with pytest.raises(UsageError, match="no group of that id"):
        build("g-000000000000", made.source, made.names, SIGNER, AT)


def test_what_is_not_in_the_log_has_no_bundle(made: Made, tmp_path: Path) -> None:
    name = made.campaigns[-1]
    with TransparencyLog.create(tmp_path / "log", KEY, ORIGIN, ticking()) as log:
        source = replace(made.source, audit=tmp_path / "log", noted=(), log_key="a.pem")
        with pytest.raises(ResultError, match="lacks the finding and the scan") as error:
            build(name, source, made.names, SIGNER, AT)
        assert error.value.hint == f"stillwatch log take {tmp_path / 'log'} {made.results} --key a.pem"
        log.append_all(of_results(made.results))
        build(name, replace(source, decisions=None), made.names, SIGNER, AT)
        with pytest.raises(ResultError, match="does not hold all decisions"):
            build(made.campaigns[0], source, made.names, SIGNER, AT)
    # Decisions about a campaign are not left out.
    with pytest.raises(ResultError, match="holds decisions about the campaign") as error:
        build(made.campaigns[0], replace(made.source, decisions=None), made.names, SIGNER, AT)
    assert "--decisions" in str(error.value.hint)


def test_other_inputs_than_those_of_the_scan_are_refused(made: Made, tmp_path: Path) -> None:
    table = pq.read_table(made.log / "exchanges.parquet")
    pq.write_table(table.slice(1), tmp_path / "exchanges.parquet")
    with pytest.raises(InputError, match="not the inputs of the scan: 1 of its 1"):
        build(made.campaigns[-1], replace(made.source, inputs=[str(tmp_path)]), made.names, SIGNER, AT)


def test_an_account_id_in_a_reason_stops_it(made: Made, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from stillwatch.store.decisions import Order, Signer, propose, read_decisions
    from stillwatch.store.events import of_decisions

    audit, decisions, _ = committed(tmp_path, made.results, made.campaigns[-1])
    member = sorted(members_of(made, made.campaigns[-1]))[0]
    order = Order(
        campaign=made.campaigns[-1], action="block", policy="0" * 64, expires=AT.replace(month=4), at=AT,
        reason=f"see {member}, please",
    )  # fmt: skip
    propose(decisions, order, Signer(Ed25519PrivateKey.from_private_bytes(b"\5" * 32)))
    with TransparencyLog(audit, KEY) as log:
        log.append_all(of_decisions(read_decisions(decisions)))
    source = replace(made.source, audit=audit, decisions=decisions, noted=())
    with pytest.raises(ResultError, match=r"an account's own id stands in log\.json"):
        build(made.campaigns[-1], source, made.names, SIGNER, AT)


def test_evidence_is_never_replaced(made: Made, tmp_path: Path) -> None:
    archive.write(tmp_path / "b.zip", made.small)
    with pytest.raises(OutputError, match="there is a file already"):
        archive.write(tmp_path / "b.zip", made.small)
