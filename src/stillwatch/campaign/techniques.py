"""Which ATLAS and ATT&CK techniques a group's observations justify, each with the observation that justifies it.

Only campaigns have techniques: a lead is for an analyst to look at, and a cleared group did nothing. A technique is
named where one of the group's own results says what the technique says; nothing is inferred from another technique.
The names and tactics are pinned (`CATALOGUE`): no data is fetched.

Left out, because a request log cannot show them: AML.T0048.004 (AI Intellectual Property Theft) and AML.T0034 (Cost
Harvesting) are about harm done and intended, T1090.003 (Multi-hop Proxy) about what lies behind the last proxy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stillwatch.campaign.record import KIND_WORDS
from stillwatch.schema.results import Claim, Evidence, Group, SharedKind

ATLAS_VERSION = "5.6.1"
ATTACK_VERSION = "17.1"

Framework = Literal["ATLAS", "ATT&CK"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A technique as its framework has it."""

    framework: Framework
    id: str
    name: str
    tactic: str
    """One of the tactics that the framework puts it under: the one that is meant here."""

    @property
    def url(self) -> str:
        """Its page."""
        if self.framework == "ATLAS":
            return f"https://atlas.mitre.org/techniques/{self.id}"
        return f"https://attack.mitre.org/techniques/{self.id.replace('.', '/')}"


@dataclass(frozen=True, slots=True)
class Technique:
    """A technique that a group's observations justify."""

    framework: Framework
    id: str
    name: str
    tactic: str
    because: str
    """The observation, in plain words with its numbers. Counts are exact: round them before they leave."""
    signals: tuple[str, ...]
    """What was observed: names of signals, kinds of keys, claims: for those who must not see counts."""


CATALOGUE: dict[str, Entry] = {
    entry.id: entry
    for entry in (
        Entry("ATLAS", "AML.T0008.005", "AI Service Proxies", "Resource Development"),
        Entry("ATLAS", "AML.T0021", "Establish Accounts", "Resource Development"),
        Entry("ATLAS", "AML.T0065", "LLM Prompt Crafting", "Resource Development"),
        Entry("ATLAS", "AML.T0012", "Valid Accounts", "Initial Access"),
        Entry("ATLAS", "AML.T0040", "AI Model Inference API Access", "AI Model Access"),
        Entry("ATLAS", "AML.T0005.001", "Train Proxy via Replication", "AI Attack Staging"),
        Entry("ATLAS", "AML.T0024.002", "Extract AI Model", "Exfiltration"),
        Entry("ATT&CK", "T1583", "Acquire Infrastructure", "Resource Development"),
        Entry("ATT&CK", "T1585", "Establish Accounts", "Resource Development"),
        Entry("ATT&CK", "T1588.007", "Artificial Intelligence", "Resource Development"),
        Entry("ATT&CK", "T1078", "Valid Accounts", "Initial Access"),
        Entry("ATT&CK", "T1036", "Masquerading", "Defense Evasion"),
        Entry("ATT&CK", "T1119", "Automated Collection", "Collection"),
        Entry("ATT&CK", "T1090.002", "External Proxy", "Command and Control"),
    )
}
"""Every technique that can be named, in the order of the tactics. ATLAS `ATLAS_VERSION`, ATT&CK `ATTACK_VERSION`."""

PROMPT_KINDS = ("prompt_family", "system_family", "system_prompt", "output_format")
TRAINING = ("elicit_reasoning", "grade_answers", "clean_traces", "make_training_data")
"""Requests for what a model is trained on (TRACE evidence)."""
MOST = 0.5
"""Share of the members from which a rare kind of key, or hidden control, is the group's."""

Because = tuple[str, tuple[str, ...]]


def techniques(group: Group) -> list[Technique]:
    """The techniques of a campaign, in the order of `CATALOGUE`; none for a lead or a cleared group."""
    if group.verdict != "campaign":
        return []
    found = {
        "AML.T0008.005": _fired(group, ("fan_out", "replay")),
        "AML.T0021": _signed_up(group),
        "AML.T0065": _crafted(group),
        "AML.T0012": _fired(group, ("handover", "takeover", "replay")),
        "AML.T0040": _asked(group),
        "AML.T0005.001": _fired(group, TRAINING),
        "AML.T0024.002": _extracted(group),
        "T1583": _stock(group, ("mail_domain",), least_keys=1),
        "T1585": _signed_up(group),
        "T1588.007": _sought(group),
        "T1078": _fired(group, ("handover", "takeover", "replay")),
        "T1036": _masked(group),
        "T1119": _fired(group, ("work_split",)),
        "T1090.002": _stock(group, ("address_block",), least_keys=2),
    }
    out = []
    for id, entry in CATALOGUE.items():
        because = found[id]
        if because is not None:
            out.append(Technique(entry.framework, id, entry.name, entry.tactic, because[0], because[1]))
    return out


def atlas_ids(group: Group) -> list[str]:
    """Ids of the ATLAS techniques alone, as `findings.json` lists them."""
    return [technique.id for technique in techniques(group) if technique.framework == "ATLAS"]


def _fired(group: Group, signals: Sequence[str]) -> Because | None:
    """Tests and tags that found something: they are the evidence of kinds other than keys and circumstances."""
    parts = [part for part in group.evidence if part.signal in signals and _is_test(part)]
    if not parts:
        return None
    return " ".join(part.text for part in parts), tuple(part.signal for part in parts)


def _is_test(part: Evidence) -> bool:
    return part.kind != "CONTEXT" and not part.keys


def _signed_up(group: Group) -> Because | None:
    """Sign-up in runs that chance does not make, or most members in slots of sign-up that hardly anybody shares."""
    return _fired(group, ("signup_batch",)) or _stock(group, ("signup_batch",), least_keys=1)


def _stock(group: Group, kinds: Sequence[str], *, least_keys: int) -> Because | None:
    """Most members have a rare key of one of `kinds`; there are at least `least_keys` such keys."""
    held = [
        shared
        for shared in group.shared
        if shared.key_kind in kinds
        and shared.keys >= least_keys
        and shared.group_count >= MOST * shared.group_total
    ]
    if not held:
        return None
    return " ".join(_holders(shared) for shared in held), tuple(shared.key_kind for shared in held)


def _holders(shared: SharedKind) -> str:
    word = KIND_WORDS.get(shared.key_kind, shared.key_kind.replace("_", " "))
    what = (
        f"the same {word}" if shared.keys == 1 else f"one of {shared.keys:,} rare keys of the kind {word!r}"
    )
    return (
        f"{shared.group_count:,} of {shared.group_total:,} members have {what}; "
        f"{shared.background_count:,} of {shared.background_total:,} other accounts do."
    )


def _crafted(group: Group) -> Because | None:
    """A rare wording or format of the group's own."""
    for part in group.evidence:
        if part.kind == "FORM" and part.signal in PROMPT_KINDS and part.keys:
            return part.text, (part.signal,)
    return _stock(group, PROMPT_KINDS, least_keys=1)


def _asked(group: Group) -> Because | None:
    if group.exchanges == 0:
        return None
    text = f"{group.accounts:,} accounts sent {group.exchanges:,} requests to the model's interface."
    return text, ("exchanges",)


def _extracted(group: Group) -> Because | None:
    claim = _holds(group, "harvest_like")
    return (
        None
        if claim is None
        else (f"Its requests are what a harvest looks like. {claim.text}", (claim.name,))
    )


def _sought(group: Group) -> Because | None:
    """The capabilities that most of a harvest asks for: what is obtained."""
    if not group.capabilities or _holds(group, "harvest_like") is None:
        return None
    names = ", ".join(name.replace("_", " ") for name in group.capabilities)
    count = (
        f"{group.harvest_exchanges:,} requests in its own templates"
        if group.harvest_exchanges
        else "Its requests"
    )
    return f"{count} ask for the model's abilities in: {names}.", ("capabilities",)


def _masked(group: Group) -> Because | None:
    """One hand directs accounts whose identities were made to look unrelated (`statistic`: evasion, 0 to 1)."""
    claim = _holds(group, "one_director")
    if claim is None or claim.statistic is None or claim.statistic < MOST:
        return None
    text = f"One hand directs {group.accounts:,} accounts that look like unrelated customers. {claim.text}"
    return text, (claim.name,)


def _holds(group: Group, name: str) -> Claim | None:
    return next((claim for claim in group.claims if claim.name == name and claim.holds), None)
