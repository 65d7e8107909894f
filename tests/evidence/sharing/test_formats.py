"""Each format: golden files, its own validator or reader, terms in all of them, and what is taken back.

Write the golden files again with STILLWATCH_GOLDEN=write.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import stix2
from hypothesis import given, settings
from hypothesis import strategies as st
from py_ocsf_models.events.findings.detection_finding import DetectionFinding
from pymisp import MISPEvent
from stix2validator import ValidationOptions, validate_instance

from stillwatch.campaign.techniques import CATALOGUE
from stillwatch.evidence.sharing import FORMATS, TLP
from stillwatch.evidence.sharing.misp import FINGERPRINT_COMMENT, galaxy_tag
from stillwatch.evidence.sharing.ocsf import schema
from stillwatch.evidence.sharing.outgoing import Outgoing, Shown, fingerprint_id
from stillwatch.evidence.sharing.stix import FAMILY_EXTENSION, stix
from stillwatch.evidence.sharing.terms import terms
from stillwatch.schema.errors import MissingExtraError
from stillwatch.schema.intel import FamilyFingerprint
from tests.evidence.sharing.kit import record

GOLDEN = Path(__file__).parent / "golden"
SUFFIX = {"csv": "csv", "decisions": "jsonl"}
OPTIONS = ValidationOptions(version="2.1", strict=False, enforce_refs=True)
TAKEN_BACK = replace(record(), revoked=True, modified=datetime(2026, 1, 20, 8, tzinfo=UTC))


@pytest.mark.parametrize("form", FORMATS)
def test_the_file_is_the_reviewed_one(form: str) -> None:
    path = GOLDEN / f"{form}.{SUFFIX.get(form, 'json')}"
    made = FORMATS[form].write(record())
    if os.environ.get("STILLWATCH_GOLDEN") == "write":
        path.write_bytes(made)
    assert made == path.read_bytes()


@pytest.mark.parametrize("form", FORMATS)
def test_every_file_carries_its_terms_and_its_maker(form: str) -> None:
    text = FORMATS[form].write(record()).decode()
    assert "amber" in text.lower()
    assert "80" in text
    expiry = "1798761600000" if form == "ocsf" else "2027-01-01T00:00:00"
    assert (expiry if form != "decisions" else "2026-02-01T00:00:00Z") in text
    assert "9.9.9" in text


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_taken_back_says_so(form: str) -> None:
    data = FORMATS[form].write(TAKEN_BACK)
    plain = json.loads(data) if form not in SUFFIX else None
    if form == "stix":
        before = {o["id"] for o in _objects(record())}
        mine = [o for o in _objects(TAKEN_BACK) if o["type"] not in ABOUT]
        assert {o["id"] for o in mine} <= before
        assert all(o["revoked"] and o["modified"] == "2026-01-20T08:00:00.000Z" for o in mine)
        assert all(o["created"] == "2026-01-01T00:00:00.000Z" for o in mine)
    elif form == "misp":
        event = MISPEvent()
        event.load(data.decode())
        assert all(attribute.deleted for attribute in event.attributes)
        assert all(a["deleted"] and not a["to_ids"] for a in plain["Event"]["Attribute"])
        assert {"name": 'stillwatch:state="withdrawn"'} in plain["Event"]["Tag"]
        before_uuids = [a["uuid"] for a in json.loads(FORMATS[form].write(record()))["Event"]["Attribute"]]
        assert [a["uuid"] for a in plain["Event"]["Attribute"]] == before_uuids
    elif form == "ocsf":
        jsonschema.validate(plain, schema())
        assert (plain["activity_name"], plain["status"], plain["is_alert"]) == ("Close", "Suppressed", False)
        assert plain["osint"][0]["labels"] == ["withdrawn"]
    elif form == "navigator":
        assert not any(t["enabled"] or t["score"] for t in plain["techniques"])
        assert {"name": "state", "value": "withdrawn"} in plain["metadata"]
    elif form == "csv":
        assert {row["state"] for row in csv.DictReader(io.StringIO(data.decode()))} == {"withdrawn"}
    else:
        rows = [json.loads(line) for line in data.splitlines()]
        assert {(row["state"], row["action"]) for row in rows} == {("withdrawn", "none")}
        assert {row["reason"] for row in rows[1:]} == {"withdrawn"}
    assert b"Taken back: do not rely on" in data or form in SUFFIX


@pytest.mark.parametrize(("form", "module"), [("stix", "stix2"), ("misp", "pymisp")])
def test_without_the_extra_the_install_line_is_named(
    form: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=module) as stop:
        FORMATS[form].write(record())
    assert "pip install 'stillwatch[sharing]'" in str(stop.value)
    for other in FORMATS.values():
        if other.name not in ("stix", "misp"):
            other.write(record())


# STIX

ABOUT = ("identity", "marking-definition", "extension-definition")


def _objects(out: Outgoing) -> list[dict[str, Any]]:
    return list(json.loads(stix(out))["objects"])


@st.composite
def records(draw: st.DrawFn) -> Outgoing:
    """Any record that can leave."""
    base = record()
    shown = draw(st.lists(st.sampled_from(sorted(CATALOGUE)), unique=True, max_size=6))
    prints = [
        msgspec.structs.replace(
            base.fingerprints[0],
            part=part,
            hashes=sorted(
                f"{n:05x}" for n in draw(st.sets(st.integers(0, 2**20 - 1), min_size=8, max_size=12))
            ),
            accounts=draw(st.sampled_from([5, 10, 20, 1000])),
            capabilities=draw(st.lists(st.sampled_from(["coding", "data"]), unique=True)),
        )
        for part in draw(st.lists(st.sampled_from(["prompt", "system"]), unique=True))
    ]
    sharer = draw(st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=20))
    return replace(
        base,
        terms=terms(
            draw(st.sampled_from(TLP)), draw(st.integers(0, 100)), datetime(2028, 5, draw(st.integers(1, 31))),
            None, sharer,
        ),
        accounts=draw(st.sampled_from([0, 5, 200])),
        exchanges=draw(st.sampled_from([0, 1, 5, 2_000_000])),
        claims=tuple(draw(st.lists(st.sampled_from(base.claims), unique=True))),
        capabilities=tuple(draw(st.lists(st.sampled_from(base.capabilities), unique=True))),
        techniques=tuple(Shown(CATALOGUE[id], "Seen.") for id in shown),
        fingerprints=tuple(prints),
        revoked=draw(st.booleans()),
    )  # fmt: skip


@settings(max_examples=10, deadline=None)
@given(records())
def test_a_consumer_that_knows_no_extension_reads_the_whole_bundle(out: Outgoing) -> None:
    data = stix(out).decode()
    bundle = stix2.parse(data, allow_custom=False)
    kinds = [found.type for found in bundle.objects]
    for kind in ("campaign", "grouping", "sighting", "note"):
        assert kinds.count(kind) == 1
    assert kinds.count("indicator") == len(out.fingerprints)
    found = validate_instance(json.loads(data), OPTIONS)
    assert found.is_valid, found.errors
    # Deterministic ids are UUIDv5, and pages of techniques have no hash; the standard asks for no more (SHOULD).
    assert {str(w).split("{")[1][:3] for w in found.warnings} <= {"103", "302"}
    ids = [o["id"] for o in json.loads(data)["objects"]]
    assert len(ids) == len(set(ids))
    assert all(
        o["object_marking_refs"] == [ids[0]] for o in json.loads(data)["objects"] if o["type"] not in ABOUT
    )


def test_fingerprints_are_where_a_partner_looks_for_them() -> None:
    out = record()
    found = [o for o in _objects(out) if o["type"] == "indicator"]
    back = [
        msgspec.convert(plain, FamilyFingerprint)
        for o in found
        for plain in o["extensions"][FAMILY_EXTENSION]["fingerprints"]
    ]
    assert tuple(back) == out.fingerprints
    assert [o["pattern"] for o in found] == [
        f"[x-stillwatch-prompt-family:fingerprint = '{fingerprint_id(f)}']" for f in out.fingerprints
    ]
    assert {o["valid_until"] for o in found} == {"2027-01-01T00:00:00Z"}


def test_ids_are_the_partner_s_and_the_campaign_s_own() -> None:
    other = replace(record(), campaign="campaign-ffffffff-aaaabbbbccccddddeeeeffff22")
    one, two = ({o["id"] for o in _objects(out) if o["type"] not in ABOUT} for out in (record(), other))
    assert not one & two
    later = replace(record(), accounts=200, modified=datetime(2026, 3, 1, tzinfo=UTC))
    assert {o["id"] for o in _objects(later)} == {o["id"] for o in _objects(record())}


# MISP


def test_misp_reads_the_event_back() -> None:
    out = record()
    event = MISPEvent()
    event.load(FORMATS["misp"].write(out).decode())
    assert event.date == out.first_day.date()
    assert "tlp:amber" in {tag.name for tag in event.tags}
    assert event.Orgc.name == "Example AI"
    prints = [a for a in event.attributes if a.comment.startswith(FINGERPRINT_COMMENT)]
    assert tuple(msgspec.json.decode(a.value, type=FamilyFingerprint) for a in prints) == out.fingerprints
    assert [a.comment for a in event.attributes if a.to_ids] == [a.comment for a in prints]
    assert not event.objects
    assert "honest people use the same wording" in event.event_reports[0].content


def test_galaxy_tags_name_clusters_that_there_are() -> None:
    clusters = files("pymispgalaxies") / "data" / "misp-galaxy" / "clusters"
    known = {
        f'misp-galaxy:{name}="{value["value"]}"'
        for name in ("mitre-atlas-attack-pattern", "mitre-attack-pattern")
        for value in json.loads((clusters / f"{name}.json").read_text())["values"]
    }
    after = {'misp-galaxy:mitre-atlas-attack-pattern="AI Service Proxies"'}
    after.add('misp-galaxy:mitre-atlas-attack-pattern="LLM Prompt Crafting"')
    assert {galaxy_tag(Shown(entry, "")) for entry in CATALOGUE.values()} - known == after


# OCSF


@settings(max_examples=10, deadline=None)
@given(records())
def test_the_finding_follows_the_schema_and_another_program_s_model(out: Outgoing) -> None:
    data = FORMATS["ocsf"].write(out)
    jsonschema.validate(json.loads(data), schema())
    DetectionFinding.model_validate_json(data)


def _without(plain: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "unknown attribute", plain | {"prompt": "x"}
    yield "class", plain | {"class_uid": 2001}
    for name in ("time", "metadata", "finding_info", "type_uid", "osint"):
        yield name, {key: value for key, value in plain.items() if key != name}
    for change in ({"tlp": "PINK"}, {"type_id": 98}, {"expiration_time": "soon"}):
        yield str(change), plain | {"osint": [plain["osint"][0] | change]}


def test_the_schema_refuses_what_is_wrong() -> None:
    jsonschema.Draft202012Validator.check_schema(dict(schema()))
    checker = jsonschema.Draft202012Validator(schema())
    plain = json.loads(FORMATS["ocsf"].write(record()))
    for what, wrong in _without(plain):
        assert list(checker.iter_errors(wrong)), what


# Lists


def test_the_lists_can_be_read_line_by_line() -> None:
    out = record()
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"].write(out).decode(), newline="")))
    assert [row["kind"] for row in rows] == [
        "campaign", "fingerprint", "fingerprint", *["ATLAS 5.6.1"] * 2, *["ATT&CK 17.1"] * 2
    ]  # fmt: skip
    assert rows[1]["hashes"].split(" ") == out.fingerprints[0].hashes
    head, *listed = [json.loads(line) for line in FORMATS["decisions"].write(out).splitlines()]
    assert (head["whole"], head["accounts"]) == (True, 2)
    assert [row["account"] for row in listed] == ["account-0a1b2c3d-aaaa", "account-0a1b2c3d-bbbb"]
    assert {row["action"] for row in listed} == {"throttle"}


def test_an_id_that_a_spreadsheet_would_run_or_that_breaks_lines_stays_one_value() -> None:
    evil = ['=HYPERLINK("http://x")', 'a"\n{"account": "b"}', "\U0001f600\u2028", ""]
    rows = tuple(replace(record().listed[0], account=name) for name in evil)
    lines = FORMATS["decisions"].write(replace(record(), listed=rows)).decode("utf-8", "strict").split("\n")
    assert [json.loads(line)["account"] for line in lines[1:-1]] == evil
