"""A new snapshot takes over: what came after its scan is counted on, and nothing twice."""

from __future__ import annotations

import numpy as np
import pytest

from stillwatch.guard import Guard, Subject
from stillwatch.guard import recent as module
from stillwatch.guard.recent import Recent
from tests.guard.conftest import Scanned


def _members(demo: Scanned) -> set[str]:
    return {row["account_id"] for row in demo.members()}


def _split(demo: Scanned) -> tuple[list[Subject], list[Subject]]:
    """The log's requests before and after its middle; those of members and of some others."""
    wanted = _members(demo)
    everybody = list(demo.subjects())
    others = sorted({s.account for s in everybody if s.account} - wanted)[:40]
    chosen = [s for s in everybody if s.account in wanted or s.account in others]
    return chosen[: len(chosen) // 2], chosen[len(chosen) // 2 :]


def _later(subjects: list[Subject], last_us: int) -> list[Subject]:
    """The same requests, after the end of the scan's log."""
    first = min(s.ts_us or 0 for s in subjects)
    return [
        Subject(
            account=s.account, gateway=s.gateway, end_user=s.end_user, end_user_verified=s.end_user_verified,
            prompt=s.prompt, system=s.system, system_hash=s.system_hash, tools_hash=s.tools_hash,
            format_hash=s.format_hash, ip=s.ip, ts_us=last_us + 1_000_000 + (s.ts_us or 0) - first,
        )
        for s in subjects
    ]  # fmt: skip


def test_bits_are_those_of_one_guard_that_saw_everything(demo: Scanned) -> None:
    before, after = _split(demo)
    last = demo.snapshot.meta.last_us
    first_half = _later(before, last)
    second_half = _later(after, first_half[-1].ts_us or 0)
    whole = Guard(demo.snapshot)
    for subject in first_half + second_half:
        whole.decide(subject)
    old = Guard(demo.snapshot)
    for subject in first_half[: len(first_half) // 2]:
        old.decide(subject)
    new = Guard(demo.snapshot)
    number = new.follow(old)
    for subject in first_half[len(first_half) // 2 :]:
        old.decide(subject)
    new.succeed(old, number)
    for subject in second_half:
        new.decide(subject)
    measured = 0
    for account in sorted({s.account for s in first_half + second_half if s.account}):
        subject = Subject(account=account)
        assert new.bits(subject) == whole.bits(subject)
        assert new.streams(subject) == whole.streams(subject)
        measured += bool(new.bits(subject))
    assert measured >= 40
    assert (new.requests, new.refusals, new.faults) == (whole.requests, whole.refusals, whole.faults)
    # And once more: the next one goes on from all of it.
    third = Guard(demo.snapshot)
    third.succeed(new, 0)
    for account in sorted(_members(demo)):
        assert third.bits(Subject(account=account)) == whole.bits(Subject(account=account))


def test_what_the_scan_has_seen_is_not_counted_twice(demo: Scanned) -> None:
    old = Guard(demo.snapshot)
    for subject in demo.subjects():
        old.decide(subject)
    new = Guard(demo.snapshot)
    new.succeed(old, 0)
    fresh = Guard(demo.snapshot)
    for account in sorted(_members(demo)):
        subject = Subject(account=account, ts_us=demo.snapshot.meta.last_us)
        new.decide(subject)
        fresh.decide(subject)
        assert new.bits(subject) == fresh.bits(subject)
    assert new.requests == old.requests + len(_members(demo))


def test_a_campaign_that_was_heard_of_is_not_over_after_a_swap(demo: Scanned) -> None:
    member = sorted(_members(demo))[0]
    last = demo.snapshot.meta.last_us
    day = 86_400_000_000
    old, fresh = Guard(demo.snapshot), Guard(demo.snapshot)
    for at in (last + 8 * day, last + 13 * day):
        old.decide(Subject(account=member, ts_us=at, refused=True))
    new = Guard(demo.snapshot)
    new.succeed(old, 0)
    heard = {
        g.id: (a, b)
        for g, a, b in zip(demo.snapshot.meta.groups, new._ladder._heard, fresh._ladder._heard, strict=True)
    }
    assert max(a for a, _ in heard.values()) == last + 13 * day
    assert max(b for _, b in heard.values()) <= last


def test_the_ring_forgets_the_oldest_and_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_REQUESTS", 8)
    monkeypatch.setattr(module, "MOST_PLACES", 16)
    ring = Recent()
    for i in range(30):
        ring.add(i + 1, [i, i + 1], i)
    since = ring.since(0, -1)
    assert since.lost == 22
    assert since.account.tolist() == list(range(23, 31))
    assert since.place.tolist() == [p for i in range(22, 30) for p in (i, i + 1)]
    assert ring.since(25, 27).account.tolist() == [29, 30]
    # Places give way before requests do.
    ring.add(99, list(range(10)), 99)
    since = ring.since(ring.next - 8, -1)
    assert since.account.tolist()[-1] == 99
    assert since.lost == 8 - len(since.account) > 0
    assert int(since.lengths.sum()) == len(since.place) <= 16
    other = Recent()
    other.extend(since)
    assert [np.array_equal(a, b) for a, b in zip(other.since(0, -1)[:4], since[:4], strict=True)] == [
        True
    ] * 4


def test_the_second_in_which_the_scans_log_ends_is_not_counted_again(demo: Scanned) -> None:
    member, last = sorted(_members(demo))[0], demo.snapshot.meta.last_us
    old, new = Guard(demo.snapshot), Guard(demo.snapshot)
    for offset in (0, 400_000, 999_999, 1_000_000):
        old.decide(Subject(account=member, ts_us=last + offset, prompt="anything at all"))
    new.succeed(old, 0)
    assert new._recent.next == 1
