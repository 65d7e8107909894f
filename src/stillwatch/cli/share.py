"""`stillwatch share`: a campaign for partners, in their formats; pushed to and pulled from their TAXII servers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from stillwatch.cli.keys import Keys
from stillwatch.cli.log import LogFile, LogKey, commit, ready
from stillwatch.evidence.sharing import FORMATS, TLP, Request, moment, shared_event, terms
from stillwatch.evidence.sharing import share as write
from stillwatch.evidence.sharing.freed import read_freed
from stillwatch.evidence.sharing.taxii import (
    VARIABLE,
    authorization,
    pull,
    push,
    read_bundle,
    without_definitions,
)
from stillwatch.evidence.sharing.wire import Wire
from stillwatch.ingest.lookup import read_lookups
from stillwatch.store.decisions import read_decisions
from stillwatch.store.files import write_whole
from stillwatch.store.pseudonyms import KeyRing

RAW = "this file names accounts by their own ids: it is for nobody but yourself"


class _CampaignFirst(TyperGroup):
    """`share g-...` is `share campaign g-...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["campaign", *args]
        return list(super().parse_args(ctx, args))


share_app = typer.Typer(
    cls=_CampaignFirst,
    no_args_is_help=True,
    help="A confirmed campaign for partners, without prompts, addresses, domains or account ids.",
)
Server = Annotated[
    str, typer.Option("--server", help="URL of a TAXII 2.1 API root; https unless it is this machine.")
]
Collection = Annotated[str, typer.Option("--collection", help="Id of the collection.")]
AuthFile = Annotated[
    Path | None,
    typer.Option(
        "--auth-file",
        help=f"File with `basic USER:PASSWORD` or `bearer TOKEN`; the variable {VARIABLE} if not given.",
    ),
]
Trusted = Annotated[
    Path | None, typer.Option("--ca", help="Certificates (PEM) to trust instead of the system's.")
]


def _tell(text: str) -> None:
    print(f"stillwatch: {text}", file=sys.stderr)


@share_app.command("campaign")
def campaign_command(
    campaign: Annotated[str, typer.Argument(help="A campaign's id (g-...).")],
    results: Annotated[Path, typer.Option("--results", help="Results folder of a scan.")],
    format: Annotated[str, typer.Option("--format", help=f"One of: {', '.join(FORMATS)}.")],
    keys: Keys,
    partner: Annotated[str, typer.Option("--partner", help="For whom: each partner has names of its own.")],
    tlp: Annotated[str, typer.Option("--tlp", help=f"Who may see it: {', '.join(TLP)} (TLP 2.0).")],
    confidence: Annotated[int, typer.Option("--confidence", help="How sure you are, 0 to 100.")],
    expires: Annotated[
        str, typer.Option("--expires", help="Until when it may be relied on (ISO 8601, UTC).")
    ],
    out: Annotated[Path, typer.Option("--out", help="The file; replaced in one step.")],
    sharer: Annotated[
        str, typer.Option("--sharer", help="Your organisation's name, if it is to be in it.")
    ] = "",
    at: Annotated[
        str | None,
        typer.Option("--at", help="When it is shared (ISO 8601, UTC); the end of the log if not given."),
    ] = None,
    decisions: Annotated[
        Path | None,
        typer.Option("--decisions", help="File of decisions: what is done, and whether it was taken back."),
    ] = None,
    revoked: Annotated[
        bool, typer.Option("--revoked", help="Take back what was shared about this campaign.")
    ] = False,
    without: Annotated[
        Path | None,
        typer.Option(
            "--without", help="File of appeals, or account ids one a line: who was freed counts nowhere."
        ),
    ] = None,
    show_accounts: Annotated[
        bool,
        typer.Option(
            "--show-accounts", help="Name accounts by their own ids (--format decisions); not for partners."
        ),
    ] = False,
    share_key: Annotated[
        str,
        typer.Option(
            "--share-key", help="An older key's number (`stillwatch keys list`): names as they were under it."
        ),
    ] = "",
    log: LogFile = None,
    log_key: LogKey = None,
) -> None:
    """Write one confirmed campaign in one format."""
    asked = Request(
        results=results,
        campaign=campaign,
        partner=partner,
        terms=terms(
            tlp,
            confidence,
            moment(expires, "--expires"),
            None if at is None else moment(at, "--at"),
            sharer,
        ),
        without=frozenset() if without is None else read_freed(without),
        decisions=None if decisions is None else read_decisions(decisions),
        revoked=revoked,
        show_accounts=show_accounts,
        share_key=share_key,
        public=read_lookups().public_postings,
    )
    ready(log, log_key)
    ring = KeyRing.read(keys)
    made = write(asked, format, ring, _tell)
    write_whole(out, [made.data], "the export")
    if show_accounts:
        _tell(RAW)
    print(
        f"{out}: {FORMATS[format].what}, for {partner}, TLP:{asked.terms.tlp.upper()}, {len(made.data):,} bytes"
    )
    if made.revoked:
        print("It takes back what was shared about this campaign.")
    event = shared_event(asked, format, made.data, ring.partner(partner), revoked=made.revoked)
    commit(log, log_key, lambda: [event], f"the export is in {out}")


@share_app.command("push")
def push_command(
    file: Annotated[Path, typer.Argument(help="A STIX 2.1 bundle.")],
    server: Server,
    collection: Collection,
    auth_file: AuthFile = None,
    ca: Trusted = None,
    definitions: Annotated[
        bool,
        typer.Option("--definitions", help="Extension Definitions, too: medallion 3.0.0 breaks on them."),
    ] = False,
) -> None:
    """Put a bundle into a collection of a TAXII 2.1 server."""
    every = read_bundle(file)
    objects = every if definitions else without_definitions(every)
    taken = push(objects, Wire(server, auth=authorization(auth_file), ca=ca), server, collection)
    print(f"{taken} objects are in the collection {collection}")
    if left := len(every) - len(objects):
        print(
            f"{left} extension definitions were left out: some servers break on them; --definitions sends them, too"
        )


@share_app.command("pull")
def pull_command(
    server: Server,
    collection: Collection,
    out: Annotated[Path, typer.Option("--out", help="The bundle; replaced in one step.")],
    since: Annotated[
        str | None, typer.Option("--since", help="Only what was added after that (ISO 8601, UTC).")
    ] = None,
    auth_file: AuthFile = None,
    ca: Trusted = None,
) -> None:
    """Fetch what a collection of a TAXII 2.1 server holds. Nothing in it is believed: `intel import` judges it."""
    begin = None if since is None else moment(since, "--since")
    found = pull(Wire(server, auth=authorization(auth_file), ca=ca), server, collection, begin)
    if not found.objects:
        print("Nothing new: no file was written.")
        return
    write_whole(out, [found.bundle], "the bundle")
    print(f"{out}: {found.objects} objects, as they came")
    if found.until is not None:
        print(f"The next time: --since {found.until}")
