"""`stillwatch keys`: the keys of the pseudonyms in whatever leaves the machine."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from stillwatch.schema.errors import InputError, UsageError, Where
from stillwatch.store.pseudonyms import KeyRing

keys_app = typer.Typer(
    no_args_is_help=True, help="Keys of pseudonyms: one for each purpose and partner, rotated, destroyed."
)
VARIABLE = "STILLWATCH_PARTNER_KEY"
Ring = Annotated[Path, typer.Argument(help="The key ring.")]
Purpose = Annotated[str, typer.Option("--purpose", help="appeal, bundle, erasure, fingerprint or share.")]
Partner = Annotated[
    str, typer.Option("--partner", help="For whom; empty for what is nobody's in particular.")
]
Keys = Annotated[Path, typer.Option("--keys", help="The key ring of pseudonyms (`stillwatch keys init`).")]
"""For the commands that write or read pseudonyms."""


@keys_app.command("init")
def init(ring: Ring) -> None:
    """Make an empty key ring."""
    KeyRing.create(ring)
    print(f"{ring}: a new key ring; whoever has it can tell whom every pseudonym stands for")


@keys_app.command("list")
def list_command(ring: Ring) -> None:
    """List the keys, without their secrets."""
    table = Table(box=None, pad_edge=False)
    for name in ("key", "purpose", "partner", "made", "state"):
        table.add_column(name, no_wrap=True)
    for key in KeyRing.read(ring).rows():
        state = "in use"
        if key.destroyed is not None:
            state = f"destroyed {_day(key.destroyed)}"
        elif key.retired is not None:
            state = f"retired {_day(key.retired)}"
        table.add_row(key.id, key.purpose, key.partner or "-", _day(key.created), state)
    if table.row_count:
        Console().print(table)
    else:
        print("No key yet: the first is made when it is needed.")


def _day(at: datetime) -> str:
    return at.date().isoformat()


@keys_app.command("rotate")
def rotate(ring: Ring, purpose: Purpose, partner: Partner = "") -> None:
    """Use a new key from now on; what was given out earlier can still be told."""
    print(
        f"{KeyRing.read(ring).rotate(purpose, partner).key_id}: the key of {_whose(purpose, partner)} from now on"
    )


@keys_app.command("agree")
def agree(
    ring: Ring,
    partner: Annotated[str, typer.Option("--partner", help="With whom.")],
    purpose: Annotated[str, typer.Option("--purpose", help="What for.")] = "fingerprint",
    file: Annotated[
        Path | None,
        typer.Option("--secret-file", help=f"File of 64 hex digits; the variable {VARIABLE} if not given."),
    ] = None,
) -> None:
    """Use a key that was agreed on with a partner, who has it, too."""
    where = Where(VARIABLE if file is None else file.name)
    try:
        text = os.environ.get(VARIABLE) if file is None else file.read_text()[:1024]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the key cannot be read", where=where) from error
    if text is None:
        raise UsageError("no key was given", hint=f"set {VARIABLE} or name --secret-file")
    try:
        secret = bytes.fromhex(text.strip())
    except ValueError as error:
        raise InputError("the key is not in hex digits", where=where, hint="openssl rand -hex 32") from error
    print(
        f"{KeyRing.read(ring).agree(purpose, partner, secret).key_id}: the key of {_whose(purpose, partner)}; "
        "the partner's ring shows the same number"
    )


@keys_app.command("destroy")
def destroy(
    ring: Ring,
    key: Annotated[str, typer.Argument(help="Its number, as `keys list` prints it.")],
    sure: Annotated[bool, typer.Option("--yes", help="Do it: nothing brings the key back.")] = False,
) -> None:
    """Destroy a key: what its pseudonyms stand for can be told no more, by anybody."""
    if not sure:
        raise UsageError("a destroyed key cannot be had back", hint="add --yes to destroy it")
    gone = KeyRing.read(ring).destroy(key)
    print(
        f"{gone.id}: destroyed; pseudonyms of {_whose(gone.purpose, gone.partner)} under it stand for nobody now"
    )
    print("Copies of the ring, such as backups, hold it still: delete them, too.")


def _whose(purpose: str, partner: str) -> str:
    return f"{purpose} for {partner}" if partner else purpose
