"""The commands. Each reads its options, calls one room and prints; errors become one message and an exit code.

Exit codes: 0 done, 1 unexpected, 2 usage, 3 input, 4 output, 5 results folder, 6 missing extra, 130 Ctrl-C.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stillwatch import arena
from stillwatch.cli.show import explain_text, groups_table, sight_table
from stillwatch.ingest import coverage, open_log, write_canonical
from stillwatch.report.html import render
from stillwatch.scan import Options, Scanned
from stillwatch.scan import scan as run_scan
from stillwatch.schema.errors import StillwatchError, UsageError
from stillwatch.store.results import Results, read_results, refuse_existing, write_results

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Finds and explains unauthorised coordinated harvesting in the request logs of a language model.",
)
arena_app = typer.Typer(
    no_args_is_help=True, help="Synthetic logs with known truth, and the score of a scan."
)
app.add_typer(arena_app, name="arena")

Logs = Annotated[list[str], typer.Argument(help="Files, globs, directories, or - for standard input.")]
Format = Annotated[
    str | None, typer.Option("--format", help="Log format; recognised by content if not given.")
]
Mapping = Annotated[Path | None, typer.Option("--mapping", help="TOML file that maps any log's columns.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--map", help="Column from elsewhere, e.g. account_id=$.auth.customer.")
]
SideTable = Annotated[Path | None, typer.Option(help="Side table (Parquet, JSONL or CSV).")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first row that must be refused.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def main(args: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    try:
        code = app(args=list(args) if args is not None else None, standalone_mode=False)
    except StillwatchError as error:
        print(f"stillwatch: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        print("stillwatch: interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        # Typer's own errors (unknown option, missing argument) know how to show themselves.
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        sys.exit(getattr(error, "exit_code", 2))
    sys.exit(code if isinstance(code, int) else 0)


def _pairs(given: list[str] | None) -> dict[str, str]:
    out = {}
    for text in given or []:
        name, mark, path = text.partition("=")
        if not mark or not name:
            raise UsageError(
                f"--map {text!r} is no COLUMN=PATH", hint="for example --map account_id=$.user.id"
            )
        out[name] = path
    return out


def _side(**tables: Path | None) -> dict[str, str]:
    return {name: str(path) for name, path in tables.items() if path is not None}


def _scan_with_progress(logs: list[str], *, quiet: bool, **options: object) -> Scanned:
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        return run_scan(logs, **options)  # type: ignore[arg-type]
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
            start = began.setdefault(stage, time.monotonic())
            spent = max(1e-9, time.monotonic() - start)
            rate = f"{done / spent:,.0f} rows/s" if stage == "read" else ""
            if total and done:
                rate = f"{(total - done) * spent / done:.0f} s left"
            bars.update(task, description=stage, completed=done, total=total or None, rate=rate)

        return run_scan(logs, progress=show, **options)  # type: ignore[arg-type]


def _write(scanned: Scanned, out: Path, force: bool) -> None:
    write_results(
        out,
        Results(
            scanned.findings,
            scanned.accounts,
            scanned.streams,
            scanned.families,
            scanned.profiles,
            scanned.refusals,
            scanned.run_info,
            render(scanned.findings),
        ),
        force=force,
    )


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
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    strict: Strict = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier results folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """Scan request logs for campaigns."""
    refuse_existing(out, force=force)
    scanned = _scan_with_progress(
        logs,
        quiet=as_json,
        format=format,
        mapping=mapping,
        overrides=_pairs(map_),
        side=_side(accounts=accounts, sanctions=sanctions, releases=releases, references=references),
        strict=strict,
        options=Options(seed=seed),
    )
    _write(scanned, out, force)
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
        console.print(f"{len(scanned.refusals)} rows were refused: see refused.jsonl")
    console.print(f"Results: {out}, for a person: {out / 'report.html'}", highlight=False, soft_wrap=True)


@app.command()
def check(
    logs: Logs,
    format: Format = None,
    mapping: Mapping = None,
    map_: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """The first minute with your own logs: what is filled, which detectors can see, which rows were refused."""
    with open_log(logs, format=format, mapping=mapping, overrides=_pairs(map_)) as log:
        found = coverage(log)
        filled = {name: round(found.percent(name), 1) for name in found.filled}
        refused = [f"{r.file}, row {r.row}: {r.reason}" for r in log.refusals[:10]]
        side = sorted(log.side)
        if as_json:
            print(
                json.dumps(
                    {
                        "rows": found.rows,
                        "refused": found.refused,
                        "passed": found.passed,
                        "filled": filled,
                        "side_tables": side,
                    }
                )
            )
            return
        console = Console()
        passed = f", {found.passed:,} passed over: no exchanges" if found.passed else ""
        console.print(
            f"{found.rows:,} rows read as {log.format}, {found.refused:,} refused{passed}", highlight=False
        )
        for line in refused:
            console.print(f"  {line}", highlight=False)
        console.print(sight_table(filled, log.side))


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
) -> None:
    """Bring logs of any known format to the canonical tables."""
    with open_log(
        logs, format=format, mapping=mapping, overrides=_pairs(map_), extras=True, strict=strict
    ) as log:
        rows = write_canonical(log, out)
        print(f"{rows:,} rows written to {out}, {len(log.refusals):,} refused")


@app.command()
def demo(out: Annotated[Path, typer.Option("--out", help="Folder for the demo.")] = Path("demo-out")) -> None:
    """Compose two weeks of a small provider, scan them, and show what was found."""
    results = out / "results"
    refuse_existing(results, force=True)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
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
    console.print(f"Report: {results / 'report.html'}", highlight=False, soft_wrap=True)


@arena_app.command("make")
def arena_make(
    scenario: Annotated[str, typer.Argument(help=f"One of {', '.join(arena.SCENARIOS)}.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the log and its truth.")],
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    accounts: Annotated[int | None, typer.Option(help="Number of accounts.")] = None,
    exchanges: Annotated[int | None, typer.Option(help="Number of exchanges.")] = None,
    corpora: Annotated[Path | None, typer.Option(help="Parquet file of reference texts.")] = None,
    traces: Annotated[Path | None, typer.Option(help="Folder of recorded arrival rates.")] = None,
) -> None:
    """Write a synthetic log with known truth."""
    made = arena.make(
        scenario, out, seed=seed, accounts=accounts, exchanges=exchanges, corpora=corpora, traces=traces
    )
    print(f"{made.accounts:,} accounts, {made.exchanges:,} exchanges, {made.attackers:,} attackers: {out}")
    try:
        print(arena.leak_check(out) if made.attackers else "no attackers: no leak check")
    except StillwatchError as error:
        print(f"no leak check: {error}")


@arena_app.command("score")
def arena_score(
    results: Annotated[Path, typer.Argument(help="Results folder of a scan.")],
    truth: Annotated[Path, typer.Argument(help="The made log, or its truth folder.")],
    as_json: AsJson = False,
) -> None:
    """Compare a scan with the truth."""
    found = arena.score(results, truth)
    print(json.dumps(found.as_dict()) if as_json else arena.render(found), end="")
