"""Stage 8: judged groups and their members -> the records and tables of a results folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.campaign.record import (
    DIRECT_WORDS,
    FREED_WORDS,
    TEAMS_WORDS,
    VIEW_WORDS,
    SharedKey,
    action,
    evidence_of_keys,
    group_id,
    iso,
    not_fired,
    ranked,
    timeline,
)
from stillwatch.campaign.techniques import atlas_ids
from stillwatch.detect.discover import core_keys
from stillwatch.ingest.read import Log
from stillwatch.scan.assign import Assignment, Yardstick, typical_keys
from stillwatch.scan.circumstances import Circumstances
from stillwatch.scan.claims import claims
from stillwatch.scan.content import capabilities, counts, elicitation
from stillwatch.scan.context import DIRECT_REACH, NEVER
from stillwatch.scan.grouprows import GroupRows
from stillwatch.scan.judge import CONFIRM_LEVEL, Context, Finding, Judged
from stillwatch.scan.partner import evidence_of
from stillwatch.scan.proof import proof_tables
from stillwatch.scan.scoring import scoring_tables
from stillwatch.scan.shared import account_steps, shared_kinds
from stillwatch.scan.skeletons import Held, skeletons
from stillwatch.scan.verdict import only_signups
from stillwatch.scan.wording import family_id, family_rows, held_by
from stillwatch.schema.results import (
    ACCOUNT_ROWS,
    PROFILE_ROWS,
    STREAM_ROWS,
    WATERFALL_ROWS,
    Evidence,
    Group,
    TimelineEvent,
)
from stillwatch.schema.scoring import nothing_scored
from stillwatch.schema.tables import SEPARATOR, TIMESTAMP
from stillwatch.views.base import I64, KeyTable

DAY_US = 86_400_000_000
SHOWN_KEYS = 12


@dataclass(frozen=True, slots=True)
class Tables:
    """Groups, ranked, and the four tables."""

    groups: list[Group]
    accounts: pa.Table
    streams: pa.Table
    families: pa.Table
    profiles: pa.Table
    waterfall: pa.Table
    scoring: dict[str, pa.Table]
    """What the bits of the campaigns were measured by, for whoever goes on measuring (the guard)."""
    proof: dict[str, pa.Table]
    """What the claims of the campaigns follow from."""


def tabulate(
    judged: Judged,
    findings: list[Finding],
    assigned: list[Assignment],
    releases: pa.Table | None,
    log: Log | None = None,
    honest: Sequence[I64] = (),
) -> Tables:
    """Everything that a results folder says about `findings`; skeletons need the `log` once more.

    `honest`: members of the groups that an innocent account may come from.
    """
    context = judged.context
    held = [held_by(context, f, a) for f, a in zip(findings, assigned, strict=True)]
    pairs = zip(findings, held, strict=True)
    single = {name for finding, names in pairs if finding.together is not None for name in names}
    texts: dict[Held, str] = {}
    if log is not None:
        shown = zip(findings, assigned, held, strict=True)
        texts = skeletons(
            log, context.reduced, [(a.accounts, names) for f, a, names in shown if f.verdict != "cleared"]
        )
    rows = context.rows
    circumstances, events = Circumstances(context, releases), release_events(releases)
    asked = counts(context.reduced.rows.tags, context.reduced.rules)
    groups: list[Group] = []
    accounts: list[pa.Table] = []
    streams: list[pa.Table] = []
    profiles: list[pa.Table] = []
    waterfall: list[pa.Table] = []
    used: set[str] = set()
    proved: list[tuple[str, Finding]] = []
    measured: list[tuple[str, Yardstick, I64]] = []
    for finding, assignment, names in zip(findings, assigned, held, strict=True):
        if len(assignment.accounts) == 0:
            continue
        name = _name(context, finding, used)
        own = _own_rows(rows, context, finding, assignment.accounts)
        harvester = np.searchsorted(assignment.accounts, context.reduced.rows.account[own])
        harvest = np.bincount(harvester, minlength=len(assignment.accounts))
        group = _group(rows, judged, finding, assignment, name, names, events, own, asked)
        if finding.verdict != "cleared":
            unusual, usual = circumstances.of(assignment.accounts, own)
            group = msgspec.structs.replace(
                group, evidence=group.evidence + unusual, counter_evidence=group.counter_evidence + usual
            )
        groups.append(msgspec.structs.replace(group, atlas=atlas_ids(group)))
        if finding.verdict == "campaign":
            proved.append((name, finding))
        if finding.verdict == "campaign" and assignment.yardstick is not None:
            measured.append((name, assignment.yardstick, assignment.accounts))
        accounts.append(_accounts(context, finding, assignment, name, harvest))
        streams.append(_streams(rows, context, finding, assignment, name))
        profiles.append(_profiles(context, finding, assignment, name))
        waterfall.append(account_steps(context, assignment, name))
    named = any(finding.verdict == "campaign" for finding in findings)
    return Tables(
        ranked(groups),
        pa.concat_tables([ACCOUNT_ROWS.empty_table(), *accounts]),
        pa.concat_tables([STREAM_ROWS.empty_table(), *streams]),
        family_rows(context, sorted({name for names in held for name in names}), single, texts),
        pa.concat_tables([PROFILE_ROWS.empty_table(), *profiles]),
        pa.concat_tables([WATERFALL_ROWS.empty_table(), *waterfall]),
        # Accounts of a campaign that cannot be measured on are named all the same.
        scoring_tables(context, measured, honest) if named else nothing_scored(),
        proof_tables(judged, proved),
    )


def _name(context: Context, finding: Finding, used: set[str]) -> str:
    """From the three oldest core keys; groups that would share a name take further keys into it."""
    table = context.reduced.form
    index = context.template(finding)
    core = core_keys(index, finding.members)
    if len(core) == 0:
        table, index = context.reduced.link, context.link
        core = core_keys(context.link, finding.members)
    if len(core) == 0:
        core = typical_keys(index, finding.members)[:3]
    first = context.first_us["FORM" if table is context.reduced.form else "LINK"]
    order = core[np.lexsort((table.key_hash[core], first[core]))]
    for count in range(3, len(order) + 4):
        name = group_id(table.key_hash[order[:count]].tolist())
        if name not in used:
            break
    else:
        name = group_id([len(used), *table.key_hash[order].tolist()])
    used.add(name)
    return name


def _shared(context: Context, view: str, finding: Finding) -> list[SharedKey]:
    members = finding.members
    index = context.template(finding) if view == "FORM" else context.identity
    table: KeyTable = context.reduced.form if view == "FORM" else context.reduced.link
    keys = typical_keys(index, members)
    counts = index.counts_of(members, keys)
    bits = counts / len(members) * index.weight[keys] / np.log(2)
    order = np.lexsort((table.key_hash[keys], -bits))[:SHOWN_KEYS]
    keys, counts, bits, df = keys[order], counts[order], bits[order], index.df_of(keys[order])
    return [
        SharedKey(
            view,
            table.kinds[int(table.key_kind[k])],
            int(table.key_hash[k]),
            count,
            len(members),
            holders - count,
            index.accounts - len(members),
            worth,
        )
        for k, count, holders, worth in zip(
            keys.tolist(), counts.tolist(), df.tolist(), bits.tolist(), strict=True
        )
    ]


def _evidence(judged: Judged, finding: Finding) -> tuple[list[Evidence], list[Evidence]]:
    found = [evidence_of_keys(view, _shared(judged.context, view, finding)) for view in ("FORM", "LINK")]
    evidence = [part for part in found if part is not None]
    against: list[Evidence] = []
    for test in finding.tested:
        bits = float(-np.log2(max(test.p, 1e-300)))
        if test.view == "TIME" and test.method != "none" and test.p <= CONFIRM_LEVEL:
            text = (
                f"Hours of activity move together: mean correlation {test.statistic:.3f}, random groups "
                f"{test.expected:.3f}."
            )
            evidence.append(Evidence(kind="TIME", signal="co_activity", bits=bits, text=text))
        elif test.p > CONFIRM_LEVEL:
            seen = (
                "could not be seen for this group"
                if test.method == "none"
                else f"does not confirm it (p = {test.p:.2f})"
            )
            words = f"{VIEW_WORDS.get(test.view, test.view)} ({test.view})"
            text = f"{words[0].upper()}{words[1:]} {seen}."
            against.append(Evidence(kind="COUNTER", signal=test.view, bits=0.0, text=text))
    for direct in finding.direct:
        text = DIRECT_WORDS[direct.name].format(
            observed=direct.observed, expected=direct.expected, detail=direct.detail
        )
        if direct.p <= judged.direct_level and direct.reach < DIRECT_REACH:
            text += (
                f" Only {100 * direct.reach:.0f} % of the group: a few accounts' director is not the group's."
            )
            against.append(Evidence(kind="COUNTER", signal=direct.name, bits=0.0, text=text))
        elif direct.p <= judged.direct_level:
            bits = float(-np.log2(max(direct.p, 1e-300)))
            kind = "DIRECT" if direct.alone else direct.view
            evidence.append(Evidence(kind=kind, signal=direct.name, bits=bits, text=text))
        else:
            text = not_fired(direct.name, direct.observed, direct.expected)
            against.append(Evidence(kind="COUNTER", signal=direct.name, bits=0.0, text=text))
    evidence += evidence_of(finding)
    if finding.fired(judged.direct_level) and only_signups(finding, judged.direct_level):
        text = TEAMS_WORDS.format(100 * finding.web)
        against.append(Evidence(kind="COUNTER", signal="came_together", bits=0.0, text=text))
    if finding.withheld:
        text = f"{finding.withheld:,} more belong to it by one kind of evidence alone; they are not named."
        against.append(Evidence(kind="COUNTER", signal="withheld", bits=0.0, text=text))
    if finding.freed:
        text = FREED_WORDS[finding.freed > 1].format(finding.freed)
        against.append(Evidence(kind="COUNTER", signal="appeal", bits=0.0, text=text))
    if finding.openness.share >= 0.25:
        kind = finding.openness.kind.replace("_", " ")
        text = f"{100 * finding.openness.share:.0f} % of the members stand behind one {kind}."
        against.append(
            Evidence(
                kind="COUNTER",
                signal="openness",
                bits=float(np.log2(1 - min(0.99, finding.openness.share))),
                text=text,
            )
        )
    if finding.entity_share >= 0.5:
        text = f"{100 * finding.entity_share:.0f} % of the members declare one unverified owner: their own claim."
        against.append(Evidence(kind="COUNTER", signal="declared_owner", bits=0.0, text=text))
    if finding.benchmark is not None and finding.benchmark.share >= 0.2:
        text = f"{100 * finding.benchmark.share:.0f} % of its requests are items that unrelated accounts run too."
        against.append(
            Evidence(
                kind="COUNTER",
                signal="public_items",
                bits=float(np.log2(1 - min(0.99, finding.benchmark.share))),
                text=text,
            )
        )
    return evidence, against


def _group(
    rows: GroupRows,
    judged: Judged,
    finding: Finding,
    assignment: Assignment,
    name: str,
    held: list[Held],
    releases: list[TimelineEvent],
    own: I64,
    asked: I64,
) -> Group:
    context = judged.context
    reduced, units = context.reduced, context.units
    members = assignment.accounts
    evidence, against = _evidence(judged, finding)
    evidence += elicitation(reduced, own, asked)
    # Of an account whose every request Stillwatch refused, the log holds no exchange.
    active = members[reduced.first_us[members] > 0]
    first, last = int(reduced.first_us[active].min()), int(reduced.last_us[active].max())
    start = int(reduced.first_us[reduced.first_us > 0].min()) // DAY_US
    days = int(reduced.last_us.max()) // DAY_US - start + 1
    activity = np.bincount(reduced.rows.ts[rows.of(members)] // DAY_US - start, minlength=days)
    owners = np.concatenate([units.verified[members], units.declared[members]])
    bans = units.banned_us[members]
    return Group(
        id=name,
        verdict=finding.verdict,  # type: ignore[arg-type]
        why=finding.why,
        accounts=len(members),
        exchanges=int(reduced.volume[members].sum()),
        harvest_exchanges=len(own),
        first_ts=iso(first),
        last_ts=iso(last),
        claims=claims(judged, finding),
        evidence=evidence,
        counter_evidence=against,
        capabilities=capabilities(reduced.rows.tags[own], reduced.rules),
        families=[family_id(context, family) for family in held],
        timeline=timeline(first, last, bans[bans > 0].tolist(), releases),
        activity=activity.tolist(),
        entities=len(np.unique(owners[owners >= 0])),
        recommended_action=action(finding.verdict),  # type: ignore[arg-type]
        atlas=[],
        shared=shared_kinds(context, finding),
    )


def _own_rows(rows: GroupRows, context: Context, finding: Finding, members: I64) -> I64:
    """Exchanges of the members in the group's own families."""
    inside = np.zeros(context.reduced.accounts, bool)
    inside[members] = True
    own = rows.own(finding.families, finding.systems, inside)
    return np.unique(np.concatenate([np.zeros(0, np.int64), *own.values()]))


def _accounts(
    context: Context, finding: Finding, assignment: Assignment, name: str, harvest: I64
) -> pa.Table:
    reduced, members = context.reduced, assignment.accounts
    n = len(members)
    ids = [reduced.principals[m].partition(SEPARATOR)[0] for m in members.tolist()]
    blank = pa.nulls(n, pa.float64())
    never = reduced.first_us[members] == 0
    table = pa.table(
        [
            pa.array(ids),
            pa.array([name] * n),
            pa.array([finding.verdict] * n),
            pa.array(np.where(assignment.core, "core", "recruit").tolist()),
            pa.array(assignment.e_bits),
            pa.array(assignment.bits["FORM"]),
            pa.array(assignment.bits["LINK"]),
            pa.array(assignment.bits["TIME"]),
            blank,
            blank,
            pa.array(reduced.volume[members]),
            pa.array(harvest),
            pa.array(reduced.first_us[members], mask=never).cast(TIMESTAMP),
            pa.array(reduced.last_us[members], mask=never).cast(TIMESTAMP),
        ],
        names=ACCOUNT_ROWS.names,
    ).cast(ACCOUNT_ROWS)
    return table


def _streams(
    rows: GroupRows, context: Context, finding: Finding, assignment: Assignment, name: str
) -> pa.Table:
    inside = np.zeros(context.reduced.accounts, bool)
    inside[assignment.accounts] = True
    own = rows.own(finding.families, finding.systems, inside)
    # (account, family) pairs as one number each: they sort far faster than rows of two.
    parts = [np.zeros(0, np.int64)]
    for number, mine in enumerate(own.values()):
        parts.append(context.reduced.rows.account[mine].astype(np.int64) * len(own) + number)
    pairs, counts = np.unique(np.concatenate(parts), return_counts=True)
    owner, family = np.divmod(pairs, max(1, len(own)))
    of = [family_id(context, held) for held in own]
    ids = [context.reduced.principals[a].partition(SEPARATOR)[0] for a in owner.tolist()]
    names = [of[f] for f in family.tolist()]
    return pa.table(
        [
            pa.array(ids, pa.string()),
            pa.array(names, pa.string()),
            pa.array([name] * len(ids), pa.string()),
            pa.array(counts),
        ],
        names=STREAM_ROWS.names,
    ).cast(STREAM_ROWS)


def _profiles(context: Context, finding: Finding, assignment: Assignment, name: str) -> pa.Table:
    parts = []
    members = assignment.accounts
    for view, index, table in (
        ("FORM", context.template(finding), context.reduced.form),
        ("LINK", context.identity, context.reduced.link),
    ):
        keys = typical_keys(index, members)
        counts, df = index.counts_of(members, keys), index.df_of(keys)
        first = context.first_us[view]
        never = first[keys] == NEVER
        n = len(keys)
        parts.append(
            pa.table(
                [
                    pa.array([name] * n, pa.string()),
                    pa.array([view] * n, pa.string()),
                    pa.array([f"{int(k):016x}" for k in table.key_hash[keys]], pa.string()),
                    pa.array([table.kinds[int(k)] for k in table.key_kind[keys]], pa.string()),
                    pa.array(counts),
                    pa.array([len(members)] * n, pa.int64()),
                    pa.array(df - counts),
                    pa.array([index.accounts - len(members)] * n, pa.int64()),
                    pa.array(np.where(never, 0, first[keys]), pa.int64(), mask=never).cast(TIMESTAMP),
                ],
                names=PROFILE_ROWS.names,
            ).cast(PROFILE_ROWS)
        )
    return pa.concat_tables(parts)


def release_events(table: pa.Table | None) -> list[TimelineEvent]:
    """The releases table as events."""
    if table is None or table.num_rows == 0:
        return []
    us = pc.cast(table.column("ts"), pa.int64()).to_pylist()
    names = table.column("model").to_pylist()
    return [
        TimelineEvent(ts=iso(t), kind="release", text=f"Release of {name}.")
        for t, name in sorted(zip(us, names, strict=True))
    ]
