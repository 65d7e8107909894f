"""What the stages share, computed once: indexes, strata, rhythm, hand-overs; and the records they fill."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stillwatch.detect import confirm as cf
from stillwatch.detect import direct as dt
from stillwatch.detect import explain as ex
from stillwatch.detect import ledger as ld
from stillwatch.detect import score as sc
from stillwatch.detect.fanout import wide_accounts
from stillwatch.detect.keys import KeyIndex, build_index, lighter, without
from stillwatch.detect.members import FEW, REPEATED
from stillwatch.detect.population import Draws, Strata, build_strata, seats_for, seeded
from stillwatch.detect.rhythm import Rhythm, build_rhythm
from stillwatch.engine.threads import each
from stillwatch.scan.collect import Reduced
from stillwatch.scan.grouprows import GroupRows
from stillwatch.scan.refine import Views
from stillwatch.scan.units import Units
from stillwatch.views.base import F64, I64, KeyTable, mix
from stillwatch.views.families import Families
from stillwatch.views.time import TimeView, build_time_view

if TYPE_CHECKING:
    from stillwatch.scan.partner import Fit, Heard

NEVER = np.iinfo(np.int64).max
PUBLIC_HOLDERS = 50
PUBLIC_P = 0.01
PUBLISHED_SHARE = 0.5
PUBLIC_DRAWS = 299
"""Enough to tell p <= PUBLIC_P."""
LINKING_KEYS = 3
TEMPLATE_KEYS = 4
"""Postings from which a prompt family links accounts, and from which its holders are a candidate."""

DIRECT_REACH = 0.1
EVERY_VIEW_P = 1e-4
MOSTLY_ALIKE = 0.5
SCARCE_SHARE, SCARCE_HOLDERS = 0.01, 20
"""Share and number of accounts up to which a key counts fully in a test against matched random groups."""

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Passed:
    """What passed between accounts."""

    handed: I64
    """Pairs of accounts without a known common owner that continued each other's conversations (`ledger.between`)."""
    replayed: I64
    """The same for reasoning blocks, without the pairs of `handed`: one act is not counted twice."""
    partners: ld.Partners


@dataclass(frozen=True, slots=True)
class Later:
    """What only the groups' tests need. It is made while discovery, which has one thread, looks for candidates."""

    rows: Future[GroupRows]
    passed: Future[Passed]


@dataclass(frozen=True, slots=True)
class Context:
    """Everything that the stages share, computed once."""

    reduced: Reduced
    units: Units
    later: Later
    seed: int
    form: KeyIndex
    """FORM with public keys worth nothing."""
    link: KeyIndex
    """LINK for discovery: all kinds."""
    identity: KeyIndex
    """LINK for confirmation: what whoever runs the accounts arranges; a software stack is worth nothing."""
    scarce: KeyIndex
    """The same for tests against matched random groups, with less weight for keys that very many accounts hold."""
    arranged: KeyIndex
    """`identity` without sign-up batches, which have a direct test of their own, and without referral codes, which an
    event or a course hands out with the link to sign up."""
    wide: tuple[Bool, Bool]
    """FAN-OUT: who is wide in each kind, and who can be judged."""
    form_once: KeyIndex
    """FORM for members: accounts of few exchanges keep the families that they used once."""
    form_single: KeyIndex
    """FORM in which every account keeps the families that it used once."""
    form_plain: KeyIndex
    """The same with everyday language and public keys: by it accounts are alike, and nothing else."""
    rhythm: Rhythm
    public: Bool
    time: TimeView
    strata: Strata
    family_key: I64
    """Key number in FORM of each prompt family."""
    system_key: I64
    """Key number in FORM of each system family."""
    size: I64
    """Postings behind each FORM key."""
    first_us: dict[str, I64]
    """First time that each key was seen, for FORM and LINK; NEVER for keys without a time."""
    span: tuple[int, int]
    """First and last exchange of the log, microseconds."""
    signups: dt.SignUps
    views: Views
    """What members are judged by: `form_once` and `identity`."""
    views_without_signups: Views
    """`form_once` and `arranged`."""

    @property
    def tested_on(self) -> dict[str, KeyIndex]:
        """Indexes that candidates are tested on, by view."""
        return {"FORM": self.form, "LINK": self.scarce}

    def wording(self, finding: Finding) -> KeyIndex:
        """FORM by which a group's members are weighed."""
        return self.form_once if finding.together is None else self.form_single

    def template(self, finding: Finding) -> KeyIndex:
        """FORM by which it is told what a group's members share."""
        return self.form if finding.together is None else self.form_single

    @property
    def rows(self) -> GroupRows:
        """Rows of the log by account, by family and by item."""
        return self.later.rows.result()

    @property
    def passed(self) -> Passed:
        """Conversations and reasoning blocks that changed accounts."""
        return self.later.passed.result()


@dataclass(frozen=True, slots=True)
class Together:
    """What wording and links say together of a group that neither shows alone."""

    wordings: int
    """Wordings whose holders are tied to each other more than chance explains."""
    holders: int
    """Accounts that use the surest of them."""
    ties: int
    expected: float


@dataclass(slots=True)
class Finding:
    """One group on its way through the stages."""

    members: I64
    view_found: str
    origin: str
    tested: list[cf.Tested]
    p: float
    q: float = 1.0
    merged: int = 1
    """Confirmed candidates that this group grew from."""
    recruits: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """Members that stand in no confirmed candidate."""
    candidate: int = 0
    """Accounts of the candidate whose p and q are stated."""
    claimed: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """Those accounts."""
    alike: float = 1.0
    """Overlap (Jaccard) of the group with that candidate."""
    reference: int = -1
    """Code of the known-honest group that this is, or -1."""
    direct: list[dt.Direct] = field(default_factory=list)
    openness: ex.Openness = field(default_factory=lambda: ex.Openness(0.0, "payment"))
    items: int = 0
    coincidences: int = 0
    """Items asked for, and pairs of equal ones among them: what `space` follows from."""
    relayed: bool = False
    """Whether the group has next to no template of its own, so that `items` and `space` are of all its requests."""
    space: float = 0.0
    score: float = 0.0
    size: int = 0
    """Members when the score was made; some may not be named."""
    conformal_p: float = 1.0
    conformal_q: float = 1.0
    web: float = 0.0
    """Share of the members in one web of what accounts share besides sign-ups."""
    compared: bool = False
    """Whether the references were asked about it."""
    benchmark: ex.Benchmark | None = None
    classroom: ex.Classroom | None = None
    families: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    systems: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """Prompt and system families that are the group's own, most holders first."""
    verdict: str = "lead"
    why: str | None = None
    roads: tuple[str, ...] = ()
    entity_share: float = 0.0
    withheld: int = 0
    """Members that are not named, because they stand on one view."""
    freed: int = 0
    """Accounts that the evidence would name, and that an appeal freed."""
    partners: tuple[Fit, ...] = ()
    """Fingerprints of partners that fit the group's own wording."""
    leans: bool = False
    """Whether the verdict would be weaker without them."""
    together: Together | None = None
    """Set where wording and links found the group at once: both views are used up, and every wording counts from its
    first use."""

    def everywhere(self, level: float = EVERY_VIEW_P) -> bool:
        """Whether every view that did not find the group confirms it, each at `level`.

        A template that spreads, a launch or a release is a common cause in two views. One that also makes strangers
        share instruments or addresses was not seen. The candidate is what was tested: it must be most of the group.
        """
        if self.together is not None:
            return False
        return self.alike >= MOSTLY_ALIKE and len(self.tested) >= 2 and all(t.p <= level for t in self.tested)

    def fired(self, level: float) -> list[dt.Direct]:
        """Direct tests that single the group out: at or below `level`, for at least `DIRECT_REACH` of the group."""
        return [d for d in self.direct if d.alone and d.p <= level and d.reach >= DIRECT_REACH]

    def beside(self, level: float) -> list[dt.Direct]:
        """Tests at or below `level` that count only beside those that single the group out."""
        return [d for d in self.direct if not d.alone and d.p <= level and d.reach >= DIRECT_REACH]


@dataclass(frozen=True, slots=True)
class Judged:
    """Groups with verdicts, the references used, and what the numbers allow."""

    context: Context
    findings: list[Finding]
    references: list[Finding]
    candidates: int
    conformal: sc.Conformal
    direct_level: float
    against: list[Finding]
    """References that the scores were compared with."""
    asked: dict[str, F64]
    """All p of the run from which q-values came, by the name of their list (`schema.proof`); but for the scores'."""
    heard: Heard | None = None
    """What became of partners' indicators; None where the scan had none."""


def prepare(reduced: Reduced, units: Units, seed: int) -> Context:
    """Indexes, strata, rhythm and hand-overs."""
    form_index = _index(reduced.form)
    link_index = _index(reduced.link)
    stack = reduced.link.key_kind == reduced.link.kinds.index("stack")
    identity = without(link_index, stack)
    view = build_time_view(reduced.activity, reduced.first_hour)
    activity = reduced.activity
    residuals = view.residuals(np.arange(reduced.accounts))
    rhythm = build_rhythm(residuals, activity.offsets, activity.hour, activity.hours)
    strata = build_strata(
        reduced.volume, view.block, units.mail_kind, units.signup_month, units.tier, units.honest_group < 0
    )
    scarce = lighter(identity, max(SCARCE_HOLDERS, SCARCE_SHARE * reduced.accounts))
    held = _family_keys(reduced, reduced.prompt_families, "prompt_family")
    of_system = _family_keys(reduced, reduced.systems.families, "system_family")
    # Kinds that are no families count as long ones.
    size = np.full(len(reduced.form.key_hash), TEMPLATE_KEYS, np.int64)
    for keys, families in ((held, reduced.prompt_families), (of_system, reduced.systems.families)):
        size[keys[keys >= 0]] = np.bincount(families.key_family, minlength=len(keys))[keys >= 0]
    # Five words in a row may be a template's clause; four are everyday language and tie nobody.
    form_index = without(form_index, size < LINKING_KEYS)
    public = _public_keys(form_index, scarce, rhythm, strata, seed)
    public |= _published(reduced, held, form_index.n_keys)
    form_index = without(form_index, public)
    once = without(_index(reduced.form, reduced.volume <= FEW), form_index.weight == 0)
    plain = _index(reduced.form, np.ones(reduced.accounts, bool))
    given = [reduced.link.kinds.index(kind) for kind in ("signup_batch", "referral")]
    signup = np.isin(reduced.link.key_kind, given)
    arranged = without(identity, signup)
    with_time = {"FORM": _first_seen(reduced.form), "LINK": _first_seen(reduced.link)}
    pool = ThreadPoolExecutor(1)
    passed = pool.submit(_passed, reduced, units)
    later = Later(pool.submit(GroupRows, reduced, units.honest_group), passed)
    pool.shutdown(wait=False)
    return Context(
        reduced,
        units,
        later,
        seed,
        form_index,
        link_index,
        identity,
        scarce,
        arranged,
        wide_accounts(reduced.volume, reduced.diversity, ~units.gateway),
        once,
        without(plain, (size < LINKING_KEYS) | public),
        plain,
        rhythm,
        public,
        view,
        strata,
        held,
        of_system,
        size,
        with_time,
        (int(reduced.first_us[reduced.volume > 0].min()), int(reduced.last_us.max())),
        dt.sign_ups(units.created_us, np.where(units.corporate >= 0, -1, units.mail)),
        Views({"FORM": once, "LINK": identity}),
        Views({"FORM": once, "LINK": arranged}),
    )


def _passed(reduced: Reduced, units: Units) -> Passed:
    events = reduced.events
    turns, blocks = events.turns, events.blocks
    bans = np.flatnonzero(units.banned_us > 0)
    refusals = (
        np.concatenate([events.refused_by, bans]),
        np.concatenate([events.refused_us, units.banned_us[bans]]),
    )
    handovers = ld.find_handovers(
        turns.held_hash,
        turns.held_by,
        turns.held_us,
        turns.went_on_hash,
        turns.went_on_by,
        turns.went_on_us,
        *refusals,
    )
    replays = ld.find_replays(
        blocks.out_hash, blocks.out_by, blocks.out_us, blocks.in_hash, blocks.in_by, blocks.in_us, *refusals
    )
    n = reduced.accounts
    moves = [(m, units.apart(m.source, m.target)) for m in (handovers, replays)]
    twice = np.isin(replays.pairs(n), handovers.pairs(n))
    return Passed(
        ld.between(*moves[0], n), ld.between(replays, moves[1][1] & ~twice, n), ld.partners(moves, n)
    )


def _first_seen(table: KeyTable) -> I64:
    first = np.full(len(table.key_hash), NEVER)
    np.minimum.at(first, table.key, np.where(table.first > 0, table.first, NEVER))
    return first


def _family_keys(reduced: Reduced, families: Families, kind: str) -> I64:
    """FORM key of each family, -1 where no account holds it often enough to count."""
    wanted = mix(families.fingerprint, kind)
    held = np.full(len(wanted), -1, np.int64)
    if len(wanted) and len(reduced.form.key_hash):
        place = np.minimum(np.searchsorted(reduced.form.key_hash, wanted), len(reduced.form.key_hash) - 1)
        there = reduced.form.key_hash[place] == wanted
        held[there] = place[there]
    return held


def _published(reduced: Reduced, held: I64, keys: int) -> Bool:
    """FORM keys of prompt families at least half of which are text of published prompts."""
    families = reduced.prompt_families
    listed = np.zeros(keys, bool)
    if len(reduced.public_postings) == 0 or len(held) == 0:
        return listed
    known = np.isin(families.key, reduced.public_postings)
    share = np.bincount(families.key_family, known, len(held)) / np.bincount(
        families.key_family, minlength=len(held)
    ).clip(1)
    listed[held[(held >= 0) & (share >= PUBLISHED_SHARE)]] = True
    return listed


def _index(table: KeyTable, sparing: Bool | None = None) -> KeyIndex:
    """Index of one view. A prompt family counts for an account from its second use: a template is what somebody
    repeats, and a sentence that two people happened to write once is no tie between them. Accounts in `sparing`
    are spared that condition.
    """
    kept = table.count >= REPEATED
    if sparing is not None:
        kept |= sparing[table.account]
    if "prompt_family" in table.kinds:
        kept |= table.key_kind[table.key] != table.kinds.index("prompt_family")
    else:
        kept[:] = True
    return build_index(
        table.account[kept], table.key[kept], table.count[kept], table.accounts, len(table.key_hash)
    )


def _public_keys(index: KeyIndex, identity: KeyIndex, rhythm: Rhythm, strata: Strata, seed: int) -> Bool:
    """Popular keys whose holders share nothing else: public prompts, everyday phrases. They are worth nothing.

    An operation's own popular template is not among them: its holders share more than the template.
    """

    def alone(key: int) -> bool:
        holders = index.held_by(key).astype(np.int64)
        draws = Draws.of(seed, "public", holders)
        excluded = np.zeros(index.accounts, bool)
        excluded[holders] = True
        if excluded.sum() * 2 > index.accounts:
            return True
        if len(holders) > cf.LARGE_GROUP:
            rng = np.random.default_rng(seeded(seed, "public", holders))
            holders = np.sort(rng.choice(holders, cf.LARGE_GROUP, replace=False))
        seats = seats_for(strata, holders, excluded)
        if cf.keys_against_null(identity, "LINK", [holders], [seats], draws, PUBLIC_DRAWS).p <= PUBLIC_P:
            return False
        return cf.time_against_null(rhythm, [holders], [seats], draws, PUBLIC_DRAWS).p > PUBLIC_P

    popular = np.flatnonzero((index.df() >= PUBLIC_HOLDERS) & (index.weight > 0))
    public = np.zeros(index.n_keys, bool)
    public[popular] = each(alone, popular.tolist())
    return public
