"""From a confirmed campaign to fingerprints that a partner can compare with its own traffic, and nothing else.

What goes in is the campaign's own wording: families of which its members are most holders. Left out are families that
fewer than 5 members of fewer than 2 entities hold, published prompts, and whatever a customer uses for whom the
operator's word stands. Of what is left a keyed choice of postings is hashed under the key agreed on with the partner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from stillwatch.scan.partner import DECISIVE
from stillwatch.schema.errors import UsageError
from stillwatch.schema.intel import (
    HASH_HEX,
    LEAST_ACCOUNTS,
    LEAST_ENTITIES,
    LEAST_HASHES,
    MOST_HASHES,
    SHARED_LEVEL,
    FamilyFingerprint,
    rounded_down,
)
from stillwatch.store.pseudonyms import Pseudonyms
from stillwatch.store.results import read_findings, read_results, read_scoring
from stillwatch.store.told import keyed
from stillwatch.views.families import selection_level

LEAST = 0.2
"""Share of the hashes that wording must hold; docs/intel.md has what other shares find and confuse, measured."""
TEMPLATE_SHARE = 0.6
"""Families with fewer holders than this share of the fullest are what stood in the slots: they only fill up."""
WANTED = 12
"""Hashes from which a part of the postings is enough."""
SIZES = (LEAST_HASHES, 12, 16, 24, 32, 48, MOST_HASHES)
"""Hashes of a fingerprint: else their number would join the fingerprints that two partners have of one campaign."""
OWN_SHARE = 0.5
"""Of a family's holders that must be the campaign's members."""
TYING = ("payment", "device")
"""Kinds of keys whose holders are one entity: who shares a card or a machine is not hidden among others."""
Part = Literal["prompt", "system"]
PARTS: tuple[Part, ...] = ("prompt", "system")
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Wording:
    """One family of a campaign."""

    part: Part
    postings: U64
    holders: I64
    """Members that hold it."""
    capabilities: list[str]


def hashes_of(names: Pseudonyms, postings: U64) -> U64:
    """Short keyed hashes (`HASH_HEX` hex digits, as numbers), same shape."""
    return keyed(names).of(postings) >> np.uint64(64 - 4 * HASH_HEX)


def fingerprints_of(
    folder: Path, campaign: str, names: Pseudonyms, public: U64 | None = None
) -> list[FamilyFingerprint]:
    """Fingerprints of one campaign of a results folder: one of its prompts, one of its system prompts, or fewer.

    `public`: postings of published prompts (`Lookups.public_postings`), which are left out one by one. UsageError
    if the folder has no such campaign or it must not be shared, ResultError if it cannot be used.
    """
    own, entity = confirmed_wording(folder, campaign)
    known = np.zeros(0, np.uint64) if public is None else public
    found = [fingerprint([w for w in own if w.part == part], entity, names, known) for part in PARTS]
    return [made for made in found if made is not None]


def confirmed_wording(folder: Path, campaign: str) -> tuple[list[Wording], I64]:
    """The own families of a confirmed campaign, and the entity of each account of the results.

    UsageError for what is no campaign, or one only by what a partner said: to share that would be an echo.
    """
    group = next((g for g in read_findings(folder).groups if g.id == campaign), None)
    if group is None or group.verdict != "campaign":
        raise UsageError(
            f"{campaign!a} is no campaign of this results folder"
            if group is None
            else f"{campaign} is a group with the verdict {group.verdict}: only what is confirmed is shared",
            hint="`stillwatch explain` lists the groups of a results folder",
        )
    if any(part.kind == "PARTNER" and part.signal == DECISIVE for part in group.evidence):
        raise UsageError(
            f"{campaign} is a campaign only by what a partner said: to share it would be an echo",
            hint="share it once a scan confirms it without --intel",
        )
    return _own(folder, campaign)


def fingerprint(
    own: Sequence[Wording], entity: I64, names: Pseudonyms, public: U64
) -> FamilyFingerprint | None:
    """Fingerprint of the wording `own` of one part, None where there is too little of it.

    `entity` int64[accounts]: accounts with the same number are one entity.
    """
    fit = shareable(own, entity)
    posting, held = template_of(fit, public)
    level = selection_level(posting)
    # One posting in four, or in two, where so few suffice; else all.
    step = next((step for step in range(SHARED_LEVEL, 0, -1) if (level >= step).sum() >= WANTED), 0)
    posting, held = posting[level >= step], held[level >= step]
    short = hashes_of(names, posting)
    # Among equals the key decides, so that two partners get different parts of a large wording.
    ranked = list(dict.fromkeys(short[np.lexsort((short, -held))].tolist()))
    size = max((size for size in SIZES if size <= len(ranked)), default=0)
    if not size:
        return None
    chosen = sorted(ranked[:size])
    holders = np.unique(np.concatenate([w.holders for w in fit]))
    return FamilyFingerprint(
        key_id=names.key_id,
        part=fit[0].part,
        hashes=[f"{value:0{HASH_HEX}x}" for value in chosen],
        least=LEAST,
        accounts=rounded_down(len(holders)),
        entities=rounded_down(len(np.unique(entity[holders]))),
        capabilities=sorted({name for w in fit for name in w.capabilities}),
        level=step,
    )


def shareable(own: Sequence[Wording], entity: I64) -> list[Wording]:
    """Families that enough accounts of enough entities hold."""
    return [
        w
        for w in own
        if len(w.holders) >= LEAST_ACCOUNTS and len(np.unique(entity[w.holders])) >= LEAST_ENTITIES
    ]


def template_of(fit: Sequence[Wording], public: U64) -> tuple[U64, I64]:
    """(postings, holders of each) that make up a template: those that most members hold, where they suffice.

    Fewer hold what stood in the slots, which other operations of the same people fill with something else.
    """
    if not fit:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    posting = np.concatenate([w.postings for w in fit])
    held = np.repeat([len(w.holders) for w in fit], [len(w.postings) for w in fit])
    keep = ~np.isin(posting, public)
    posting, held = posting[keep], held[keep]
    template = held >= TEMPLATE_SHARE * held.max(initial=0)
    return (posting[template], held[template]) if template.sum() >= LEAST_HASHES else (posting, held)


def _own(folder: Path, campaign: str) -> tuple[list[Wording], I64]:
    """The campaign's own families, and the entity of each account of the results."""
    results, scoring = read_results(folder), read_scoring(folder)
    keys, postings, held = (scoring[f"scoring_{name}"] for name in ("keys", "postings", "held"))
    kinds = keys.column("key_kind").to_pylist()
    place_of = {
        f"{key:016x}": place
        for place, (key, view) in enumerate(
            zip(keys.column("key").to_pylist(), keys.column("view").to_pylist(), strict=True)
        )
        if view == "FORM"
    }
    account, place = (held.column(name).to_numpy() for name in ("account", "place"))
    accounts = scoring["scoring_accounts"]
    excused = accounts.column("excused").to_numpy(zero_copy_only=False)
    named = results.accounts.filter(
        np.array([c == campaign for c in results.accounts.column("campaign_id").to_pylist()], bool)
    )
    members = set(named.column("account_id").to_pylist())
    member = np.array([name in members for name in accounts.column("account_id").to_pylist()], bool)
    tying = np.array([kind in TYING for kind in kinds], bool)
    entity = _entities(account[tying[place]], place[tying[place]], len(member))
    group = next(g for g in results.findings.groups if g.id == campaign)
    wanted, out = set(group.families), []
    part_of = postings.column("part").to_pylist()
    of_place = postings.column("place").to_numpy()
    value = postings.column("posting").to_numpy()
    for row in results.families.to_pylist():
        at = place_of.get(row["family_id"], -1)
        if row["family_id"] not in wanted or row["public"] or at < 0:
            continue
        holders = np.unique(account[place == at])
        inside = holders[member[holders]]
        if excused[holders].any() or len(inside) < OWN_SHARE * len(holders):
            continue
        rows = np.flatnonzero(of_place == at)
        mine = value[[r for r in rows.tolist() if part_of[r] == row["part"]]]
        out.append(Wording(row["part"], mine, inside, list(row["capability"] or [])))
    return out, entity


def _entities(account: I64, place: I64, accounts: int) -> I64:
    """The smallest account that each one hangs together with by the keys of (account, place) rows."""
    entity = np.arange(accounts)
    while True:
        least = np.full(int(place.max(initial=-1)) + 1, accounts)
        np.minimum.at(least, place, entity[account])
        after = entity.copy()
        np.minimum.at(after, account, least[place])
        if np.array_equal(after, entity):
            return entity
        entity = after
