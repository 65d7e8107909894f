"""Stage 7: which accounts. Evidence in bits for every account that shares something with a group."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stillwatch.detect import members as mb
from stillwatch.detect import waterfall as wf
from stillwatch.detect.keys import KeyIndex
from stillwatch.detect.rhythm import rhythm_bits
from stillwatch.engine.threads import each
from stillwatch.scan.judge import Context, Finding, Judged
from stillwatch.scan.refine import Evidence, Views, linked
from stillwatch.views.base import F64, I64

HALF_WAY = 0.5
"""Share of the way from the base rate (an account picked at random belongs to a group of that size) that the views
besides the strongest must carry an account which a campaign names. People who copied a wording, or who live behind a
block with the operation's proxy, stand on one view.
"""


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What the bits of a group were measured by: whoever goes on measuring needs it."""

    members: I64
    """The accounts whose keys made the profile, sorted."""
    accounts: I64
    """All accounts that were measured, sorted."""
    time: F64
    """Bits in TIME of each of them: a rank in the population, which no single request can tell anew."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Accounts of one group. Parallel arrays, accounts sorted."""

    accounts: I64
    core: npt.NDArray[np.bool_]
    e_bits: F64
    bits: dict[str, F64]
    """Bits per view: FORM, LINK, TIME."""
    weak: npt.NDArray[np.bool_]
    """Members that stand on one view: a campaign does not name them."""
    steps: dict[str, wf.Steps] = field(default_factory=dict)
    """What single keys add, per view; for campaigns and leads."""
    yardstick: Yardstick | None = None
    """None for cleared groups."""
    freed: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """Accounts that the evidence would name, and that an appeal freed: they are named nowhere."""

    def strong(self) -> Assignment:
        """Without the members that stand on one view."""
        kept = ~self.weak
        return Assignment(
            self.accounts[kept],
            self.core[kept],
            self.e_bits[kept],
            {view: bits[kept] for view, bits in self.bits.items()},
            self.weak[kept],
            {view: steps.of(kept) for view, steps in self.steps.items()},
            self.yardstick,
            self.freed,
        )


@dataclass(frozen=True, slots=True)
class Scale:
    """What members are weighed with."""

    evidence: Evidence
    niches: dict[str, mb.Niches]


def _scale(context: Context, views: Views, honest: list[I64]) -> Scale:
    evidence = Evidence(views, context.rhythm, np.zeros(0, np.int64), context.passed.partners)
    niches = {v: mb.niches_of(i, [mb.profile(i, m) for m in honest]) for v, i in views.indexes.items()}
    return Scale(evidence, niches)


def honest_groups(judged: Judged) -> list[I64]:
    """Members of the groups that an innocent account may come from."""
    honest = [f.members for f in judged.references]
    return honest + [f.members for f in judged.findings if f.verdict == "cleared"]


def assign(judged: Judged, findings: list[Finding], honest: list[I64]) -> list[Assignment]:
    """Members of each of `findings`: the core that discovery found, and recruits: those that joined the settled group
    and those that e-BH names over all pairs. `honest`: `honest_groups` of what was judged.
    """
    context = judged.context
    n = context.reduced.accounts
    fold = folds(context)
    usual = _scale(context, context.views, honest)
    single = usual
    if any(finding.together is not None for finding in findings):
        views = Views({"FORM": context.form_single, "LINK": context.identity})
        single = _scale(context, views, honest)

    def scale(finding: Finding) -> Scale:
        return usual if finding.together is None else single

    def score(finding: Finding) -> tuple[I64, dict[str, F64], F64]:
        evidence, niches = scale(finding).evidence, scale(finding).niches
        if finding.verdict == "cleared":
            accounts = finding.members
            bits = evidence.bits(finding.members, accounts)
        else:
            # Whom wording and ties name together was asked of everybody; nobody joins by one of them.
            alone = finding.together is not None
            accounts = finding.members if alone else _touched(context, finding.members)
            bits = {
                view: mb.cross_fitted(
                    index, accounts, finding.members, evidence.views.base[view], niches[view], fold
                )
                for view, index in evidence.indexes.items()
            }
            bits["TIME"] = rhythm_bits(context.rhythm, finding.members, accounts)
            bits["TIME"] += evidence.taken_up(finding.members, accounts)
        return accounts, bits, mb.combine_views(bits)

    scored = each(score, findings)
    named = _named([total for _, _, total in scored], n * max(1, len(findings)))
    taken = np.zeros(n, bool)
    for finding in findings:
        taken[finding.members] = True
    blocked = taken | context.units.excused

    def settle(place: int) -> Assignment:
        finding, (accounts, bits, total), recruit = findings[place], scored[place], named[place]
        core = np.isin(accounts, finding.members)
        joined = np.isin(accounts, finding.recruits)
        evidence, niches = scale(finding).evidence, scale(finding).niches
        if finding.verdict == "cleared" or finding.together is not None:
            keep = core
        else:
            core &= evidence.belongs(bits, len(finding.members), linked(bits["LINK"][core]))[0]
            keep = core | (recruit & ~blocked[accounts])
        steps: dict[str, wf.Steps] = {}
        measured: Yardstick | None = None
        again = np.zeros(0, np.int64)
        if finding.verdict != "cleared":
            for view, index in evidence.indexes.items():
                steps[view] = wf.steps(
                    index, accounts[keep], finding.members, evidence.views.base[view], niches[view], fold
                )
            # Whom wording and ties name together is weighed by first uses, which no request shows to be the last.
            if finding.together is None:
                measured = Yardstick(finding.members, accounts, bits["TIME"])
        mine = {view: b[keep] for view, b in bits.items()}
        one_view = _besides(bits) < HALF_WAY * np.log2(n / len(finding.members))
        weak = core & one_view
        if finding.verdict != "cleared" and context.units.freed.any():
            alike = evidence.belongs(bits, len(finding.members), linked(bits["LINK"][core]))[0]
            again = accounts[context.units.freed[accounts] & (alike | recruit) & ~one_view]
        chosen = (core & ~joined)[keep]
        return Assignment(accounts[keep], chosen, total[keep], mine, weak[keep], steps, measured, again)

    return each(settle, range(len(findings)))


def _besides(bits: dict[str, F64]) -> F64:
    """Bits of all views but the strongest, for each account."""
    each_view = np.stack(list(bits.values()))
    return np.asarray(each_view.sum(axis=0) - each_view.max(axis=0))


def folds(context: Context) -> npt.NDArray[np.int32]:
    """A fixed fold per account. Accounts are numbered by id, so neighbours fall into different folds."""
    plain = (np.arange(context.reduced.accounts) * 2654435761 >> 7).astype(np.int32) % mb.FOLDS
    return (plain + context.seed) % mb.FOLDS


def _named(totals: list[F64], pairs: int) -> list[npt.NDArray[np.bool_]]:
    """e-BH over all (account, group) pairs; pairs that share nothing have less than 0 bits and count in `pairs`."""
    everything = np.concatenate(totals) if totals else np.zeros(0)
    named = mb.e_benjamini_hochberg(everything, pairs=pairs)
    bounds = np.cumsum([len(t) for t in totals])[:-1]
    return list(np.split(named, bounds)) if totals else []


def _touched(context: Context, members: I64) -> I64:
    """The members and everybody who holds a key that is typical of them."""
    touched = np.zeros(context.reduced.accounts, bool)
    touched[members] = True
    for index in (context.form, context.identity):
        touched |= index.held_by_any(typical_keys(index, members))
    touched[context.passed.partners.of(members)[1]] = True
    return np.flatnonzero(touched)


def typical_keys(index: KeyIndex, members: I64) -> I64:
    """Keys of at least two members that are far more frequent among them than elsewhere."""
    return index.frequent(members, 2, mb.RECRUIT_LIFT)
