"""Stage 1: who is one unit. Side tables aligned with the accounts of a reduced log."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.detect.explain import WEB_SHARE, web
from stillwatch.detect.keys import build_index, without
from stillwatch.ingest.lookup.use import NO_LOOKUPS, WEBMAIL, Lookups
from stillwatch.scan.collect import Reduced
from stillwatch.schema.tables import SEPARATOR
from stillwatch.views.base import I64

Bool = npt.NDArray[np.bool_]

DAY_US = 86_400_000_000
WEBMAIL_SHARE = 0.01
"""A mail domain that more than this share of all accounts uses is a mail provider's, unless they form one web."""
REFERENCE_SIZE = 8


@dataclass(frozen=True, slots=True)
class Units:
    """One element per account (principal); codes are -1 where the tables do not say."""

    verified: I64
    """Code of the verified entity."""
    declared: I64
    """Code of an entity that is only declared (the account's own claim)."""
    reference: I64
    """Code of a group that the operator lists in `references`."""
    gateway: Bool
    """Registered gateway whose end users are not verified: judged by its streams only."""
    contract: Bool
    """The operator's contract permits distillation or evaluation."""
    freed: Bool
    """A person decided after an appeal that the account belongs to no campaign."""
    created_us: I64
    signup_month: I64
    tier: I64
    payer: I64
    mail: I64
    """Mail domain."""
    corporate: I64
    """Mail domain, -1 where it is a mail provider's: webmail or throw-away."""
    block: I64
    """Address block that at least half of the account's exchanges come from."""
    banned_us: I64
    entity_names: list[str]

    @property
    def mail_kind(self) -> I64:
        """1 for a mail domain of one's own, 0 for a provider's, -1 where the log does not say."""
        return np.where(self.mail < 0, -1, (self.corporate >= 0).astype(np.int64))

    def apart(self, first: I64, second: I64) -> Bool:
        """Pairs of accounts that are not of one known-honest group, shape (pairs,)."""
        group = self.honest_group
        return (group[first] < 0) | (group[first] != group[second])

    @property
    def excused(self) -> Bool:
        """Accounts that the operator's word stands for: whatever they share, they join no campaign."""
        return self.gateway | (self.honest_group >= 0) | self.contract | self.freed

    @property
    def honest_group(self) -> I64:
        """Code of the known-honest group an account belongs to: verified entity, else listed reference."""
        top = int(self.verified.max(initial=-1)) + 1
        return np.where(
            self.verified >= 0, self.verified, np.where(self.reference >= 0, self.reference + top, -1)
        )


def _codes(values: list[Any]) -> I64:
    names = {name: i for i, name in enumerate(sorted({v for v in values if v is not None and v != ""}))}
    return np.array([names.get(v, -1) for v in values], np.int64)


def align(
    reduced: Reduced,
    side: dict[str, pa.Table],
    lookups: Lookups = NO_LOOKUPS,
    freed: AbstractSet[str] = frozenset(),
) -> Units:
    """Look the accounts up in the side tables, and their mail domains in the lookup tables. `freed`: by an appeal."""
    n = reduced.accounts
    owner = [name.partition(SEPARATOR)[0] for name in reduced.principals]
    split = np.array([SEPARATOR in name for name in reduced.principals], bool)
    accounts = side.get("accounts")
    columns: dict[str, list[Any]] = {}
    if accounts is not None and accounts.num_rows:
        number = {name: i for i, name in enumerate(accounts.column("account_id").to_pylist())}
        place = np.array([number.get(name, -1) for name in owner], np.int64)
        taken = pa.array(np.where(place < 0, 0, place), mask=place < 0)
        for name in ("entity_id", "verified", "tier", "program", "payment_fp", "email_domain", "contract"):
            if name in accounts.column_names:
                columns[name] = accounts.column(name).take(taken).to_pylist()
        if "created_at" in accounts.column_names:
            created = accounts.column("created_at").take(taken).cast(pa.int64())
            columns["created_at"] = pc.fill_null(created, 0).to_pylist()
    blank: list[Any] = [None] * n
    entity, verified = columns.get("entity_id", blank), columns.get("verified", blank)
    declared = [e if e is not None and not v else None for e, v in zip(entity, verified, strict=True)]
    known = _codes([e if e is not None and v else None for e, v in zip(entity, verified, strict=True)])
    claimed = _codes(declared)
    in_log = reduced.declared >= 0
    only_log = in_log & np.array([e is None for e in entity], bool)
    claimed = np.where(only_log, reduced.declared + int(claimed.max(initial=-1)) + 1, claimed)
    contract = columns.get("contract", blank)
    created_us = np.array(columns.get("created_at", [0] * n), np.int64)
    domains = columns.get("email_domain", blank)
    mail = _codes(domains)
    provider = np.zeros(int(mail.max(initial=0)) + 2, bool)
    # A domain that sells mailboxes for ten minutes owns nobody, however few accounts of this log use it.
    names = sorted({d for d in domains if d})
    open_to_all = lookups.disposable(names) | WEBMAIL.intersection(names)
    provider[[place for place, name in enumerate(names) if name in open_to_all]] = True
    provider[_providers(reduced, mail, provider)] = True
    registered = np.array([c == "gateway" for c in contract], bool) | reduced.gateway
    personal = split  # what the gateway's own account says tells nothing about one of its users
    hide = np.where(personal, -1, 0)
    banned = np.zeros(n, np.int64)
    sanctions = side.get("sanctions")
    if sanctions is not None and sanctions.num_rows:
        place_of = {name: i for i, name in enumerate(reduced.principals)}
        kinds = sanctions.column("kind").to_pylist()
        times = sanctions.column("ts").cast(pa.int64()).to_pylist()
        for name, kind, us in zip(sanctions.column("account_id").to_pylist(), kinds, times, strict=True):
            at = place_of.get(name)
            if at is not None and kind == "ban":
                banned[at] = max(banned[at], us)
    return Units(
        verified=np.where(personal, -1, known),
        declared=np.where(personal, -1, claimed),
        reference=_references(side.get("references"), owner),
        gateway=registered & ~split,
        freed=np.array([name in freed for name in reduced.principals], bool),
        contract=np.array([c in ("distillation-permitted", "evaluation") for c in contract], bool),
        created_us=np.where(personal, 0, created_us),
        signup_month=np.where(personal | (created_us == 0), -1, created_us // (30 * DAY_US)),
        tier=_codes([f"{t}" if t is not None else None for t in columns.get("tier", blank)]),
        payer=np.minimum(
            _codes(columns.get("payment_fp", blank)), np.where(hide < 0, -1, np.iinfo(np.int64).max)
        ),
        mail=mail,
        corporate=np.where(provider[mail], -1, mail),
        block=_main_block(reduced),
        banned_us=banned,
        entity_names=sorted({e for e in entity if e is not None}),
    )


def _providers(reduced: Reduced, mail: I64, known: Bool) -> I64:
    """Mail domains besides those in `known` bool[domains] that are popular, and whose holders have nothing in common.

    The staff of a large customer is popular too, but hangs together by offices, cards and devices.
    """
    holders = np.bincount(mail[mail >= 0], minlength=len(known))
    popular = np.flatnonzero((holders > max(20.0, WEBMAIL_SHARE * reduced.accounts)) & ~known)
    if len(popular) == 0:
        return popular
    link = reduced.link
    tied = np.isin(link.key_kind, [link.kinds.index(kind) for kind in ("address_block", "payment", "device")])
    index = without(
        build_index(link.account, link.key, link.count, reduced.accounts, len(link.key_hash)), ~tied
    )
    return popular[[web(index, np.flatnonzero(mail == code)) < WEB_SHARE for code in popular.tolist()]]


def _references(table: pa.Table | None, owner: list[str]) -> I64:
    if table is None or table.num_rows == 0:
        return np.full(len(owner), -1, np.int64)
    groups = dict(
        zip(table.column("account_id").to_pylist(), table.column("group_id").to_pylist(), strict=True)
    )
    return _codes([groups.get(name) for name in owner])


def _main_block(reduced: Reduced) -> I64:
    """The address block of at least half of an account's exchanges, as a key number, else -1."""
    link = reduced.link
    kind = link.kinds.index("address_block")
    rows = link.key_kind[link.key] == kind
    account, key, count = link.account[rows], link.key[rows], link.count[rows]
    order = np.lexsort((key, -count, account))
    first = np.append(True, account[order][1:] != account[order][:-1]) if len(order) else np.zeros(0, bool)
    best = order[first]
    block = np.full(reduced.accounts, -1, np.int64)
    half = count[best] * 2 >= reduced.volume[account[best]]
    block[account[best][half]] = key[best][half]
    return block


__all__ = ["REFERENCE_SIZE", "Units", "align"]
