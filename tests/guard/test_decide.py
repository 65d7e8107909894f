"""What is done to whom: shadow by default, enforcement only as ordered and signed, and never a fault of ours."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stillwatch import guard as guard_room
from stillwatch.guard import Decision, Guard, Snapshot, Subject, load
from stillwatch.guard.layout import map_snapshot
from stillwatch.guard.policy import SHADOW, microseconds, parse_policy
from stillwatch.guard.snapshot import Meta, save
from stillwatch.schema import DecisionError, PolicyError
from stillwatch.store.decisions import Order, Signer, approve, propose, read_decisions
from tests.guard.conftest import SECRET, Scanned

ANNA, BELA, CARL = (Signer(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2, 3))
LISTED = "".join(
    f'[[approver]]\nname = "{n}"\nkey = "{k.key}"\n' for n, k in (("anna", ANNA), ("bela", BELA))
)
RULES = """
[[rule]]
name = "strong"
action = "block"
min_bits = 1
[[rule]]
name = "weak"
action = "throttle"
kinds = 2
min_bits = -1000
retry_after_s = 30
[[rule]]
name = "rest"
action = "observe"
kinds = 0
"""
ENFORCE = f'version = 1\nmode = "enforce"\n{LISTED}{RULES}'


def _strong(demo: Scanned) -> list[dict[str, Any]]:
    """Members with evidence of two kinds, strongest first."""
    rows = [r for r in demo.members() if r["e_bits"] >= 1]
    rows = [r for r in rows if sum(r[b] > 0 for b in ("bits_form", "bits_link", "bits_time")) >= 2]
    assert len(rows) >= 5
    return sorted(rows, key=lambda r: -r["e_bits"])


def _now(demo: Scanned) -> int:
    return demo.snapshot.meta.last_us + 3_600_000_000


def _enforced(
    demo: Scanned,
    out: Path,
    policy: str = ENFORCE,
    approver: Signer | None = BELA,
    proposer: Signer = ANNA,
    **changes: Any,
) -> Snapshot:
    """The snapshot with an order to block the strongest member's campaign."""
    at = datetime.fromtimestamp(demo.snapshot.meta.last_us / 1e6, UTC)
    plain = {
        "campaign": _strong(demo)[0]["campaign_id"], "action": "block", "policy": parse_policy(policy).digest,
        "expires": at + timedelta(days=3), "at": at, "mapped": False,
    }  # fmt: skip
    ledger = out.with_suffix(".jsonl")
    digest = propose(ledger, Order(**(plain | changes)), proposer).digest
    if approver is not None:
        approve(ledger, digest, approver, at)
    return load(demo.made(out, policy, decisions=read_decisions(ledger)), SECRET)


def _ask(guard: Guard, demo: Scanned, account: str, **more: Any) -> Decision:
    return guard.decide(Subject(account=account, ts_us=more.pop("ts_us", _now(demo)), **more))


def test_shadow_mode_says_what_it_would_do_and_does_nothing(demo: Scanned) -> None:
    guard = Guard(demo.snapshot)
    decision = _ask(guard, demo, _strong(demo)[0]["account_id"])
    assert (decision.action, decision.would, decision.shadow, decision.reason) == (
        "observe",
        "block",
        True,
        "shadow",
    )
    assert decision.campaign == _strong(demo)[0]["campaign_id"]
    assert (decision.rule, decision.line) == ("members", 4)
    assert decision.bits is not None
    assert guard.refusals == 0
    assert set(decision.lacked) >= {"prompt", "address"}


def test_an_appeal_reference_tells_nothing(demo: Scanned) -> None:
    guard = Guard(demo.snapshot)
    one, two = (_ask(guard, demo, row["account_id"]) for row in _strong(demo)[:2])
    assert one.appeal is not None
    assert one.appeal != two.appeal
    assert one.appeal == _ask(guard, demo, _strong(demo)[0]["account_id"]).appeal
    number = f"{SECRET.account(_strong(demo)[0]['account_id']):016x}"
    assert number not in repr(one)
    assert _strong(demo)[0]["account_id"] not in repr(one)


def test_honest_accounts_meet_nothing(demo: Scanned) -> None:
    guard = Guard(demo.snapshot)
    named = {row["account_id"] for row in demo.members()}
    honest = {s.account for s in demo.subjects()} - named
    would = {str(account) for account in honest if _ask(guard, demo, str(account)).would != "allow"}
    assert would == set()
    assert _ask(guard, demo, "somebody new").reason == "nothing_known"
    assert guard.decide(Subject(ts_us=_now(demo))).reason == "no_account"


def test_an_order_of_two_people_is_enforced(demo: Scanned, tmp_path: Path) -> None:
    guard = Guard(_enforced(demo, tmp_path / "snapshot"))
    row = _strong(demo)[0]
    decision = _ask(guard, demo, row["account_id"])
    assert (decision.action, decision.shadow, decision.reason, decision.rule) == (
        "block",
        False,
        "named",
        "strong",
    )
    assert decision.expires_us is not None
    assert decision.expires_us <= demo.snapshot.meta.last_us + 3 * 86_400_000_000
    assert guard.refusals == 1
    others = [r for r in _strong(demo) if r["campaign_id"] != row["campaign_id"]]
    for other in others:
        assert _ask(guard, demo, other["account_id"]).reason == "not_ordered"
    late = _ask(guard, demo, row["account_id"], ts_us=_now(demo) + 4 * 86_400_000_000)
    assert (late.action, late.reason) == ("observe", "not_ordered")


def test_what_is_refused_is_no_evidence(demo: Scanned, tmp_path: Path) -> None:
    guard = Guard(_enforced(demo, tmp_path / "snapshot"))
    member = _strong(demo)[0]["account_id"]
    subjects = [s for s in demo.subjects() if s.account == member][:20]
    guard.decide(subjects[0])
    before = guard.bits(subjects[0]), guard.streams(subjects[0])
    for subject in subjects:
        subject.ts_us = _now(demo)
        assert guard.decide(subject).action == "block"
    assert (guard.bits(subjects[0]), guard.streams(subjects[0])) == before
    assert guard.refusals >= len(subjects)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"approver": None}, "no approval by a second listed key"),
        ({"approver": CARL}, "no approval by a second listed key"),
        ({"proposer": CARL}, "not signed by anybody"),
        ({"action": "observe"}, "orders no action that needs one"),
        ({"action": "ban"}, "orders no action that needs one"),
    ],
)
def test_what_is_not_rightly_signed_is_no_snapshot(
    demo: Scanned, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(DecisionError, match=says):
        _enforced(demo, tmp_path / "snapshot", **changes)


def test_an_order_counts_under_its_own_policy_only(demo: Scanned, tmp_path: Path) -> None:
    at = datetime.fromtimestamp(demo.snapshot.meta.last_us / 1e6, UTC)
    order = Order(campaign="g-1", action="throttle", policy="0" * 64, expires=at + timedelta(days=1), at=at)
    propose(tmp_path / "decisions", order, ANNA)
    with pytest.raises(DecisionError, match="under another policy"):
        demo.made(tmp_path / "snapshot", ENFORCE, decisions=read_decisions(tmp_path / "decisions"))


def test_a_sealed_snapshot_is_checked_again_when_it_is_loaded(demo: Scanned, tmp_path: Path) -> None:
    """Whoever has the secret but no key cannot make the guard act either."""
    _enforced(demo, tmp_path / "snapshot")
    meta, arrays = map_snapshot(tmp_path / "snapshot", SECRET, Meta)
    alone = tuple(msgspec.structs.replace(d, approvals=()) for d in meta.decisions)
    save(tmp_path / "forged", msgspec.structs.replace(meta, decisions=alone), arrays, SECRET)
    with pytest.raises(DecisionError, match="no approval"):
        load(tmp_path / "forged", SECRET)
    lead = ENFORCE.replace('action = "block"', 'action = "block"\nverdict = "lead"', 1)
    save(tmp_path / "lead", msgspec.structs.replace(meta, policy=lead, decisions=()), arrays, SECRET)
    with pytest.raises(PolicyError, match="can never act"):
        load(tmp_path / "lead", SECRET)


def test_one_person_may_throttle(demo: Scanned, tmp_path: Path) -> None:
    policy = ENFORCE.replace('name = "strong"\naction = "block"', 'name = "strong"\naction = "throttle"')
    guard = Guard(_enforced(demo, tmp_path / "snapshot", policy, approver=None, action="throttle"))
    decision = _ask(guard, demo, _strong(demo)[0]["account_id"])
    assert (decision.action, decision.retry_after_s) == ("throttle", 60)


def test_an_order_is_no_more_than_it_says(demo: Scanned, tmp_path: Path) -> None:
    guard = Guard(_enforced(demo, tmp_path / "snapshot", approver=None, action="throttle"))
    decision = _ask(guard, demo, _strong(demo)[0]["account_id"])
    assert (decision.action, decision.would, decision.reason) == ("observe", "block", "not_ordered")


def test_held_until_the_pool_is_mapped(demo: Scanned, tmp_path: Path) -> None:
    policy = ENFORCE.replace("version = 1", "version = 1\nhold_until_mapped = true")
    member = _strong(demo)[0]["account_id"]
    assert _ask(Guard(_enforced(demo, tmp_path / "one", policy)), demo, member).reason == "held"
    assert _ask(Guard(_enforced(demo, tmp_path / "two", policy, mapped=True)), demo, member).action == "block"


def test_a_rollout_reaches_its_share_and_always_the_same_accounts(demo: Scanned, tmp_path: Path) -> None:
    def blocked(percent: int, name: str) -> set[str]:
        policy = ENFORCE.replace("min_bits = 1\n", f"min_bits = 1\nrollout_percent = {percent}\n")
        guard = Guard(_enforced(demo, tmp_path / name, policy))
        return {
            r["account_id"] for r in _strong(demo) if _ask(guard, demo, r["account_id"]).action == "block"
        }

    none, some, all_ = blocked(0, "none"), blocked(50, "some"), blocked(100, "all")
    assert none == set()
    assert some < all_
    assert len(all_) / 5 < len(some) < len(all_) * 4 / 5
    assert blocked(50, "again") == some


@pytest.mark.parametrize(
    ("text", "more", "touched"),
    [
        ('[exempt]\ngateways = ["reseller"]\n', {"gateway": "reseller"}, False),
        ('[exempt]\ngateways = ["reseller"]\n', {"gateway": "other"}, True),
        ('[exempt]\ngateways = ["reseller"]\n', {"gateway": 5}, True),
        ('[exempt]\nowners = ["nobody"]\n', {}, True),
    ],
)
def test_whom_the_policy_exempts(
    demo: Scanned, tmp_path: Path, text: str, more: dict[str, Any], touched: bool
) -> None:
    guard = Guard(
        load(demo.made(tmp_path / "snapshot", SHADOW.replace("[[rule]]", text + "[[rule]]")), SECRET)
    )
    decision = _ask(guard, demo, _strong(demo)[0]["account_id"], **more)
    assert (decision.would == "block") is touched
    assert touched or decision.reason == "exempt"


def test_rules_end_and_ask_for_tier_campaign_role_and_stream(demo: Scanned, tmp_path: Path) -> None:
    row = _strong(demo)[0]
    mine = [s for s in demo.subjects() if s.account == row["account_id"]]
    when = datetime.fromtimestamp(demo.snapshot.meta.last_us / 1e6, UTC)
    cases: Sequence[tuple[str, bool]] = [
        (f"until = {(when - timedelta(days=1)).isoformat(timespec='seconds')}", False),
        (f"until = {(when + timedelta(days=1)).isoformat(timespec='seconds')}", True),
        ('tiers = ["no such tier"]', False),
        (f'campaigns = ["{row["campaign_id"]}"]', True),
        ('campaigns = ["g-000000000000"]', False),
        ("min_bits = 900", False),
        ("kinds = 3", sum(row[b] > 0 for b in ("bits_form", "bits_link", "bits_time")) == 3),
    ]
    for number, (text, acts) in enumerate(cases):
        guard = Guard(load(demo.made(tmp_path / str(number), SHADOW + text + "\n"), SECRET))
        assert (_ask(guard, demo, row["account_id"]).would == "block") is acts, text
    for role, acts in ((row["role"], True), ("found", False)):
        policy = SHADOW.replace('["core", "recruit", "found"]', f'["{role}"]')
        guard = Guard(load(demo.made(tmp_path / role, policy), SECRET))
        assert (_ask(guard, demo, row["account_id"]).would == "block") is acts
    guard = Guard(load(demo.made(tmp_path / "stream", SHADOW + 'scope = "stream"\n'), SECRET))
    would = []
    for subject in mine:
        subject.ts_us = _now(demo)
        would.append(guard.decide(subject).would)
    assert _ask(guard, demo, row["account_id"], prompt="What is the capital of France?").would == "allow"
    assert "block" in would


def test_a_campaign_ends_when_it_is_silent_and_not_while_it_is_being_refused(demo: Scanned) -> None:
    member, day = _strong(demo)[0]["account_id"], 86_400_000_000
    meta = demo.snapshot.meta
    heard = next(g.last_us for g in meta.groups if g.id == _strong(demo)[0]["campaign_id"])
    late = heard + 13 * day
    snapshot = demo.snapshot
    silent = f"silent_days = {(late - heard) / day - 1}"
    policy = parse_policy(SHADOW.replace('mode = "shadow"', f'mode = "shadow"\n{silent}'))
    changed = Snapshot(meta, snapshot.arrays, policy, SECRET, {})
    assert _ask(Guard(changed), demo, member, ts_us=late).reason in ("campaign_over", "snapshot_expired")
    guard = Guard(changed)
    for at in range(heard + day, late, day):
        _ask(guard, demo, member, ts_us=at, refused=True)
    assert _ask(guard, demo, member, ts_us=late).would == "block"


def test_a_snapshot_ends(demo: Scanned) -> None:
    decision = _ask(
        Guard(demo.snapshot), demo, _strong(demo)[0]["account_id"], ts_us=demo.snapshot.meta.expires_us + 1
    )
    assert (decision.action, decision.reason) == ("allow", "snapshot_expired")


def test_an_api_key_stands_for_its_account(demo: Scanned, tmp_path: Path) -> None:
    member = _strong(demo)[0]["account_id"]
    digest = hashlib.sha256(b"sk-secret").hexdigest()
    guard = Guard(load(demo.made(tmp_path / "snapshot", api_keys=[(member, digest)]), SECRET))
    by = [{"account": member}, {"api_key": "sk-secret"}, {"api_key_sha256": digest.upper()}]
    found = [guard.decide(Subject(ts_us=_now(demo), **how)) for how in by]
    assert {d.appeal for d in found} == {found[0].appeal}
    assert found[0].would == "block"
    assert guard.decide(Subject(ts_us=_now(demo), api_key="sk-other")).reason == "nothing_known"


def test_a_pool_s_next_account_is_found_inline(demo: Scanned) -> None:
    """An account that no scan has seen, but that asks and comes as the members do, is found by its bits."""
    guard = Guard(demo.snapshot, history=False)
    row = _strong(demo)[0]
    named = {r["account_id"] for r in demo.members() if r["campaign_id"] == row["campaign_id"]}
    reasons = []
    for subject in demo.subjects():
        if subject.account in named:
            subject.account, subject.ts_us = "a new account of the pool", _now(demo)
            reasons.append(guard.decide(subject))
    bits = guard.bits(Subject(account="a new account of the pool"))[row["campaign_id"]]
    assert bits[3] >= guard.found_bits
    assert reasons[0].would == "allow"
    assert (reasons[-1].would, reasons[-1].action) == ("block", "observe")
    assert "hours" in reasons[-1].lacked


def test_with_few_counters_the_oldest_account_gives_way(demo: Scanned) -> None:
    guard = Guard(demo.snapshot, most_accounts=40)
    member = _strong(demo)[0]["account_id"]
    _ask(guard, demo, member, prompt="a question")
    for number in range(50):
        _ask(guard, demo, f"made up {number}")
    assert guard.forgotten == 40
    assert guard.bits(Subject(account=member)), "made-up accounts drive out none that is known"
    for account in sorted({str(s.account) for s in demo.subjects()} - {member})[:40]:
        _ask(guard, demo, account)
    assert guard.forgotten == 41
    assert not guard.bits(Subject(account=member))
    assert _ask(guard, demo, member).would == "block"


def test_threads_share_a_guard(demo: Scanned) -> None:
    guard = Guard(demo.snapshot, history=False)
    subjects = list(demo.subjects())[:2000]
    alone = Guard(demo.snapshot, history=False)
    for subject in subjects:
        alone.decide(subject)
    threads = [
        threading.Thread(target=lambda n=n: [guard.decide(s) for s in subjects[n::4]]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert guard.requests == 2000
    assert guard.faults == 0
    for account in {s.account for s in subjects}:
        asked = Subject(account=account)
        assert guard.bits(asked) == alone.bits(asked)


def test_nothing_heavy_is_loaded_into_a_gateway() -> None:
    code = (
        "import sys, stillwatch.guard as g\n"
        "from stillwatch.guard.lean import load_numba\n"
        "from stillwatch.sketch import sketch_text\n"
        "import pyarrow as pa\n"
        "load_numba(for_compiling=True)\n"
        "sketch_text(pa.array(['compiles, or loads what was compiled']))\n"
        "heavy = {'duckdb', 'scipy', 'igraph', 'sklearn', 'rich', 'typer'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))\n"
        "import scipy\n"
        "print(scipy.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "scipy"]


def test_the_public_names_are_there() -> None:
    assert sorted(guard_room.__all__) == guard_room.__all__
    assert all(hasattr(guard_room, name) for name in guard_room.__all__)


def test_times_with_a_zone_are_counted_from_1970() -> None:
    assert microseconds(datetime(1970, 1, 2, 0, 0, 1, 5, UTC)) == 86_401_000_005
