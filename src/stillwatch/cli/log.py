"""`stillwatch log`: the transparency log, made, verified, shown and proved from; and what others commit to it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from stillwatch.evidence.keys import COSIGNED, new_key, read_key, read_vkey, vkey
from stillwatch.evidence.log import TransparencyLog
from stillwatch.evidence.note import Checkpoint, read_checkpoint
from stillwatch.evidence.read import checkpoint, entries, prove_entry, prove_growth
from stillwatch.evidence.timestamp import ask, stamped
from stillwatch.evidence.verify import verify
from stillwatch.guard.committed import of_snapshot
from stillwatch.guard.layout import MAGIC
from stillwatch.schema.errors import JournalError, OutputError, StillwatchError, UsageError, Where
from stillwatch.store.appeals import is_appeals, read_appeals
from stillwatch.store.decisions import read_decisions
from stillwatch.store.events import Event, of_appeals, of_decisions, of_results, of_tables
from stillwatch.store.files import write_whole

log_app = typer.Typer(
    no_args_is_help=True,
    help="The transparency log: what was done and found, so that nobody can change it unseen.",
)
Log = Annotated[Path, typer.Argument(help="The transparency log.")]
Key = Annotated[Path, typer.Option("--key", help="The log's private ed25519 key (PEM).")]
LogFile = Annotated[
    Path | None, typer.Option("--log", help="Transparency log to commit to. Needs the extra `evidence`.")
]
LogKey = Annotated[Path | None, typer.Option("--log-key", help="The transparency log's private key (PEM).")]


def open_journal(log: Path | None, key: Path | None) -> TransparencyLog | None:
    """The log that a command was given, None without one. Raises what `read_key` and `TransparencyLog` raise."""
    if (log is None) != (key is None):
        raise UsageError("--log and --log-key go together")
    return None if log is None or key is None else TransparencyLog(log, read_key(key))


def ready(log: Path | None, key: Path | None) -> None:
    """Open the log and close it: what is wrong with it is said before the work, not after."""
    if (journal := open_journal(log, key)) is not None:
        journal.close()


def commit(log: Path | None, key: Path | None, events: Callable[[], Sequence[Event]], what: str) -> None:
    """Commit what was done, if there is a log. OutputError says that `what` was done and is not in the log."""
    if log is None:
        return
    try:
        if (journal := open_journal(log, key)) is not None:
            with journal:
                journal.append_all(events())
    except StillwatchError as error:
        raise OutputError(
            f"{what} and is not in the transparency log: {error.what}",
            where=error.where or Where(str(log)),
            hint="`stillwatch log take` adds it later",
        ) from error


@log_app.command("init")
def init(
    log: Log,
    key: Key,
    make_key: Annotated[
        bool, typer.Option("--new-key", help="Make the key, too, at the place that --key names.")
    ] = False,
    origin: Annotated[
        str | None,
        typer.Option(
            "--origin",
            help="The log's name in checkpoints, like example.com/stillwatch; random if not given.",
        ),
    ] = None,
) -> None:
    """Make a transparency log."""
    if log.exists():
        raise OutputError("there is a file already", where=Where(str(log)), hint="a log is never replaced")
    name = origin or f"stillwatch/{secrets.token_hex(8)}"
    signer = new_key(key) if make_key else read_key(key)
    TransparencyLog.create(log, signer, name).close()
    print(f"{log}: a new log; keep its key {key} from others")
    print(f"Whoever verifies it needs: {vkey(name, signer.public)}")


@log_app.command("verify")
def verify_command(
    log: Log,
    noted: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", help="A checkpoint noted earlier. May be repeated."),
    ] = None,
    expected: Annotated[
        str | None,
        typer.Option("--vkey", help="The key that has to have signed, NAME+ID+KEY, or a file of it."),
    ] = None,
    witnesses: Annotated[
        list[str] | None,
        typer.Option(
            "--witness-vkey",
            help="Key of a witness that has to have cosigned each checkpoint, NAME+ID+KEY, or a file of it. "
            "May be repeated.",
        ),
    ] = None,
    stamps: Annotated[
        list[Path] | None,
        typer.Option(
            "--witness",
            help="A checkpoint that `log witness` wrote, with its time stamp beside it. May be repeated.",
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option("--tsa-root", help="Root certificate (PEM) of the time stamps' authority."),
    ] = None,
    policy: Annotated[
        str | None, typer.Option("--tsa-policy", help="OID of the policy that time stamps have to be under.")
    ] = None,
) -> None:
    """Prove that nothing in a log was changed, moved, put in or removed; exit code 5 and the place where not."""
    if (stamps is None) != (root is None):
        raise UsageError("--witness and --tsa-root go together")
    if witnesses and not noted:
        raise UsageError("--witness-vkey needs the checkpoint that the witness cosigned: --checkpoint")
    public = None if expected is None else read_vkey(_text(expected))[1]
    checkpoints = {str(path): read_checkpoint(path) for path in [*(noted or []), *(stamps or [])]}
    found = verify(log, noted=checkpoints, key=public)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(found.kinds.items()))
    print(f"{found.entries:,} entries, {found.first} to {found.last}: {kinds}")
    print(
        f"{found.entries:,} signed checkpoints, one after each entry: all hold, nothing was changed or moved"
    )
    if found.removed:
        print(f"{found.removed:,} payloads were removed, as the log says; their hashes hold")
    print(f"Root: {found.root.hex()}")
    print(f"Key:  {found.vkey}{'' if public is None else ', as expected'}")
    if len(found.keys) > 1:
        changes = "1 change" if len(found.keys) == 2 else f"{len(found.keys) - 1} changes"
        print(f"{changes} of the key, each signed by the one before; the first:")
        print(f"      {found.keys[0]}")
    for name, size in found.noted.items():
        print(f"{name}: the log goes on from its {size:,} entries, none of which was removed or changed")
    for path in noted or []:
        for witness in witnesses or []:
            who, at = _cosigned(checkpoints[str(path)], path, witness)
            print(f"{path}: cosigned by {who}, {at}")
    for path in stamps or []:
        assert root is not None
        when = stamped(_stamp(path), path.read_bytes(), root, policy)
        print(f"{path}: time stamp of {when.isoformat(timespec='seconds')} by an authority under {root}")
    if not found.noted:
        print("Whether entries are missing at the end, only a checkpoint can tell that was noted elsewhere.")


def _text(given: str) -> str:
    """What stands in the file of that name, or the text itself."""
    place = Path(given)
    return place.read_text(errors="replace") if place.is_file() else given


def _cosigned(checkpoint: Checkpoint, path: Path, witness: str) -> tuple[str, str]:
    """Name of the witness, and when it cosigned. JournalError where it did not."""
    name, public = read_vkey(_text(witness), COSIGNED)
    at = checkpoint.cosigned_by(name, public)
    if at is None:
        raise JournalError(
            f"no cosignature of {name} on the checkpoint holds",
            where=Where(str(path)),
            hint="the witness has not signed this one, or with another key",
        )
    return name, datetime.fromtimestamp(at, UTC).isoformat()


def _stamp(path: Path) -> Path:
    return path.with_name(path.name + ".tsr")


@log_app.command("witness")
def witness_command(
    log: Log,
    url: Annotated[str, typer.Option("--rfc3161", help="URL of a time-stamping authority (RFC 3161).")],
    out: Annotated[
        Path, typer.Option("--out", help="File for the checkpoint; the time stamp is FILE.tsr beside it.")
    ],
) -> None:
    """Have the newest checkpoint time-stamped: the authority is sent its SHA-256. Needs the extra `timestamp`."""
    size, note = checkpoint(log)
    answer, at = ask(url, note.encode())
    write_whole(_stamp(out), [answer], "the time stamp")
    write_whole(out, [note.encode()], "the checkpoint")
    print(f"{out}: checkpoint of {size:,} entries, stamped {at.isoformat(timespec='seconds')} by {url}")
    print("Who signed it, `stillwatch log verify --witness FILE --tsa-root CERT` checks, without a network.")


@log_app.command("rotate")
def rotate(
    log: Log,
    key: Key,
    new: Annotated[Path, typer.Option("--new-key", help="The private key that signs from now on (PEM).")],
    make: Annotated[bool, typer.Option("--make", help="Make the new key, too, at that place.")] = False,
) -> None:
    """Let another key sign from now on; who knows the first key goes on verifying all of the log."""
    old = read_key(key)
    with TransparencyLog(log, old) as journal:
        signer = new_key(new) if make else read_key(new)
        journal.rotate(signer)
        origin = journal.origin
    print(f"{log}: {new} signs from now on; {key} signs nothing more, destroy it")
    print(f"Verifiers may go on with the first key. The new one: {vkey(origin, signer.public)}")


@log_app.command("show")
def show(
    log: Log,
    kind: Annotated[str | None, typer.Option("--kind", help="Only entries of this kind.")] = None,
    last: Annotated[int, typer.Option("--last", min=1, max=1 << 31, help="So many, from the end.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Print entries, the newest last."""
    for entry in entries(log, last, kind):
        payload = None if entry.payload is None else _escaped(entry.payload, log, entry.number)
        if as_json:
            print(
                f'{{"index": {entry.number}, "time": "{entry.time}", "kind": "{entry.kind}", '
                f'"sha256": "{entry.digest.hex()}", "payload": {payload or "null"}}}'
            )
        else:
            print(f"{entry.number}  {entry.time}  {entry.kind}  {payload or '(removed)'}")


def _escaped(payload: bytes, log: Path, number: int) -> str:
    """The payload in ASCII: a stranger's log may hold what moves a terminal. JournalError where it is no JSON."""
    try:
        return json.dumps(json.loads(payload))
    except (ValueError, RecursionError) as error:
        raise JournalError(f"the payload of entry {number} is no JSON", where=Where(str(log))) from error


@log_app.command("checkpoint")
def checkpoint_command(
    log: Log,
    out: Annotated[
        Path | None, typer.Option("--out", help="File for it; printed if not given. Keep it elsewhere.")
    ] = None,
) -> None:
    """Write the newest checkpoint, by which anybody can tell later that the log only grew."""
    size, note = checkpoint(log)
    if out is None:
        print(note, end="")
        return
    write_whole(out, [note.encode()], "the checkpoint")
    print(f"{out}: checkpoint of {size:,} entries")


@log_app.command("prove")
def prove(
    log: Log,
    index: Annotated[int | None, typer.Argument(help="Number of the entry, from 0.")] = None,
    since: Annotated[
        Path | None, typer.Option("--since", help="A checkpoint: prove that the log goes on from it.")
    ] = None,
) -> None:
    """Print a proof as JSON: that an entry is in the log, or that the log only grew since a checkpoint."""
    if (index is None) == (since is None):
        raise UsageError("name an entry, or a checkpoint with --since")
    if since is not None:
        print(json.dumps(prove_growth(log, read_checkpoint(since).size), indent=2))
    elif index is not None:
        print(json.dumps(prove_entry(log, index), indent=2))


@log_app.command("take")
def take(
    log: Log,
    source: Annotated[
        Path,
        typer.Argument(
            help="A file of decisions or of appeals, a snapshot, the results folder of a scan, or one of `ingest` or "
            "`sketch`."
        ),
    ],
    key: Key,
) -> None:
    """Commit what is there already; what the log has, it does not take twice."""
    events = _events_of(source)
    if not events:
        raise UsageError(f"{source} holds nothing to take")
    with TransparencyLog(log, read_key(key)) as journal:
        new = journal.append_all(events)
    print(f"{new:,} events added, {len(events) - new:,} were there")


def _events_of(source: Path) -> Sequence[Event]:
    """What is told of something that is there already."""
    if source.is_dir():
        written = (source / "exchanges.parquet").exists() and not (source / "findings.json").exists()
        return of_tables(source) if written else of_results(source)
    try:
        with source.open("rb") as file:
            snapshot = file.read(len(MAGIC)) == MAGIC
    except OSError:
        snapshot = False
    if snapshot:
        return [of_snapshot(source)]
    return of_appeals(read_appeals(source)) if is_appeals(source) else of_decisions(read_decisions(source))
