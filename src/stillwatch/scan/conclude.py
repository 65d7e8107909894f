"""From judged groups to those that are listed, with their members: stages 6 and 7 in their order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stillwatch.detect.discover import LEAST_GROUP
from stillwatch.engine.threads import each
from stillwatch.scan import judge as jd
from stillwatch.scan.assign import Assignment, assign, honest_groups
from stillwatch.scan.judge import Finding, Judged
from stillwatch.scan.verdict import HIDDEN_SHARE, apart, decide, one_stock
from stillwatch.views.base import I64

ROADS = ("references", "direct")
STRENGTH = {"cleared": 0, "lead": 1, "campaign": 2}


@dataclass(frozen=True, slots=True)
class Concluded:
    """Groups that the results name, and their members: parallel lists."""

    judged: Judged
    listed: list[Finding]
    assigned: list[Assignment]
    honest: list[I64]
    """Members of the groups that an innocent account may come from, as they were when members were named."""


def conclude(
    judged: Judged, *, roads: tuple[str, ...] = ROADS, most_references: int | None = None
) -> Concluded:
    """Verdicts, members and what is listed. Findings are copied: one judged log serves several settings.

    `roads` and `most_references` are what the arena measures: one road alone, fewer references.
    """
    judged = replace(
        judged,
        findings=[replace(f) for f in judged.findings],
        references=[replace(f) for f in judged.references],
    )
    references = judged.references
    if most_references is not None:
        references = sorted(references, key=lambda f: (f.reference * 2654435761) % 2**32)[:most_references]
    judged = replace(judged, against=references)
    if most_references is not None or roads != ROADS:
        judged = _decided(judged, references, roads)
    listed = _listed(judged)
    honest = honest_groups(judged)
    assigned = assign(judged, listed, honest)
    if refit(judged, listed, assigned):
        judged = _weakened(judged, references, roads)
    return Concluded(judged, *_still_groups(listed, [*map(_named, listed, assigned)]), honest)


def _decided(judged: Judged, references: list[Finding], roads: tuple[str, ...]) -> Judged:
    """Verdicts anew, with these references and these roads."""
    outcome, level = decide(judged.context, judged.findings, references)
    for finding in judged.findings:
        finding.roads = tuple(road for road in finding.roads if road in roads)
        if finding.verdict == "campaign" and not finding.roads:
            finding.verdict, finding.why = "lead", "few_references"
    return replace(judged, conformal=outcome, direct_level=level)


def _weakened(judged: Judged, references: list[Finding], roads: tuple[str, ...]) -> Judged:
    """Verdicts anew, none stronger than it was."""
    before = [(finding.verdict, finding.why, finding.roads) for finding in judged.findings]
    judged = _decided(judged, references, roads)
    for finding, (verdict, why, had) in zip(judged.findings, before, strict=True):
        if STRENGTH[finding.verdict] > STRENGTH[verdict]:
            finding.verdict, finding.why, finding.roads = verdict, why, had
    return judged


def _speaks(finding: Finding, level: float) -> bool:
    """Whether something besides coordination speaks against a group."""
    fired = {d.name for d in finding.fired(level)}
    if finding.why == "openly_one_customer":
        # Colleagues are alike in every view, and a firm shares its work out among them.
        expected = {"work_split"}
        if finding.openness.payer >= HIDDEN_SHARE:
            # One party pays: its balancer moves conversations between its own keys.
            expected |= {"handover", "replay"}
        return bool(fired - expected or finding.roads)
    return bool(fired or finding.roads or one_stock(finding) or apart(finding) or finding.everywhere())


def _listed(judged: Judged) -> list[Finding]:
    """Groups that the results name. A coordinated group against which nothing speaks is nobody's business."""
    listed = [f for f in judged.findings if f.verdict != "lead" or _speaks(f, judged.direct_level)]
    for reference in judged.references:
        reference.verdict, reference.why = "cleared", "verified_entity"
    return listed + list(judged.references)


def refit(judged: Judged, listed: list[Finding], assigned: list[Assignment]) -> bool:
    """Members, tests and explanations for the accounts that are named. Returns whether stage 7 took some away."""
    rows = judged.context.rows
    changed: list[Finding] = []
    for finding, assignment in zip(listed, assigned, strict=True):
        named = assignment.accounts[np.isin(assignment.accounts, finding.members)]
        if finding.verdict == "cleared" or len(named) == len(finding.members) or len(named) < LEAST_GROUP:
            continue
        finding.members = named
        changed.append(finding)

    def explain(finding: Finding) -> None:
        jd.direct_tests(judged.context, rows, finding)
        jd.explanations(judged.context, rows, finding)

    each(explain, changed)
    return bool(changed)


def _named(finding: Finding, assignment: Assignment) -> Assignment:
    """Whom a campaign names: nobody who stands on one view. Where too few are left, the group is a lead.

    The tests were made on the group, which those accounts belong to: only their names are held back.
    """
    finding.freed = len(assignment.freed)
    if finding.verdict != "campaign" or not assignment.weak.any():
        return assignment
    strong = assignment.strong()
    if int(strong.core.sum()) < LEAST_GROUP:
        finding.verdict, finding.why, finding.roads = "lead", "one_view", ()
        return assignment
    finding.withheld = int(assignment.weak.sum())
    finding.members = np.setdiff1d(finding.members, assignment.accounts[assignment.weak])
    return strong


def _still_groups(
    findings: list[Finding], assigned: list[Assignment]
) -> tuple[list[Finding], list[Assignment]]:
    """Without the groups of which fewer than LEAST_GROUP core members are left."""
    kept = [
        (f, a)
        for f, a in zip(findings, assigned, strict=True)
        if f.verdict == "cleared" or int(a.core.sum()) >= LEAST_GROUP
    ]
    return [f for f, _ in kept], [a for _, a in kept]
