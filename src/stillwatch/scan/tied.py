"""Groups found by wording and links at once, where neither shows anybody alone: from tied wordings to accounts.

`detect.tied` says which wordings have holders that are tied to each other; here their tied holders grow to the
accounts that wording and ties together name. Only accounts that stand in no other group take part: what the other
stages found is theirs. Both views are used up by the finding, so that it is a lead, unless direct tests, which have
nulls of their own, open a road.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stillwatch.detect import confirm as cf
from stillwatch.detect import members as mb
from stillwatch.detect import tied as td
from stillwatch.detect import tied_members as tm
from stillwatch.detect.discover import LEAST_GROUP
from stillwatch.detect.keys import KeyIndex
from stillwatch.scan.context import Context, Finding, Together
from stillwatch.scan.refine import COPIED_BITS, MARGIN_BITS, RECRUIT_BITS, SECOND_VIEW_BITS
from stillwatch.views.base import F64, I64, Bool

SLACK_BITS = (2.0, 2.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0)
"""Bits that an account may lack in each step: a few holders of one wording are a poor picture of the whole."""
LEAST_START = 3
SAME_HOLDERS = 2
"""Tied holders that two wordings have in common from which they start one group."""
ANCHORED = 0.25
"""Share of a group that must hold a wording found tied: who is named stands on what was tested."""
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Growth:
    """What accounts are judged by."""

    words: KeyIndex
    ties: KeyIndex
    able: Bool
    base: mb.Background = field(init=False)
    everybody: I64 = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", mb.background(self.words, True))
        object.__setattr__(self, "everybody", np.flatnonzero(self.able))

    def tied(self, members: I64) -> tuple[I64, F64]:
        """(able accounts with enough bits of ties to be looked at, those bits); nobody is named without."""
        bits = tm.tie_bits(self.ties, members, self.able)[self.everybody]
        close = bits >= SECOND_VIEW_BITS
        return self.everybody[close], bits[close]

    def named(self, members: I64, slack: float = 0.0) -> I64:
        """The accounts that have, for a group like `members`, enough bits, and some in both views."""
        asked, tied = self.tied(members)
        scratch = np.full(len(self.words.telling.key), -1, np.int32)
        wording = mb.key_bits(self.words, members, self.base, asked, scratch)
        return self._enough(asked, wording, tied, len(members), -slack)

    def _enough(self, asked: I64, wording: F64, tied: F64, size: int, more: float) -> I64:
        """Those of `asked` with `more` bits than the odds of membership of a group of `size`, in both views."""
        wording = np.minimum(wording, COPIED_BITS)
        least = np.log2(len(self.everybody) / size) + MARGIN_BITS + more
        return asked[(wording + tied >= least) & (wording >= SECOND_VIEW_BITS)]

    def grown(self, start: I64) -> I64:
        """What `start` turns into; fewer than LEAST_GROUP accounts where nothing holds it together."""
        members = start
        for slack in SLACK_BITS:
            if len(members) < LEAST_START:
                break
            after = self.named(members, slack)
            if slack == 0 and np.array_equal(after, members):
                break
            members = after
        return np.union1d(members, self.last_look(members)) if len(members) >= LEAST_GROUP else members

    def last_look(self, members: I64) -> I64:
        """Accounts with a tie to a settled group that use its wordings among much else; once, and on more bits."""
        asked, tied = self.tied(members)
        wording = tm.wording_bits(self.words, members, self.able, asked)
        return self._enough(asked, wording, tied, len(members), RECRUIT_BITS)


def starts(ties: KeyIndex, holders: Sequence[I64]) -> list[tuple[I64, I64]]:
    """(places of the wordings, their tied holders) of each start. `holders`: able holders of each found wording."""
    tied = [td.tied_among(ties, members) for members in holders]
    home = np.arange(len(tied))
    for a in range(len(tied)):
        for b in range(a):
            if home[a] != home[b] and len(np.intersect1d(tied[a], tied[b])) >= SAME_HOLDERS:
                home[home == home[a]] = home[b]
    out = []
    for name in np.unique(home).tolist():
        places = np.flatnonzero(home == name)
        out.append((places, np.unique(np.concatenate([tied[place] for place in places.tolist()]))))
    return out


def tied_groups(context: Context, able: Bool) -> tuple[list[Finding], F64]:
    """Groups among the `able` bool[accounts], the surest first; disjoint. And the p of every wording tested."""
    if able.sum() < LEAST_GROUP:
        return [], np.zeros(0)
    n = context.reduced.accounts
    few = max(td.WORDING_HOLDERS, td.WORDING_SHARE * n)
    words = td.among(context.form_single, able, td.LEAST_HOLDERS, few)
    ties = td.among(context.identity, able, 2, td.RARE_HOLDERS)
    classes = [context.reduced.script, context.time.block.astype(np.int64)]
    common = td.manners([(context.form_plain, few), (context.identity, td.RARE_HOLDERS)], classes, able)
    tested = td.tied_wordings(words, ties, context.reduced.script, common, able)
    found = np.flatnonzero(tested.q <= LEVEL)
    holders = [words.held_by(int(key)).astype(np.int64) for key in tested.key[found].tolist()]
    growth = Growth(context.form_single, ties, able)
    out: list[Finding] = []
    free = able.copy()
    ranked = sorted(starts(ties, holders), key=lambda s: (tested.p[found[s[0]]].min(), s[1].tolist()))
    for places, start in ranked:
        members = growth.grown(start)
        members = members[free[members]]
        anchors = np.unique(np.concatenate([holders[place] for place in places.tolist()]))
        if len(members) < LEAST_GROUP or np.isin(members, anchors).mean() < ANCHORED:
            continue
        free[members] = False
        mine = found[places]
        out.append(_finding(context, members, tested, mine, holders[int(places[tested.p[mine].argmin()])]))
    return out, tested.p


def _finding(context: Context, members: I64, tested: td.TiedWordings, mine: I64, holders: I64) -> Finding:
    """The record of one group: its claim is that of its surest wording."""
    best = int(mine[tested.p[mine].argmin()])
    ties, expected, p = int(tested.ties[best]), float(tested.expected[best]), float(tested.p[best])
    both = len(np.intersect1d(members, holders))
    return Finding(
        members,
        "FORM AND LINK",
        "tied wordings",
        [cf.Tested("FORM AND LINK", p, float(ties), expected, 0, "Poisson, degrees given", 0)],
        p,
        float(tested.q[best]),
        merged=len(mine),
        candidate=len(holders),
        claimed=holders,
        alike=both / (len(members) + len(holders) - both),
        together=Together(len(mine), len(holders), ties, expected),
    )


def named_without_signups(context: Context, finding: Finding) -> I64:
    """The members that would be members without any sign-up run or referral code."""
    able = np.zeros(context.reduced.accounts, bool)
    able[finding.members] = True
    everybody = context.units.honest_group < 0
    ties = td.among(context.arranged, everybody, 2, td.RARE_HOLDERS)
    growth = Growth(context.form_single, ties, everybody)
    named = np.union1d(growth.named(finding.members), growth.last_look(finding.members))
    return named[able[named]]
