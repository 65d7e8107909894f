"""Partners' fingerprints at the guard: a tag and a reason, never an action, and no bit of membership changes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from stillwatch.evidence.intel.fingerprints import fingerprints_of
from stillwatch.guard import Guard, load
from stillwatch.guard.heed import heed
from stillwatch.scan.partner import Told
from stillwatch.store.pseudonyms import Pseudonyms
from stillwatch.store.results import read_findings
from stillwatch.store.told import keyed
from tests.guard.conftest import SECRET, Scanned

NEVER_US = 1 << 60


def told_of(
    demo: Scanned, partner: str = "acme", until_us: int = NEVER_US, secret: bytes = bytes(32)
) -> list[Told]:
    """The demo's campaigns as a partner would report them."""
    names = Pseudonyms("0a0a0a0a", "fingerprint", secret)
    found = []
    for group in read_findings(demo.results).groups:
        for f in fingerprints_of(demo.results, group.id, names) if group.verdict == "campaign" else []:
            hashes = np.array([int(h, 16) for h in f.hashes], np.uint64)
            found.append(
                Told(
                    partner,
                    group.id,
                    f.part,
                    hashes,
                    f.needed(),
                    "amber",
                    80,
                    until_us,
                    keyed(names),
                    f.level,
                )
            )
    return found


@pytest.fixture(scope="module")
def path(demo: Scanned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    told = told_of(demo) + told_of(demo, "beta", secret=b"b" * 32)
    return demo.made(tmp_path_factory.mktemp("heed") / "snapshot", intel=told)


def test_requests_of_the_operation_get_a_tag_and_nobodys_action_or_bits_change(
    demo: Scanned, path: Path
) -> None:
    plain, heeding = Guard(demo.snapshot), Guard(load(path, SECRET))
    members = {row["account_id"] for row in demo.members()}
    tagged = {True: 0, False: 0}
    seen = {True: 0, False: 0}
    for number, subject in enumerate(demo.subjects()):
        inside = subject.account in members
        if (number >= 1_500 and not inside) or seen[True] >= 500:
            continue
        before, after = plain.decide(subject), heeding.decide(subject)
        seen[inside] += 1
        tagged[inside] += bool(after.partners)
        assert plain.bits(subject) == heeding.bits(subject)
        if after.partners:
            assert after.partners == ("acme", "beta")
        same = msgspec.structs.replace(after, partners=(), reason=before.reason)
        assert same == before
        if after.reason != before.reason:
            assert (after.reason, before.reason, after.action) == ("partner_wording", before.reason, "allow")
            assert before.reason in ("nothing_known", "no_rule")
    assert tagged[True] > 0.05 * seen[True]
    assert tagged[False] < 0.005 * seen[False]


def test_a_snapshot_without_indicators_compares_nothing(demo: Scanned) -> None:
    guard = Guard(demo.snapshot)
    assert guard.sight._partners is None
    assert demo.snapshot.meta.intel == ()


def test_what_has_expired_gives_no_tag(demo: Scanned, tmp_path: Path) -> None:
    old = told_of(demo, until_us=demo.snapshot.meta.first_us)
    guard = Guard(load(demo.made(tmp_path / "snapshot", intel=old), SECRET))
    members = {row["account_id"] for row in demo.members()}
    mine = [s for s in demo.subjects() if s.account in members][:300]
    assert not any(guard.decide(s).partners for s in mine)


def test_the_arrays_do_not_depend_on_the_order(demo: Scanned) -> None:
    told = told_of(demo) + told_of(demo, "beta", secret=b"b" * 32)
    (one, arrays), (two, others) = heed(told), heed(told[::-1])
    assert one == two
    assert all(np.array_equal(arrays[name], others[name]) for name in arrays)
