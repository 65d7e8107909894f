"""What the guard knows: the content of a snapshot file, and how it is loaded. Nothing here is changed afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from stillwatch.guard.enforcement import Allowed, allowed
from stillwatch.guard.layout import map_snapshot, write_snapshot
from stillwatch.guard.policy import Policy, parse_policy
from stillwatch.guard.secret import Secret
from stillwatch.schema.errors import SnapshotError, Where
from stillwatch.schema.results import Verdict
from stillwatch.store.decisions import Standing

ROLES = ("core", "recruit")
VIEWS = ("FORM", "LINK")
"""The views whose keys a request shows. TIME is a rank in the population: it comes from the scan as it is."""
VARIANTS = 5
"""Profiles of a campaign and view: of all members, and without each of the four folds."""

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
I16 = npt.NDArray[np.int16]
I8 = npt.NDArray[np.int8]
U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign, lead or cleared group that has members in the snapshot."""

    id: str
    verdict: Verdict
    why: str | None
    last_us: int
    """Its last exchange; also one that was refused, where the snapshot was made with that knowledge."""
    kept: bool = False
    """The scan lists it no more, because what would show it is being refused (`guard.carry`)."""


class Heeded(msgspec.Struct, frozen=True, kw_only=True):
    """One fingerprint of a partner, by number."""

    partner: str
    indicator: str
    until_us: int


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """The header of a snapshot."""

    program: str
    """Version of the package that made it."""
    results: str
    """Digest of the results folder."""
    seed: int
    """Of the scan."""
    first_us: int
    last_us: int
    """Of the scan's log: what came later was not in it."""
    expires_us: int
    form_places: int
    """Keys of FORM; the others are LINK's."""
    campaigns: tuple[Listed, ...]
    """Those whose bits can be measured, by number."""
    groups: tuple[Listed, ...]
    """Those that accounts are named in, by number."""
    tiers: tuple[str, ...]
    contracts: tuple[str, ...]
    owners: tuple[str, ...]
    policy: str
    """Text of the policy file."""
    policy_name: str
    decisions: tuple[Standing, ...]
    decisions_head: str
    appeals_head: str = ""
    """Hash of the last row of the file of appeals; empty where none was given."""
    intel: tuple[Heeded, ...] = ()
    """Fingerprints of partners that requests are compared with."""


@dataclass(frozen=True, slots=True)
class Arrays:
    """The mapped arrays. A *row* is an account, sorted by keyed hash; a *place* is a key: FORM's, then LINK's, each
    sorted by hash. `x_offsets[i]:x_offsets[i+1]` are the elements of `x_*` that belong to row, place or campaign i.
    """

    account_hash: U64
    account_volume: I32
    """Exchanges in the scan."""
    account_excused: U8
    account_tier: I16
    """Number in `Meta.tiers`, -1 where unknown; so with the next two."""
    account_contract: I16
    account_owner: I32
    held_offsets: I64
    held_place: I32
    held_count: U8
    """Exchanges that showed the key, at most 255."""
    held_given: U8
    """1 where only the accounts table has it."""
    named_offsets: I64
    named_group: I32
    named_role: U8
    named_bits: F64
    """e_bits, FORM, LINK, TIME as the results have them, shape (rows, 4); nan where a view did not look."""
    measured_offsets: I64
    measured_campaign: I16
    measured_fold: I8
    measured_time: F64
    key_hash: U64
    key_share: F64
    """Probability of drawing the key from anybody."""
    key_repeat: U8
    """1 for prompt families, which count from the second use."""
    prompt_table: U64
    """`families.posting_table`; its indices are those of `prompt_family`."""
    prompt_family: I32
    prompt_place: I32
    """Place of each family."""
    prompt_need: I32
    system_table: U64
    system_family: I32
    system_place: I32
    system_need: I32
    niche_offsets: I64
    """By place."""
    niche_group: I32
    niche_share: F64
    profile_offsets: I64
    """By (campaign, view, variant), in that order."""
    profile_place: I32
    profile_null: F64
    profile_share: F64
    touch_offsets: I64
    """By place: the campaigns of which the key is typical."""
    touch_campaign: I16
    stream_offsets: I64
    """By place: the campaigns whose own families have this key."""
    stream_campaign: I16
    api_key_hash: U64
    api_key_account: U64
    """Keyed hash of the account that each API key belongs to."""
    exit_first: I64
    exit_last: I64
    intel_inner: npt.NDArray[np.uint32]
    """States of `sketch.keyed` by key that was agreed on with a partner, shape (keys, 8). Whoever reads the snapshot
    can hash postings under these keys."""
    intel_outer: npt.NDArray[np.uint32]
    intel_level: I8
    """Selection level of the postings that fingerprints under each key are made of."""
    intel_hash: U64
    """Key and short hash, sorted."""
    intel_offsets: I64
    """By hash: the fingerprints that have it."""
    intel_of: I32
    intel_need: I32
    """Hashes that a text must hold, by fingerprint."""


@dataclass(frozen=True)
class Snapshot:
    """A loaded snapshot. Read-only; several guards may share one."""

    meta: Meta
    arrays: Arrays
    policy: Policy
    secret: Secret
    enforced: Mapping[str, Allowed]
    """By campaign; empty in shadow mode."""
    touches: Mapping[int, tuple[int, ...]] = field(init=False)
    """Campaigns of which a key (by place) is typical."""
    streams: Mapping[int, tuple[int, ...]] = field(init=False)
    """Campaigns whose own families have this key (by place)."""

    def __post_init__(self) -> None:
        a = self.arrays
        object.__setattr__(self, "touches", _by_place(a.touch_offsets, a.touch_campaign))
        object.__setattr__(self, "streams", _by_place(a.stream_offsets, a.stream_campaign))

    @property
    def accounts(self) -> int:
        return len(self.arrays.account_hash)


def _by_place(offsets: I64, campaign: I16) -> dict[int, tuple[int, ...]]:
    counts = np.diff(offsets)
    used = np.flatnonzero(counts)
    values = campaign.tolist()
    starts = offsets[used].tolist()
    return {
        place: tuple(values[start : start + count])
        for place, start, count in zip(used.tolist(), starts, counts[used].tolist(), strict=True)
    }


def save(path: Path, meta: Meta, arrays: Mapping[str, npt.NDArray[Any]], secret: Secret) -> None:
    """Write a snapshot in one step."""
    write_snapshot(path, meta, arrays, secret)


def load(path: Path, secret: Secret) -> Snapshot:
    """Load a snapshot, or nothing at all.

    SnapshotError where the file cannot be used, PolicyError where its policy cannot, DecisionError where it orders
    what nobody signed.
    """
    meta, arrays = map_snapshot(path, secret, Meta)
    where = Where(str(path))
    wanted = set(Arrays.__slots__)
    if set(arrays) != wanted:
        raise SnapshotError(
            "the snapshot lacks arrays that this version needs",
            where=where,
            hint="make it again with `stillwatch guard snapshot`",
        )
    policy = parse_policy(meta.policy, meta.policy_name)
    return Snapshot(meta, Arrays(**arrays), policy, secret, allowed(policy, meta.decisions))
