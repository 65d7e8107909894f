"""What the guard would measure of one account by a results folder: for people, outside any gateway."""

from __future__ import annotations

import re
from pathlib import Path

from stillwatch.guard.build import build
from stillwatch.guard.decide import Guard
from stillwatch.guard.policy import SHADOW, parse_policy
from stillwatch.guard.secret import Secret
from stillwatch.guard.snapshot import Arrays, Snapshot
from stillwatch.guard.subject import Subject
from stillwatch.store.results import read_findings, read_results, read_scoring

REFERENCE = re.compile(r"[0-9a-f]{16}")


def measured(folder: Path, account: str) -> dict[str, tuple[float, ...]]:
    """Bits (FORM, LINK, TIME, all) of an account by campaign, from all that the results know of it.

    Whether the operator's word stands for it plays no part. Raises what `build` raises.
    """
    policy = parse_policy(SHADOW)
    # It hashes ids inside this process only.
    secret = Secret(b"nothing that leaves this process")
    meta, made = build(folder, policy, secret)
    guard = Guard(Snapshot(meta, Arrays(**made), policy, secret, {}), clock=lambda: meta.last_us)
    # A request that was refused counts nothing: what the scan saw is measured.
    subject = Subject(account=account, refused=True)
    guard.decide(subject)
    return guard.bits(subject)


def whose(folder: Path, reference: str, secret: Secret) -> tuple[str, str] | None:
    """The account (or principal) and group that an appeal reference stands for; None if these results have none.

    Members first. Of the others the guard finds some inline, and those for campaigns only.
    """
    groups = [group.id for group in read_findings(folder).groups if group.verdict == "campaign"]
    table = read_results(folder).accounts.select(["account_id", "campaign_id"]).to_pydict()
    for account, group in zip(table["account_id"], table["campaign_id"], strict=True):
        if secret.appeal(secret.account(account), group) == reference:
            return account, group
    for account in read_scoring(folder)["scoring_accounts"].column("account_id").to_pylist():
        number = secret.account(account)
        for group in groups:
            if secret.appeal(number, group) == reference:
                return account, group
    return None
