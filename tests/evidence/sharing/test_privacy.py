"""No export has a prompt, an address, a domain, an account id or a hash that anybody could guess in it.

Every format of `FORMATS` is looked through, for every value of a real log and for canaries that were planted.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from stillwatch.evidence.sharing import FORMATS, Request, outgoing
from stillwatch.scan import scan
from stillwatch.store.pseudonyms import KeyRing
from stillwatch.store.results import Results, read_results, results_of, write_results
from tests.evidence.sharing.kit import CAMPAIGN, TERMS, folder, ring

LATE = replace(TERMS, expires=datetime(2030, 1, 1, tzinfo=UTC))
CANARY = "canary7f3a"


def exports(results: Path, keys: KeyRing) -> Iterator[tuple[str, str]]:
    """(format, text) of every campaign: each format, as it stands and taken back, with and without an agreed key."""
    for group in read_results(results).findings.groups:
        if group.verdict != "campaign":
            continue
        for partner in ("b.example", "stranger.example"):
            asked = Request(results, group.id, partner, LATE)
            back = replace(asked, revoked=True, terms=replace(LATE, at=datetime(2029, 1, 1, tzinfo=UTC)))
            for out in (outgoing(asked, keys), outgoing(back, keys)):
                for form in FORMATS.values():
                    yield form.name, form.write(out).decode()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _runs(text: str) -> set[tuple[str, ...]]:
    words = _words(text)
    return {tuple(words[n : n + 5]) for n in range(len(words) - 4)}


def test_nothing_of_a_real_log_is_in_any_export(scanned: tuple[Path, Path], tmp_path: Path) -> None:
    log, results = scanned
    keys = ring(tmp_path / "ring.json", "b.example")
    found = list(exports(results, keys))
    assert {form for form, _ in found} == set(FORMATS)
    assert any("hashes" in text and '"system"' in text for _, text in found), "no fingerprint left at all"
    everything = "\n".join(text for _, text in found).lower()
    tokens = set(re.findall(r"[\w.:@-]+", everything)) | set(re.findall(r"[0-9a-f]{5,}", everything))
    exchanges, accounts = (pq.read_table(log / f"{name}.parquet") for name in ("exchanges", "accounts"))
    secret: set[str] = set()
    for table in (exchanges, accounts):
        for name in (
            "account_id", "entity_id", "email_domain", "ip", "signup_ip", "payment_fp", "device_fp", "referral",
            "conversation_id", "end_user_id", "ja4", "user_agent", "exchange_id",
        ):  # fmt: skip
            if name in table.column_names:
                secret |= {str(v).lower() for v in pc.unique(table.column(name)).to_pylist() if v is not None}
    tables = read_results(results)
    for table, name in (
        (tables.profiles, "key"),
        (tables.families, "family_id"),
        (tables.families, "fingerprint"),
    ):
        secret |= {str(v).lower() for v in table.column(name).to_pylist()}
    secret |= {group.id for group in tables.findings.groups}
    assert len(secret) > 5000
    assert {value for value in secret if len(value) > 3 and value in tokens} == set()
    assert not re.search(r"\b\d{1,3}(\.\d{1,3}){3}\b", everything)
    assert "@" not in everything
    # Five words in a row are nobody's by chance.
    prompts = [
        text or "" for name in ("prompt", "system") for text in pc.unique(exchanges.column(name)).to_pylist()
    ]
    sent = _runs("\n".join(prompts[:: len(prompts) // 2000]))
    assert len(sent) > 20_000
    assert not sent & _runs(everything)


def test_no_free_text_and_no_number_of_a_finding_is_in_any_export(
    sample: Callable[..., Results], tmp_path: Path
) -> None:
    results = folder(tmp_path / "results", sample, 4323, text=f"{CANARY} says 4,321", skeleton=CANARY)
    shown = 0
    for form, text in exports(results, ring(tmp_path / "ring.json", "b.example")):
        shown += 1
        assert CANARY not in text
        assert "acct-" not in text
        assert CAMPAIGN not in text
        numbers = set(re.findall(r"(?<![\w.-])[\d,]*\d(?![\w.-])", text if form != "decisions" else ""))
        assert not numbers & {"4,321", "4323", "4,323", "1080", "1,080", "940", "4992", "4,992", "5000"}
        for key in ("00ff00ff00ff00ff", "0abc0abc0abc0abc", "g-00000000000a"):
            assert key not in text
    assert shown == 2 * 2 * len(FORMATS)


def test_no_export_names_the_partner_whose_indicator_counted(
    sample: Callable[..., Results], tmp_path: Path
) -> None:
    results = folder(tmp_path / "results", sample)
    found = json.loads((results / "findings.json").read_bytes())
    text = f"{CANARY}-partner reports this wording (TLP:RED, confidence 80 of 100, until 2026-09-01)."
    part = {"kind": "PARTNER", "signal": "partner_fingerprint", "bits": 0.0, "text": text, "keys": []}
    for group in found["groups"]:
        group["evidence"].append(part)
    (results / "findings.json").write_text(json.dumps(found))
    assert read_results(results).findings.groups[0].evidence[-1].text == text
    shown = [made for _, made in exports(results, ring(tmp_path / "ring.json", "b.example"))]
    assert len(shown) == 2 * 2 * len(FORMATS)
    assert not [made for made in shown if CANARY in made or "TLP:RED" in made]


def _planted(log: Path, out: Path) -> Path:
    """The log with a canary in every prompt, address, domain and id; who belongs together stays together."""
    out.mkdir()
    for path in sorted(log.glob("*.parquet")):
        table = pq.read_table(path)
        for name in table.column_names:
            values = table.column(name).to_pylist()
            if name in ("account_id", "conversation_id", "exchange_id", "end_user_id"):
                values = [None if v is None else f"{v}-{CANARY}-{name}" for v in values]
            elif name == "email_domain":
                values = [None if v is None else f"{CANARY}.{v}" for v in values]
            elif name in ("prompt", "system"):
                values = [None if v is None else f"{v} {CANARY} {name}" for v in values]
            elif name in ("ip", "signup_ip"):
                # 10.77.0.0/16 and on: blocks stay apart, and none of them was there before.
                blocks: dict[str, int] = {}
                values = [None if v is None else _moved(v, blocks) for v in values]
            else:
                continue
            table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
        pq.write_table(table, out / path.name)
    return out


def _moved(value: str, blocks: dict[str, int]) -> str:
    address = ipaddress.ip_address(value)
    if address.version == 6:
        return f"2001:db8:{CANARY[-4:]}:{int(address) % 65536:x}::1"
    number = int(address) >> 8
    return f"198.{18 + number % 2}.{number // 2 % 256}.{int(address) % 256}"


@pytest.mark.slow
def test_canaries_that_were_planted_in_a_log_reach_no_export(
    scanned: tuple[Path, Path], tmp_path: Path
) -> None:
    log = _planted(scanned[0], tmp_path / "log")
    results = tmp_path / "results"
    write_results(results, results_of(scan([str(log)])))
    groups = read_results(results).findings.groups
    assert any(group.verdict == "campaign" for group in groups)
    assert CANARY in (results / "findings.json").read_text() + str(
        read_results(results).accounts.to_pylist()[0]
    )
    count = 0
    for form, text in exports(results, ring(tmp_path / "ring.json", "b.example")):
        count += 1
        assert CANARY not in text, form
        assert not re.search(r"198\.1[89]\.", text), form
        assert "2001:db8" not in text
    assert count >= 2 * 2 * len(FORMATS)


def test_the_record_has_room_for_nothing_else(sample: Callable[..., Results], tmp_path: Path) -> None:
    """Fields of a fingerprint, the only structure that goes out as it is."""
    from stillwatch.schema.intel import FamilyFingerprint

    assert [f.name for f in msgspec.structs.fields(FamilyFingerprint)] == [
        "key_id", "part", "hashes", "least", "accounts", "entities", "capabilities", "level"
    ]  # fmt: skip
