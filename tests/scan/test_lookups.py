"""What lookup tables change in a scan: who counts as an owner, which text is public, and what the run says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.ingest import open_log
from stillwatch.ingest.lookup import NO_LOOKUPS, Lookups, read_lookups, write_tables
from stillwatch.ingest.lookup.shapes import normal
from stillwatch.scan import scan
from stillwatch.scan.collect import COLUMNS, Collector, Reduced
from stillwatch.scan.context import _published
from stillwatch.scan.units import align
from stillwatch.store.results import encode_findings
from stillwatch.views.base import mix

TEMPLATE = "please grade the following answer against the reference answer and reply with one number"
PUBLIC = "write a short poem about the sea in the style of an old sailor"


def _log(above: Path) -> Path:
    folder = above / "log"
    folder.mkdir()
    rows = []
    for n in range(240):
        who = n % 60
        text = " ".join(f"w{n * 97 + i}x" for i in range(12))
        if who < 16:
            text = PUBLIC if who % 2 else f"{TEMPLATE} {text}"
        rows.append(
            {
                "exchange_id": f"x{n}",
                "ts": f"2026-03-01T{n // 60:02d}:{n % 60:02d}:00Z",
                "account_id": f"a{who}",
                "model": "m",
                "prompt": text,
                "ip": f"198.51.100.{n % 200}" if who < 20 else f"203.0.113.{n % 200}",
            }
        )
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    domains = ["temp.test", "sub.temp.test", "firm.test", "firm.test", "gmail.com", None]
    pq.write_table(
        pa.table({"account_id": [f"a{n}" for n in range(6)], "email_domain": domains}),
        folder / "accounts.parquet",
    )
    return folder


def _reduced(folder: Path, lookups: Lookups, work: Path) -> tuple[Reduced, pa.Table]:
    work.mkdir()
    with open_log([str(folder)], columns=COLUMNS) as log:
        collector = Collector(work, lookups)
        for batch in log.batches():
            collector.add(batch)
        reduced = collector.finish(log.side["accounts"])
        side = log.side["accounts"]
        collector.close()
    return reduced, side


def _lookups(**tables: pa.Table) -> Lookups:
    return Lookups({name: normal(name, table, name) for name, table in tables.items()})


def test_a_throw_away_domain_owns_nobody(tmp_path: Path) -> None:
    reduced, side = _reduced(_log(tmp_path), NO_LOOKUPS, tmp_path / "work")
    mail = pa.table({"domain": ["temp.test"]})
    bare = align(reduced, {"accounts": side})
    known = align(reduced, {"accounts": side}, _lookups(disposable_email_domains=mail))
    places = [reduced.principals.index(f"a{n}") for n in range(6)]
    assert (bare.corporate[places] >= 0).tolist() == [True, True, True, True, False, False]
    assert (known.corporate[places] >= 0).tolist() == [False, False, True, True, False, False]
    assert known.corporate[places[2]] == known.corporate[places[3]]
    assert np.array_equal(bare.mail, known.mail)


def test_an_exit_that_strangers_share_ties_nobody(tmp_path: Path) -> None:
    kinds = pa.table({"cidr": ["198.51.100.0/24", "203.0.113.0/24"], "kind": ["privacy_relay", "cloud"]})
    log = _log(tmp_path)
    bare, side = _reduced(log, NO_LOOKUPS, tmp_path / "bare")
    known, _ = _reduced(log, _lookups(ip_kinds=kinds), tmp_path / "known")
    kind = bare.link.kinds.index("address_block")
    for reduced, blocks in ((bare, 2), (known, 1)):
        assert (reduced.link.key_kind == kind).sum() == blocks
    # Behind a relay an account has no site; a cloud is where its servers are.
    relayed = np.array([int(name[1:]) < 20 for name in known.principals])
    assert ((align(known, {"accounts": side}).block < 0) == relayed).all()
    assert (align(bare, {"accounts": side}).block >= 0).all()


def test_families_of_a_published_prompt_are_public(tmp_path: Path) -> None:
    lookups = _lookups(public_prompts=pa.table({"prompt": [PUBLIC]}))
    reduced, _ = _reduced(_log(tmp_path), lookups, tmp_path / "work")
    families = reduced.prompt_families
    wanted = mix(families.fingerprint, "prompt_family")
    held = np.searchsorted(reduced.form.key_hash, wanted)
    public = _published(reduced, held, len(reduced.form.key_hash))
    texts = np.isin(families.key, lookups.public_postings)
    for family in range(len(families)):
        mine = texts[families.key_family == family]
        assert public[held[family]] == (mine.mean() >= 0.5)
    assert public[held].any()
    assert not public[held].all()


def test_the_run_names_its_tables_and_what_is_missing(tmp_path: Path) -> None:
    log = _log(tmp_path)
    mail = normal("disposable_email_domains", pa.table({"domain": ["temp.test"]}), "f")
    write_tables(tmp_path / "kept", {"disposable_email_domains": mail}, {"disposable_email_domains": "t"})
    lookups = read_lookups(tmp_path / "kept")
    bare, known, again = (
        scan([str(log)], lookups=found).findings for found in (NO_LOOKUPS, lookups, lookups)
    )
    assert bare.run.tables == []
    assert [(table.name, table.rows) for table in known.run.tables] == [("disposable_email_domains", 1)]
    assert encode_findings(known) == encode_findings(again)
    assert known.run.config_digest != bare.run.config_digest
    seen = {sight.detector: (sight.state, sight.reason) for sight in known.run.sight}
    assert seen["table disposable_email_domains"] == ("on", "entries: 1")
    assert seen["table public_prompts"][0] == "blind"
    assert "missing" in seen["table public_prompts"][1]
