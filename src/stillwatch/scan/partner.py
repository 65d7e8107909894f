"""What partners say about wording: which groups it fits, and what is set aside because it fits bystanders.

A partner's word is one kind of evidence that nothing here can check. So it adds nothing to anybody's bits, finds no
group and names nobody; `verdict.settle` lets it count beside two own kinds of evidence that are not wording. And a
fingerprint that fits a customer for whom the operator's word stands, a published prompt, or mostly accounts outside
of the groups that were found, is set aside: it may be boilerplate, or poison.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from stillwatch.campaign.record import iso
from stillwatch.detect.keys import KeyIndex
from stillwatch.scan.context import Context, Finding
from stillwatch.schema.intel import HASH_HEX, SHARED_LEVEL
from stillwatch.schema.results import Evidence, TableUsed
from stillwatch.sketch.keyed import KeyedHash
from stillwatch.views.base import I64, U64
from stillwatch.views.families import Families

OWN_SHARE, OWN_HOLDERS = 0.5, 3
"""A family is a group's own if so many members hold it, and they are at least this share of its holders."""
MOST_ASIDE = 3
"""Fingerprints of one partner that are set aside before, where they are half of those that fit anything, all are."""
TABLE = "partner_indicators"
BESIDE, DECISIVE = "partner_fingerprint", "partner_decisive"
"""Signals of the evidence: the second where the verdict would be weaker without."""
WHY = {
    "vouched": "fits wording of a customer for whom your word stands",
    "public": "fits published or everyday wording",
    "unrelated": "fits more accounts outside of the groups found than inside",
    "partner": "comes from a partner most of whose fingerprints that fit anything were set aside",
}
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Told:
    """One fingerprint of one indicator of a partner."""

    partner: str
    indicator: str
    part: Literal["prompt", "system"]
    hashes: U64
    """Short keyed hashes, sorted."""
    needed: int
    tlp: str
    confidence: int
    until_us: int
    key: KeyedHash = field(repr=False, compare=False)
    level: int = SHARED_LEVEL
    """Selection level of the sketch that every posting behind the hashes passes."""

    def plain(self) -> dict[str, object]:
        """What makes it up, for a digest: nothing secret."""
        return {
            "partner": self.partner,
            "indicator": self.indicator,
            "part": self.part,
            "hashes": self.hashes.tolist(),
            "needed": self.needed,
            "tlp": self.tlp,
            "confidence": self.confidence,
            "until": self.until_us,
        }


@dataclass(frozen=True, slots=True)
class Intel:
    """Indicators of partners that a scan was given."""

    told: tuple[Told, ...] = ()
    at_us: int | None = None
    """When it is asked which of them have expired; the end of the log if None."""

    def live(self, end_us: int) -> tuple[Told, ...]:
        """Those that have not expired, in an order of their own. Wording may be older than what is said of it."""
        at = end_us if self.at_us is None else self.at_us
        found = [t for t in self.told if at < t.until_us]
        return tuple(sorted(found, key=lambda t: (t.partner, t.indicator, t.part, t.hashes.tolist())))


def digest_of(live: Sequence[Told]) -> str:
    """SHA-256 of the indicators that were in force, hex."""
    plain = json.dumps([told.plain() for told in live], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()


def intel_used(live: Sequence[Told]) -> list[TableUsed]:
    """The indicators in force as a table that the scan had.

    Where there are none, the results are those of a scan that was given none.
    """
    return [TableUsed(name=TABLE, rows=len(live), digest=digest_of(live))] if live else []


@dataclass(frozen=True, slots=True)
class Fit:
    """A fingerprint that fits a group's wording."""

    told: Told
    hits: int


@dataclass(frozen=True, slots=True)
class Aside:
    """A fingerprint that fits bystanders."""

    partner: str
    indicator: str
    why: str
    """A key of `WHY`."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What became of the indicators in one scan."""

    live: tuple[Told, ...] = ()
    aside: tuple[Aside, ...] = ()
    fitting: int = 0
    """Fingerprints that fit a group and were not set aside."""

    @property
    def digest(self) -> str | None:
        """Digest of those in force; None where there are none."""
        return digest_of(self.live) if self.live else None


def compare(context: Context, findings: Sequence[Finding], intel: Intel | None) -> Heard:
    """Fill `partners` of the findings with the fingerprints that fit them; what was set aside is returned."""
    live = () if intel is None else intel.live(context.span[1])
    if not live:
        return Heard()
    wording = _Wording(context)
    grouped = np.zeros(context.reduced.accounts, bool)
    grouped[np.concatenate([np.zeros(0, np.int64), *(f.members for f in findings)])] = True
    fits: list[list[tuple[int, Fit]]] = []
    reasons: list[str | None] = []
    for told in live:
        rows = wording.hits(told)
        found = []
        for number, finding in enumerate(findings):
            held = wording.own(finding)[wording.family[rows]]
            hits = len(np.unique(wording.short(told.key)[rows[held]]))
            if hits >= told.needed:
                found.append((number, Fit(told, hits)))
        fits.append(found)
        reasons.append(wording.bystanders(rows, told, grouped))
    reasons = _whole_partners(live, fits, reasons)
    fitting = 0
    for found, why in zip(fits, reasons, strict=True):
        if why is None and found:
            fitting += 1
            for number, fit in found:
                findings[number].partners += (fit,)
    aside = [Aside(t.partner, t.indicator, why) for t, why in zip(live, reasons, strict=True) if why]
    return Heard(live, tuple(aside), fitting)


def _whole_partners(
    live: Sequence[Told], fits: Sequence[list[tuple[int, Fit]]], reasons: Sequence[str | None]
) -> list[str | None]:
    """Whoever's fingerprints mostly fit bystanders is not listened to in this scan."""
    out = list(reasons)
    for partner in {t.partner for t in live}:
        mine = [i for i, t in enumerate(live) if t.partner == partner]
        bad = sum(reasons[i] is not None for i in mine)
        good = [i for i in mine if fits[i] and reasons[i] is None]
        if bad >= MOST_ASIDE and bad >= len(good):
            for i in good:
                out[i] = "partner"
    return out


class _Wording:
    """All families of the log, prompts' and then system prompts', under the keys of the partners."""

    def __init__(self, context: Context) -> None:
        self._context = context
        parts: list[tuple[Families, I64]] = [
            (context.reduced.prompt_families, context.family_key),
            (context.reduced.systems.families, context.system_key),
        ]
        first = len(parts[0][0])
        self.posting: U64 = np.concatenate([families.key for families, _ in parts])
        self.family: I64 = np.concatenate(
            [parts[0][0].key_family.astype(np.int64), parts[1][0].key_family.astype(np.int64) + first]
        )
        self._key: I64 = np.concatenate([key for _, key in parts])
        """FORM key of each family, -1 where nobody holds it often enough."""
        self._short: dict[int, U64] = {}
        self._own: dict[int, Bool] = {}

    def short(self, key: KeyedHash) -> U64:
        """Short keyed hash of each posting."""
        found = self._short.get(id(key))
        if found is None:
            found = key.of(self.posting) >> np.uint64(64 - 4 * HASH_HEX)
            self._short[id(key)] = found
        return found

    def hits(self, told: Told) -> I64:
        """Rows of postings that are among the fingerprint's."""
        return np.flatnonzero(np.isin(self.short(told.key), told.hashes))

    def own(self, finding: Finding) -> Bool:
        """Which families are the group's own."""
        found = self._own.get(id(finding))
        if found is None:
            index = self._context.template(finding)
            there = self._key >= 0
            keys = self._key[there]
            inside, holders = index.counts_of(finding.members, keys), index.df_of(keys)
            found = there.copy()
            found[there] = (
                (inside >= OWN_HOLDERS) & (inside >= OWN_SHARE * holders) & ~self._context.public[keys]
            )
            self._own[id(finding)] = found
        return found

    def bystanders(self, rows: I64, told: Told, grouped: Bool) -> str | None:
        """Why a fingerprint is set aside, judged by all accounts that hold enough of it; None if it is not.

        `rows` as from `hits`; `grouped` bool[accounts]: members of some group.
        """
        context, index = self._context, self._context.form_plain
        held = self._counts(index, rows, told)
        speakers = np.flatnonzero(held >= told.needed)
        public = self._public(rows, told)
        if context.units.excused[speakers].any():
            return "vouched"
        if public >= told.needed:
            return "public"
        return "unrelated" if (~grouped[speakers]).sum() > grouped[speakers].sum() else None

    def _counts(self, index: KeyIndex, rows: I64, told: Told) -> I64:
        """Different hashes of the fingerprint that each account's families hold, at most."""
        held = np.zeros(self._context.reduced.accounts, np.int64)
        family, hits = np.unique(self.family[rows], return_counts=True)
        for key, count in zip(self._key[family].tolist(), hits.tolist(), strict=True):
            if key >= 0:
                held[index.held_by(key)] += count
        return held

    def _public(self, rows: I64, told: Told) -> int:
        """Different hashes of the fingerprint that published or everyday families hold."""
        key = self._key[self.family[rows]]
        everyday = (key >= 0) & self._context.public[np.maximum(key, 0)]
        known = np.isin(self.posting[rows], self._context.reduced.public_postings)
        return len(np.unique(self.short(told.key)[rows[everyday | known]]))


def evidence_of(finding: Finding) -> list[Evidence]:
    """The partners' word in words. No bits: nobody here can say what it is worth."""
    out = []
    for fit in finding.partners:
        told = fit.told
        text = (
            f"{told.partner} reports this wording from a campaign that it confirmed: {fit.hits} of "
            f"{len(told.hashes)} keyed hashes (TLP:{told.tlp.upper()}, confidence {told.confidence} of 100, until "
            f"{iso(told.until_us)[:10]}). It counts beside two own kinds of evidence at most, and names nobody."
        )
        if finding.leans:
            text += " Without it the group would be a lead."
        out.append(
            Evidence(kind="PARTNER", signal=DECISIVE if finding.leans else BESIDE, bits=0.0, text=text)
        )
    return out


def notes_of(heard: Heard) -> list[str]:
    """What a reader of the run must know."""
    if not heard.live:
        return []
    partners = sorted({t.partner for t in heard.live})
    notes = [
        f"{len(heard.live)} fingerprints of {', '.join(partners)} were compared: {heard.fitting} fit a group, "
        f"{len(heard.aside)} were set aside (digest {(heard.digest or '')[:16]})."
    ]
    return notes + [
        f"Set aside: {a.indicator} of {a.partner} {WHY[a.why]}."
        for a in sorted(heard.aside, key=lambda a: (a.partner, a.indicator, a.why))
    ]
