"""The policy: which accounts of which campaigns meet which action. A TOML file that a person can read and sign.

Rules are asked in the order of the file, and the first one that fits an account and a campaign decides. The default
is shadow mode: nothing is done, and it is told what would be done. Whatever the file says: a lead never acts, a
single kind of evidence never acts, and what goes beyond throttling needs the signatures of two people
(`enforcement`).
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from base64 import b64decode
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from stillwatch.guard.lines import line_of, lines_of
from stillwatch.schema.errors import PolicyError, Where
from stillwatch.schema.results import Verdict

Action = Literal["allow", "observe", "challenge", "throttle", "strip", "mark", "block"]
ACTIONS: tuple[Action, ...] = ("allow", "observe", "challenge", "throttle", "strip", "mark", "block")
"""From the mildest to the strongest. `strip`: answer without reasoning and log-probabilities; `mark`: hand the answer
over to be marked."""
STRENGTH = {action: place for place, action in enumerate(ACTIONS)}
MILDEST_ACTING = STRENGTH["challenge"]
ALONE = STRENGTH["throttle"]
"""The strongest action that one person may order."""
Kind = Literal["FORM", "LINK", "TIME"]
KINDS: tuple[Kind, ...] = ("FORM", "LINK", "TIME")
LEAST_KINDS = 2
MOST_BYTES = 1 << 20
MOST_RULES = 256

Role = Literal["core", "recruit", "found"]
"""`core` and `recruit`: named by the scan; `found`: by the guard itself, from the bits of what it saw."""
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
Risk = Annotated[float, msgspec.Meta(gt=0, le=1e-3)]
Days = Annotated[float, msgspec.Meta(gt=0, le=365)]


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One rung of the ladder."""

    name: Text
    action: Action
    verdict: Verdict = "campaign"
    roles: tuple[Role, ...] = ("core", "recruit")
    campaigns: tuple[Text, ...] = ()
    """Ids; empty: all."""
    tiers: tuple[Text, ...] = ()
    """Plans of the accounts table; empty: all, also accounts of unknown tier."""
    min_bits: Annotated[float, msgspec.Meta(ge=-1000, le=1000)] = 0.0
    """Least evidence for the account, over all views but the strongest."""
    evidence: tuple[Kind, ...] = KINDS
    kinds: Annotated[int, msgspec.Meta(ge=0, le=3)] = LEAST_KINDS
    """How many of `evidence` must speak for membership, each with more than 0 bits."""
    scope: Literal["account", "stream"] = "account"
    """`stream`: only requests in the campaign's own prompt or system families."""
    retry_after_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 60
    """Seconds, for `throttle`."""
    rollout_percent: Percent = 100.0
    """Share of accounts, by keyed hash, for which the rule acts; for the others it is shadow."""
    until: datetime | None = None
    """When the rule ends; with a time zone."""


class Exempt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom no rule touches."""

    contracts: tuple[Text, ...] = ()
    owners: tuple[Text, ...] = ()
    """Entities of the accounts table."""
    gateways: tuple[Text, ...] = ()


class Approver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody who may propose or approve."""

    name: Text
    key: Text
    """`ed25519:` and the public key, 32 bytes in base64."""

    @property
    def raw(self) -> bytes:
        """The public key, 32 bytes. ValueError where it is none."""
        kind, _, text = self.key.partition(":")
        value = b64decode(text, validate=True)
        if kind != "ed25519" or len(value) != 32:
            raise ValueError("no ed25519 key")
        return value


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    version: Literal[1]
    mode: Literal["shadow", "enforce"] = "shadow"
    on_fault: Literal["open", "closed"] = "open"
    silent_days: Days = 30.0
    hold_until_mapped: bool = False
    found_risk: Risk = 1e-5
    exempt: Exempt = Exempt()
    approver: tuple[Approver, ...] = ()
    rule: tuple[Rule, ...] = ()


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A checked policy."""

    mode: Literal["shadow", "enforce"]
    on_fault: Literal["open", "closed"]
    """What a request meets when the guard itself fails."""
    silent_days: float
    """A campaign whose members are silent that long is over."""
    hold_until_mapped: bool
    """Act on nobody of a campaign before a decision says that its pool is mapped; then on all at once."""
    found_risk: float
    """Largest share of honest accounts that may ever be found inline, over all campaigns: it sets the bits needed."""
    exempt: Exempt
    approvers: tuple[Approver, ...]
    rules: tuple[Rule, ...]
    lines: tuple[int, ...]
    """Line of each rule in the file."""
    text: str
    digest: str
    """SHA-256 of the file, hex: decisions name it."""

    def enforces(self, action: str) -> bool:
        """Whether a rule has this action, and is not in shadow mode."""
        return self.mode == "enforce" and any(rule.action == action for rule in self.rules)


SHADOW = """version = 1
mode = "shadow"

[[rule]]
name = "members"
action = "block"
roles = ["core", "recruit", "found"]
"""
"""What stands in for a policy where none is given: shadow mode, and what blocking every member would touch."""


def read_policy(path: Path) -> Policy:
    """Read a policy file. PolicyError names the line."""
    try:
        with path.open("rb") as handle:
            data = handle.read(MOST_BYTES + 1)
    except OSError as error:
        reason = error.strerror or "it cannot be opened"
        raise PolicyError(f"the policy cannot be read: {reason}", where=Where(path.name)) from error
    if len(data) > MOST_BYTES:
        raise PolicyError("the policy is larger than 1 MiB", where=Where(path.name))
    try:
        return parse_policy(data.decode("utf-8"), path.name)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise PolicyError("the policy is not UTF-8", where=Where(path.name, line=line)) from error


def parse_policy(text: str, name: str = "policy") -> Policy:
    """A policy from the text of a TOML file; `name` is for errors."""
    try:
        plain: dict[str, Any] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        place = re.search(r"\(at line (\d+)", str(error))
        line = int(place[1]) if place else text.count("\n") + 1
        what = re.sub(r" \(at .*\)$", "", str(error))
        raise PolicyError(f"this is no TOML: {what}", where=Where(name, line=line)) from error
    lines = lines_of(text)

    def refuse(what: str, where: str, hint: str | None = None) -> PolicyError:
        return PolicyError(what, where=Where(name, line=line_of(lines, where)), hint=hint)

    try:
        found = msgspec.convert(plain, _File)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `")
        field = re.search(r"unknown field `([^`]+)`", what)
        raise refuse(what, where.rstrip("`") + (f".{field[1]}" if field else "")) from error
    _check(found, refuse)
    return Policy(
        mode=found.mode,
        on_fault=found.on_fault,
        silent_days=found.silent_days,
        hold_until_mapped=found.hold_until_mapped,
        found_risk=found.found_risk,
        exempt=found.exempt,
        approvers=found.approver,
        rules=found.rule,
        lines=tuple(lines.get(("rule", n), 0) for n in range(len(found.rule))),
        text=text,
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def _check(found: _File, refuse: Any) -> None:
    """What the types do not say."""
    if len(found.rule) > MOST_RULES:
        raise refuse(f"a policy has at most {MOST_RULES} rules", f"$.rule[{MOST_RULES}]")
    for kind, several in (("rule", found.rule), ("approver", found.approver)):
        _distinct(kind, [part.name for part in several], refuse)
    raw = []
    for number, approver in enumerate(found.approver):
        try:
            raw.append(approver.raw)
        except ValueError as error:
            raise refuse(
                "`key` is no ed25519 public key",
                f"$.approver[{number}].key",
                "write ed25519:BASE64 of 32 bytes",
            ) from error
        if raw[-1] in raw[:-1]:
            raise refuse("two approvers have one key", f"$.approver[{number}].key")
    for number, rule in enumerate(found.rule):
        place = f"$.rule[{number}]"
        if rule.until is not None and rule.until.tzinfo is None:
            raise refuse("`until` needs a time zone", f"{place}.until", "for example 2026-12-31T00:00:00Z")
        if STRENGTH[rule.action] < MILDEST_ACTING:
            continue
        if rule.verdict != "campaign":
            raise refuse(
                f"the verdict `{rule.verdict}` can never act",
                f"{place}.{'verdict'}",
                "only a campaign is fit for action; use allow or observe",
            )
        if rule.kinds < LEAST_KINDS or len(set(rule.evidence)) < LEAST_KINDS:
            field = "kinds" if rule.kinds < LEAST_KINDS else "evidence"
            raise refuse(
                "a single kind of evidence never acts", f"{place}.{field}", "ask for two kinds or more"
            )
        if STRENGTH[rule.action] > ALONE and found.mode == "enforce" and len(raw) < 2:
            raise refuse(
                f"enforcing `{rule.action}` needs two people, and the policy lists {len(raw)}",
                f"{place}.action",
                'add two [[approver]] tables, or use throttle, or mode = "shadow"',
            )


def _distinct(kind: str, names: Sequence[str], refuse: Any) -> None:
    for number, name in enumerate(names):
        if name in names[:number]:
            raise refuse(f"two {kind}s have the name {name!r}", f"$.{kind}[{number}].name")


def microseconds(when: datetime) -> int:
    """Microseconds since 1970, UTC, of a time with a zone."""
    since = when - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
