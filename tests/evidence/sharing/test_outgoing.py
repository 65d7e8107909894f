"""What leaves: rounded, pseudonymous, only of campaigns; decisions, reversals and appeals have their effect."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stillwatch.campaign import techniques as t
from stillwatch.evidence.sharing import FORMATS, Request, outgoing, share, terms
from stillwatch.evidence.sharing.freed import read_freed
from stillwatch.evidence.sharing.words import OBSERVED, at_least
from stillwatch.schema.errors import DecisionError, FormatError, InputError, UsageError
from stillwatch.store.appeals import decide, receive
from stillwatch.store.decisions import Did, Order, Signer, approve, propose, read_decisions, revoke
from stillwatch.store.pseudonyms import KeyRing
from stillwatch.store.results import Results
from tests.evidence.conftest import events_of
from tests.evidence.sharing.kit import CAMPAIGN, TERMS, folder, ring, run

ANNA, BELA = (Signer(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (7, 8))
NOW = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture
def asked(tmp_path: Path, sample: Callable[..., Results]) -> Request:
    return Request(folder(tmp_path / "results", sample), CAMPAIGN, "b.example", TERMS)


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    return ring(tmp_path / "ring.json", "b.example", "c.example")


def test_counts_are_rounded_times_are_days_and_names_are_the_partner_s(asked: Request, keys: KeyRing) -> None:
    out = outgoing(asked, keys)
    assert (out.accounts, out.exchanges) == (20, 1000)
    assert out.first_day == out.created == datetime(2026, 1, 1, tzinfo=UTC)
    assert out.last_day == datetime(2026, 1, 3, tzinfo=UTC)
    assert out.modified == out.valid_from == datetime(2026, 1, 4, tzinfo=UTC)
    assert out.claims == ("coordinated", "one_director")
    names = keys.names("share", "b.example")
    assert out.campaign == names.of("campaign", CAMPAIGN)
    assert {row.account for row in out.listed} == {names.of("account", f"acct-{n}") for n in range(23)}
    assert [row.account for row in out.listed] == sorted(row.account for row in out.listed)
    other = outgoing(replace(asked, partner="c.example"), keys)
    assert other.campaign != out.campaign
    assert not {row.account for row in other.listed} & {row.account for row in out.listed}


def test_the_same_campaign_is_the_same_bytes(asked: Request, keys: KeyRing) -> None:
    for form in FORMATS:
        assert share(asked, form, keys).data == share(asked, form, keys).data


def test_a_lead_a_cleared_group_and_four_accounts_do_not_leave(
    asked: Request, keys: KeyRing, tmp_path: Path, sample: Callable[..., Results]
) -> None:
    for group, said in (
        ("g-1111111111aa", "is a lead"),
        ("g-2222222222bb", "was cleared"),
        ("g-x", "is no group"),
    ):
        with pytest.raises(UsageError, match=said):
            outgoing(replace(asked, campaign=group), keys)
    few = replace(asked, results=folder(tmp_path / "few", sample, accounts=4))
    with pytest.raises(UsageError, match="fewer than 5 accounts"):
        outgoing(few, keys)
    five = replace(asked, results=folder(tmp_path / "five", sample, accounts=5))
    assert outgoing(five, keys).accounts == 5
    with pytest.raises(UsageError, match="fewer than 5 accounts"):
        outgoing(replace(five, without={"acct-0"}), keys)


def test_who_was_freed_counts_nowhere(asked: Request, keys: KeyRing) -> None:
    freed = {f"acct-{n}" for n in range(10)} | {"acct-of-nobody"}
    out = outgoing(replace(asked, without=freed), keys)
    names = keys.names("share", "b.example")
    assert {row.account for row in out.listed} == {names.of("account", f"acct-{n}") for n in range(10, 23)}
    assert out.accounts == 10
    assert outgoing(replace(asked, without={"acct-of-nobody"}), keys) == outgoing(asked, keys)


def test_wording_that_only_the_freed_made_common_is_not_shared(
    scanned: tuple[Path, Path], keys: KeyRing
) -> None:
    from stillwatch.store.results import read_results

    results = read_results(scanned[1])
    heard: list[str] = []
    with_wording = None
    for group in results.findings.groups:
        if group.verdict != "campaign":
            continue
        asked = Request(
            scanned[1], group.id, "b.example", replace(TERMS, expires=datetime(2030, 1, 1, tzinfo=UTC))
        )
        if outgoing(asked, keys).fingerprints:
            with_wording = asked
    assert with_wording is not None
    members = [
        row["account_id"]
        for row in results.accounts.to_pylist()
        if row["campaign_id"] == with_wording.campaign
    ]
    # Five are left: too few of them hold any one family, or just enough; never more than there are.
    left = outgoing(replace(with_wording, without=set(members[5:])), keys, heard.append)
    assert all(f.accounts == 5 for f in left.fingerprints)
    assert left.fingerprints or heard[0].startswith("no fingerprints: too little wording of its own")


def test_without_an_agreed_key_there_are_no_fingerprints_and_it_is_said(
    asked: Request, keys: KeyRing
) -> None:
    heard: list[str] = []
    assert outgoing(replace(asked, partner="d.example"), keys, heard.append).fingerprints == ()
    assert heard[0].startswith("no fingerprints: no key was agreed on with d.example")
    assert not keys.every("fingerprint", "d.example")
    heard.clear()
    share(replace(asked, partner="d.example"), "decisions", keys, heard.append)
    assert heard == []


def test_raw_ids_are_for_whoever_asks_for_them_by_name(asked: Request, keys: KeyRing) -> None:
    raw = share(replace(asked, show_accounts=True), "decisions", keys).data.decode()
    assert '"account": "acct-0"' in raw
    assert f'"campaign": "{CAMPAIGN}"' in raw
    for form in FORMATS:
        if form != "decisions":
            with pytest.raises(UsageError, match="lists no accounts"):
                share(replace(asked, show_accounts=True), form, keys)
    with pytest.raises(UsageError, match="is no format"):
        share(asked, "stix1", keys)


def _order(**changes: object) -> Order:
    order = Order(
        campaign=CAMPAIGN, action="throttle", policy="0" * 64, expires=NOW + timedelta(days=7), at=NOW, reason="",
    )  # fmt: skip
    return msgspec.structs.replace(order, **changes)


def decided(path: Path, campaign: str, one: Signer, two: Signer) -> None:
    """A file with a decision that two people made and one took back."""
    digest = propose(path, _order(campaign=campaign), one).digest
    approve(path, digest, two, NOW)
    revoke(path, digest, one, NOW + timedelta(days=1))


def test_what_is_done_is_what_two_people_decided(asked: Request, keys: KeyRing, tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    asked = replace(asked, terms=replace(TERMS, at=NOW + timedelta(days=1)))
    digest = propose(path, _order(), ANNA).digest

    def now() -> tuple[str, datetime, bool]:
        out = outgoing(replace(asked, decisions=read_decisions(path)), keys)
        return out.action, out.action_expires, out.revoked

    assert now() == ("review", TERMS.expires, False)
    approve(path, digest, BELA, NOW)
    assert now() == ("throttle", NOW + timedelta(days=7), False)
    propose(path, _order(campaign="g-000000000000", action="block"), ANNA)
    propose(path, _order(action="block"), ANNA)
    assert now()[0] == "throttle"
    revoke(path, digest, BELA, NOW + timedelta(hours=2))
    assert now() == ("review", TERMS.expires, True)
    out = outgoing(replace(asked, decisions=read_decisions(path), terms=TERMS), keys)
    assert out.modified == NOW + timedelta(hours=2)
    again = propose(path, _order(action="mark"), ANNA).digest
    assert now()[2]
    approve(path, again, BELA, NOW)
    assert now() == ("mark", NOW + timedelta(days=7), False)


def test_a_proposal_that_its_author_took_back_reverses_nothing(
    asked: Request, keys: KeyRing, tmp_path: Path
) -> None:
    path = tmp_path / "decisions.jsonl"
    revoke(path, propose(path, _order(), ANNA).digest, ANNA, NOW)
    assert not outgoing(replace(asked, decisions=read_decisions(path)), keys).revoked


def test_an_approval_that_nobody_signed_decides_nothing(
    asked: Request, keys: KeyRing, tmp_path: Path
) -> None:
    class Forger(Signer):
        def sign(self, did: Did, digest: str) -> str:
            return super().sign("propose", digest)

    path = tmp_path / "decisions.jsonl"
    forger = Forger(Ed25519PrivateKey.from_private_bytes(bytes([8]) * 32))
    approve(path, propose(path, _order(), ANNA).digest, forger, NOW)
    assert outgoing(replace(asked, decisions=read_decisions(path)), keys).action == "review"


def test_taking_back_works_for_whatever_the_group_has_become(
    asked: Request, keys: KeyRing, tmp_path: Path, sample: Callable[..., Results]
) -> None:
    with pytest.raises(UsageError, match="nothing says when"):
        outgoing(replace(asked, revoked=True), keys)
    late = replace(TERMS, at=datetime(2028, 1, 1, tzinfo=UTC))
    back = replace(asked, revoked=True, terms=late)
    assert outgoing(back, keys).revoked
    gone = outgoing(replace(back, without={f"acct-{n}" for n in range(23)}), keys)
    assert (gone.accounts, gone.listed, gone.revoked) == (0, (), True)
    assert outgoing(replace(back, campaign="g-1111111111aa"), keys).techniques == ()
    assert gone.campaign == outgoing(asked, keys).campaign
    for form in FORMATS:
        share(replace(back, campaign="g-2222222222bb"), form, keys)


def test_what_was_shared_under_an_older_key_is_taken_back_under_it(asked: Request, keys: KeyRing) -> None:
    before = outgoing(asked, keys)
    old = keys.names("share", "b.example").key_id
    keys.rotate("share", "b.example")
    back = replace(asked, revoked=True, terms=replace(TERMS, at=datetime(2026, 5, 1, tzinfo=UTC)))
    heard: list[str] = []
    assert outgoing(back, keys, heard.append, wording=False).campaign != before.campaign
    assert heard[0].endswith(f"--share-key {old}")
    heard.clear()
    assert (
        outgoing(replace(back, share_key=old), keys, heard.append, wording=False).campaign == before.campaign
    )
    assert heard == []
    keys.destroy(old)
    with pytest.raises(UsageError, match="or was destroyed"):
        outgoing(replace(back, share_key=old), keys)


def test_terms_that_cannot_be_are_refused(asked: Request, keys: KeyRing) -> None:
    for wrong, said in (
        ({"tlp": "pink"}, "no TLP 2.0 label"),
        ({"confidence": 101}, "between 0 and 100"),
        ({"sharer": "a\nb"}, "one line"),
        ({"sharer": "x" * 101}, "one line"),
    ):
        with pytest.raises(UsageError, match=said):
            terms(**({"tlp": "red", "confidence": 1, "expires": NOW} | wrong))  # type: ignore[arg-type]
    assert terms(" TLP:Amber+Strict", 0, datetime(2027, 1, 1)).tlp == "amber+strict"
    for changed in (
        {"expires": datetime(2026, 1, 3, tzinfo=UTC)},
        {"at": datetime(2027, 1, 1, tzinfo=UTC)},
    ):
        with pytest.raises(UsageError, match="would expire before"):
            outgoing(replace(asked, terms=replace(TERMS, **changed)), keys)


def test_everything_that_can_be_observed_has_words() -> None:
    claims = ("coordinated", "one_director", "harvest_like")
    kinds = ("mail_domain", "address_block", "signup_batch", "exchanges", "capabilities")
    tests = ("fan_out", "replay", "handover", "takeover", "work_split")
    assert {*claims, *kinds, *tests, *t.TRAINING, *t.PROMPT_KINDS} == set(OBSERVED)
    assert all("%" not in text and not any(c.isdigit() for c in text) for text in OBSERVED.values())
    assert at_least(5, "accounts", 5) == "at least 5 accounts"
    assert at_least(0, "accounts", 5) == "fewer than 5 accounts"
    assert get_args(t.Framework) == ("ATLAS", "ATT&CK")


def test_the_list_of_the_freed_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "freed.txt"
    path.write_bytes("\ufeffa b\r\n\n#c\n=d\nß".encode())
    assert read_freed(path) == {"a b", "#c", "=d", "ß"}
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match="not UTF-8"):
        read_freed(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_freed(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_freed(tmp_path / "none")


def test_a_file_of_appeals_is_read_as_one(tmp_path: Path, keys: KeyRing) -> None:
    path = tmp_path / "appeals.jsonl"
    names = keys.names("appeal")
    for account in ("acct-1", "acct-2"):
        receive(path, account, CAMPAIGN, names, NOW)
    assert read_freed(path) == frozenset()
    decide(
        path, "acct-1", campaign=CAMPAIGN, outcome="reversed", code="contract", note="Seen.", results="0" * 64,
        evidence_until="2026-01-03T23:00:00Z", names=names, signer=ANNA, at=NOW + timedelta(days=1),
    )  # fmt: skip
    assert read_freed(path) == {"acct-1"}
    path.write_bytes(path.read_bytes().replace(b"acct-1", b"acct-3"))
    with pytest.raises(DecisionError, match="altered"):
        read_freed(path)


def test_the_command_says_what_it_did_and_warns_of_raw_ids(
    asked: Request, keys: KeyRing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    words = [
        "share", CAMPAIGN, "--results", asked.results, "--keys", keys.path, "--partner", "b.example", "--tlp", "red",
        "--confidence", 80, "--expires", "2027-01-01", "--out", out, "--format",
    ]  # fmt: skip
    said = run(capsys, *words, "decisions")
    assert said == (
        f"{out}: what is decided about each account, JSON lines, for b.example, TLP:RED, "
        f"{out.stat().st_size:,} bytes\n"
    )
    assert out.stat().st_mode & 0o777 == 0o600
    assert b"acct-" not in out.read_bytes()
    run(capsys, *words, "decisions", "--show-accounts")
    assert b"acct-" in out.read_bytes()
    (tmp_path / "freed.txt").write_text("acct-1\nacct-2\n")
    run(capsys, *words, "decisions", "--show-accounts", "--without", tmp_path / "freed.txt")
    listed = [json.loads(line)["account"] for line in out.read_text().splitlines()[1:]]
    assert len(listed) == 21
    assert "acct-1" not in listed
    assert "is no date" in run(capsys, *words, "csv", "--at", "soon", fails=2)
    assert "is no format" in run(capsys, *words, "xml", fails=2)
    assert "there is no key ring" in run(
        capsys, *words[:4], "--keys", tmp_path / "no", *words[6:], "csv", fails=3
    )


def test_the_transparency_log_is_told_who_has_what(
    asked: Request, keys: KeyRing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, key, out = tmp_path / "audit.log", tmp_path / "audit.pem", tmp_path / "out.csv"
    run(capsys, "log", "init", log, "--key", key, "--new-key", "--origin", "example.com/log")
    words = [
        "share", CAMPAIGN, "--results", asked.results, "--keys", keys.path, "--partner", "b.example",
        "--confidence", 5, "--tlp", "green", "--expires", "2030-01-01", "--out", out, "--format", "csv",
        "--log", log, "--log-key", key,
    ]  # fmt: skip
    run(capsys, *words)
    first = hashlib.sha256(out.read_bytes()).hexdigest()
    assert "It takes back" in run(capsys, *words, "--revoked", "--at", "2029-01-01")
    told = [json.loads(data) for _, kind, data in events_of(log) if kind == "share" and data]
    assert [entry["did"] for entry in told] == ["share", "take_back"]
    assert [entry["sha256"] for entry in told] == [first, hashlib.sha256(out.read_bytes()).hexdigest()]
    assert all(entry["campaign"] == CAMPAIGN and entry["tlp"] == "green" for entry in told)
    assert "b.example" not in json.dumps(told)
    assert "acct-" not in json.dumps(told)
