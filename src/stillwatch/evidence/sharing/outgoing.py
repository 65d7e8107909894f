"""What leaves about one campaign, made once: every format writes this record and sees nothing else.

Nothing in it names anybody or quotes anything: campaign and accounts are pseudonyms under the partner's key, counts
are rounded down, times are days, wording is keyed hashes that only the partner can compare, and observations are
sentences without numbers. Raw ids are in it only where they were asked for by name.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stillwatch.campaign.techniques import ATLAS_VERSION, ATTACK_VERSION, CATALOGUE, Entry, techniques
from stillwatch.evidence.intel.fingerprints import fingerprints_of
from stillwatch.evidence.sharing.terms import Terms
from stillwatch.evidence.sharing.words import observed
from stillwatch.scan.run import version
from stillwatch.schema.errors import ResultError, UsageError, Where
from stillwatch.schema.intel import LEAST_ACCOUNTS, LEAST_ENTITIES, FamilyFingerprint, rounded_down
from stillwatch.schema.results import Group
from stillwatch.store.decisions import Row, signed, standing
from stillwatch.store.pseudonyms import KeyRing, Pseudonyms
from stillwatch.store.results import Results, read_results

GENERATOR = "Stillwatch"
REVIEW = "review"
"""What the list says to do with accounts on which nobody has decided: look, do nothing."""
TAKE_BACK = "take it back with --revoked if it was shared before"
CLAIMS = ("coordinated", "one_director", "harvest_like")
VERSIONS = {"ATLAS": ATLAS_VERSION, "ATT&CK": ATTACK_VERSION}


@dataclass(frozen=True, slots=True)
class Shown:
    """A technique, and what was observed in words without numbers."""

    entry: Entry
    because: str


@dataclass(frozen=True, slots=True)
class Listed:
    """One account of a decision list."""

    account: str
    """Its pseudonym; its id where that was asked for by name."""
    reason: str
    """`campaign_core`: the campaign grew from it; `campaign_recruit`: its own evidence joins it to the campaign."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One campaign as it leaves."""

    campaign: str
    partner: str
    terms: Terms
    created: datetime
    """Day of the first exchange: the same in every later version."""
    modified: datetime
    """Of this version: when it is shared, or was revoked, or the end of the scan's log."""
    valid_from: datetime
    """End of the scan's log."""
    first_day: datetime
    last_day: datetime
    accounts: int
    """Rounded down to 5, 10, 20, 50, ...; 0: fewer than 5, not told."""
    exchanges: int
    """Rounded down likewise."""
    claims: tuple[str, ...]
    """Names of those that hold."""
    capabilities: tuple[str, ...]
    techniques: tuple[Shown, ...]
    fingerprints: tuple[FamilyFingerprint, ...]
    listed: tuple[Listed, ...]
    """For decision lists alone."""
    action: str
    action_expires: datetime
    revoked: bool
    version: str
    """Of the generator."""

    @property
    def generator(self) -> str:
        """Name and version of this program."""
        return f"{GENERATOR} {self.version}"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for."""

    results: Path
    campaign: str
    partner: str
    terms: Terms
    without: Collection[str] = ()
    """Accounts that an appeal freed: they count nowhere and are listed nowhere."""
    decisions: Sequence[Row] | None = None
    """Rows of a file of decisions: what is done, and whether it was taken back."""
    revoked: bool = False
    show_accounts: bool = False
    share_key: str = ""
    """Number of the key of the pseudonyms; the current one if empty."""
    public: npt.NDArray[np.uint64] | None = None
    """Postings of published prompts (`Lookups.public_postings`), which no fingerprint has."""


def outgoing(
    asked: Request,
    ring: KeyRing,
    tell: Callable[[str], None] = lambda text: None,
    *,
    wording: bool = True,
) -> Outgoing:
    """The record of one campaign, with its fingerprints if `wording`. `tell` hears, in words, what is missing in it.

    UsageError: no such campaign, not a campaign, too few accounts, terms that cannot be; ResultError as
    `read_results`. A campaign that is revoked may have become anything meanwhile.
    """
    results = read_results(asked.results)
    group = _group(asked, results)
    ended = _day(results.findings.run.last_ts) + timedelta(days=1)
    action, until, taken_back = _decided(asked, ended)
    revoked = asked.revoked or taken_back is not None
    if group.verdict != "campaign" and not revoked:
        verdict = "is a lead" if group.verdict == "lead" else "was cleared"
        raise UsageError(f"{group.id} {verdict}: only what is confirmed is shared", hint=TAKE_BACK)
    modified = _modified(asked, ended, taken_back, revoked)
    if asked.terms.expires <= (ended if revoked else max(modified, ended)):
        raise UsageError(
            "it would expire before it is shared"
            if asked.terms.at
            else "it would expire before the log ends",
            hint="give a later --expires",
        )
    members = _members(asked, results)
    if len(members) < LEAST_ACCOUNTS and not revoked:
        raise UsageError(
            f"fewer than {LEAST_ACCOUNTS} accounts are left: nothing about so few leaves",
            hint=TAKE_BACK,
        )
    names = _names(asked, ring, revoked, tell)
    raw = asked.show_accounts
    return Outgoing(
        campaign=group.id if raw else names.of("campaign", group.id),
        partner=asked.partner,
        terms=asked.terms,
        created=_day(group.first_ts),
        modified=modified,
        valid_from=ended,
        first_day=_day(group.first_ts),
        last_day=_day(group.last_ts),
        accounts=rounded_down(len(members)) if len(members) >= LEAST_ACCOUNTS else 0,
        exchanges=rounded_down(group.exchanges),
        claims=tuple(c.name for c in group.claims if c.holds and c.name in CLAIMS),
        capabilities=tuple(group.capabilities),
        techniques=tuple(Shown(CATALOGUE[t.id], observed(t.signals)) for t in techniques(group)),
        fingerprints=_fingerprints(asked, group, ring, tell) if wording else (),
        listed=tuple(sorted(_listed(members, names, raw), key=lambda row: row.account)),
        action=action,
        action_expires=min(asked.terms.expires, until or asked.terms.expires),
        revoked=revoked,
        version=version(),
    )


def _group(asked: Request, results: Results) -> Group:
    group = next((g for g in results.findings.groups if g.id == asked.campaign), None)
    if group is None:
        raise UsageError(
            f"{asked.campaign[:40]!a} is no group of {asked.results}",
            hint="findings.json lists them; name the results from which a campaign was shared to take it back",
        )
    return group


def _names(asked: Request, ring: KeyRing, revoked: bool, tell: Callable[[str], None]) -> Pseudonyms:
    """What names things for the partner. An older key takes back what was shared under it."""
    if not asked.share_key:
        current = ring.names("share", asked.partner)
        older = [
            names.key_id for names in ring.every("share", asked.partner) if names.key_id != current.key_id
        ]
        if revoked and older:
            tell(
                f"taken back as named under the key {current.key_id}; for what was shared before it was rotated: "
                f"--share-key {older[0]}" + "".join(f", or {number}" for number in older[1:])
            )
        return current
    found = next((n for n in ring.every("share", asked.partner) if n.key_id == asked.share_key), None)
    if found is None:
        raise UsageError(
            f"{asked.share_key[:16]!a} is no key of purpose share for {asked.partner}, or was destroyed",
            hint=f"stillwatch keys list {ring.path}",
        )
    return found


def _decided(asked: Request, ended: datetime) -> tuple[str, datetime | None, datetime | None]:
    """(action, its end, when it was taken back) by the file of decisions."""
    rows = [] if asked.decisions is None else asked.decisions
    ours = {row.digest for row in rows if row.order is not None and row.order.campaign == asked.campaign}
    acted = {row.digest for row in rows if row.did == "approve"} & ours
    there = [d for d in standing(rows, asked.terms.at or ended) if d.order.campaign == asked.campaign]
    for decision in there[::-1]:
        approved = [
            key
            for key, signature in decision.approvals
            if key != decision.proposer and signed("approve", decision.order.digest, key, signature)
        ]
        if approved and signed("propose", decision.order.digest, decision.proposer, decision.proposed):
            return decision.order.action, decision.order.expires, None
    # A proposal that nobody approved and its author took back reversed nothing.
    ends = [row.at for row in rows if row.did == "revoke" and row.digest in acted]
    return REVIEW, None, max(ends, default=None)


def _modified(asked: Request, ended: datetime, taken_back: datetime | None, revoked: bool) -> datetime:
    if asked.terms.at is not None:
        return asked.terms.at
    if taken_back is not None:
        return max(taken_back, ended + timedelta(milliseconds=1))
    if revoked:
        raise UsageError(
            "nothing says when it was taken back", hint="give --at, or the file of --decisions that has it"
        )
    return ended


def _members(asked: Request, results: Results) -> dict[str, str]:
    """Role by account id, without those who were freed."""
    rows = results.accounts.select(["account_id", "campaign_id", "role"]).to_pydict()
    freed = set(asked.without)
    return {
        account: role
        for account, group, role in zip(rows["account_id"], rows["campaign_id"], rows["role"], strict=True)
        if group == asked.campaign and account not in freed
    }


def _listed(members: dict[str, str], names: Pseudonyms, raw: bool) -> Iterator[Listed]:
    for account, role in members.items():
        yield Listed(account if raw else names.of("account", account), f"campaign_{role}")


def _fingerprints(
    asked: Request, group: Group, ring: KeyRing, tell: Callable[[str], None]
) -> tuple[FamilyFingerprint, ...]:
    if group.verdict != "campaign":
        return ()
    keys = ring.every("fingerprint", asked.partner)
    if not keys:
        tell(
            f"no fingerprints: no key was agreed on with {asked.partner or 'this partner'} "
            "(stillwatch keys agree RING --partner NAME)"
        )
        return ()
    with _without(asked.results, asked.without) as folder:
        found = fingerprints_of(folder, group.id, keys[0], asked.public)
    if not found:
        tell(
            f"no fingerprints: too little wording of its own is held by {LEAST_ACCOUNTS} accounts of "
            f"{LEAST_ENTITIES} unlinked entities"
        )
    return tuple(found)


def fingerprint_id(family: FamilyFingerprint) -> str:
    """One name for a fingerprint: SHA-256, hex, of key id, part and hashes, joined by line feeds."""
    return hashlib.sha256("\n".join((family.key_id, family.part, *family.hashes)).encode()).hexdigest()


@contextmanager
def _without(folder: Path, freed: Collection[str]) -> Iterator[Path]:
    """The results folder as it would be if `freed` had never been named."""
    if not freed:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="stillwatch-") as name:
        view = Path(name)
        try:
            for path in folder.iterdir():
                if path.name != "accounts.parquet":
                    (view / path.name).symlink_to(path.resolve())
            table = pq.read_table(folder / "accounts.parquet")
            named = pc.is_in(table.column("account_id"), value_set=pa.array(sorted(freed), pa.string()))
            pq.write_table(table.filter(pc.invert(named)), view / "accounts.parquet")
        except (OSError, pa.ArrowException) as error:
            raise ResultError("the results folder is damaged", where=Where(str(folder))) from error
        yield view


def _day(text: str) -> datetime:
    return datetime.fromisoformat(text[:10]).replace(tzinfo=UTC)
