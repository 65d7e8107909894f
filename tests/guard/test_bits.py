"""Inline and batch: the same snapshot and the same exchanges give the same bits, to the last digit."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwatch.detect import members as mb
from stillwatch.detect.keys import build_index, without
from stillwatch.guard import Guard, Subject
from stillwatch.guard.kernel import find, measure
from stillwatch.guard.sight import Sight
from stillwatch.ingest.lookup import Lookups
from stillwatch.store.results import rounded
from stillwatch.views.base import hash_numbers, hash_one, hash_strings, mix, mix_one
from stillwatch.views.link import AddressBlock, address_block, address_blocks
from tests.guard.conftest import Scanned


@pytest.fixture(scope="module")
def replayed(demo: Scanned) -> Guard:
    guard = Guard(demo.snapshot, history=False)
    guard.warm()
    for subject in demo.subjects():
        guard.decide(subject)
    assert guard.faults == 0
    return guard


def test_a_replayed_log_gives_the_bits_of_its_scan(demo: Scanned, replayed: Guard) -> None:
    rows = demo.members()
    assert len({row["campaign_id"] for row in rows}) >= 2
    for row in rows:
        bits = replayed.bits(Subject(account=row["account_id"]))[row["campaign_id"]]
        scan = row["bits_form"], row["bits_link"], row["bits_time"], row["e_bits"]
        # The results folder holds twelve digits.
        assert tuple(rounded(value) for value in bits) == scan


def test_a_replayed_log_gives_the_streams_of_its_scan(demo: Scanned, replayed: Guard) -> None:
    rows = pq.read_table(demo.results / "streams.parquet").to_pylist()
    names = {c.id for c in demo.snapshot.meta.campaigns}
    scan = {(r["account_id"], r["campaign_id"], r["family_id"]): r["exchanges"] for r in rows}
    scan = {key: count for key, count in scan.items() if key[1] in names}
    assert scan
    found = {
        (account, *stream): count
        for account in {key[0] for key in scan}
        for stream, count in replayed.streams(Subject(account=account)).items()
    }
    assert {key: found.get(key) for key in scan} == scan


def test_going_on_from_the_scan_gives_its_bits_too(demo: Scanned) -> None:
    """What a snapshot knows of each account is what the replay of the log would teach."""
    guard = Guard(demo.snapshot)
    for row in demo.members():
        subject = Subject(account=row["account_id"], refused=True)
        guard.decide(subject)
        assert rounded(guard.bits(subject)[row["campaign_id"]][3]) == row["e_bits"]


def test_refused_requests_are_counted_and_are_no_evidence(demo: Scanned) -> None:
    guard = Guard(demo.snapshot, history=False)
    member = demo.members()[0]["account_id"]
    mine = [s for s in demo.subjects() if s.account == member]
    for subject in mine:
        guard.decide(subject)
    before = guard.bits(mine[0]), guard.streams(mine[0])
    for subject in mine * 3:
        subject.refused = True
        guard.decide(subject)
    assert (guard.bits(mine[0]), guard.streams(mine[0])) == before
    assert guard.refusals == 3 * len(mine)


def test_one_account_at_a_time_is_measured_as_a_scan_measures_many() -> None:
    """Random keys, groups and honest niches; the guard's compiled pass against the scan's functions."""
    rng = np.random.default_rng(5)
    accounts, keys, members = 300, 120, np.arange(40)
    index, base, niches = [], [], []
    for view in range(2):
        rows = np.unique(rng.integers(0, (accounts, keys), (2500, 2)), axis=0).astype(np.int32)
        made = build_index(rows[:, 0], rows[:, 1], np.ones(len(rows), np.int32), accounts, keys)
        index.append(without(made, rng.random(keys) < 0.3))
        base.append(mb.background(index[view], view == 0))
        honest = [mb.profile(index[view], np.sort(rng.choice(accounts, 30, replace=False))) for _ in range(6)]
        niches.append(mb.niches_of(index[view], honest))
    groups = [mb.profile(index[view], members) for view in range(2)]
    bits = {v: mb.log_e(index[v], np.arange(accounts), groups[v], base[v], niches[v])[0] for v in range(2)}
    time = rng.normal(size=accounts)
    total = mb.combine_views({"FORM": bits[0], "LINK": bits[1], "TIME": time})

    first = len(index[0].telling.key)
    place = [np.full(keys, -1) for _ in range(2)]
    for view in range(2):
        place[view][index[view].telling.key] = np.arange(len(index[view].telling.key)) + first * view
    profile = [(place[v][groups[v].key], *mb.likelihoods(groups[v], base[v])) for v in range(2)]
    kept = [at >= 0 for at, _, _ in profile]
    share = np.concatenate([base[v].share[index[v].telling.key] for v in range(2)])
    offsets = np.concatenate([niches[0].offsets, niches[0].offsets[-1] + niches[1].offsets[1:]])
    group, drawn = (np.concatenate([getattr(n, name) for n in niches]) for name in ("niche", "share"))
    begins = np.cumsum([0, *(int(k.sum()) for k in kept)])
    columns = [np.concatenate([part[i][k] for part, k in zip(profile, kept, strict=True)]) for i in range(3)]
    out = np.zeros((1, 4))
    for account in range(accounts):
        mine = [
            part.keys[part.account_offsets[account] : part.account_offsets[account + 1]] + first * v
            for v, part in enumerate(i.telling for i in index)
        ]
        measure(
            np.concatenate(mine).astype(np.int32), len(mine[0]), np.zeros(1, np.int16), np.zeros(1, np.int64),
            time[account : account + 1], share, offsets, group, drawn, begins, columns[0].astype(np.int32),
            columns[1], columns[2], 6, 1, out,
        )  # fmt: skip
        assert out[0].tolist() == [bits[0][account], bits[1][account], time[account], total[account]]


def test_a_value_is_found_wherever_it_stands() -> None:
    rng = np.random.default_rng(9)
    for values in (
        np.sort(rng.integers(0, 2**64, 3000, np.uint64)),
        np.arange(1, 200, 2, dtype=np.uint64),
        np.array([5, 2**64 - 1], np.uint64),
        np.full(1, 2**63, np.uint64),
        np.zeros(0, np.uint64),
        np.sort(rng.integers(0, 2**20, 500, np.uint64)),
    ):
        values = np.unique(values)
        for first, end in ((0, len(values)), (len(values) // 3, 2 * len(values) // 3)):
            inside = values[first:end]
            asked = np.concatenate([values, inside + np.uint64(1), np.array([0, 1, 2**64 - 1], np.uint64)])
            for value in asked:
                at = np.searchsorted(inside, value)
                there = at < len(inside) and inside[at] == value
                assert find(values, first, end, value) == (first + at if there else -1)


@given(st.integers(0, 2**64 - 1), st.text(max_size=40))
def test_one_hash_is_the_hash_of_a_column_of_one(value: int, text: str) -> None:
    assert mix_one(value, "payment") == int(mix(np.array([value], np.uint64), "payment")[0])
    assert mix_one(value, "tools") == int(hash_numbers(pa.array([value], pa.uint64()), "tools")[0])
    clean = text.encode("utf-8", "replace").decode()
    assert hash_one(clean, "device") == int(hash_strings(pa.array([clean]), "device")[0])


@pytest.fixture(scope="module")
def blocks() -> Sight:
    """Sight of a snapshot that knows the blocks of all `ADDRESSES` and of a thousand others."""
    rng = np.random.default_rng(8)
    others = [".".join(str(n) for n in rng.integers(0, 260, 4)) for _ in range(1000)]
    texts = [*ADDRESSES, *others, *(f"{n}.7.8.9" for n in range(256))]
    sight = Sight.__new__(Sight)
    keys = np.unique(address_blocks(pa.array(texts), AddressBlock.name))
    sight._form, sight._keys = 0, keys[keys != 0]
    exits = np.array([[16909060, 16909060 + 500]])  # 1.2.3.4 and the 500 after it
    sight._exits = exits[:, 0], exits[:, 1]
    sight.texts = texts  # type: ignore[attr-defined]
    return sight


def test_an_address_is_read_as_a_scan_reads_it(blocks: Sight) -> None:
    texts = [*blocks.texts, "1.2.3.4", "1.2.3.3", "1.2.5.1", "::ffff:1.2.3.9"]  # type: ignore[attr-defined]
    table = pa.table({"start": [16909060], "end": [16909060 + 500], "kind": ["vpn"]})
    keys = address_blocks(pa.array(texts), AddressBlock.name)
    keys[Lookups({"ip_kinds": table}).shared_exits(pa.array(texts))] = 0
    for text, key in zip(texts, keys.tolist(), strict=True):
        place = blocks._of_address(text) if text else -1
        assert (int(blocks._keys[place]) if place >= 0 else 0) == (key if key in blocks._keys else 0), text


ADDRESSES = [
    "192.0.2.7", "::ffff:192.0.2.7", "2001:db8:1:2::3", "fe80::1%eth0", "10.0.0.1", "203.0.113.255", "256.1.1.1",
    "1.2.3", "01.2.3.4", "", " 192.0.2.7", "127.0.0.1", "::", "not an address",
]  # fmt: skip


def test_one_address_has_the_block_of_a_column_of_one() -> None:
    alone = [hash_one(address_block(text), AddressBlock.name) for text in ADDRESSES]
    assert alone == address_blocks(pa.array(ADDRESSES), AddressBlock.name).tolist()
    assert Counter(alone)[0] >= 4
