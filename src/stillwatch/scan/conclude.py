"""From judged groups to those that are listed, with their members: stages 6 and 7 in their order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from stillwatch.detect.discover import LEAST_GROUP
from stillwatch.scan import judge as jd
from stillwatch.scan.assign import Assignment, assign
from stillwatch.scan.grouprows import GroupRows
from stillwatch.scan.judge import Finding, Judged

ROADS = ("references", "direct")


@dataclass(frozen=True, slots=True)
class Concluded:
    """Groups that the results name, and their members: parallel lists."""

    judged: Judged
    listed: list[Finding]
    assigned: list[Assignment]


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
    if most_references is not None or roads != ROADS:
        judged = _restricted(judged, roads, most_references)
    listed = _listed(judged)
    assigned = assign(judged, listed)
    rows = GroupRows(judged.context.reduced, judged.context.units.honest_group)
    for finding, assignment in zip(listed, assigned, strict=True):
        if finding.verdict != "cleared":
            refit(judged, rows, finding, assignment.accounts[assignment.core])
    return Concluded(judged, *_still_groups(listed, assigned))


def _restricted(judged: Judged, roads: tuple[str, ...], most_references: int | None) -> Judged:
    """The same groups with fewer references, or with one road only."""
    references = list(judged.references)
    if most_references is not None:
        references = sorted(references, key=lambda f: (f.reference * 2654435761) % 2**32)[:most_references]
    outcome, level = jd.decide(judged.context, judged.findings, references)
    for finding in judged.findings:
        finding.roads = tuple(road for road in finding.roads if road in roads)
        if finding.verdict == "campaign" and not finding.roads:
            finding.verdict, finding.why = "lead", "few_references"
    return replace(judged, conformal=outcome, direct_level=level)


def _listed(judged: Judged) -> list[Finding]:
    """Groups that the results name. A coordinated group against which nothing speaks is nobody's business."""
    listed = [f for f in judged.findings if f.verdict != "lead" or f.fired(judged.direct_level) or f.roads]
    for reference in judged.references:
        reference.verdict, reference.why = "cleared", "verified_entity"
    return listed + list(judged.references)


def refit(judged: Judged, rows: GroupRows, finding: Finding, core: npt.NDArray[np.int64]) -> None:
    """State direct tests and evidence for the accounts that are named, where stage 7 took some away.

    The verdict can only become weaker: a campaign whose remaining core no direct test sees is a lead.
    """
    if len(core) == len(finding.members) or len(core) < LEAST_GROUP:
        return
    context = judged.context
    finding.members = core
    jd.direct_tests(context, rows, finding)
    jd.explanations(context, rows, finding)
    if finding.verdict == "campaign" and not finding.fired(judged.direct_level) and not finding.everywhere():
        finding.verdict, finding.why, finding.roads = "lead", "not_harvest_like", ()


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
