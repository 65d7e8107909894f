"""From a results folder to a snapshot. Runs where the results are, never in a gateway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.detect import members as mb
from stillwatch.engine.holders import grouped
from stillwatch.guard.carry import Heard, carried
from stillwatch.guard.enforcement import allowed
from stillwatch.guard.freed import unseen_freed, with_freed
from stillwatch.guard.heed import heed
from stillwatch.guard.policy import Policy, microseconds
from stillwatch.guard.secret import Secret
from stillwatch.guard.side import Made, api_key_arrays, rows_of, side_arrays, vouched
from stillwatch.guard.snapshot import ROLES, VARIANTS, Listed, Meta, Snapshot
from stillwatch.scan.partner import Told
from stillwatch.schema.errors import ResultError, SnapshotError, Where
from stillwatch.schema.tables import SEPARATOR
from stillwatch.schema.times import DAY_US
from stillwatch.store.appeals import Row as Appeal
from stillwatch.store.appeals import freed_by
from stillwatch.store.chain import head_of
from stillwatch.store.decisions import Row, standing
from stillwatch.store.results import Results, read_results, read_scoring, results_digest
from stillwatch.views.families import needed, posting_table

VALID_DAYS = 14.0
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Beside:
    """What a snapshot takes in besides the results."""

    accounts: pa.Table | None = None
    """The accounts table: tier, contract, entity_id."""
    references: pa.Table | None = None
    """Accounts that the operator knows to be honest."""
    api_keys: Sequence[tuple[str, str]] = ()
    """(account id, SHA-256 of an API key in hex)."""
    decisions: Sequence[Row] = ()
    appeals: Sequence[Appeal] = ()
    """Rows of the file of appeals: whom they free is in no campaign, and what it shows is held against nobody."""
    policy_name: str = "policy.toml"
    valid_days: float = VALID_DAYS
    """How long after the log's end the snapshot may be used."""
    old: Snapshot | None = None
    """The snapshot before: campaigns that are being refused go on from it (`carry`)."""
    heard: Heard | None = None
    """What the scan's log holds of each account; wanted with `old`."""
    intel: Sequence[Told] = ()
    """Fingerprints of partners that requests are compared with: a tag, never an action."""


def build(folder: Path, policy: Policy, secret: Secret, beside: Beside | None = None) -> tuple[Meta, Made]:
    """Header and arrays of the snapshot of one results folder.

    ResultError if the folder cannot be used, DecisionError if decisions order what nobody signed or appeals free
    somebody without the signature of anybody whom the policy lists, SnapshotError if two accounts have one hash under
    this secret.
    """
    beside = beside or Beside()
    listed = {approver.key for approver in policy.approvers}
    free = freed_by(beside.appeals, listed or None)
    results, scoring = read_results(folder), with_freed(read_scoring(folder), free)
    run = results.findings.run
    ids: list[str] = scoring["scoring_accounts"].column("account_id").to_pylist()
    hashes = np.fromiter((secret.account(name) for name in ids), np.uint64, len(ids))
    order = np.argsort(hashes)
    row_of = np.empty(len(ids), np.int64)
    row_of[order] = np.arange(len(ids))
    if len(ids) and (np.diff(hashes[order]) == 0).any():
        raise SnapshotError(
            "two accounts have one hash under this secret",
            where=Where(str(folder)),
            hint="use another secret",
        )
    number = {name: int(row_of[i]) for i, name in enumerate(ids)}
    campaigns = _campaigns(results, scoring)
    made, form_places = _keys(scoring, folder)
    made |= _profiles(scoring, [c.id for c in campaigns], made, form_places)
    made |= _accounts(scoring, hashes, order, row_of, [c.id for c in campaigns])
    made |= _families(scoring)
    made |= _streams(results, [c.id for c in campaigns], made["key_hash"][:form_places])
    named, groups = _named(results, scoring, row_of, number)
    made |= named
    made |= api_key_arrays(beside.api_keys, secret)
    for name in ("first", "last"):
        made[f"exit_{name}"] = _column(scoring["scoring_exits"], name)
    last_us = _us(run.last_ts)
    expires_us = last_us + int(beside.valid_days * DAY_US)
    decisions = tuple(standing(beside.decisions, _time(last_us)))
    allowed(policy, decisions)
    meta = Meta(
        program=run.version,
        results=results_digest(folder),
        seed=run.seed,
        first_us=_us(run.first_ts),
        last_us=last_us,
        expires_us=expires_us,
        form_places=form_places,
        campaigns=campaigns,
        groups=groups,
        tiers=(),
        contracts=(),
        owners=(),
        policy=policy.text,
        policy_name=beside.policy_name,
        decisions=decisions,
        decisions_head=head_of(beside.decisions),
        appeals_head=head_of(beside.appeals) if beside.appeals else "",
    )
    made |= side_arrays(None, {}, len(ids))[0]
    if beside.old is not None and beside.heard is not None:
        meta, made = carried(
            meta,
            made,
            beside.old,
            beside.heard,
            policy.silent_days,
            vouched(beside.accounts, beside.references, secret, free),
        )
    made = unseen_freed(made, free, secret)
    side, names = side_arrays(
        beside.accounts, rows_of(beside.accounts, made["account_hash"], secret), len(made["account_hash"])
    )
    made |= side
    heeded, compared = heed(beside.intel)
    made |= compared
    meta = msgspec.structs.replace(meta, intel=heeded)
    return msgspec.structs.replace(meta, tiers=names[0], contracts=names[1], owners=names[2]), made


def _us(text: str) -> int:
    return microseconds(datetime.fromisoformat(text))


def _time(us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)


def _column(table: pa.Table, name: str) -> npt.NDArray[Any]:
    return np.asarray(table.column(name).to_numpy())


def _campaigns(results: Results, scoring: dict[str, pa.Table]) -> tuple[Listed, ...]:
    measured = set(scoring["scoring_profiles"].column("campaign_id").unique().to_pylist())
    found = [g for g in results.findings.groups if g.verdict == "campaign" and g.id in measured]
    return tuple(
        Listed(id=g.id, verdict=g.verdict, why=g.why, last_us=_us(g.last_ts))
        for g in sorted(found, key=lambda g: g.id)
    )


def _keys(scoring: dict[str, pa.Table], folder: Path) -> tuple[Made, int]:
    """Keys with their share of the background, and of the honest groups."""
    keys, rows, honest = scoring["scoring_keys"], scoring["scoring_rows"], scoring["scoring_honest"]
    view = keys.column("view").to_pylist()
    form = view.count("FORM")
    if view != ["FORM"] * form + ["LINK"] * (len(view) - form):
        raise ResultError("keys are not in order", where=Where(str(folder)), hint="scan again")
    holders = _column(keys, "holders").astype(np.float64)
    share = np.empty(len(holders))
    for name, part in _parts(form, len(holders)):
        # The same steps as `members.background`.
        share[part] = np.maximum(holders[part], 1.0) / max(1.0, float(_rows(rows, name, "", -1)))
    repeat = pc.equal(keys.column("key_kind"), "prompt_family").to_numpy().astype(np.uint8)
    place, group = _column(honest, "place"), _column(honest, "honest")
    count = _column(honest, "members")
    total = np.ones(len(place))
    for name, part in _parts(form, len(holders)):
        inside = (place >= part.start) & (place < part.stop)
        for number in np.unique(group[inside]).tolist():
            total[inside & (group == number)] = max(1, _rows(rows, name, "", number))
    order, offsets = grouped(place[np.argsort(group, kind="stable")], len(holders))
    order = np.argsort(group, kind="stable")[order]
    return {
        "key_hash": _column(keys, "key"),
        "key_share": share,
        "key_repeat": repeat,
        "niche_offsets": offsets,
        "niche_group": group[order].astype(np.int32),
        "niche_share": (count / total)[order],
    }, form


def _parts(form: int, places: int) -> list[tuple[str, slice]]:
    return [("FORM", slice(0, form)), ("LINK", slice(form, places))]


def _rows(rows: pa.Table, view: str, campaign: str, honest: int) -> int:
    """How many (account, key) rows somebody has in one view, over all folds."""
    mask = pc.and_(pc.equal(rows.column("view"), view), pc.equal(rows.column("campaign_id"), campaign))
    return int(
        pc.sum(rows.filter(pc.and_(mask, pc.equal(rows.column("honest"), honest))).column("rows")).as_py()
        or 0
    )


def _profiles(scoring: dict[str, pa.Table], campaigns: list[str], made: Made, form: int) -> Made:
    """Likelihoods of the campaigns' keys by (campaign, view, variant), and whom a key is typical of."""
    table, rows, measured = (scoring[f"scoring_{name}"] for name in ("profiles", "rows", "measured"))
    population = scoring["scoring_accounts"].num_rows
    holders = _column(scoring["scoring_keys"], "holders")
    places = len(holders)
    lengths: list[int] = []
    out: list[tuple[I64, npt.NDArray[np.float64], npt.NDArray[np.float64]]] = []
    touch: list[tuple[I64, int]] = []
    for number, name in enumerate(campaigns):
        mine = table.filter(pc.equal(table.column("campaign_id"), name))
        of_me = rows.filter(pc.equal(rows.column("campaign_id"), name))
        core = pc.and_(
            pc.equal(measured.column("campaign_id"), name), pc.greater_equal(measured.column("fold"), 0)
        )
        size = measured.filter(core).num_rows
        place, fold, count = (_column(mine, c) for c in ("place", "fold", "members"))
        for view, part in _parts(form, places):
            base = mb.Background(
                made["key_share"][part], max(1.0, float(_rows(rows, view, "", -1))), view == "FORM"
            )
            totals = of_me.filter(pc.equal(of_me.column("view"), view)).to_pydict()
            inside = (place >= part.start) & (place < part.stop)
            for variant in range(VARIANTS):
                kept = inside & (fold != variant - 1)
                names, at = np.unique(place[kept] - part.start, return_inverse=True)
                held = np.bincount(at, count[kept], len(names)).astype(np.int64)
                total = sum(
                    r for r, f in zip(totals["rows"], totals["fold"], strict=True) if f != variant - 1
                )
                key, held = names[held >= 2].astype(np.int64), held[held >= 2]
                group = mb.Profile(key, held / max(1, total), held)
                null, alternative = mb.likelihoods(group, base)
                out.append((key + part.start, null, alternative))
                lengths.append(len(key))
                if variant == 0:
                    typical = held * population >= mb.RECRUIT_LIFT * holders[part][key] * size
                    touch.append((key[typical] + part.start, number))
    touched = np.concatenate([np.zeros(0, np.int64), *(key for key, _ in touch)])
    by = np.repeat(np.array([n for _, n in touch], np.int16), [len(key) for key, _ in touch])
    order, offsets = grouped(touched, places)
    empty = np.zeros(0)
    return {
        "profile_offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "profile_place": np.concatenate([empty, *(key for key, _, _ in out)]).astype(np.int32),
        "profile_null": np.concatenate([empty, *(null for _, null, _ in out)]),
        "profile_share": np.concatenate([empty, *(share for _, _, share in out)]),
        "touch_offsets": offsets,
        "touch_campaign": by[order].astype(np.int16),
    }


def _accounts(
    scoring: dict[str, pa.Table],
    hashes: npt.NDArray[np.uint64],
    order: I64,
    row_of: I64,
    campaigns: list[str],
) -> Made:
    """Accounts by hash, with what they hold and against which campaigns they were measured."""
    accounts, held, measured = (scoring[f"scoring_{name}"] for name in ("accounts", "held", "measured"))
    n = len(hashes)
    row = row_of[_column(held, "account")]
    by, held_offsets = grouped(row, n)
    # Places in order inside each account, as a scan's index has them.
    place = _column(held, "place")
    by = by[np.lexsort((place[by], row[by]))]
    known = np.array([name in campaigns for name in measured.column("campaign_id").to_pylist()], bool)
    measured = measured.filter(pa.array(known))
    who = row_of[_column(measured, "account")]
    of, measured_offsets = grouped(who, n)
    code = {name: i for i, name in enumerate(campaigns)}
    campaign = np.array([code[c] for c in measured.column("campaign_id").to_pylist()], np.int16)
    return {
        "account_hash": hashes[order],
        "account_volume": np.minimum(_column(accounts, "exchanges")[order], 2**31 - 1).astype(np.int32),
        "account_excused": _column(accounts, "excused")[order].astype(np.uint8),
        "held_offsets": held_offsets,
        "held_place": place[by].astype(np.int32),
        "held_count": np.minimum(_column(held, "count")[by], 255).astype(np.uint8),
        "held_given": _column(held, "given")[by].astype(np.uint8),
        "measured_offsets": measured_offsets,
        "measured_campaign": campaign[of],
        "measured_fold": _column(measured, "fold")[of].astype(np.int8),
        "measured_time": _column(measured, "bits_time")[of],
    }


def _families(scoring: dict[str, pa.Table]) -> Made:
    made: Made = {}
    table = scoring["scoring_postings"]
    for part in ("prompt", "system"):
        mine = table.filter(pc.equal(table.column("part"), part))
        posting = _column(mine, "posting")
        place, family = np.unique(_column(mine, "place"), return_inverse=True)
        made[f"{part}_table"] = posting_table(posting)
        made[f"{part}_family"] = family.astype(np.int32)
        made[f"{part}_place"] = place.astype(np.int32)
        made[f"{part}_need"] = needed(posting, family.astype(np.int32), len(place))
    return made


def _streams(results: Results, campaigns: list[str], form: npt.NDArray[np.uint64]) -> Made:
    """The campaigns' own families, by place."""
    code = {name: i for i, name in enumerate(campaigns)}
    rows = results.streams.group_by(["campaign_id", "family_id"]).aggregate([]).to_pydict()
    pairs = sorted(
        {
            (int(f, 16), code[c])
            for c, f in zip(rows["campaign_id"], rows["family_id"], strict=True)
            if c in code
        }
    )
    family = np.array([f for f, _ in pairs], np.uint64)
    campaign = np.array([c for _, c in pairs], np.int16)
    place = np.minimum(np.searchsorted(form, family), max(0, len(form) - 1))
    there = form[place] == family if len(form) else np.zeros(len(family), bool)
    order, offsets = grouped(place[there], len(form))
    return {"stream_offsets": offsets, "stream_campaign": campaign[there][order]}


def _named(
    results: Results, scoring: dict[str, pa.Table], row_of: I64, number: dict[str, int]
) -> tuple[Made, tuple[Listed, ...]]:
    """Who is named in which group.

    Behind a gateway the results name the gateway's account for each of its users, which must never fall on the
    gateway: whoever the operator's word stands for is named in no campaign or lead. The users come from the scoring.
    """
    groups = tuple(
        Listed(id=g.id, verdict=g.verdict, why=g.why, last_us=_us(g.last_ts))
        for g in sorted(results.findings.groups, key=lambda g: g.id)
    )
    code = {group.id: i for i, group in enumerate(groups)}
    table = results.accounts
    row = np.array([number.get(name, -1) for name in table.column("account_id").to_pylist()], np.int64)
    group = np.array([code[name] for name in table.column("campaign_id").to_pylist()], np.int32)
    role = np.array([ROLES.index(name) for name in table.column("role").to_pylist()], np.uint8)
    bits = np.stack(
        [
            table.column(name).cast(pa.float64()).fill_null(np.nan).to_numpy()
            for name in ("e_bits", "bits_form", "bits_link", "bits_time")
        ],
        axis=1,
    ).reshape(-1, 4)
    excused = np.zeros(len(row_of), bool)
    excused[row_of] = _column(scoring["scoring_accounts"], "excused")
    acting = np.array([groups[g].verdict != "cleared" for g in group.tolist()], bool)
    if len(excused):
        row = np.where((row >= 0) & acting & excused[row], -1, row)
    ids = scoring["scoring_accounts"].column("account_id")
    for entry in scoring["scoring_measured"].filter(scoring["scoring_measured"].column("named")).to_pylist():
        if SEPARATOR in ids[entry["account"]].as_py() and not excused[row_of[entry["account"]]]:
            row = np.append(row, row_of[entry["account"]])
            group = np.append(group, np.int32(code[entry["campaign_id"]]))
            role = np.append(role, np.uint8(ROLES.index("core" if entry["fold"] >= 0 else "recruit")))
            bits = np.append(bits, np.full((1, 4), np.nan), axis=0)
    order, offsets = grouped(row, len(row_of))
    return {
        "named_offsets": offsets,
        "named_group": group[order],
        "named_role": role[order],
        "named_bits": bits[order],
    }, groups
