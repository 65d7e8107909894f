"""Stages 3 to 6 in their order: from candidates to groups with what every verdict rests on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from stillwatch.detect import confirm as cf
from stillwatch.detect import direct as dt
from stillwatch.detect import explain as ex
from stillwatch.detect import ledger as ld
from stillwatch.detect import score as sc
from stillwatch.detect.discover import CORE_LIFT, LEAST_GROUP, Candidate, discover, merge_near_duplicates
from stillwatch.detect.fanout import fan_out
from stillwatch.detect.keys import KeyIndex
from stillwatch.engine.threads import each, workers
from stillwatch.scan.collect import Reduced
from stillwatch.scan.context import TEMPLATE_KEYS, Context, Finding, Judged, prepare
from stillwatch.scan.grouprows import GroupRows
from stillwatch.scan.partner import Intel, compare
from stillwatch.scan.refine import Evidence, recruit, refine
from stillwatch.scan.tied import named_without_signups, tied_groups
from stillwatch.scan.units import Units
from stillwatch.scan.verdict import ENTITY_SHARE, LEAST_OWN, decide
from stillwatch.views.base import I64
from stillwatch.views.fanout import KINDS as FAN_KINDS
from stillwatch.views.slots import invariant_postings, slot_contents

CONFIRM_LEVEL = 0.05
LARGEST_FAMILIES = 24
LEAST_SPLIT = 20
"""Requests of a family below which nobody can tell whether it is shared out."""
OWN_HOLDERS, OWN_SHARE = 3, 0.05
"""Members that must hold a family for it to be the group's own."""
FAN_WORDS = tuple(kind.replace("_", " ") for kind in FAN_KINDS)
LEAST_LIKE = 0.1
"""Overlap (Jaccard) of a group with the confirmed candidate whose claim it takes over. A large operation may be
confirmed in many small pieces only."""
Bool = npt.NDArray[np.bool_]
Progress = Callable[[str, int, int], None]


def _silent(stage: str, done: int, total: int) -> None:
    """No progress display."""


def candidates(context: Context) -> list[Candidate]:
    """Stage 3 in FORM, in LINK, and by what passes between accounts."""
    form, linked = context.form, context.link
    found = discover(form, "FORM", context.size >= TEMPLATE_KEYS, context.seed)
    # A payment instrument or an address block ties its holders by itself; a software stack does not.
    single = context.reduced.link.key_kind != context.reduced.link.kinds.index("stack")
    found += discover(linked, "LINK", single, context.seed)
    passed = ld.partner_groups(context.passed.partners, context.seed)
    found += merge_near_duplicates([Candidate("HANDOVER", members, "community") for members in passed])
    return found


def split_by_unit(context: Context, found: list[Candidate]) -> list[tuple[Candidate, int]]:
    """Known-honest groups become reference candidates; what they share is no evidence about anybody else."""
    group = context.units.honest_group
    shut = context.units.gateway
    out: list[tuple[Candidate, int]] = []
    taken = np.zeros(int(group.max(initial=-1)) + 1, bool)
    for candidate in found:
        members = candidate.members[~shut[candidate.members]]
        codes = group[members]
        known, counts = np.unique(codes[codes >= 0], return_counts=True)
        for code, count in zip(known.tolist(), counts.tolist(), strict=True):
            if count >= LEAST_GROUP and count >= ENTITY_SHARE * len(members) and not taken[code]:
                taken[code] = True
                mine = members[codes == code]
                out.append((Candidate(candidate.view, mine, candidate.origin), code))
        # One account stands for each known-honest group in what remains.
        first = np.zeros(len(members), bool)
        first[np.unique(codes, return_index=True)[1]] = True
        spoken_for = codes >= 0
        spoken_for[spoken_for] = taken[codes[spoken_for]] | ~first[spoken_for]
        rest = members[~spoken_for]
        if len(rest) >= LEAST_GROUP:
            out.append((Candidate(candidate.view, rest, candidate.origin), -1))
    return out


def confirmed(context: Context, found: list[tuple[Candidate, int]], progress: Progress) -> list[Finding]:
    """Stage 4: every candidate tested on the views that did not find it; q-values apart for references."""

    def test(candidate: Candidate) -> list[cf.Tested]:
        return cf.confirm(
            candidate.members, candidate.view, context.tested_on, context.rhythm, context.strata, context.seed
        )

    findings = []
    # Draws are seeded by members, so the number of threads changes nothing.
    with ThreadPoolExecutor(workers()) as pool:
        outcomes = pool.map(test, [candidate for candidate, _ in found])
        for number, ((candidate, reference), tested) in enumerate(zip(found, outcomes, strict=True)):
            progress("confirm", number, len(found))
            findings.append(
                Finding(
                    candidate.members,
                    candidate.view,
                    candidate.origin,
                    tested,
                    cf.partial_conjunction(tested, cf.other_views(candidate.view)),
                    reference=reference,
                )
            )
    for chosen in ([f for f in findings if f.reference < 0], [f for f in findings if f.reference >= 0]):
        q = cf.benjamini_hochberg(np.array([f.p for f in chosen]))
        for finding, value in zip(chosen, q.tolist(), strict=True):
            finding.q = value
    return findings


def grown(context: Context, coordinated: list[Finding], able: Bool, progress: Progress) -> list[Finding]:
    """Groups from the confirmed candidates, each with the claim of the candidate that it is most like.

    `able` bool[accounts]: who may be in a group.
    """
    if not coordinated:
        return []
    pool = np.unique(np.concatenate([f.members for f in coordinated]))
    pool = pool[able[pool]]
    evidence = Evidence(context.views, context.rhythm, pool, context.passed.partners)
    inside = np.zeros(context.reduced.accounts, bool)
    inside[pool] = True
    groups = refine(evidence, [f.members[inside[f.members]] for f in coordinated], progress)
    free = able.copy()
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
            like, origin = found
            size = len(origin.members)
            finding = replace(
                origin, recruits=joined, merged=count, candidate=size, claimed=origin.members, alike=like
            )
            out.append((origin, replace(finding, members=np.union1d(members, joined))))
    # For the reader, every view; the q stands.
    tested = each(lambda pair: in_every_view(context, pair[0]), out)
    return [replace(finding, tested=views) for (_, finding), views in zip(out, tested, strict=True)]


def in_every_view(context: Context, candidate: Finding) -> list[cf.Tested]:
    """The candidate's tests, with TIME where an earlier view had settled the matter."""
    if len(candidate.tested) == cf.other_views(candidate.view_found):
        return candidate.tested
    return cf.confirm(
        candidate.members,
        candidate.view_found,
        context.tested_on,
        context.rhythm,
        context.strata,
        context.seed,
        whole=True,
    )


def settled_references(context: Context, found: list[Finding]) -> list[Finding]:
    """Confirmed candidates of known-honest groups, grown as every other group is: like is compared with like.

    Each among its own group's accounts. What settles to nothing would not have been a group.
    """
    group = context.units.honest_group
    evidence = Evidence(context.views, context.rhythm, np.zeros(0, np.int64), context.passed.partners)

    def settled(finding: Finding) -> I64:
        own = replace(evidence, pool=np.flatnonzero(group == finding.reference))
        return own.settled(finding.members)

    return [
        replace(finding, members=members, candidate=len(finding.members))
        for finding, members in zip(found, each(settled, found), strict=True)
        if len(members) >= LEAST_GROUP
    ]


def unselected(context: Context, finding: Finding) -> I64:
    """The members that would be members without any sign-up key: whom the sign-up test may look at.

    Who was chosen because of a shared sign-up batch cannot then be evidence for sign-up batches.
    """
    members = finding.members
    if finding.together is not None:
        return named_without_signups(context, finding)
    evidence = Evidence(context.views_without_signups, context.rhythm, members, context.passed.partners)
    keep, _ = evidence.belongs(evidence.bits(members, members), len(members))
    return members[keep]


def chosen_otherwise(context: Context, finding: Finding) -> I64:
    """The members whose wording, addresses, instruments and hours would do without conversations and blocks."""
    members = finding.members
    if finding.together is not None:
        return members  # what passes between accounts had no part in it
    evidence = Evidence(context.views, context.rhythm, members, ld.no_partners(context.reduced.accounts))
    return members[evidence.plenty(evidence.bits(members, members), len(members))]


def own_families(index: KeyIndex, members: I64, place: I64) -> I64:
    """Families that the group uses and others hardly do, most holders inside first.

    `index`: FORM, `place`: its key of each family. A rotating template has many wordings, each in few hands.
    """
    own = np.zeros(index.n_keys, bool)
    own[index.frequent(members, max(OWN_HOLDERS, OWN_SHARE * len(members)), CORE_LIFT)] = True
    usable = np.flatnonzero((place >= 0) & own[place])
    order = np.lexsort((usable, -index.counts_of(members, place[usable])))
    return usable[order][:LARGEST_FAMILIES]


def _work_split(context: Context, rows: GroupRows, own: dict[tuple[str, int], I64]) -> dt.Direct:
    """The smallest p over the group's own prompt families, times the tests made.

    Slots are what stands between a family's words, and between those that at least half of its prompts have: a family
    holds its slots' contents too, where they are few and everybody uses them.
    """
    reduced = context.reduced
    texts = reduced.prompt_offsets, reduced.prompt_postings
    best, tests = dt.NO_SPLIT, 0
    for (part, family), mine in own.items():
        if part == "system" or len(mine) < LEAST_SPLIT:
            continue
        account = reduced.rows.account[mine].astype(np.int64)
        for still in (rows.postings_of(family), invariant_postings(mine, *texts)):
            result = dt.work_split(account, slot_contents(mine, *texts, still))
            tests += 1
            if result.p < best.p:
                best = result
    times = max(1, tests)
    return replace(best, p=min(1.0, best.p * times), times=best.times * times)


def moves(context: Context, finding: Finding) -> list[dt.Direct]:
    """Hand-overs, and replayed blocks between accounts that did not hand over: one act is not counted twice.

    Looked at are members that other evidence makes members: who was chosen because of what passes between accounts
    cannot then be evidence for it. Accounts of one known-honest group may move what they like among themselves.
    """
    member = np.zeros(context.reduced.accounts, bool)
    member[chosen_otherwise(context, finding)] = True
    found = [
        ld.moved("handover", "HANDOVER", context.passed.handed, member),
        ld.moved("replay", "TRACE", context.passed.replayed, member),
    ]
    return [replace(d, reach=d.observed / len(finding.members)) for d in found]


def direct_tests(context: Context, rows: GroupRows, finding: Finding) -> None:
    """Stage 5, one director: fills `families`, `direct`, `items`, `space`."""
    reduced, units = context.reduced, context.units
    members = finding.members
    member = np.zeros(reduced.accounts, bool)
    member[members] = True
    wording = context.wording(finding)
    finding.families = own_families(wording, members, context.family_key)
    finding.systems = own_families(wording, members, context.system_key)
    own = rows.own(finding.families, finding.systems, member)
    split = _work_split(context, rows, own)
    start, end = context.span
    batch = dt.signup_batch(context.signups, unselected(context, finding))
    finding.direct = [
        split,
        *moves(context, finding),
        replace(batch, reach=batch.observed / len(members)),
        dt.takeover(reduced.first_us, reduced.last_us, units.banned_us, members, end, start),
        fan_out(*context.wide, FAN_WORDS, members),
    ]
    drawn = np.unique(np.concatenate([np.zeros(0, np.int64), *own.values()]))
    # A pool that passes on what strangers ask has no template: what it takes is whatever passes through.
    finding.relayed = len(drawn) < LEAST_OWN
    items = reduced.rows.item[rows.of(members) if finding.relayed else drawn]
    items = items[items != 0]
    finding.items, finding.coincidences = len(items), sc.coincidences(items.view(np.int64))
    finding.space = sc.item_space(finding.items, finding.coincidences)


def explanations(context: Context, rows: GroupRows, finding: Finding) -> None:
    """Stage 5, the other side: openness, benchmark, classroom."""
    reduced, units = context.reduced, context.units
    members = finding.members
    finding.web = ex.web(context.arranged, members)
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


def judge(
    reduced: Reduced, units: Units, seed: int, progress: Progress = _silent, intel: Intel | None = None
) -> Judged:
    """Run stages 2 to 6."""
    progress("prepare", 0, 1)
    context = prepare(reduced, units, seed)
    progress("discover", 0, 1)
    found = split_by_unit(context, candidates(context))
    tested = confirmed(context, found, progress)
    references = settled_references(context, [f for f in tested if f.reference >= 0 and f.q <= CONFIRM_LEVEL])
    coordinated = [f for f in tested if f.reference < 0 and f.q <= CONFIRM_LEVEL]
    # What known-honest groups share is no evidence; and a contract, or an appeal, is the operator's word on its own
    # accounts only.
    able = ~units.gateway & (units.honest_group < 0) & ~units.freed
    findings = [
        finding
        for chosen in (able & ~units.contract, able & units.contract)
        for finding in grown(context, coordinated, chosen, progress)
    ]
    taken = np.zeros(reduced.accounts, bool)
    taken[np.concatenate([np.zeros(0, np.int64), *(f.members for f in findings)])] = True
    found_tied, tied = tied_groups(context, able & ~units.contract & ~taken)
    findings += found_tied
    rows = context.rows

    def explain(finding: Finding) -> None:
        direct_tests(context, rows, finding)
        explanations(context, rows, finding)

    with ThreadPoolExecutor(workers()) as pool:
        for number, _ in enumerate(pool.map(explain, references + findings)):
            progress("explain", number, len(references) + len(findings))
    heard = None if intel is None else compare(context, findings, intel)
    outcome, level = decide(context, findings, references)
    asked = {
        "coordinated": np.array([f.p for f in tested if f.reference < 0]),
        "coordinated_reference": np.array([f.p for f in tested if f.reference >= 0]),
        "tied": tied,
    }
    return Judged(context, findings, references, len(found), outcome, level, references, asked, heard)


__all__ = ["CONFIRM_LEVEL", "Context", "Finding", "Judged", "judge"]
