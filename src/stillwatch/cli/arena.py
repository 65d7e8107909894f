"""`stillwatch arena`: synthetic logs with known truth, the score of a scan, and the scoreboard."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from stillwatch import arena
from stillwatch.arena import board
from stillwatch.arena.baselines import baselines
from stillwatch.arena.board import adversary
from stillwatch.cli.contest import measured_version, ours
from stillwatch.schema.errors import StillwatchError, UsageError

arena_app = typer.Typer(
    no_args_is_help=True, help="Synthetic logs with known truth, the score of a scan, and the scoreboard."
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Corpora = Annotated[Path | None, typer.Option(help="Parquet file of reference texts.")]
Traces = Annotated[Path | None, typer.Option(help="Folder of recorded arrival rates.")]


@arena_app.command("make")
def arena_make(
    scenario: Annotated[str, typer.Argument(help=f"One of {', '.join(arena.SCENARIOS)}.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the log and its truth.")],
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    accounts: Annotated[int | None, typer.Option(help="Number of accounts.")] = None,
    exchanges: Annotated[int | None, typer.Option(help="Number of exchanges.")] = None,
    corpora: Corpora = None,
    traces: Traces = None,
    operation: Annotated[
        str | None, typer.Option(help="One operation alone (with the scenarios field, wide and rare).")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help='Its parameters, as in --set "cover=0.75 size=120".')
    ] = None,
) -> None:
    """Write a synthetic log with known truth."""
    made = arena.make(
        scenario,
        out,
        seed=seed,
        accounts=accounts,
        exchanges=exchanges,
        corpora=corpora,
        traces=traces,
        operation=operation,
        settings=arena.parse_settings(settings or []),
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


@arena_app.command("run")
def arena_run(
    out: Annotated[Path, typer.Option("--out", help="Folder of the scoreboard; a run that stopped goes on.")],
    scenarios: Annotated[str, typer.Option(help="Scenarios, as in mixed,field,null.")] = "mixed",
    seeds: Annotated[str, typer.Option(help="A number of seeds, or seeds as in 1-5,51.")] = "5",
    accounts: Annotated[
        str | None, typer.Option(help="Populations, as in 2000,20000; each scenario's own by default.")
    ] = None,
    operation: Annotated[str | None, typer.Option(help="One operation alone.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help='Its parameters, as in --set "cover=0.75 size=120".')
    ] = None,
    against: Annotated[str | None, typer.Option(help="Baselines beside the scan: names, or all.")] = None,
    roads: Annotated[
        bool, typer.Option("--roads", help="Also with 0, 20 and 50 references, and each road alone.")
    ] = False,
    references: Annotated[
        str | None, typer.Option(help="Also with at most so many reference groups, as in 150,500,1000.")
    ] = None,
    found_at: Annotated[
        bool, typer.Option("--found-at", help="Also cut the logs by days: when is each operation found?")
    ] = False,
    logs: Annotated[
        Path | None, typer.Option(help="Keep made logs in this folder, and use those that are there.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what another version has measured.")
    ] = False,
    corpora: Corpora = None,
    traces: Traces = None,
    as_json: AsJson = False,
) -> None:
    """Measure the scan on made logs of several seeds, beside baselines; tables, board.json and board.html."""
    cells = board.plan(
        [name for name in scenarios.split(",") if name],
        board.parse_seeds(seeds),
        accounts=_numbers(accounts, "accounts"),
        operation=operation,
        settings=sorted(arena.parse_settings(settings or []).items()),
    )
    methods = [ours(roads=roads, references=_numbers(references, "references")), *baselines(against)]
    place = board.Place(out, corpora, traces, logs, measured_version())
    if fresh:
        board.forget(place, cells)
    failed = board.measure(
        place,
        cells,
        methods,
        dated=ours() if found_at else None,
        say=lambda text: print(text, file=sys.stderr),
    )
    found = board.summarise(board.numbers(place), methods[0].name)
    board.write(place, found)
    print(json.dumps(found) if as_json else board.markdown(found), end="")
    print(f"Scoreboard: {out / 'board.html'}", file=sys.stderr)
    if failed:
        raise typer.Exit(5)


def _numbers(text: str | None, option: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")] if text else []
    except ValueError:
        found = [-1]
    if any(number < 0 for number in found):
        raise UsageError(f"{text!r} are no numbers for --{option}", hint=f"for example --{option} 2000,20000")
    return found


@arena_app.command("adversary")
def arena_adversary(
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the scoreboard; a search that stopped goes on.")
    ],
    trials: Annotated[int, typer.Option(help="Operations that are tried.")] = 60,
    past: Annotated[
        str, typer.Option(help="What it wants to get past: campaign, or lead (and campaign).")
    ] = "campaign",
    accounts: Annotated[int, typer.Option(help="Accounts of each log.")] = 3_000,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    confirm: Annotated[int, typer.Option(help="New logs on which the cheapest are priced again.")] = 3,
    corpora: Corpora = None,
    traces: Traces = None,
    as_json: AsJson = False,
) -> None:
    """Search operations for the cheapest way past the scan, and print its price."""
    out.mkdir(parents=True, exist_ok=True)
    found = adversary.search(
        ours().run,
        trials=trials,
        accounts=accounts,
        seed=seed,
        past=past,
        confirm=range(900_001 + seed, 900_001 + seed + confirm),
        journal=out / f"adversary-{past}-{accounts}.jsonl",
        corpora=corpora,
        traces=traces,
        say=lambda text: print(text, file=sys.stderr),
    )
    board.keep_search(out, found)
    print(json.dumps(found) if as_json else board.search_table(found), end="")
