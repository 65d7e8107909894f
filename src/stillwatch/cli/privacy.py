"""`stillwatch retain` and `stillwatch forget`: what is kept, for how long, and how it is taken out again."""

from __future__ import annotations

import re
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from stillwatch.cli.log import LogFile, LogKey, open_journal
from stillwatch.cli.options import now_or
from stillwatch.evidence.privacy.forget import forget as forget_account
from stillwatch.evidence.privacy.forget import look
from stillwatch.evidence.privacy.retain import Kept, delete, kept_in
from stillwatch.schema.errors import UsageError
from stillwatch.store.pseudonyms import KeyRing

retain_app = typer.Typer(
    no_args_is_help=True, help="What is kept where and since when; what is too old is deleted."
)
Folders = Annotated[list[Path], typer.Argument(help="Folders that Stillwatch wrote, or that hold such.")]
Sure = Annotated[bool, typer.Option("--yes", help="Do it; without it, only say what would be done.")]
At = Annotated[
    str | None, typer.Option("--at", help="Time from which ages count, ISO 8601; now if not given.")
]


@retain_app.command("show")
def show(folders: Folders, at: At = None) -> None:
    """List results, tables, partitions and noted requests with the age of their data, oldest first."""
    _list(kept_in(folders), now_or(at))


@retain_app.command("apply")
def apply(
    folders: Folders,
    older: Annotated[str, typer.Option("--older", help="Limit, in days: 90d.")],
    at: At = None,
    sure: Sure = False,
    log: LogFile = None,
    log_key: LogKey = None,
) -> None:
    """Delete what is older than a limit, each deletion committed to the transparency log if one is named."""
    now = now_or(at)
    before = now - _days(older)
    if not sure:
        found = kept_in(folders, before)
        _list(found, now)
        if found:
            print("Nothing was deleted: add --yes to delete these.")
        return
    journal = open_journal(log, log_key)
    try:
        gone = delete(folders, before, journal)
    finally:
        if journal is not None:
            journal.close()
    for kept in gone:
        what = f"{len(kept.days)} days of {kept.path}" if kept.days else str(kept.path)
        print(f"deleted: {what}")
    if not gone:
        print(f"Nothing is older than {older}.")
    print("Backups and copies elsewhere are not reached from here.")


def forget(
    account: Annotated[str, typer.Argument(help="The account's id; - reads it from standard input.")],
    folders: Folders,
    sure: Sure = False,
    keys: Annotated[
        Path | None,
        typer.Option("--keys", help="Key ring: the log is told a pseudonym of the account (`keys init`)."),
    ] = None,
    log: LogFile = None,
    log_key: LogKey = None,
) -> None:
    """Take one account out of results, tables, partitions and appeals; the transparency log goes on to verify.

    Stop `watch` first. A snapshot is made anew by the next scan or `guard snapshot`; logs from which rows came
    are yours to clean.
    """
    if account == "-":
        account = sys.stdin.readline().rstrip("\r\n")
    if (log is None) != (keys is None):
        raise UsageError("--log and --keys go together: the log is told a pseudonym, never the account")
    if not sure:
        held = look(folders, account)
        for found in held:
            rows = f"{found.rows:,} rows" if found.rows else "no rows"
            print(f"{found.place.path}: {rows} of the account")
            for path in found.elsewhere:
                print(f"  {path}: mentions it besides; not rewritten")
        print(
            "Nothing was changed: add --yes to take them out." if held else "The account is in none of these."
        )
        return
    subject = None if keys is None else KeyRing.read(keys).names("erasure").of("account", account)
    journal = open_journal(log, log_key)
    try:
        changed = forget_account(folders, account, subject, journal)
    finally:
        if journal is not None:
            journal.close()
    for place in changed:
        print(f"{place.path}: written anew without the account")
    print("The account is in none of these." if not changed else "The account is gone from these.")
    if subject is not None:
        print(f"Pseudonym in the log: {subject}")
    print(
        "Left to do: a new guard snapshot, your own logs, backups; `keys destroy` for what partners were given."
    )


def _days(text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,5})d", text)
    if found is None or not 0 < int(found[1]) <= 36_500:
        raise UsageError(f"{text!a} is no limit", hint="in days: 90d")
    return timedelta(days=int(found[1]))


def _list(found: list[Kept], now: datetime) -> None:
    if not found:
        print("Nothing that is kept here has an age.")
        return
    rows = [("kind", "from", "to", "days old", "MiB", "path")]
    for kept in found:
        age = "-" if kept.last is None else str((now - kept.last).days)
        path = str(kept.path) + (f" ({len(kept.days)} days of it)" if kept.days else "")
        path += " (in use: stays)" if kept.in_use else ""
        first, last = ("-" if t is None else t.date().isoformat() for t in (kept.first, kept.last))
        rows.append((kept.kind, first, last, age, f"{kept.size / (1 << 20):.1f}", path))
    width = [max(len(row[place]) for row in rows) for place in range(5)]
    for row in rows:
        left = (cell.ljust(width[place]) for place, cell in enumerate(row[:3]))
        right = (cell.rjust(width[place + 3]) for place, cell in enumerate(row[3:5]))
        print("  ".join([*left, *right, row[5]]))
