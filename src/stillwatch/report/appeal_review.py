"""What the reviewer of an appeal sees, as parts that the terminal and the page both show."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stillwatch.report import words
from stillwatch.report.appeal import VIEWS, Facts, Margin, Membership, in_force
from stillwatch.report.charts import Step
from stillwatch.schema.tables import SEPARATOR
from stillwatch.store.appeals import CODES

SHOWN_FAMILIES = 6
OWNER = ("entity_id", "verified", "contract", "program", "tier", "payment_kind")
"""What of the accounts table is shown: no address, no mail domain, no instrument."""
ORDER = (*VIEWS, "ALL")
DID = {"propose": "proposed", "approve": "approved", "revoke": "revoked", "expire": "ran out"}


@dataclass(frozen=True, slots=True)
class Part:
    """A heading with what stands under it, in this order."""

    title: str
    text: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    steps: tuple[Step, ...] = ()
    """A waterfall."""
    after: tuple[str, ...] = ()


def review(facts: Facts, at: datetime) -> list[Part]:
    """All parts, the answer first."""
    parts = [_short(facts, at)]
    named = facts.named or (facts.memberships[0] if facts.memberships else None)
    if named is not None:
        parts += [_itself(facts, named), _waterfall(named), _near(named), *_both_sides(named)]
    if facts.measured:
        parts.append(_measured(facts))
    if named is not None or facts.campaign is not None:
        parts += [_explanations(facts, named), _decisions(facts, at)]
    if facts.appeals:
        parts.append(_earlier(facts))
    others = [m for m in facts.memberships if m is not named]
    if others:
        parts.append(
            Part(
                "Other groups that it is in",
                points=tuple(
                    f"{m.group.id}, {words.verdict(m.group)}, as {m.row['role']}: "
                    f"{words.bits(m.row['e_bits'] or 0.0)} bits"
                    for m in others
                ),
            )
        )
    if facts.campaign is not None and not facts.free:
        parts.append(_reversal(facts))
    return parts


def _who(facts: Facts) -> str:
    owner, mark, user = facts.account.partition(SEPARATOR)
    return f"user {user} behind the gateway {owner}" if mark else f"account {facts.account}"


def _short(facts: Facts, at: datetime) -> Part:
    lines = []
    if facts.free:
        lines.append("An appeal freed this account. Scans that know the file of appeals name it nowhere.")
    named = facts.named
    if named is not None:
        group, row = named.group, named.row
        lines.append(
            f"The {_who(facts)} is named in the campaign {group.id} as {row['role']}, one of "
            f"{words.plural(group.accounts, 'account')}, with {words.bits(row['e_bits'] or 0.0)} bits over all kinds "
            "but the strongest."
        )
        lines.append(_margin_words(named.margin))
    elif facts.campaign is not None and SEPARATOR in facts.account:
        lines.append(
            f"The {_who(facts)} is judged apart from the gateway. The tables for people name the gateway's account; "
            f"the guard acts on this user alone, in the campaign {facts.campaign}."
        )
    elif facts.campaign is not None:
        lines.append(
            f"No scan of these results names the {_who(facts)}. The guard found it inline, by what it showed, as "
            f"belonging to the campaign {facts.campaign}."
        )
    elif facts.spoken_for and facts.memberships:
        lines.append(
            f"The guard never acts on the {_who(facts)}: the operator's word stands for it, or it is a gateway that "
            "the results name for its users. Name the user with --end-user."
        )
    elif facts.memberships:
        group = facts.memberships[0].group
        lines.append(
            f"The {_who(facts)} is in no campaign of these results. It is in {group.id}, "
            f"{words.verdict(group)}, on which nobody may act. If it is restricted, the cause is another."
        )
    elif not facts.known:
        lines.append(
            f"The log of these results has no {_who(facts)}. Is the id spelled rightly, and are these the results "
            "that the decision was taken on?"
        )
    else:
        lines.append(
            f"The {_who(facts)} is in no group of these results. If it is restricted, the cause is another, or other "
            "results: give the folder that the decision was taken on."
        )
    if facts.campaign is not None:
        action = in_force(facts.decisions, facts.campaign, at)
        lines.append(
            f"A decision stands that allows `{action}` against the campaign."
            if action
            else "No decision that stands was given: see the decisions below."
        )
    if facts.reference is not None:
        lines.append(f"Appeal reference: {facts.reference}.")
    run = facts.results.findings.run
    lines.append(
        f"Results {facts.digest[:12]}, of {words.span(run.first_ts, run.last_ts)}, "
        f"{words.plural(run.accounts, 'account')}."
    )
    return Part("In short", tuple(lines))


def _margin_words(margin: Margin) -> str:
    left = (
        f"Without its strongest kind ({words.KINDS[margin.strongest].lower()}) {words.bits(margin.besides)} bits are "
        f"left, and about {words.bits(margin.needed)} are needed to be named"
    )
    if margin.over < 0:
        return f"{left}: it is short of that. Ask why it is named."
    far = "far from" if margin.over >= 10 else "not far from" if margin.over >= 3 else "close to"
    return f"{left}: {words.bits(margin.over)} to spare. It is {far} being unnamed."


def _itself(facts: Facts, named: Membership) -> Part:
    row, group = named.row, named.group
    first, last = row["first_ts"], row["last_ts"]
    text = [
        f"{words.plural(row['exchanges'], 'exchange')}, {row['harvest_exchanges']:,} of them in the group's own "
        f"templates ({words.share(row['harvest_exchanges'], row['exchanges'])})."
    ]
    if first is not None:
        text.append(
            f"First {words.minute(first.isoformat())}, last {words.minute(last.isoformat())} (UTC). The group: "
            f"{words.span(group.first_ts, group.last_ts)}."
        )
    if facts.owner is not None:
        told = [
            f"{name.replace('_', ' ')} {facts.owner[name]}"
            for name in OWNER
            if facts.owner.get(name) not in (None, "")
        ]
        text.append(
            f"The accounts table says: {', '.join(told)}." if told else "The accounts table says nothing."
        )
    rows = []
    for stream in named.streams[:SHOWN_FAMILIES]:
        family = facts.families.get(stream["family_id"])
        held = named.profile.get(stream["family_id"])
        rows.append(
            (
                stream["family_id"],
                f"{stream['exchanges']:,}",
                _inside(held),
                (family or {}).get("skeleton") or "no wording that five accounts have in common",
            )
        )
    after = []
    if len(named.streams) > SHOWN_FAMILIES:
        after.append(f"{len(named.streams) - SHOWN_FAMILIES:,} more families are in streams.parquet.")
    if not rows:
        after.append("None of its requests is in a template of the group's own.")
    return Part(
        "What this account did itself",
        tuple(text),
        head=("its family", "its exchanges", "who else has it", "wording") if rows else (),
        rows=tuple(rows),
        after=tuple(after),
    )


def _inside(held: Any) -> str:
    if held is None:
        return "not typical of the group"
    return (
        f"{held['group_count']:,} of {held['group_total']:,} members, {held['background_count']:,} of "
        f"{held['background_total']:,} others"
    )


def _waterfall(named: Membership) -> Part:
    """Every step in words; they sum to the account's bits."""
    ranked = sorted(
        named.steps,
        key=lambda s: (
            ORDER.index(s["view"]) if s["view"] in ORDER else 9,
            s["key_kind"] == "other_keys",
            -s["bits"],
            s["key"] or "",
        ),
    )
    steps = []
    for step in ranked:
        kind = words.kind(step["key_kind"])
        if step["view"] == "ALL":
            text = "takes the strongest kind out again, and holds the rest of the mean over stakes and kinds"
        elif step["key"]:
            text = f"{kind} {step['key']}: {_inside(named.profile.get(step['key']))}"
        else:
            text = kind
        steps.append(Step(words.KINDS.get(step["view"], str(step["view"])), text, step["bits"]))
    bits = [
        f"{words.KINDS[view].lower()} {words.bits(named.row[f'bits_{view.lower()}'])}"
        for view in VIEWS
        if named.row[f"bits_{view.lower()}"] is not None
    ]
    return Part(
        "What makes up its bits",
        (f"By kind: {', '.join(bits)}." if bits else "No kind looked at it.",),
        steps=tuple(steps),
        after=(
            f"In all {words.bits(named.row['e_bits'] or 0.0)} bits. They rank the members; no guarantee.",
        ),
    )


def _near(named: Membership) -> Part:
    margin = named.margin
    points = [
        f"{words.kind(kind)} {key or ''} ({view}, {words.bits(bits)} bits)".replace("  ", " ")
        for view, kind, key, bits in margin.hangs_on
    ]
    text = [_margin_words(margin)]
    if points:
        text.append(
            "It hangs on each of these: if any one of them has another explanation, the account would not be named."
        )
    else:
        text.append("No single key decides it: without any one of them it would be named all the same.")
    if named.row["role"] == "recruit":
        text.append(
            "It is a recruit: it joined the settled group, and was not among those that were tested first."
        )
    return Part("How near it is to being unnamed", tuple(text), points=tuple(points))


def _both_sides(named: Membership) -> list[Part]:
    group = named.group
    claims = tuple(
        (
            words.CLAIMS.get(claim.name, claim.name),
            "yes" if claim.holds else "not shown",
            claim.text,
            ", ".join(words.claim_numbers(claim, smallest=True)),
        )
        for claim in group.claims
    )
    evidence = sorted(group.evidence, key=lambda e: (-e.bits, e.kind, e.signal))
    against = sorted(group.counter_evidence, key=lambda e: (e.bits, e.signal))
    negative = [
        f"Of this account: {words.kind(step['key_kind'])} {step['key'] or ''}, {words.bits(step['bits'])} bits "
        f"({step['view']})".replace(" ,", ",")
        for step in named.steps
        if step["bits"] < 0 and step["view"] != "ALL"
    ]
    return [
        Part("What is claimed about the group", head=("claim", "answer", "rests on", "numbers"), rows=claims),
        Part(
            "What speaks for it, about the group",
            points=tuple(
                f"{words.KINDS.get(part.kind, part.kind)}, {words.bits(part.bits)} bits. {part.text}"
                for part in evidence
            )
            or ("Nothing.",),
        ),
        Part(
            "What speaks against it",
            points=(
                *(
                    f"{part.text}" + (f" {words.bits(part.bits)} bits." if part.bits else "")
                    for part in against
                ),
                *negative,
            )
            or ("Nothing that was looked for.",),
        ),
    ]


def _measured(facts: Facts) -> Part:
    return Part(
        "What the guard would measure of it now",
        ("Bits as they follow from all that these results know of the account, appeal or not.",),
        head=("campaign", "form", "link", "time", "all but the strongest"),
        rows=tuple(
            (name, *(words.bits(value) for value in bits)) for name, bits in sorted(facts.measured.items())
        ),
    )


def _explanations(facts: Facts, named: Membership | None) -> Part:
    """Each honest explanation: what the results say about it, what would show it, and where it is entered."""
    owner = facts.owner or {}
    against = {} if named is None else {part.signal: part.text for part in named.group.counter_evidence}
    said = {} if named is None else {claim.name: claim.text for claim in named.group.claims}
    entity = owner.get("entity_id")
    declared = (
        f"Its entity is {entity}, {'verified' if owner.get('verified') else 'not verified'}."
        if entity
        else "No owner is entered for it."
    )
    owners = "" if named is None else f" {words.plural(named.group.entities, 'owner')} among the members."
    contract = (
        f"Its contract: {owner['contract']}." if owner.get("contract") else "No contract is entered for it."
    )
    asked = said.get("one_director", "")
    shared = _best(named, "FORM")
    tied = _best(named, "LINK")
    rows = (
        (
            "One organisation",
            f"{declared}{owners} {against.get('declared_owner', '')}".strip(),
            "Its registration, control of a domain, and a call to a number that you found yourself. A "
            "letterhead or an unverified name is their own claim.",
            "accounts table: entity_id, verified = true",
        ),
        (
            "A contract, or a registered gateway",
            contract,
            "The agreement in your own files, not a copy that they send.",
            "accounts table: contract = distillation-permitted, evaluation or gateway",
        ),
        (
            "An evaluation or a benchmark",
            against.get(
                "public_items",
                "Its requests are no items that unrelated accounts run too, as far as was seen.",
            ),
            "A finite set by name, runs that end when it is done, results that are shown somewhere.",
            "accounts table: contract = evaluation",
        ),
        (
            "A class or a workshop",
            "A class has one site, one calendar, payers of its own and a small total; a group that showed that is "
            "cleared by the scan.",
            "The institution confirms it, at an address that you found yourself.",
            "references: these accounts as one group",
        ),
        (
            "Somebody pays for all of them",
            against.get("openness", asked) or "The results say nothing about payers.",
            "An invoice, and that whoever pays answers for all of the accounts.",
            "accounts table: entity_id, verified = true",
        ),
        (
            "Software or wording that many use",
            shared,
            "Where one gets it, and that accounts outside the group use it, too.",
            "a fault of ours if it is public: tell us, and rule by weak_evidence",
        ),
        (
            "A shared connection or a neighbour",
            tied,
            "Which network, since when; and whether anything but the network ties it to the others.",
            "a fault of ours: rule by mistaken_identity or weak_evidence",
        ),
        (
            "A stolen account or key",
            _since(facts, named),
            "Requests before that look otherwise; keys were made new; password reset.",
            "rule by stolen_key once the keys are new",
        ),
    )
    return Part(
        "Other explanations, and what would clear it",
        ("A reason clears only if it explains why these accounts act together. Volume, public prompts, human hours "
         "and few requests explain nothing: an operation can afford each of them.",),
        head=("explanation", "what the results say", "what would show it", "where it is entered"),
        rows=rows,
    )  # fmt: skip


def _best(named: Membership | None, view: str) -> str:
    """How rare the account's strongest key of a view is outside the group."""
    if named is None:
        return "No scan names it."
    mine = [s for s in named.steps if s["view"] == view and s["key"] and s["key"] in named.profile]
    if not mine:
        return "It holds no single key of that kind that is typical of the group."
    best = max(mine, key=lambda s: (s["bits"], s["key"]))
    held = _inside(named.profile[best["key"]])
    return f"Its strongest key there, {words.kind(best['key_kind'])} {best['key']}: {held}."


def _since(facts: Facts, named: Membership | None) -> str:
    created = (facts.owner or {}).get("created_at")
    began = None if named is None else named.row["first_ts"]
    if created is None or began is None:
        return "The results do not say since when the account exists. Compare its requests before and after."
    days = words.plural((began - created).days, "day")
    return f"It signed up {words.minute(created.isoformat())}, {days} before its first request here."


def _decisions(facts: Facts, at: datetime) -> Part:
    mine = {row.digest for row in facts.decisions if row.order and row.order.campaign == facts.campaign}
    rows = []
    for row in facts.decisions:
        if row.digest not in mine:
            continue
        what = ""
        if row.order is not None:
            what = f"{row.order.action} until {words.minute(row.order.expires.isoformat())}"
            what += f": {row.order.reason}" if row.order.reason else ""
        rows.append((f"{row.number}", words.minute(row.at.isoformat()), DID[row.did], row.digest[:12], what))
    if not rows:
        none = (
            "No decision about this campaign is in the file."
            if facts.decisions
            else "No file of decisions was given."
        )
        return Part("Decisions", (f"{none} Without one that stands the guard acts on nobody.",))
    action = in_force(facts.decisions, facts.campaign, at)
    return Part(
        "Decisions",
        (f"In force: {action}." if action else "None is in force now.",),
        head=("row", "when (UTC)", "what", "decision", "order"),
        rows=tuple(rows),
    )


def _earlier(facts: Facts) -> Part:
    rows = []
    for row in facts.appeals:
        if row.ruling is None:
            rows.append((f"{row.number}", words.minute(row.at.isoformat()), "received", "", ""))
            continue
        outcome, code = row.ruling.outcome, row.ruling.code
        why = CODES[outcome].get(code, code)
        rows.append((f"{row.number}", words.minute(row.at.isoformat()), outcome, why, row.note))
    return Part("Its appeals", head=("row", "when (UTC)", "what", "why", "note"), rows=tuple(rows))


def _reversal(facts: Facts) -> Part:
    return Part(
        "If you reverse it",
        ("The account leaves the campaign: only newer evidence and another signed ruling bring it back. The "
         "campaign and its decision stay as they are for the others.",),
        points=(
            "stillwatch appeal decide, outcome reversed: signed, chained, and told to the transparency log",
            "stillwatch guard snapshot with --appeals (or `watch --appeals`, by itself): the guard lets it through",
            "stillwatch scan with --appeals: the next scan names it nowhere, and says so if it would have",
            "lists, indicators and bundles that named it: issue them again without it, and tell who got them",
        ),
    )  # fmt: skip
