"""Stages 3 to 6 in their order: from candidates to groups with claims and verdicts."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from stillwatch.detect import confirm as cf
from stillwatch.detect import direct as dt
from stillwatch.detect import explain as ex
from stillwatch.detect import score as sc
from stillwatch.detect.discover import CORE_LIFT, LEAST_GROUP, Candidate, discover
from stillwatch.scan.collect import Reduced
from stillwatch.scan.context import EVERY_VIEW_P, TEMPLATE_KEYS, Context, Finding, Judged, prepare
from stillwatch.scan.grouprows import GroupRows
from stillwatch.scan.refine import Evidence, recruit, refine
from stillwatch.scan.units import Units
from stillwatch.views.base import I64
from stillwatch.views.families import slot_contents

MOST_THREADS = 8
CONFIRM_LEVEL = 0.05
DIRECT_LEVEL = 0.01
"""Family-wise level of the direct tests, over groups and tests."""
CLASS_EXPLAINS = {"signup_batch"}
"""A class signs up together, on site, in one lesson: that test alone does not keep it from being cleared."""
HIDDEN_SHARE = 0.5
"""Openness from which a group is openly one customer."""
ENTITY_SHARE = 0.5
BARE_SHARE = 0.4
"""Openness below which a declared owner is a bare claim. Honest owners have a payer, a site or a domain."""
LARGEST_FAMILIES = 24
OWN_HOLDERS, OWN_SHARE = 3, 0.05
"""Members that must hold a family for it to be the group's own."""
LEAST_OWN = 20
"""Requests of its own families below which nothing can be said about what a group asks for."""
LEAST_LIKE = 0.1
"""Overlap (Jaccard) of a group with the confirmed candidate whose claim it takes over."""
Bool = npt.NDArray[np.bool_]
Progress = Callable[[str, int, int], None]


def _silent(stage: str, done: int, total: int) -> None:
    """No progress display."""


def candidates(context: Context) -> list[Candidate]:
    """Stage 3 in FORM and in LINK, units applied."""
    form, linked = context.form, context.link
    found = discover(form, "FORM", context.size >= TEMPLATE_KEYS, context.seed)
    # A payment instrument or an address block ties its holders by itself; a software stack does not.
    single = context.reduced.link.key_kind != context.reduced.link.kinds.index("stack")
    found += discover(linked, "LINK", single, context.seed)
    return found


def split_by_unit(context: Context, found: list[Candidate]) -> list[tuple[Candidate, int]]:
    """Known-honest groups become reference candidates; what they share is no evidence about anybody else."""
    group = context.units.honest_group
    shut = context.units.gateway
    out: list[tuple[Candidate, int]] = []
    taken: set[int] = set()
    for candidate in found:
        members = candidate.members[~shut[candidate.members]]
        codes = group[members]
        known, counts = np.unique(codes[codes >= 0], return_counts=True)
        for code, count in zip(known.tolist(), counts.tolist(), strict=True):
            if count >= LEAST_GROUP and count >= ENTITY_SHARE * len(members) and code not in taken:
                taken.add(code)
                mine = members[codes == code]
                out.append((Candidate(candidate.view, mine, candidate.origin), code))
        # One account stands for each known-honest group in what remains.
        first = np.zeros(len(members), bool)
        first[np.unique(codes, return_index=True)[1]] = True
        rest = members[(codes < 0) | (first & ~np.isin(codes, sorted(taken)))]
        if len(rest) >= LEAST_GROUP:
            out.append((Candidate(candidate.view, rest, candidate.origin), -1))
    return out


def confirmed(context: Context, found: list[tuple[Candidate, int]], progress: Progress) -> list[Finding]:
    """Stage 4: every candidate tested on the views that did not find it; q-values apart for references."""
    indexes = {"FORM": context.form, "LINK": context.identity}

    def test(candidate: Candidate) -> list[cf.Tested]:
        return cf.confirm(
            candidate.members, candidate.view, indexes, context.residuals, context.strata, context.seed
        )

    findings = []
    # Draws are seeded by members, so the number of threads changes nothing.
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        outcomes = pool.map(test, [candidate for candidate, _ in found])
        for number, ((candidate, reference), tested) in enumerate(zip(found, outcomes, strict=True)):
            progress("confirm", number, len(found))
            findings.append(
                Finding(
                    candidate.members,
                    candidate.view,
                    candidate.origin,
                    tested,
                    cf.partial_conjunction(tested),
                    reference=reference,
                )
            )
    for chosen in ([f for f in findings if f.reference < 0], [f for f in findings if f.reference >= 0]):
        q = cf.benjamini_hochberg(np.array([f.p for f in chosen]))
        for finding, value in zip(chosen, q.tolist(), strict=True):
            finding.q = value
    return findings


def grown(context: Context, coordinated: list[Finding], progress: Progress) -> list[Finding]:
    """Groups from the confirmed candidates, each with the claim of the candidate that it is most like."""
    if not coordinated:
        return []
    units = context.units
    # What known-honest groups share is no evidence, and a contract is the operator's word.
    pool = np.unique(np.concatenate([f.members for f in coordinated]))
    pool = pool[(units.honest_group[pool] < 0) & ~units.contract[pool]]
    indexes = {"FORM": context.form_once, "LINK": context.identity}
    evidence = Evidence(indexes, context.rhythm, pool)
    inside = np.zeros(context.reduced.accounts, bool)
    inside[pool] = True
    groups = refine(evidence, [f.members[inside[f.members]] for f in coordinated], progress)
    free = ~units.gateway & ~units.contract & (units.honest_group < 0)
    free[np.concatenate([np.zeros(0, np.int64), *groups])] = False
    joining = recruit(replace(evidence, pool=np.flatnonzero(free)), groups)
    owner = np.full(context.reduced.accounts, -1, np.int64)
    for number, members in enumerate(groups):
        owner[members] = number
    best: list[tuple[float, Finding] | None] = [None] * len(groups)
    merged = [0] * len(groups)
    for finding in coordinated:
        homes = owner[finding.members]
        names, shared = np.unique(homes[homes >= 0], return_counts=True)
        for home, both in zip(names.tolist(), shared.tolist(), strict=True):
            size = len(finding.members)
            merged[home] += 2 * both > size
            like = both / (size + len(groups[home]) - both)
            now = best[home]
            if now is None or (like, -finding.p) > (now[0], -now[1].p):
                best[home] = (like, finding)
    out = []
    for members, joined, found, count in zip(groups, joining, best, merged, strict=True):
        # A group whose accounts stand in no confirmed candidate together has no claim to state.
        if found is not None and found[0] >= LEAST_LIKE:
            origin = found[1]
            # For the reader, every view; the q stands.
            origin.tested = cf.confirm(
                origin.members,
                origin.view_found,
                {"FORM": context.form, "LINK": context.identity},
                context.residuals,
                context.strata,
                context.seed,
                whole=True,
            )
            origin.arranged_p = _without_signups(context, origin)
            whole = np.union1d(members, joined)
            out.append(
                replace(origin, members=whole, recruits=joined, merged=count, candidate=len(origin.members))
            )
    return out


def _without_signups(context: Context, origin: Finding) -> float:
    """p of the candidate on a view that sign-ups are no part of: LINK without them, FORM for what LINK found."""
    if origin.view_found == "LINK":
        return min(t.p for t in origin.tested if t.view == "FORM")
    tested = cf.confirm(
        origin.members,
        origin.view_found,
        {"FORM": context.form, "LINK": context.arranged},
        context.residuals,
        context.strata,
        context.seed,
    )
    return min(t.p for t in tested if t.view == "LINK")


def unselected(context: Context, members: I64) -> I64:
    """The members that would be members without any sign-up key: whom the sign-up test may look at.

    Who was chosen because of a shared sign-up batch cannot then be evidence for sign-up batches.
    """
    evidence = Evidence({"FORM": context.form_once, "LINK": context.arranged}, context.rhythm, members)
    keep, _ = evidence.belongs(evidence.bits(members, members), len(members))
    return members[keep]


def own_families(context: Context, members: I64, place: I64) -> I64:
    """Families that the group uses and others hardly do, most holders inside first.

    `place`: FORM key of each family. A rotating template has many wordings, each in few hands.
    """
    index = context.form_once
    counts = index.group_counts(members)
    need = max(OWN_HOLDERS, OWN_SHARE * len(members))
    lift = counts * index.accounts >= CORE_LIFT * index.df() * len(members)
    own = (counts >= need) & lift & (index.weight > 0)
    usable = np.flatnonzero((place >= 0) & own[place])
    order = np.lexsort((usable, -counts[place[usable]]))
    return usable[order][:LARGEST_FAMILIES]


def direct_tests(context: Context, rows: GroupRows, finding: Finding) -> None:
    """Stage 5, one director: fills `families`, `direct`, `items`, `space`."""
    reduced, units = context.reduced, context.units
    members = finding.members
    member = np.zeros(reduced.accounts, bool)
    member[members] = True
    finding.families = own_families(context, members, context.family_key)
    finding.systems = own_families(context, members, context.system_key)
    split = dt.Direct("work_split", "FORM", 1.0, 0, 0.0)
    own = rows.own(finding, member)
    for (part, family), mine in own.items():
        if part == "system" or len(mine) < 20:
            continue
        keys = rows.postings_of(family)
        slots = slot_contents(mine, reduced.prompt_offsets, reduced.prompt_postings, keys)
        result = dt.work_split(reduced.rows.account[mine].astype(np.int64), slots)
        if result.p < split.p:
            split = result
    split = replace(split, p=min(1.0, split.p * max(1, len(finding.families))))
    end, start = int(reduced.last_us.max()), int(reduced.first_us[reduced.volume > 0].min())
    mail_class = np.where(units.corporate >= 0, -1, units.mail)
    batch = dt.signup_batch(units.created_us, mail_class, unselected(context, members))
    finding.direct = [
        split,
        dt.handover(context.handovers, member, context.unlinked),
        replace(batch, reach=batch.observed / len(members)),
        dt.takeover(reduced.first_us, reduced.last_us, units.banned_us, members, end, start),
    ]
    drawn = np.unique(np.concatenate([np.zeros(0, np.int64), *own.values()]))
    items = reduced.rows.item[drawn]
    items = items[items != 0]
    finding.items = len(items)
    finding.space = sc.item_space(items.view(np.int64))


def explanations(context: Context, rows: GroupRows, finding: Finding) -> None:
    """Stage 5, the other side: openness, benchmark, classroom."""
    reduced, units = context.reduced, context.units
    members = finding.members
    finding.openness = ex.openness(
        units.payer[members], units.block[members], units.corporate[members], units.mail[members]
    )
    mine = rows.of(members)
    mine = mine[reduced.rows.item[mine] != 0]
    code, outsiders = rows.outsiders(mine)
    dense = np.searchsorted(members, reduced.rows.account[mine])
    finding.benchmark = ex.benchmark(dense, code, outsiders, len(members))
    finding.classroom = ex.classroom(
        units.block[members],
        units.payer[members],
        reduced.volume[members],
        ex.calendar(reduced.rows.ts[mine] // dt.HOUR_US, dense),
        ex.common_items(dense, code),
    )


def decide(
    context: Context, findings: list[Finding], references: list[Finding]
) -> tuple[sc.Conformal, float]:
    """Stage 6: both roads, then the verdict. Returns the conformal outcome and the level of the direct tests.

    References are asked only about groups that a direct test, or the agreement of all views, has singled out; the
    others cannot be named, and testing them too would ask for as many more references.
    """
    everything = references + findings
    is_reference = np.array([i < len(references) for i in range(len(everything))], bool)
    score = sc.residual_scores(
        np.array([f.openness.evasion for f in everything]),
        np.array([f.space for f in everything]),
        np.array([len(f.members) for f in everything], np.int64),
        is_reference,
    )
    level = DIRECT_LEVEL / max(1, 4 * len(findings))
    tested = [f for f in findings if f.fired(level) or f.everywhere()]
    asked = np.array([f.reference < 0 and bool(f.fired(level) or f.everywhere()) for f in everything], bool)
    outcome = sc.conformal(score, is_reference, asked)
    for finding, value in zip(everything, score.tolist(), strict=True):
        finding.score = value
    for finding, p, q in zip(tested, outcome.p.tolist(), outcome.q.tolist(), strict=True):
        finding.conformal_p, finding.conformal_q, finding.compared = p, q, True
    for finding in findings:
        settle(context, finding, outcome, level)
    return outcome, level


def settle(context: Context, finding: Finding, outcome: sc.Conformal, level: float) -> None:
    """The verdict of one group: cleared, campaign, or lead with what is missing."""
    units, members = context.units, finding.members
    fired = finding.fired(level)
    roads = []
    # People who sign up together, for an event or a course, are not one operation by that alone.
    only_signups = {d.name for d in fired} <= {"signup_batch"} and finding.arranged_p > EVERY_VIEW_P
    asked = finding.items >= LEAST_OWN and not only_signups
    if outcome.references >= sc.LEAST_REFERENCES and finding.conformal_q <= sc.LEVEL and asked:
        roads.append("references")
    agreed = fired and finding.everywhere() and not only_signups
    kinds = {d.view for d in fired} | ({"EVERY VIEW"} if agreed else set())
    hidden = finding.openness.known and finding.openness.share < BARE_SHARE
    if len(kinds) >= 2 and hidden and _harvested(finding):
        roads.append("direct")
    finding.roads = tuple(roads)
    codes = units.declared[members]
    finding.entity_share = ex.largest_share(codes)
    # A name that all members type in, with nothing that was bought or registered behind it, is neither evidence
    # nor excuse.
    bare = finding.openness.known and finding.openness.share < BARE_SHARE
    if units.contract[members].mean() >= 0.8:
        finding.verdict, finding.why = "cleared", "contract"
    elif not fired and finding.benchmark is not None and finding.benchmark.clears:
        finding.verdict, finding.why = "cleared", "benchmark"
    elif (
        {d.name for d in fired} <= CLASS_EXPLAINS
        and finding.classroom is not None
        and finding.classroom.clears
    ):
        finding.verdict, finding.why = "cleared", "classroom"
    elif finding.openness.share >= HIDDEN_SHARE or (finding.entity_share >= ENTITY_SHARE and not bare):
        finding.verdict, finding.why = "lead", "openly_one_customer"
    elif roads:
        finding.verdict, finding.why = "campaign", None
    elif (fired or finding.everywhere()) and outcome.references < outcome.needed:
        finding.verdict, finding.why = "lead", "few_references"
    else:
        finding.verdict, finding.why = "lead", "not_harvest_like"


def _harvested(finding: Finding) -> bool:
    """Content null of the direct road: the requests of the group's own families draw on a wide item space.

    Half of the widest space that as many draws can show (no coincidence at all).
    """
    widest = np.log10((finding.items * (finding.items - 1) / 2 + 1) / 3)
    return finding.items >= 50 and finding.space >= 0.5 * float(widest)


def judge(reduced: Reduced, units: Units, seed: int, progress: Progress = _silent) -> Judged:
    """Run stages 2 to 6."""
    progress("prepare", 0, 1)
    context = prepare(reduced, units, seed)
    progress("discover", 0, 1)
    found = split_by_unit(context, candidates(context))
    tested = confirmed(context, found, progress)
    references = [f for f in tested if f.reference >= 0 and f.q <= CONFIRM_LEVEL]
    coordinated = [f for f in tested if f.reference < 0 and f.q <= CONFIRM_LEVEL]
    findings = grown(context, coordinated, progress)
    rows = GroupRows(reduced, units.honest_group)
    for number, finding in enumerate(references + findings):
        progress("explain", number, len(references) + len(findings))
        direct_tests(context, rows, finding)
        explanations(context, rows, finding)
    outcome, level = decide(context, findings, references)
    return Judged(context, findings, references, len(found), outcome, level)


__all__ = ["CONFIRM_LEVEL", "Context", "Finding", "Judged", "judge"]
