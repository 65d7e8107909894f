"""What goes into a fingerprint: a confirmed campaign's own wording, and nothing that exposes a few or a bystander."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.evidence.intel.fingerprints import (
    LEAST,
    SIZES,
    Wording,
    fingerprint,
    fingerprints_of,
    hashes_of,
)
from stillwatch.scan.partner import DECISIVE
from stillwatch.schema.errors import UsageError
from stillwatch.schema.intel import HASH_HEX, HASHED_AFTER, LEAST_HASHES, SHARED_LEVEL, rounded_down
from stillwatch.store.pseudonyms import Pseudonyms
from stillwatch.store.results import read_findings
from stillwatch.views.families import selection_level
from tests.evidence.intel.conftest import SECRET

NAMES = Pseudonyms("0a0a0a0a", "fingerprint", SECRET)
NOTHING = np.zeros(0, np.uint64)
APART = np.arange(1000)


def wording(count: int = 200, holders: int = 10, seed: int = 1) -> Wording:
    postings = np.random.default_rng(seed).integers(1, 2**64, count, np.uint64)
    return Wording("prompt", postings, np.arange(holders), ["reasoning"])


def campaign_of(results: Path) -> str:
    return next(g.id for g in read_findings(results).groups if g.verdict == "campaign")


def test_hashes_are_short_keyed_ones_of_one_posting_in_four() -> None:
    own = wording()
    made = fingerprint([own], APART, NAMES, NOTHING)
    assert made is not None
    assert (made.level, made.least, made.key_id) == (SHARED_LEVEL, LEAST, "0a0a0a0a")
    allowed = own.postings[selection_level(own.postings) >= SHARED_LEVEL]
    whole = {NAMES.digest("posting", int(p).to_bytes(8, "little")).hex()[:HASH_HEX] for p in allowed}
    assert set(made.hashes) <= whole
    assert made.hashes == sorted(set(made.hashes))
    assert len(made.hashes) in SIZES
    assert NAMES.prefix("posting") == HASHED_AFTER


@pytest.mark.parametrize(("holders", "made"), [(4, False), (5, True)])
def test_fewer_than_five_accounts_are_never_shared(holders: int, made: bool) -> None:
    assert (fingerprint([wording(holders=holders)], APART, NAMES, NOTHING) is not None) is made


def test_accounts_of_one_entity_are_never_shared() -> None:
    entity = np.zeros(1000, np.int64)
    assert fingerprint([wording()], entity, NAMES, NOTHING) is None
    entity[3] = 1
    found = fingerprint([wording()], entity, NAMES, NOTHING)
    assert found is not None
    assert (found.accounts, found.entities) == (10, 2)


def test_published_text_is_left_out_posting_by_posting() -> None:
    own = wording()
    assert fingerprint([own], APART, NAMES, np.sort(own.postings)) is None
    half = np.sort(own.postings[:100])
    made = fingerprint([own], APART, NAMES, half)
    assert made is not None
    known = {f"{h:0{HASH_HEX}x}" for h in hashes_of(NAMES, half).tolist()}
    assert not known & set(made.hashes)


def test_too_little_wording_makes_no_fingerprint() -> None:
    assert fingerprint([wording(LEAST_HASHES - 1)], APART, NAMES, NOTHING) is None
    short = fingerprint([wording(LEAST_HASHES)], APART, NAMES, NOTHING)
    assert short is not None
    assert short.level == 0


def test_what_most_members_hold_comes_before_what_stood_in_the_slots() -> None:
    template, slots = wording(60, 20), wording(60, 6, seed=2)
    made = fingerprint([template, slots], APART, NAMES, NOTHING)
    assert made is not None
    first = {f"{h:0{HASH_HEX}x}" for h in hashes_of(NAMES, template.postings).tolist()}
    assert set(made.hashes) <= first


def test_counts_are_rounded_down() -> None:
    assert [rounded_down(n) for n in (0, 1, 4, 5, 9, 10, 49, 50, 999)] == [0, 1, 2, 5, 5, 10, 20, 50, 500]


def test_a_campaign_of_real_results_has_fingerprints_without_any_text(scanned: tuple[Path, Path]) -> None:
    results = scanned[1]
    made = [
        f
        for g in read_findings(results).groups
        if g.verdict == "campaign"
        for f in fingerprints_of(results, g.id, NAMES)
    ]
    assert made
    assert all(f.accounts >= 5 and f.entities >= 2 for f in made)
    assert fingerprints_of(results, campaign_of(results), NAMES) == fingerprints_of(
        results, campaign_of(results), NAMES
    )


def test_only_a_confirmed_campaign_is_shared(scanned: tuple[Path, Path]) -> None:
    groups = read_findings(scanned[1]).groups
    other = next(g.id for g in groups if g.verdict != "campaign")
    for name in (other, "g-000000000000"):
        with pytest.raises(UsageError):
            fingerprints_of(scanned[1], name, NAMES)


def test_a_campaign_by_a_partners_word_is_not_shared_back(scanned: tuple[Path, Path], tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(scanned[1], results)
    name = campaign_of(results)
    plain = json.loads((results / "findings.json").read_text())
    group = next(g for g in plain["groups"] if g["id"] == name)
    group["evidence"].append({"kind": "PARTNER", "signal": DECISIVE, "bits": 0.0, "text": "acme", "keys": []})
    (results / "findings.json").write_text(json.dumps(plain))
    with pytest.raises(UsageError, match="echo"):
        fingerprints_of(results, name, NAMES)


def test_wording_that_a_customer_of_ours_uses_is_not_shared(
    scanned: tuple[Path, Path], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    shutil.copytree(scanned[1], results)
    path = results / "scoring_accounts.parquet"
    table = pq.read_table(path)
    excused = pa.array([True] * table.num_rows)
    pq.write_table(
        table.set_column(table.schema.get_field_index("excused"), table.schema.field("excused"), excused),
        path,
    )
    assert fingerprints_of(results, campaign_of(results), NAMES) == []
