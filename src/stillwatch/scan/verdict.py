"""Stage 6: cleared, campaign or lead, and why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stillwatch.detect import explain as ex
from stillwatch.detect import score as sc
from stillwatch.detect.direct import Direct
from stillwatch.scan.context import EVERY_VIEW_P, Context, Finding

DIRECT_LEVEL = 0.01
"""Family-wise level of the direct tests, over groups and tests."""
CLASS_EXPLAINS = {"signup_batch"}
"""A class signs up together, on site, in one lesson: that test alone does not keep it from being cleared."""
HIDDEN_SHARE = 0.5
"""Openness from which a group is openly one customer."""
ENTITY_SHARE = 0.5
BARE_SHARE = 0.4
"""Openness below which a declared owner is a bare claim. Honest owners have a payer, a site or a domain."""
PASSED_ON = {"HANDOVER", "TRACE"}
"""Direct evidence one kind of which a group without any template of its own needs: private things that its accounts
pass to each other. Without it, such a group may be anybody's customers.
"""
WIDE_SPACE = 4.0
"""Item space (log10 of different things) that is wide however many requests there are; public sets have hundreds."""
WORDING = {"FORM", "FORM AND LINK"}
"""Kinds of evidence beside which a partner's fingerprint of wording is no second one."""
LEAST_BESIDE = 2
"""Own kinds of evidence besides wording that a partner's word needs beside it."""
CONFIRMED_P = 0.025
"""p of a view that counts as one of them."""
LEAST_OWN = 20
"""Requests of its own families below which nothing can be said about what a group asks for."""


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
    level = DIRECT_LEVEL / max(1, sum(len(f.direct) for f in findings))
    tested = [f for f in findings if _singled_out(context, f, level)]
    asked = np.array([f.reference < 0 and _singled_out(context, f, level) for f in everything], bool)
    outcome = sc.conformal(score, is_reference, asked)
    for finding, value in zip(everything, score.tolist(), strict=True):
        finding.score, finding.size = value, len(finding.members)
        # What was said of more members does not hold for those that are left.
        finding.conformal_p, finding.conformal_q, finding.compared = 1.0, 1.0, False
    for finding, p, q in zip(tested, outcome.p.tolist(), outcome.q.tolist(), strict=True):
        finding.conformal_p, finding.conformal_q, finding.compared = p, q, True
    # Few groups are few chances to be wrong: in a small log the agreement of all views is held to the same
    # family-wise level as the direct test beside which it counts.
    view_level = max(EVERY_VIEW_P, DIRECT_LEVEL / max(1, len(findings)))
    for finding in findings:
        settle(context, finding, outcome, level, view_level)
    return outcome, level


def only_signups(finding: Finding, level: float) -> bool:
    """Whether sign-ups are all that points at one director.

    People who sign up together, for an event or a course, are not one operation by that; nor by the template and the
    hours that they were given with it. An operation's accounts hang together by what they were bought with, too.
    """
    return {d.name for d in finding.fired(level)} <= {"signup_batch"} and finding.web < ex.WEB_SHARE


def one_stock(finding: Finding) -> bool:
    """Whether the members hang together by one stock of addresses and instruments, while no owner is in sight.

    A lead, and no more: staff with department cards or a school's laptops look like that, too.
    """
    hidden = finding.openness.known and finding.openness.share < BARE_SHARE
    return hidden and finding.web >= ex.WEB_SHARE


TOGETHER = {"FORM", "LINK"}
"""Kinds of evidence that a group found by wording and links together has used up."""


def apart(finding: Finding) -> bool:
    """Whether wording and links found the group together, while no owner is in sight."""
    hidden = finding.openness.known and finding.openness.share < BARE_SHARE
    return finding.together is not None and hidden


def used_up(finding: Finding, fired: Sequence[Direct]) -> bool:
    """Whether wording and links found the group, and nothing of another kind singles it out.

    Sign-ups tie accounts, and a list that is shared out is wording.
    """
    return finding.together is not None and {d.view for d in fired} <= TOGETHER


def partner_counts(finding: Finding, fired: Sequence[Direct]) -> bool:
    """Whether a partner's fingerprint is one more kind of evidence: beside two own kinds that are not wording, one
    of them a direct test.

    Nothing here can check what a partner says, so that it must not decide alone or together with wording, which is
    what it is about.
    """
    direct = {d.view for d in fired} - WORDING
    views = {t.view for t in finding.tested if t.p <= CONFIRMED_P} | {finding.view_found}
    return bool(finding.partners and direct) and len((views | direct) - WORDING) >= LEAST_BESIDE


def _singled_out(context: Context, finding: Finding, level: float) -> bool:
    """Whether references are asked about this group: not about those that the operator has vouched for."""
    if context.units.contract[finding.members].all():
        return False
    return bool(finding.fired(level))


def settle(
    context: Context, finding: Finding, outcome: sc.Conformal, level: float, view_level: float
) -> None:
    """The verdict of one group: cleared, campaign, or lead with what is missing.

    `level` is that of the direct tests, `view_level` that of the views that did not find the group.
    """
    units, members = context.units, finding.members
    fired = finding.fired(level)
    roads = []
    came_together = only_signups(finding, level)
    # Where the log does not say who is behind the accounts, nothing shows that they hide.
    asked = (
        finding.items >= LEAST_OWN and not finding.relayed and finding.openness.known and not came_together
    )
    if outcome.references >= sc.LEAST_REFERENCES and finding.conformal_q <= sc.LEVEL and asked:
        roads.append("references")
    agreed = fired and finding.everywhere(view_level) and not came_together
    kinds = {d.view for d in fired} | ({"EVERY VIEW"} if agreed else set())
    if fired and not came_together:
        kinds |= {d.view for d in finding.beside(level)}
    own = len(kinds)
    if not came_together and partner_counts(finding, fired):
        kinds |= {"PARTNER"}
    hidden = finding.openness.known and finding.openness.share < BARE_SHARE
    passed = not finding.relayed or bool(kinds & PASSED_ON)
    if len(kinds) >= 2 and hidden and passed and _harvested(finding):
        roads.append("direct")
    finding.roads = () if used_up(finding, fired) else tuple(roads)
    codes = units.declared[members]
    finding.entity_share = ex.largest_share(codes)
    # A name that all members type in, with nothing that was bought or registered behind it, is neither evidence
    # nor excuse.
    bare = finding.openness.known and finding.openness.share < BARE_SHARE
    if units.contract[members].all():
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
    elif finding.roads:
        finding.verdict, finding.why = "campaign", None
    elif finding.together is not None:
        finding.verdict, finding.why = "lead", "found_together"
    elif (fired or finding.everywhere()) and outcome.references < outcome.needed:
        finding.verdict, finding.why = "lead", "few_references"
    else:
        finding.verdict, finding.why = "lead", "not_harvest_like"
    finding.leans = finding.verdict == "campaign" and finding.roads == ("direct",) and own < 2


def _harvested(finding: Finding) -> bool:
    """Content null of the direct road: the group's requests (of its own families, if any) draw on a wide item space.

    Half of the widest space that as many draws can show (no coincidence at all), or `WIDE_SPACE`: among a hundred
    thousand relayed requests there are many that say "thanks".
    """
    widest = np.log10((finding.items * (finding.items - 1) / 2 + 1) / 3)
    return finding.items >= 50 and finding.space >= min(0.5 * float(widest), WIDE_SPACE)
