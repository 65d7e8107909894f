"""`stillwatch guard publish`: a snapshot for doors on other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stillwatch.cli.listen import host_port, token_for
from stillwatch.cli.serve import Secrets
from stillwatch.guard.doors.fetch import publish
from stillwatch.guard.doors.publish import SnapshotService
from stillwatch.guard.secret import read_secret
from stillwatch.guard.snapshot import load
from stillwatch.schema.errors import MissingExtraError, UsageError


def publish_command(
    snapshot: Annotated[Path, typer.Option("--snapshot", help="The snapshot file.")],
    to: Annotated[
        str | None,
        typer.Option("--to", help="valkey://HOST:PORT/DB: put it there. Needs the extra `valkey`."),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", help="HOST:PORT: give it to whoever asks. Needs the extra `serve`."),
    ] = None,
    secret_file: Secrets = None,
) -> None:
    """Give a snapshot to doors on other machines; over HTTP each new one as soon as the file is replaced.

    Callers send STILLWATCH_GUARD_TOKEN in x-stillwatch-token. Without one the service listens on loopback only.
    """
    if (to is None) == (listen is None):
        raise UsageError("give one of --to and --listen")
    load(snapshot, read_secret(secret_file))
    if to is not None:
        if not to.startswith("valkey://"):
            raise UsageError("--to must be valkey://HOST:PORT/DB")
        print(f"published {publish(snapshot, to)}")
        return
    host, port = host_port(listen or "", "--listen")
    token = token_for("STILLWATCH_GUARD_TOKEN", host)
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtraError("uvicorn", "serve", needed_for="giving snapshots out") from error
    service = SnapshotService(snapshot, token)
    uvicorn.run(service, host=host, port=port, log_level="warning", access_log=False)
