"""`stillwatch appeal`: what an account is told that was acted on, what the reviewer sees, and what is decided."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import pyarrow.compute as pc
import typer
from rich.console import Console
from rich.table import Table

from stillwatch.cli.keys import Keys
from stillwatch.cli.log import LogFile, LogKey, commit, ready
from stillwatch.cli.options import AsJson, now_or, time_of
from stillwatch.cli.serve import Secrets
from stillwatch.guard.measure import REFERENCE, measured, whose
from stillwatch.guard.secret import FILE_VARIABLE, VARIABLE, Secret, read_secret
from stillwatch.ingest import read_side
from stillwatch.report.appeal import Facts, in_force, memberships, told_of
from stillwatch.report.appeal_list import HEAD, by_month, months_table, waiting
from stillwatch.report.appeal_page import review_page, review_plain, review_text, told_page
from stillwatch.report.appeal_told import Letter, Told, read_letter, told_plain, told_text
from stillwatch.schema.errors import InputError, UsageError, Where, unwritable
from stillwatch.schema.tables import SEPARATOR
from stillwatch.store.appeals import (
    CODES,
    MOST_NOTE_BYTES,
    cases,
    decide,
    freed_by,
    read_appeals,
    receive,
)
from stillwatch.store.decisions import Row as Decided
from stillwatch.store.decisions import read_decisions, read_signer
from stillwatch.store.events import of_appeals
from stillwatch.store.files import write_whole
from stillwatch.store.pseudonyms import KeyRing
from stillwatch.store.results import read_results, read_scoring, results_digest

appeal_app = typer.Typer(
    no_args_is_help=True,
    help="Appeals: what an account is told, what the reviewer sees, and what is decided and undone.",
)
Account = Annotated[str, typer.Argument(help="Account id, or the appeal reference of a refused request.")]
Results = Annotated[Path, typer.Option("--results", help="Results folder that the action rested on.")]
EndUser = Annotated[
    str | None, typer.Option("--end-user", help="The verified user, where the account is a gateway's.")
]
AppealsFile = Annotated[Path, typer.Option("--appeals", help="File of appeals (JSON lines).")]
At = Annotated[
    str | None, typer.Option("--at", help="When, ISO 8601, UTC if it has no time zone; now if not given.")
]
Received = Annotated[
    str | None, typer.Option("--received", help="When the appeal came in, where no receipt was noted.")
]
Campaign = Annotated[
    str | None, typer.Option("--campaign", help="The campaign (g-...), where these results do not name it.")
]


@dataclass(frozen=True, slots=True)
class _Who:
    """Whom an argument means."""

    account: str
    campaign: str | None = None
    """The group that an appeal reference was made for."""
    reference: str | None = None


def _who(name: str, results: Path, end_user: str | None, secret_file: Path | None) -> _Who:
    """The account that is meant; by reference where the results have no account of that name."""
    if end_user is not None:
        return _Who(f"{name}{SEPARATOR}{end_user}")
    found = read_results(results)
    known = pc.any(pc.equal(found.accounts.column("account_id"), name)).as_py()
    if known or not REFERENCE.fullmatch(name):
        return _Who(name)
    pair = whose(results, name, read_secret(secret_file))
    if pair is None:
        raise UsageError(
            "no account of these results has this appeal reference",
            hint="it was made with another guard's secret or from other results, or the account is newer than the "
            "scan: then name it by its id, with --campaign",
        )
    return _Who(pair[0], pair[1], name)


def _facts(
    who: _Who,
    results: Path,
    *,
    secret: Secret | None = None,
    accounts: Path | None = None,
    decisions: Path | None = None,
    appeals: Path | None = None,
    campaign: str | None = None,
) -> Facts:
    """Everything about an account. `campaign`: where these results do not name it. Raises what the readers raise."""
    found = read_results(results)
    mine = memberships(found, who.account)
    scored = read_scoring(results)["scoring_accounts"]
    entry = scored.filter(pc.equal(scored.column("account_id"), who.account)).to_pylist()
    rows = [] if appeals is None else read_appeals(appeals)
    free = who.account in freed_by(rows)
    # A gateway's account stands in the results for its users, and is never acted on; nor is anybody for whom the
    # operator's word stands.
    spoken_for = bool(scored.num_rows) and (not entry or entry[0]["excused"])
    named = mine[0] if mine and mine[0].group.verdict == "campaign" and not spoken_for else None
    of, inline = None if named is None else named.group.id, False
    if named is None and campaign is not None:
        of, inline = campaign, True
    elif named is None and who.campaign is not None:
        verdicts = {group.id: group.verdict for group in found.findings.groups}
        inline = verdicts.get(who.campaign) == "campaign"
        of = who.campaign if inline else None
    campaigns = any(group.verdict == "campaign" for group in found.findings.groups)
    bits = measured(results, who.account) if campaigns and entry and (named is None or free) else {}
    reference = who.reference
    if reference is None and secret is not None and of is not None:
        reference = secret.appeal(secret.account(who.account), of)
    owner = None
    if accounts is not None:
        table = read_side("accounts", str(accounts))
        lines = table.filter(pc.equal(table.column("account_id"), who.account)).to_pylist()
        owner = lines[0] if lines else None
    decided: Sequence[Decided] = [] if decisions is None else read_decisions(decisions)
    return Facts(
        account=who.account,
        results=found,
        digest=results_digest(results),
        memberships=mine,
        campaign=of,
        found=inline,
        spoken_for=spoken_for and not free,
        known=bool(entry) or not scored.num_rows,
        reference=reference,
        measured=bits,
        owner=owner,
        decisions=tuple(decided),
        appeals=tuple(row for row in rows if row.account == who.account),
        free=free,
        families={row["family_id"]: row for row in found.families.to_pylist()},
    )


@appeal_app.command("show")
def show(
    account: Account,
    results: Results,
    decisions: Annotated[
        Path | None, typer.Option("--decisions", help="File of decisions: what is enforced now.")
    ] = None,
    appeals: Annotated[
        Path | None, typer.Option("--appeals", help="File of appeals: what was decided before.")
    ] = None,
    accounts: Annotated[
        Path | None, typer.Option("--accounts", help="Accounts table: owner, contract, sign-up.")
    ] = None,
    letter: Annotated[
        Path | None, typer.Option("--letter", help="TOML file with your contact, deadlines and words.")
    ] = None,
    only: Annotated[
        str | None, typer.Option("--only", help="told: for the account; review: for the reviewer.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the texts (and pages) instead of printing them.")
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="With --out: write pages, too.")] = False,
    end_user: EndUser = None,
    campaign: Campaign = None,
    at: At = None,
    secret_file: Secrets = None,
    as_json: AsJson = False,
) -> None:
    """Two texts: what the account is told, and what the reviewer sees. Only the first may be sent."""
    if only not in (None, "told", "review"):
        raise UsageError("--only is told or review")
    if html and out is None:
        raise UsageError("--html needs --out")
    when = now_or(at)
    who = _who(account, results, end_user, secret_file)
    has_secret = secret_file is not None or VARIABLE in os.environ or FILE_VARIABLE in os.environ
    secret = read_secret(secret_file) if has_secret else None
    facts = _facts(
        who,
        results,
        secret=secret,
        accounts=accounts,
        decisions=decisions,
        appeals=appeals,
        campaign=campaign,
    )
    if not facts.known and facts.campaign is None:
        print(
            "stillwatch: the log of these results has no such account. If the guard found it later, give --campaign: "
            "the text for the account says that nothing restricts it",
            file=sys.stderr,
        )
    action = None if decisions is None else in_force(facts.decisions, facts.campaign, when)
    told = told_of(facts, Letter() if letter is None else read_letter(letter), action)
    if out is not None:
        _write(out, facts, told, when, only, html=html, as_json=as_json)
    elif as_json:
        plain = {} if only == "review" else {"told": told_plain(told)}
        plain |= {} if only == "told" else {"review": review_plain(facts, when)}
        print(json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False))
    else:
        if only != "review":
            print(told_text(told), end="")
        if only is None:
            print(
                "\n" + "=" * 78 + "\nWhat stands above may be sent to the account. What follows must not.\n"
            )
        if only != "told":
            print(review_text(facts, when), end="")


def _write(
    out: Path, facts: Facts, told: Told, at: datetime, only: str | None, *, html: bool, as_json: bool
) -> None:
    """The texts as files, mode 0600: one name says for whom each is."""
    made: dict[str, str] = {}
    if only != "review":
        made["told.txt"] = told_text(told)
        made |= {"told.html": told_page(told)} if html else {}
        made |= {"told.json": _json(told_plain(told))} if as_json else {}
    if only != "told":
        made["review.txt"] = review_text(facts, at)
        made |= {"review.html": review_page(facts, at)} if html else {}
        made |= {"review.json": _json(review_plain(facts, at))} if as_json else {}
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(error, str(out), "the dossier") from error
    for name, text in made.items():
        write_whole(out / name, [text.encode("utf-8", "replace")], "the dossier")
    print(f"{out}: {', '.join(made)}. Only what begins with `told` may be sent to the account.")


def _json(plain: dict[str, object]) -> str:
    return json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


@appeal_app.command("receive")
def receive_command(
    account: Account,
    results: Results,
    appeals: AppealsFile,
    keys: Keys,
    received: Received = None,
    end_user: EndUser = None,
    campaign: Campaign = None,
    secret_file: Secrets = None,
    log: LogFile = None,
    log_key: LogKey = None,
) -> None:
    """Note that an appeal came in: from then on its time counts."""
    ready(log, log_key)
    who = _who(account, results, end_user, secret_file)
    facts = _facts(who, results, campaign=campaign)
    receive(
        appeals,
        who.account,
        facts.campaign,
        KeyRing.read(keys).names("appeal"),
        now_or(received, "--received"),
    )
    print(f"received; `stillwatch appeal list --appeals {appeals}` shows what waits")
    _commit(log, log_key, appeals)


@appeal_app.command("decide")
def decide_command(
    account: Account,
    outcome: Annotated[str, typer.Option("--outcome", help="upheld or reversed.")],
    reason_code: Annotated[str, typer.Option("--reason-code", help="Why, in a word: docs/appeals.md.")],
    note_file: Annotated[
        Path, typer.Option("--note-file", help="What you looked at and why; stays in the file of appeals.")
    ],
    key: Annotated[Path, typer.Option("--key", help="Your private ed25519 key (PEM).")],
    results: Results,
    appeals: AppealsFile,
    keys: Keys,
    decisions: Annotated[
        Path | None,
        typer.Option(
            "--decisions", help="File of decisions: who took them upholds none, and what stays in force."
        ),
    ] = None,
    received: Received = None,
    at: At = None,
    end_user: EndUser = None,
    campaign: Campaign = None,
    secret_file: Secrets = None,
    log: LogFile = None,
    log_key: LogKey = None,
) -> None:
    """Decide an appeal: signed, chained, and told to the transparency log without a name."""
    if outcome not in CODES:
        raise UsageError("--outcome is upheld or reversed")
    when = now_or(at)
    signer, ring = read_signer(key), KeyRing.read(keys)
    note = _note(note_file)
    ready(log, log_key)
    who = _who(account, results, end_user, secret_file)
    facts = _facts(who, results, decisions=decisions, appeals=appeals, campaign=campaign)
    group = facts.campaign
    if group is None and facts.free:
        # It is named nowhere, being free: what would name it is measured.
        group = max(facts.measured, key=lambda name: (facts.measured[name][3], name), default=None)
        if group is None or facts.measured[group][3] <= 0:
            raise UsageError("these results show nothing that would connect the account with a campaign")
    if group is None:
        raise UsageError(
            "these results name the account in no campaign: there is nothing to decide",
            hint="name the results that the action rested on, or the campaign with --campaign",
        )
    if outcome == "upheld" and signer.key in _took(facts.decisions, group):
        raise UsageError(
            "whoever took the decision must not uphold it: the account was promised somebody else",
            hint="another person decides, with a key of their own; to reverse it, one's own word is enough",
        )
    row = decide(
        appeals,
        who.account,
        campaign=group,
        outcome=outcome,
        code=reason_code,
        note=note,
        results=facts.digest,
        evidence_until=facts.results.findings.run.last_ts,
        names=ring.names("appeal"),
        signer=signer,
        at=when,
        received=time_of(received, "--received"),
    )
    print(f"{outcome}: row {row.number} of {appeals}, hash {row.hash[:16]}")
    _commit(log, log_key, appeals)
    if outcome == "reversed":
        print(_undo(facts, group, results, appeals, when))
    elif facts.free:
        print("It is free no more: the next snapshot and the next scan judge it as any other account.")
    else:
        print("Nothing changes in the guard. Tell the account what was considered: appeal show --only told.")


def _took(decisions: Sequence[Decided], campaign: str) -> set[str | None]:
    """Keys of those who proposed or approved a decision about a campaign."""
    about = {row.digest for row in decisions if row.order is not None and row.order.campaign == campaign}
    return {row.key for row in decisions if row.digest in about and row.did in ("propose", "approve")}


def _note(path: Path) -> str:
    try:
        with path.open("rb") as handle:
            data = handle.read(MOST_NOTE_BYTES + 1)
    except OSError as error:
        raise InputError(f"the note cannot be read: {error.strerror}", where=Where(path.name)) from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError("the note is no text in UTF-8", where=Where(path.name)) from error


def _undo(facts: Facts, group: str, results: Path, appeals: Path, at: datetime) -> str:
    """What is undone by itself, and what a person has to do."""
    action = in_force(facts.decisions, group, at)
    others = f" The decision on it ({action}) stays in force for the others." if action else ""
    return (
        f"The account is freed of {group}.{others}\n"
        "`stillwatch watch --appeals` sees that the file changed and makes a new snapshot. Without it:\n"
        f"  stillwatch guard snapshot {results} --out SNAPSHOT --appeals {appeals} (and the options as before)\n"
        "From the next scan on, with --appeals: it is named in no campaign and no lead.\n"
        f"Whatever was sent out about {group} may name it, as a pseudonym. There is no register of that: for each\n"
        "partner, issue lists, indicators and bundles of this campaign again without it, and say that the earlier\n"
        "ones are void:\n"
        f"  stillwatch share ... --without {appeals}\n"
        f"  stillwatch evidence build {group} ..."
    )


def _commit(log: Path | None, log_key: Path | None, appeals: Path) -> None:
    """All rows, not only the new one: whoever was interrupted before committed none."""
    commit(log, log_key, lambda: of_appeals(read_appeals(appeals)), f"what was decided is in {appeals}")


@appeal_app.command("list")
def list_command(
    appeals: AppealsFile,
    public: Annotated[
        bool, typer.Option("--public", help="For a transparency report: months only, no count of 1 to 4.")
    ] = False,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """What waits, and the months: appeals, reversals with their rate, and how long people waited."""
    rows = read_appeals(appeals)
    found, when = cases(rows), now_or(at)
    months = by_month(found, internal=not public)
    open_ = [] if public else waiting(found, when)
    if as_json:
        plain: dict[str, object] = {"months": months, "interval": "Wilson, 95 %", "public": public}
        if not public:
            plain["open"] = [{"account": a, "campaign": c, "waits": w} for a, c, w in open_]
            plain["free"] = sorted(freed_by(rows))
        print(json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False))
        return
    console = Console()
    if not found:
        console.print("No appeal is noted.")
        return
    _table(console, HEAD, months_table(months), right=1)
    if public:
        console.print(
            "- : fewer than five appeals, or what would tell them. Intervals: Wilson, 95 %.", highlight=False
        )
        return
    console.print(
        f"Rate: reversed of decided (interval: Wilson). Days: median. Free by an appeal: {len(freed_by(rows)):,}.",
        highlight=False,
    )
    if open_:
        console.print("\nOpen, the oldest first")
        _table(console, ("account", "campaign", "waits"), open_, right=2)


def _table(console: Console, head: Sequence[str], rows: Sequence[Sequence[str]], *, right: int) -> None:
    table = Table(box=None, pad_edge=False)
    justify: Literal["left", "right"]
    for place, name in enumerate(head):
        justify = "right" if place >= right else "left"
        table.add_column(name, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table, highlight=False)
