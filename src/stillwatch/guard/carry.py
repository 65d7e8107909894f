"""A campaign that is being refused stays in the snapshot: what we refuse is no evidence, and must not free anybody.

Requests that Stillwatch refuses count towards nothing in a scan, so that after the window's days a blocked pool would
be found no more, and could come back. So what the snapshot before knew of a campaign - members, bits, profiles,
families - goes on into the new one, until the campaign was silent for as long as the policy says. It goes on only
where our refusals explain why the scan does not see it: a campaign whose members are answered and not found again is
over, and so is one for whoever the operator's word now stands. The state is the old snapshot alone: the same results,
the same old snapshot and the same log give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from stillwatch.engine.holders import grouped
from stillwatch.guard.snapshot import VARIANTS, VIEWS, Arrays, Listed, Meta, Snapshot
from stillwatch.schema.times import DAY_US
from stillwatch.views.families import needed, posting_table

Made = dict[str, npt.NDArray[Any]]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Heard:
    """What the log of the new scan holds of each account, by keyed hash, rising."""

    account: U64
    last_us: I64
    """Its last request, answered or refused."""
    refused: npt.NDArray[np.bool_]
    """Whether Stillwatch refused one of them."""

    def of(self, hashes: U64) -> tuple[I64, npt.NDArray[np.bool_]]:
        """(last request, refused) of some accounts; 0 and False for those that sent nothing."""
        if len(self.account) == 0:
            return np.zeros(len(hashes), np.int64), np.zeros(len(hashes), bool)
        at = np.minimum(np.searchsorted(self.account, hashes), len(self.account) - 1)
        there = self.account[at] == hashes
        return np.where(there, self.last_us[at], 0), there & self.refused[at]


@dataclass(slots=True)
class _Kept:
    """One campaign of the old snapshot that goes on."""

    old: int
    """Its number among the old groups."""
    listed: Listed
    rows: I64
    """Rows of the old `named_*` that go on."""
    account: U64
    """And the accounts that they are of."""


def carried(
    meta: Meta,
    made: Mapping[str, npt.NDArray[Any]],
    old: Snapshot,
    heard: Heard,
    silent_days: float,
    vouched: U64,
) -> tuple[Meta, Made]:
    """Header and arrays of the new snapshot with what goes on from the old one.

    `heard`: of the new scan's log. `silent_days`: as the policy has them. `vouched`: accounts for which the
    operator's word stands by the tables; the scan knows it only of those that it saw.
    """
    meta, again, gone = _chosen(meta, made, old, heard, int(silent_days * DAY_US), vouched)
    out = dict(made)
    if len(gone):
        # Where the scan now holds for a lead what goes on as a campaign, the campaign counts.
        keep = ~np.isin(out["named_group"], gone)
        out |= _relisted("named", out, _row_of(out["named_offsets"])[keep], keep, len(out["account_hash"]))
    if not again:
        return meta, out
    campaigns = list(meta.campaigns)
    number = {entry.id: i for i, entry in enumerate(campaigns)}
    old_number = {entry.id: i for i, entry in enumerate(old.meta.campaigns)}
    fresh = [k.listed.id for k in again if k.listed.kept and k.listed.id in old_number]
    campaigns += [k.listed for k in again if k.listed.id in fresh]
    number |= {name: len(meta.campaigns) + i for i, name in enumerate(fresh)}
    out, where, form = _with_keys(out, meta.form_places, old, [old_number[name] for name in fresh])
    out |= _with_profiles(out, old, [old_number[name] for name in fresh], where)
    out |= _with_owners(out, old, [old_number[name] for name in fresh], number, where)
    out |= _with_families(out, old, where, form)
    groups = list(meta.groups)
    place = {entry.id: i for i, entry in enumerate(groups) if entry.verdict == "campaign"}
    for entry in again:
        if entry.listed.id not in place:
            place[entry.listed.id] = len(groups)
            groups.append(entry.listed)
    out = with_accounts(out, np.concatenate([entry.account for entry in again]))
    out |= _with_members(out, old, again, place, number)
    return msgspec.structs.replace(
        meta, campaigns=tuple(campaigns), groups=tuple(groups), form_places=form
    ), out


def _row_of(offsets: I64) -> I64:
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def _chosen(
    meta: Meta,
    made: Mapping[str, npt.NDArray[Any]],
    old: Snapshot,
    heard: Heard,
    silent_us: int,
    vouched: U64,
) -> tuple[Meta, list[_Kept], I64]:
    """What goes on: the header with what was last heard, the campaigns, and groups that give way to them."""
    a = old.arrays
    row = _row_of(a.named_offsets)
    verdict = {entry.id: entry.verdict for entry in meta.groups}
    new_row = _row_of(made["named_offsets"])
    is_campaign = np.array([entry.verdict == "campaign" for entry in meta.groups], bool)
    named = np.unique(made["account_hash"][new_row[is_campaign[made["named_group"]]]])
    excused = np.concatenate([vouched, made["account_hash"][made["account_excused"] != 0]])
    last: dict[str, int] = {}
    out: list[_Kept] = []
    gone: list[int] = []
    for number, group in enumerate(old.meta.groups):
        if group.verdict != "campaign":
            continue
        rows = np.flatnonzero(a.named_group == number)
        account = a.account_hash[row[rows]]
        at, refused = heard.of(account)
        last[group.id] = max(group.last_us, int(at.max(initial=0)))
        now = verdict.get(group.id)
        if now == "cleared":
            continue
        free = np.isin(account, named) | np.isin(account, excused)
        if now == "campaign":
            # Found again: of those whom it does not name again only the refused ones stay.
            mine = ~free & refused
            if mine.any():
                out.append(_Kept(number, group, rows[mine], account[mine]))
            continue
        hidden = bool(refused.any()) or not at.any()
        if not hidden or meta.last_us - last[group.id] > silent_us or free.all():
            continue
        # Who is answered and not found again is free, whatever becomes of the others.
        mine = ~free & (refused | (at == 0))
        listed = msgspec.structs.replace(group, kept=True, last_us=last[group.id])
        out.append(_Kept(number, listed, rows[mine], account[mine]))
        if now is not None:
            gone.append(next(i for i, entry in enumerate(meta.groups) if entry.id == group.id))
    groups = tuple(
        msgspec.structs.replace(entry, last_us=max(entry.last_us, last.get(entry.id, 0)))
        if entry.verdict == "campaign"
        else entry
        for entry in meta.groups
    )
    return msgspec.structs.replace(meta, groups=groups), out, np.array(gone, np.int64)


def _relisted(name: str, made: Made, row: I64, order: Any, rows: int) -> Made:
    """Lists by row, made anew: `order` picks the entries, `row` says whose each is."""
    by, offsets = grouped(row, rows)
    out: Made = {f"{name}_offsets": offsets}
    for key, values in made.items():
        if key.startswith(f"{name}_") and key != f"{name}_offsets":
            out[key] = values[order][by]
    return out


def _old_places(old: Snapshot, campaigns: list[int]) -> I64:
    """Places of the keys that campaigns are known by: profiles, typical keys, own families."""
    a = old.arrays
    found = [np.zeros(0, np.int64)]
    step = len(VIEWS) * VARIANTS
    for campaign in campaigns:
        begin, end = a.profile_offsets[campaign * step], a.profile_offsets[(campaign + 1) * step]
        found.append(a.profile_place[begin:end].astype(np.int64))
    for name in ("touch", "stream"):
        mine = np.isin(getattr(a, f"{name}_campaign"), campaigns)
        found.append(_row_of(getattr(a, f"{name}_offsets"))[mine])
    return np.unique(np.concatenate(found))


def _with_keys(made: Made, form: int, old: Snapshot, campaigns: list[int]) -> tuple[Made, I64, int]:
    """Keys of both, places made anew; where each old place now is (-1: nowhere); keys of FORM."""
    a = old.arrays
    wanted = _old_places(old, campaigns)
    keys = made["key_hash"]
    old_form = old.meta.form_places
    parts = []
    for first, end, mine in (
        (0, form, wanted[wanted < old_form]),
        (form, len(keys), wanted[wanted >= old_form]),
    ):
        parts.append(np.union1d(keys[first:end], a.key_hash[mine]))
    merged = np.concatenate(parts)
    split = len(parts[0])
    moved = np.concatenate(
        [np.searchsorted(parts[0], keys[:form]), split + np.searchsorted(parts[1], keys[form:])]
    ).astype(np.int64)
    where = np.full(len(a.key_hash), -1, np.int64)
    low, high = wanted[wanted < old_form], wanted[wanted >= old_form]
    where[low] = np.searchsorted(parts[0], a.key_hash[low])
    where[high] = split + np.searchsorted(parts[1], a.key_hash[high])
    out = dict(made)
    out["key_hash"] = merged
    for name in ("key_share", "key_repeat"):
        values = np.zeros(len(merged), made[name].dtype)
        values[where[wanted]] = getattr(a, name)[wanted]
        values[moved] = made[name]
        out[name] = values
    for name in ("niche", "touch", "stream"):
        length = split if name == "stream" else len(merged)
        row = moved[_row_of(made[f"{name}_offsets"])]
        out |= _relisted(name, made, row, slice(None), length)
    for name in ("held_place", "profile_place", "prompt_place", "system_place"):
        out[name] = moved[made[name]].astype(np.int32)
    return out, where, split


def _with_profiles(made: Made, old: Snapshot, campaigns: list[int], where: I64) -> Made:
    a = old.arrays
    step = len(VIEWS) * VARIANTS
    spans = [slice(a.profile_offsets[c * step], a.profile_offsets[(c + 1) * step]) for c in campaigns]
    lengths = [np.diff(made["profile_offsets"])]
    lengths += [np.diff(a.profile_offsets[c * step : (c + 1) * step + 1]) for c in campaigns]
    out: Made = {
        "profile_offsets": np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    }
    for name in ("profile_place", "profile_null", "profile_share"):
        values = [getattr(a, name)[span] for span in spans]
        if name == "profile_place":
            values = [where[v].astype(np.int32) for v in values]
        out[name] = np.concatenate([made[name], *values])
    return out


def _with_owners(
    made: Made, old: Snapshot, campaigns: list[int], number: Mapping[str, int], where: I64
) -> Made:
    """Typical keys and own families of the campaigns that go on."""
    out: Made = {}
    for name in ("touch", "stream"):
        offsets, of = getattr(old.arrays, f"{name}_offsets"), getattr(old.arrays, f"{name}_campaign")
        mine = np.isin(of, campaigns)
        renamed = np.array([number[old.meta.campaigns[c].id] for c in of[mine].tolist()], np.int16)
        row = np.concatenate([_row_of(made[f"{name}_offsets"]), where[_row_of(offsets)[mine]]])
        both = {f"{name}_campaign": np.concatenate([made[f"{name}_campaign"], renamed])}
        out |= _relisted(name, both, row, slice(None), len(made[f"{name}_offsets"]) - 1)
    return out


def _with_families(made: Made, old: Snapshot, where: I64, form: int) -> Made:
    """Texts of families that only the old snapshot knows."""
    out: Made = {}
    for part in ("prompt", "system"):
        postings, family = _postings(made[f"{part}_table"], made[f"{part}_family"])
        known = made[f"{part}_place"]
        theirs, of = _postings(getattr(old.arrays, f"{part}_table"), getattr(old.arrays, f"{part}_family"))
        place = where[getattr(old.arrays, f"{part}_place")][of] if len(of) else np.zeros(0, np.int64)
        add = (place >= 0) & ~np.isin(place, known) & ~np.isin(theirs, postings)
        all_places = np.concatenate([known[family].astype(np.int64), place[add]])
        all_postings = np.concatenate([postings, theirs[add]])
        order = np.argsort(all_postings)
        names, number = np.unique(all_places[order], return_inverse=True)
        out[f"{part}_table"] = posting_table(all_postings[order])
        out[f"{part}_family"] = number.astype(np.int32)
        out[f"{part}_place"] = names.astype(np.int32)
        out[f"{part}_need"] = needed(all_postings[order], number.astype(np.int32), len(names))
    return out


def _postings(table: U64, family: npt.NDArray[np.int32]) -> tuple[U64, npt.NDArray[np.int32]]:
    """The postings in a `families.posting_table`, in the order of their index."""
    slots = table.reshape(-1, 2)
    slots = slots[slots[:, 0] != 0]
    slots = slots[np.argsort(slots[:, 1], kind="stable")]
    return slots[:, 0].copy(), family[slots[:, 1].astype(np.int64)] if len(slots) else family[:0]


def with_accounts(made: Made, wanted: U64) -> Made:
    """Rows for accounts that the new scan did not see."""
    hashes = made["account_hash"]
    merged = np.union1d(hashes, wanted)
    n = len(merged)
    moved = np.searchsorted(merged, hashes)
    out = dict(made)
    out["account_hash"] = merged
    for name, default in (
        ("account_volume", 0), ("account_excused", 0), ("account_tier", -1), ("account_contract", -1),
        ("account_owner", -1),
    ):  # fmt: skip
        values = np.full(n, default, made[name].dtype)
        values[moved] = made[name]
        out[name] = values
    for name in ("held", "named", "measured"):
        out |= _relisted(name, made, moved[_row_of(made[f"{name}_offsets"])], slice(None), n)
    return out


def _with_members(
    made: Made, old: Snapshot, again: list[_Kept], place: Mapping[str, int], number: Mapping[str, int]
) -> Made:
    """Who is named, and by what each is measured, as the old snapshot had it."""
    a: Arrays = old.arrays
    n = len(made["account_hash"])
    rows, groups, source = [], [], []
    for entry in again:
        rows.append(np.searchsorted(made["account_hash"], entry.account))
        groups.append(np.full(len(entry.rows), place[entry.listed.id], np.int32))
        source.append(entry.rows)
    at = np.concatenate(source)
    both: Made = {
        "named_group": np.concatenate([made["named_group"], *groups]),
        "named_role": np.concatenate([made["named_role"], a.named_role[at]]),
        "named_bits": np.concatenate([made["named_bits"], a.named_bits[at]]),
    }
    out = _relisted("named", both, np.concatenate([_row_of(made["named_offsets"]), *rows]), slice(None), n)
    # Against which campaigns: those of the old snapshot that go on, where the new one has not measured.
    old_row = _row_of(a.measured_offsets)
    name = [entry.id for entry in old.meta.campaigns]
    mine = np.array([number.get(name[c], -1) for c in a.measured_campaign.tolist()], np.int64)
    account = a.account_hash[old_row]
    use = (mine >= 0) & np.isin(account, np.concatenate([entry.account for entry in again]))
    row = np.searchsorted(made["account_hash"], account[use])
    have = set(
        zip(_row_of(made["measured_offsets"]).tolist(), made["measured_campaign"].tolist(), strict=True)
    )
    new = np.array([pair not in have for pair in zip(row.tolist(), mine[use].tolist(), strict=True)], bool)
    both = {
        "measured_campaign": np.concatenate([made["measured_campaign"], mine[use][new].astype(np.int16)]),
        "measured_fold": np.concatenate([made["measured_fold"], a.measured_fold[use][new]]),
        "measured_time": np.concatenate([made["measured_time"], a.measured_time[use][new]]),
    }
    row = np.concatenate([_row_of(made["measured_offsets"]), row[new]])
    return out | _relisted("measured", both, row, slice(None), n)
