"""The commands. Each reads its options, calls one room and prints; errors become one message and an exit code.

Exit codes: 0 done, 1 unexpected (or whoever read our output went away), 2 usage, 3 input, 4 output, 5 results folder,
6 missing extra, 7 a replay that gives other numbers, 130 Ctrl-C.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stillwatch import arena
from stillwatch.cli.appeal import appeal_app
from stillwatch.cli.arena import arena_app
from stillwatch.cli.check import check_text
from stillwatch.cli.data import data_app
from stillwatch.cli.evidence import evidence_app
from stillwatch.cli.guard import guard_app
from stillwatch.cli.intel import intel_app, intel_for, keep_aside
from stillwatch.cli.interrupt import Interrupts
from stillwatch.cli.keys import keys_app
from stillwatch.cli.log import LogFile, LogKey, commit, log_app, ready
from stillwatch.cli.options import Appeals, AsJson, Format, Logs, Mapping, Overrides, SideTable, pairs
from stillwatch.cli.population import population_command
from stillwatch.cli.privacy import forget, retain_app
from stillwatch.cli.share import share_app
from stillwatch.cli.show import groups_table
from stillwatch.cli.watch import watch
from stillwatch.ingest import open_log, write_canonical
from stillwatch.ingest.lookup import read_lookups
from stillwatch.report.explain import explain_text
from stillwatch.report.html import render
from stillwatch.scan import Options, Scanned
from stillwatch.scan import scan as run_scan
from stillwatch.scan.preview import preview
from stillwatch.scan.run import version
from stillwatch.schema.errors import StillwatchError
from stillwatch.sketch import default_rules, load_rules
from stillwatch.store.events import of_results, of_tables
from stillwatch.store.results import (
    read_earlier,
    read_freed,
    read_results,
    refuse_existing,
    results_of,
    write_results,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Finds and explains unauthorised coordinated harvesting in the request logs of a language model.",
)
app.add_typer(appeal_app, name="appeal")
app.add_typer(arena_app, name="arena")
app.add_typer(data_app, name="data")
app.add_typer(evidence_app, name="evidence")
app.add_typer(guard_app, name="guard")
app.add_typer(keys_app, name="keys")
app.add_typer(intel_app, name="intel")
app.add_typer(log_app, name="log")
app.command("population")(population_command)
app.add_typer(share_app, name="share")
app.add_typer(retain_app, name="retain")
app.command("forget")(forget)
app.command("watch")(watch)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"stillwatch {version()}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Finds and explains unauthorised coordinated harvesting in the request logs of a language model."""


Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first row that must be refused.")]
KeepRefused = Annotated[
    bool,
    typer.Option(
        "--keep-refused", help="Write the bytes of refused rows to refused.jsonl: may hold prompts."
    ),
]
Rules = Annotated[
    Path | None,
    typer.Option(
        "--rules", help="Rule pack (YAML) that tells what requests ask for, instead of the built-in one."
    ),
]


INTERRUPTED = 130


def main(args: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    try:
        code = _command()(args=list(args) if args is not None else None, standalone_mode=False)
        sys.stdout.flush()
    except StillwatchError as error:
        print(f"stillwatch: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        _interrupted()
    except SystemError as error:
        # Ctrl-C inside a compiled function comes out as the cause of this one.
        if not isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            raise
        _interrupted()
    except BrokenPipeError:
        # Whoever read our output has seen enough (`| head`); the interpreter must not try to flush once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        name = "" if error.filename is None else f"{error.filename}: "
        print(f"stillwatch: {name}{error.strerror or error}", file=sys.stderr)
        if error.errno == errno.ENOSPC and error.filename is None:
            print("  the output cannot be printed: the disk behind it is full", file=sys.stderr)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(4)
    except Exception as error:
        # Typer's own errors (unknown option, missing argument) know how to show themselves.
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        sys.exit(getattr(error, "exit_code", 2))
    if code == INTERRUPTED:
        _interrupted()
    sys.exit(code if isinstance(code, int) else 0)


@cache
def _command() -> Callable[..., object]:
    """All commands with their options. Made once: it takes a tenth of a second."""
    return typer.main.get_command(app)


def _interrupted() -> NoReturn:
    print("stillwatch: interrupted; nothing was written", file=sys.stderr)
    sys.exit(INTERRUPTED)


def _side(**tables: Path | None) -> dict[str, str]:
    return {name: str(path) for name, path in tables.items() if path is not None}


def _scan_with_progress(logs: list[str], *, quiet: bool, **options: object) -> Scanned:
    with Interrupts() as interrupts:
        scanned = _scan(logs, interrupts, quiet=quiet, **options)
        interrupts.check()
    return scanned


def _scan(logs: list[str], interrupts: Interrupts, *, quiet: bool, **options: object) -> Scanned:
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        return run_scan(logs, progress=lambda *_: interrupts.check(), **options)  # type: ignore[arg-type]
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("read", total=None, rate="")
        began: dict[str, float] = {}

        def show(stage: str, done: int, total: int) -> None:
            interrupts.check()
            start = began.setdefault(stage, time.monotonic())
            spent = max(1e-9, time.monotonic() - start)
            rate = f"{done / spent:,.0f} rows/s" if stage == "read" else ""
            if total and done:
                rate = f"{(total - done) * spent / done:.0f} s left"
            bars.update(task, description=stage, completed=done, total=total or None, rate=rate)

        return run_scan(logs, progress=show, **options)  # type: ignore[arg-type]


def _write(scanned: Scanned, out: Path, force: bool) -> None:
    results = results_of(scanned)
    write_results(out, replace(results, report_html=render(results)), force=force)


@app.command()
def scan(
    logs: Logs,
    out: Annotated[Path, typer.Option("--out", help="Folder for the results; it must not exist.")],
    format: Format = None,
    mapping: Mapping = None,
    map_: Overrides = None,
    accounts: SideTable = None,
    sanctions: SideTable = None,
    releases: SideTable = None,
    references: SideTable = None,
    previous: Annotated[
        Path | None, typer.Option("--previous", help="Earlier results folder: groups keep their ids.")
    ] = None,
    appeals: Appeals = None,
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    rules: Rules = None,
    strict: Strict = False,
    keep_refused: KeepRefused = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier results folder.")] = False,
    log: LogFile = None,
    log_key: LogKey = None,
    intel: Annotated[
        Path | None,
        typer.Option(
            "--intel", help="Store of partners' indicators: one more kind of evidence, never enough alone."
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option("--keys", help="With --intel: the key ring with the keys agreed on with partners."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", help="With --intel: when it is asked which have expired; else the log's end."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Scan request logs for campaigns."""
    refuse_existing(out, force=force)
    ready(log, log_key)
    pack = default_rules() if rules is None else load_rules(rules)
    earlier = None if previous is None else read_earlier(previous)
    freed = None if appeals is None else read_freed(appeals)
    told = intel_for(intel, keys, at)
    scanned = _scan_with_progress(
        logs,
        quiet=as_json,
        format=format,
        mapping=mapping,
        overrides=pairs(map_),
        side=_side(accounts=accounts, sanctions=sanctions, releases=releases, references=references),
        strict=strict,
        options=Options(seed=seed),
        earlier=earlier,
        freed=freed,
        lookups=read_lookups(),
        rules=pack,
        keep_refused=keep_refused,
        intel=told,
    )
    _write(scanned, out, force)
    keep_aside(intel, scanned)
    commit(log, log_key, lambda: of_results(out), f"the results are in {out}")
    if as_json:
        groups = [
            {"id": g.id, "verdict": g.verdict, "why": g.why, "accounts": g.accounts}
            for g in scanned.findings.groups
        ]
        print(json.dumps({"out": str(out), "refused": len(scanned.refusals), "groups": groups}))
        return
    console = Console()
    console.print(groups_table(scanned.findings))
    for note in scanned.findings.run.notes:
        console.print(note, highlight=False)
    console.print(scanned.findings.run.reach, highlight=False)
    if scanned.refusals:
        count = len(scanned.refusals)
        console.print(f"{count:,} {'row was' if count == 1 else 'rows were'} refused: see refused.jsonl")
    console.print(f"Results: {out}, for a person: {out / 'report.html'}", highlight=False, soft_wrap=True)


@app.command()
def check(
    logs: Logs,
    format: Format = None,
    mapping: Mapping = None,
    map_: Overrides = None,
    accounts: SideTable = None,
    sanctions: SideTable = None,
    releases: SideTable = None,
    references: SideTable = None,
    as_json: AsJson = False,
) -> None:
    """The first minute with your own logs: what is filled, what a scan could see and decide, what was refused."""
    with open_log(
        logs,
        format=format,
        mapping=mapping,
        overrides=pairs(map_),
        side=_side(accounts=accounts, sanctions=sanctions, releases=releases, references=references),
        lookups=read_lookups(),
    ) as log:
        found = preview(log)
    print(json.dumps(msgspec.to_builtins(found), indent=2) if as_json else check_text(found))


@app.command()
def explain(
    results: Annotated[Path, typer.Argument(help="Results folder of a scan.")],
    name: Annotated[str, typer.Argument(help="A campaign's id (g-...) or an account id.")],
) -> None:
    """Claims, evidence and counter-evidence of one campaign, or what an account has to do with any."""
    print(explain_text(read_results(results), name))


@app.command()
def ingest(
    logs: Logs,
    out: Annotated[Path, typer.Option("--out", help="Folder for the canonical tables.")],
    format: Format = None,
    mapping: Mapping = None,
    map_: Overrides = None,
    strict: Strict = False,
    keep_refused: KeepRefused = False,
    log: LogFile = None,
    log_key: LogKey = None,
) -> None:
    """Bring logs of any known format to the canonical tables."""
    ready(log, log_key)
    with open_log(
        logs,
        format=format,
        mapping=mapping,
        overrides=pairs(map_),
        extras=True,
        strict=strict,
        lookups=read_lookups(),
    ) as source:
        rows = write_canonical(source, out, keep_refused=keep_refused)
        print(f"{rows:,} rows written to {out}, {len(source.refusals):,} refused")
    commit(log, log_key, lambda: of_tables(out), f"the tables are in {out}")


@app.command()
def sketch(
    logs: Logs,
    out: Annotated[Path, typer.Option("--out", help="Folder for the text-free tables.")],
    format: Format = None,
    mapping: Mapping = None,
    map_: Overrides = None,
    accounts: SideTable = None,
    sanctions: SideTable = None,
    releases: SideTable = None,
    references: SideTable = None,
    rules: Rules = None,
    strict: Strict = False,
    log: LogFile = None,
    log_key: LogKey = None,
) -> None:
    """Write logs without their text: fingerprints instead of prompts, to be scanned elsewhere with the same findings.

    The fingerprints are made with public constants: whoever holds them can tell whether a text that they know occurs.
    """
    ready(log, log_key)
    side = _side(accounts=accounts, sanctions=sanctions, releases=releases, references=references)
    pack = default_rules() if rules is None else load_rules(rules)
    with open_log(
        logs,
        format=format,
        mapping=mapping,
        overrides=pairs(map_),
        side=side,
        strict=strict,
        lookups=read_lookups(),
    ) as source:
        rows = write_canonical(source, out, sketched=True, rules=pack)
        print(f"{rows:,} rows without text written to {out}, {len(source.refusals):,} refused")
    commit(log, log_key, lambda: of_tables(out), f"the tables are in {out}")


@app.command()
def demo(out: Annotated[Path, typer.Option("--out", help="Folder for the demo.")] = Path("demo-out")) -> None:
    """Compose two weeks of a small provider, scan them, and show what was found."""
    results, log = out / "results", out / "log"
    refuse_existing(results, force=True)
    if (log / "truth" / "groups.parquet").is_file():  # the log of an earlier demo, and of nothing else
        shutil.rmtree(log)
    print("Composing two weeks of a small provider (synthetic accounts, synthetic text) ...")
    made = arena.make("demo", log)
    print(f"{made.accounts:,} accounts, {made.exchanges:,} exchanges. Scanning ...")
    scanned = _scan_with_progress([str(log)], quiet=False, options=Options())
    _write(scanned, results, True)
    score = arena.score(results, log)
    console = Console()
    console.print(groups_table(scanned.findings))
    right, named = score.precision.hits, score.precision.total
    console.print(
        f"The composer knows the truth: {right} of {named} accounts in campaigns are attackers, "
        f"{score.recall.hits} of {score.recall.total} attackers are in one.",
        highlight=False,
    )
    console.print(f"Log: {log}, report: {results / 'report.html'}", highlight=False, soft_wrap=True)
