"""A blocked pool does not dissolve: what we refuse is no evidence, and frees nobody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from stillwatch.guard import Guard, Snapshot, Subject, load, parse_policy
from stillwatch.guard.build import Beside, build
from stillwatch.guard.carry import Heard
from stillwatch.guard.heard import COLUMNS, heard
from stillwatch.guard.policy import SHADOW
from stillwatch.guard.snapshot import save
from stillwatch.scan import scan
from stillwatch.schema.times import DAY_US
from stillwatch.store.results import results_of, write_results
from tests.guard.conftest import SECRET, Scanned

LATER_US = 15 * DAY_US


class After:
    """The same traffic two weeks later, while the strongest campaigns' members are refused; and its scan."""

    def __init__(self, demo: Scanned, folder: Path) -> None:
        self.demo, self.folder = demo, folder
        self.members = {row["account_id"] for row in demo.members()}
        table = pq.read_table(demo.log / "exchanges.parquet")
        at = pa.array(pc.add(table.column("ts").cast(pa.int64()), LATER_US)).cast(
            table.schema.field("ts").type
        )
        table = table.set_column(table.schema.get_field_index("ts"), "ts", at)
        mine = pc.is_in(table.column("account_id"), value_set=pa.array(sorted(self.members)))
        blocked = pc.if_else(mine, "stillwatch:g-000000000000", pa.scalar(None, pa.string()))
        self.table = table.append_column("blocked_by", blocked)
        log = folder / "log"
        log.mkdir()
        pq.write_table(self.table, log / "exchanges.parquet")
        self.accounts = pq.read_table(demo.log / "accounts.parquet")
        pq.write_table(self.accounts, log / "accounts.parquet")
        self.results = folder / "results"
        write_results(self.results, results_of(scan([str(log)])))
        columns = [n if n in self.table.column_names else None for n in COLUMNS]
        wanted = self.table.select([n for n in columns if n is not None])
        for name in COLUMNS:
            if name not in wanted.column_names:
                wanted = wanted.append_column(name, pa.nulls(wanted.num_rows, pa.string()))
        self.heard = heard(wanted.to_batches(), SECRET)
        self.hashes = np.array([SECRET.account(name) for name in sorted(self.members)], np.uint64)

    def made(self, old: Snapshot | None, heard: Heard | None, **beside: Any) -> Snapshot:
        path = self.folder / "snapshot"
        beside = {"accounts": self.accounts, **beside}
        meta, arrays = build(
            self.results, parse_policy(SHADOW), SECRET, Beside(old=old, heard=heard, **beside)
        )
        save(path, meta, arrays, SECRET)
        first = path.read_bytes()
        meta, arrays = build(
            self.results, parse_policy(SHADOW), SECRET, Beside(old=old, heard=heard, **beside)
        )
        save(path, meta, arrays, SECRET)
        assert path.read_bytes() == first
        return load(path, SECRET)

    def would(self, snapshot: Snapshot, subjects: list[Subject]) -> dict[str, str]:
        """What each account's last request would have met."""
        guard = Guard(snapshot, clock=lambda: snapshot.meta.last_us + 1)
        assert all(guard.decide(subject).reason != "fault" for subject in subjects)
        return {str(s.account): guard.decide(s).would for s in subjects}


@pytest.fixture(scope="module")
def after(demo: Scanned, tmp_path_factory: pytest.TempPathFactory) -> After:
    return After(demo, tmp_path_factory.mktemp("after"))


def _asked(after: After) -> list[Subject]:
    seen: dict[str, Subject] = {}
    for subject in after.demo.subjects():
        if subject.account in after.members:
            subject.ts_us = None
            seen.setdefault(str(subject.account), subject)
    return list(seen.values())


def test_without_it_the_pool_would_be_free_and_with_it_it_is_not(after: After) -> None:
    subjects = _asked(after)
    assert len(subjects) == len(after.members) > 20
    before = after.would(after.demo.snapshot, subjects)
    acted = {name for name, would in before.items() if would == "block" or would == "throttle"}
    assert len(acted) > 20
    alone = after.would(after.made(None, None), subjects)
    assert not {name for name in acted if alone[name] in ("block", "throttle")}
    kept = after.made(after.demo.snapshot, after.heard)
    told = after.would(kept, subjects)
    assert {name: told[name] for name in acted} == {name: before[name] for name in acted}
    groups = [group for group in kept.meta.groups if group.kept]
    assert {g.id for g in groups} == {c.id for c in after.demo.snapshot.meta.campaigns}
    assert all(group.last_us > after.demo.snapshot.meta.last_us for group in groups)
    # Nobody else is named.
    row = np.repeat(np.arange(kept.accounts), np.diff(kept.arrays.named_offsets))
    of_kept = np.isin(kept.arrays.named_group, [i for i, g in enumerate(kept.meta.groups) if g.kept])
    assert set(kept.arrays.account_hash[row[of_kept]].tolist()) <= set(after.hashes.tolist())


def test_it_is_found_by_its_profiles_and_families_as_before(after: After) -> None:
    kept = after.made(after.demo.snapshot, after.heard)
    guard = Guard(kept, history=False)
    streams: set[str] = set()
    measured = 0
    for subject in after.demo.subjects():
        if subject.account in after.members:
            guard.decide(subject)
    for account in after.members:
        streams |= {campaign for campaign, _ in guard.streams(Subject(account=account))}
        measured += any(bits[3] > 0 for bits in guard.bits(Subject(account=account)).values())
    assert guard.faults == 0
    assert streams == {c.id for c in after.demo.snapshot.meta.campaigns}
    assert measured > 0.8 * len(after.members)


def test_it_lasts_through_silence_and_ends_with_it(after: After) -> None:
    kept = after.made(after.demo.snapshot, after.heard)
    silent = Heard(after.heard.account[:0], after.heard.last_us[:0], after.heard.refused[:0])
    # A scan of a log in which they are silent: they stay; and so does everything about them.
    again = after.made(kept, silent)
    assert [g for g in again.meta.groups if g.kept] == [g for g in kept.meta.groups if g.kept]
    assert again.meta.campaigns == kept.meta.campaigns
    for name in type(kept.arrays).__slots__:
        assert np.array_equal(
            np.sort(getattr(again.arrays, name), axis=0), np.sort(getattr(kept.arrays, name), axis=0),
            equal_nan=getattr(kept.arrays, name).dtype.kind == "f",
        ), name  # fmt: skip
    over = kept.meta.last_us - 31 * DAY_US
    groups = tuple(replaced(g, last_us=over) if g.kept else g for g in kept.meta.groups)
    old = replace_meta(kept, groups)
    assert not [g for g in after.made(old, silent).meta.groups if g.kept]


def test_who_is_answered_and_not_found_again_is_free(after: After) -> None:
    answered = Heard(after.heard.account, after.heard.last_us, np.zeros(len(after.heard.account), bool))
    assert not [g for g in after.made(after.demo.snapshot, answered).meta.groups if g.kept]


def test_whom_the_operators_word_frees_goes_at_the_next_scan(after: After) -> None:
    chosen = sorted(after.members)[:3]
    ids = after.accounts.column("account_id").to_pylist()
    contract = ["evaluation" if name in chosen else None for name in ids]
    others = [name for name in after.accounts.column_names if name != "contract"]
    table = after.accounts.select(others).append_column("contract", pa.array(contract, pa.string()))
    # They sent nothing that was answered, so that the scan itself does not know them.
    found = after.made(after.demo.snapshot, after.heard, accounts=table)
    told = after.would(found, _asked(after))
    assert {told[name] for name in chosen} == {"allow"}
    assert sum(would in ("block", "throttle") for would in told.values()) > 20
    references = pa.table({"account_id": chosen, "group_id": ["r"] * 3})
    found = after.made(after.demo.snapshot, after.heard, references=references)
    assert {after.would(found, _asked(after))[name] for name in chosen} == {"allow"}


def replaced(group: Any, **changes: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(group, **changes)


def replace_meta(snapshot: Snapshot, groups: tuple[Any, ...]) -> Snapshot:
    meta = replaced(snapshot.meta, groups=groups)
    return replace(snapshot, meta=meta)
