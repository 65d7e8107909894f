"""`stillwatch watch`: logs in, scans every few minutes, snapshots out."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from stillwatch.cli.listen import host_port, token_for
from stillwatch.cli.log import LogFile, LogKey, open_journal
from stillwatch.cli.options import Appeals, Format, Mapping, Overrides, SideTable, pairs, seconds
from stillwatch.guard.doors.publish import PATH, SnapshotService
from stillwatch.guard.secret import read_secret
from stillwatch.guard.watch.intake import Intake
from stillwatch.guard.watch.queue import Queue, queue
from stillwatch.guard.watch.receive import Receiver
from stillwatch.guard.watch.rescan import Files
from stillwatch.guard.watch.service import Service, Settings, Source
from stillwatch.ingest.lookup import read_lookups
from stillwatch.ingest.registry import load_importers
from stillwatch.schema.errors import MissingExtraError, UsageError
from stillwatch.sketch import default_rules, load_rules
from stillwatch.store.partitions import NAME

POLL_S = 0.25
FAILED = 5


def watch(
    folder: Annotated[Path, typer.Argument(help="Folder of the service: partitions and results.")],
    snapshot: Annotated[
        Path, typer.Option("--snapshot", help="The snapshot that doors read; replaced in one step.")
    ],
    follow: Annotated[
        list[str] | None,
        typer.Option("--follow", help="NAME=PATH: a log to follow, or a glob in quotes. May be repeated."),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", help="HOST:PORT for logs that are sent (LiteLLM, OTLP). Extra `serve`."),
    ] = None,
    consume: Annotated[
        list[str] | None,
        typer.Option(
            "--consume",
            help="NAME=kafka://HOST:PORT/TOPIC or NAME=nats://HOST:PORT/STREAM. May be repeated. "
            "Extras `kafka`, `nats`.",
        ),
    ] = None,
    every: Annotated[str, typer.Option("--every", help="Time between two scans: 90s, 5m, 6h.")] = "5m",
    window_days: Annotated[int, typer.Option("--window-days", help="UTC days that a scan looks at.")] = 14,
    keep_days: Annotated[int, typer.Option("--keep-days", help="UTC days that are kept on disk.")] = 30,
    publish: Annotated[
        str | None,
        typer.Option(
            "--publish", help="valkey://HOST:PORT/DB for doors elsewhere. Needs the extra `valkey`."
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Read what is there, scan, make the snapshot, and stop.")
    ] = False,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Policy (TOML); shadow mode if not given.")
    ] = None,
    decisions: Annotated[Path | None, typer.Option("--decisions", help="File of decisions.")] = None,
    appeals: Appeals = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="CSV with account_id and key, or key_sha256.")
    ] = None,
    accounts: SideTable = None,
    sanctions: SideTable = None,
    releases: SideTable = None,
    references: SideTable = None,
    rules: Annotated[Path | None, typer.Option("--rules", help="Rule pack (YAML) of your own.")] = None,
    format: Format = None,
    mapping: Mapping = None,
    map_: Overrides = None,
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    secret_file: Annotated[
        Path | None,
        typer.Option("--secret-file", help="File with the secret; STILLWATCH_GUARD_SECRET otherwise."),
    ] = None,
    intel: Annotated[
        Path | None,
        typer.Option(
            "--intel", help="Store of partners' indicators, for the scans and as tags in the snapshot."
        ),
    ] = None,
    key_ring: Annotated[
        Path | None,
        typer.Option("--key-ring", help="With --intel: the ring with the keys agreed on with partners."),
    ] = None,
    log: LogFile = None,
    log_key: LogKey = None,
) -> None:
    """Follow logs, scan them every few minutes, and keep the guard's snapshot up to date.

    Files that are named here (policy, accounts, ...) are read anew when they change. Senders give
    STILLWATCH_WATCH_TOKEN in x-stillwatch-token; without one the service listens on loopback only.
    """
    read_secret(secret_file)
    if not 1 <= window_days <= 366:
        raise UsageError("--window-days must be 1 to 366")
    if not window_days <= keep_days <= 3660:
        raise UsageError("--keep-days must be at least --window-days")
    if (intel is None) != (key_ring is None):
        raise UsageError("--intel and --key-ring go together")
    importers = load_importers()
    if format is not None and format not in importers:
        raise UsageError(f"unknown format {format!r}", hint=f"known formats: {', '.join(sorted(importers))}")
    pack = default_rules() if rules is None else load_rules(rules)
    reading = Intake(format, mapping, pairs(map_), read_lookups(), pack)
    sources = _sources(follow or [], reading)
    queues = _queues(consume or [], reading, sources)
    if not sources and not queues and listen is None:
        raise UsageError(
            "nothing to watch",
            hint="name a log with --follow or --consume, or --listen for logs that are sent",
        )
    if publish is not None and not publish.startswith("valkey://"):
        raise UsageError("--publish must be valkey://HOST:PORT/DB")
    named = {
        "policy": policy, "accounts": accounts, "keys": keys, "decisions": decisions, "secret": secret_file,
        "sanctions": sanctions, "releases": releases, "references": references, "rules": rules,
        "appeals": appeals,
        "intel": intel, "key_ring": key_ring,
    }  # fmt: skip
    settings = Settings(
        folder=folder,
        snapshot=snapshot,
        every_s=seconds(every),
        window_days=window_days,
        keep_days=keep_days,
        seed=seed,
        files=Files(**{name: None if path is None else str(path.absolute()) for name, path in named.items()}),
        sources=sources,
        received=Intake(lookups=read_lookups(), rules=pack),
        queues=queues,
        publish=publish,
        live=not once,
    )
    journal = open_journal(log, log_key)
    with contextlib.closing(journal) if journal is not None else contextlib.nullcontext():
        service = Service(settings, _say, journal=journal)
        try:
            if once:
                _once(service)
            else:
                _run(service, listen)
        finally:
            service.close()


def _say(line: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}", flush=True)


def _sources(given: list[str], reading: Intake) -> tuple[Source, ...]:
    """Each name once; several patterns may have one name."""
    found: dict[str, list[str]] = {}
    for text in given:
        name, mark, pattern = text.partition("=")
        if not mark or not NAME.fullmatch(name) or not pattern or name.startswith("http-"):
            raise UsageError(
                f"--follow {text!r} is no NAME=PATH",
                hint="small letters, digits, - and _ in the name, for example --follow edge=/var/log/edge.jsonl",
            )
        found.setdefault(name, []).append(os.path.abspath(pattern))
    return tuple(Source(name, tuple(patterns), reading) for name, patterns in found.items())


def _queues(given: list[str], reading: Intake, sources: tuple[Source, ...]) -> tuple[Queue, ...]:
    found = tuple(queue(text, reading) for text in given)
    names = [one.name for one in found] + [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"--consume: there is another input {name!r}", hint="each queue needs a name of its own"
            )
    return found


def _once(service: Service) -> None:
    while service.step():
        pass
    if not service.begin():
        if service.counters.problem is None:
            raise UsageError("no row could be used, or nothing is new since the last scan")
        raise typer.Exit(FAILED)
    outcome = service.finish(wait=True)
    if outcome is None or outcome.error is not None or service.counters.problem is not None:
        raise typer.Exit(FAILED)


def _run(service: Service, listen: str | None) -> None:
    """Until SIGTERM or Ctrl-C: then what came is kept, and the process ends with 0."""
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    server = None if listen is None else _Server(service, listen)
    try:
        while not stop.is_set():
            moved = service.step()
            if service.due(time.monotonic()):
                service.begin()
            service.finish()
            service.publish(time.monotonic())
            if not moved:
                stop.wait(POLL_S)
        if server is not None:
            server.stop()
        service.step()
    finally:
        if server is not None:
            server.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Server:
    """The receiver in a thread of its own."""

    def __init__(self, service: Service, listen: str) -> None:
        host, port = host_port(listen, "--listen")
        token = token_for("STILLWATCH_WATCH_TOKEN", host)
        try:
            import uvicorn
        except ImportError as error:
            raise MissingExtraError("uvicorn", "serve", needed_for="the receiver of logs") from error
        formats = frozenset(load_importers()) - {"mapping"}
        # Only here: it needs the extra.
        from stillwatch.guard.doors.prometheus import Exposition, IngestCollector, ScanCollector

        shown = Exposition(IngestCollector(service.counters), ScanCollector(service.counters)).text
        receiver = Receiver(service.inbox, formats, lambda: _told(service), token, shown)
        snapshots = SnapshotService(
            service.settings.snapshot, os.environ.get("STILLWATCH_GUARD_TOKEN") or token
        )

        async def app(scope: Any, receive: Any, send: Any) -> None:
            mine = scope["type"] == "http" and scope["path"] == PATH
            await (snapshots if mine else receiver)(scope, receive, send)

        config = uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="stillwatch-receiver", daemon=True)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise UsageError(f"cannot listen on {listen}", hint="is another service there?")
            time.sleep(0.01)
        place, bound = listen.rpartition(":")[0], self._server.servers[0].sockets[0].getsockname()[1]
        _say(f"logs are taken at http://{place}:{bound}/ingest/litellm and /v1/traces")

    def stop(self) -> None:
        """No new bodies; those that wait get their answer from the last step, or are told to come again."""
        self._server.should_exit = True


def _told(service: Service) -> dict[str, Any]:
    """What `/readyz` says: no paths, no names of accounts."""
    counters = service.counters
    events: dict[str, dict[str, int]] = {}
    for (name, state), count in sorted(counters.events.items()):
        events.setdefault(name, {})[state] = count
    return {
        "events": events,
        "lag_s": {name: round(value, 3) for name, value in counters.lag_s.items()},
        "behind_bytes": dict(counters.behind),
        "scanning": service.scanning,
        "scans": counters.scans,
        "failed": counters.failed,
        "late": counters.late,
        "unpublished": counters.unpublished,
        "last_scan_s": None if counters.last is None else counters.last.scan_s,
        "ready": counters.problem is None,
    }
