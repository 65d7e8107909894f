"""`stillwatch population`: risk tiers and techniques of all accounts that were acted on, by month."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from stillwatch.cli.options import AsJson
from stillwatch.guard.policy import ACTIONS, ALONE
from stillwatch.report.population import Population, Scan, plain, population
from stillwatch.report.population_charts import picture
from stillwatch.report.population_page import (
    HEAD,
    headline,
    notes,
    page,
    table,
    technique_head,
    technique_rows,
)
from stillwatch.schema.errors import UsageError, unwritable
from stillwatch.store.appeals import freed
from stillwatch.store.decisions import read_decisions, spans
from stillwatch.store.files import write_whole
from stillwatch.store.results import read_results, results_digest


def population_command(
    results: Annotated[list[Path], typer.Argument(help="Results folders of scans, in any order.")],
    decisions: Annotated[
        Path | None,
        typer.Option(
            "--decisions", help="File of decisions: who was acted on when; by activity if not given."
        ),
    ] = None,
    appeals: Annotated[
        Path | None, typer.Option("--appeals", help="File of appeals: whom they freed is left out.")
    ] = None,
    by: Annotated[str, typer.Option("--by", help="month.")] = "month",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for population.json, .html and .svg.")
    ] = None,
    internal: Annotated[
        bool,
        typer.Option("--internal", help="Show counts of 1 to 4 accounts, and campaigns: keep it inside."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """How much risk the accounts are that were acted on, and which techniques, month by month, with intervals."""
    if by != "month":
        raise UsageError("--by month is all there is")
    free = set() if appeals is None else freed(appeals)
    # What one person may order is in force from its proposal on.
    alone = frozenset(ACTIONS[: ALONE + 1])
    decided = None if decisions is None else spans(read_decisions(decisions), alone)
    scans: dict[str, Scan] = {}
    for folder in results:
        digest = results_digest(folder)
        scans.setdefault(digest, Scan(read_results(folder), digest))
    found = population(list(scans.values()), decided, freed=free, internal=internal)
    text = json.dumps(plain(found), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    if out is not None:
        _write(out, found, text)
    if as_json:
        print(text, end="")
        return
    _show(found)
    if out is not None:
        print(f"{out}: population.json, population.html, population.svg")


def _write(out: Path, found: Population, text: str) -> None:
    title = (
        "Risk of the accounts acted on"
        if found.counting == "actioned"
        else "Risk of the accounts in campaigns"
    )
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(error, str(out), "the population view") from error
    for name, content in (
        ("population.json", text),
        ("population.html", page(found)),
        ("population.svg", picture(found.months, title)),
    ):
        write_whole(out / name, [content.encode()], "the population view")


def _show(found: Population) -> None:
    console = Console()
    console.print(headline(found), highlight=False)
    if found.months:
        console.print()
        _table(console, HEAD, table(found), 1)
        console.print()
        _table(console, technique_head(found), technique_rows(found), 2)
    console.print()
    for note in notes(found):
        console.print(note, highlight=False)


def _table(console: Console, head: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> None:
    shown = Table(box=None, pad_edge=False)
    for place, name in enumerate(head):
        # Of two words one goes below the other where the terminal is narrow; numbers and months stay whole.
        wraps = " " in name or (place == 1 and words > 1)
        shown.add_column(name, justify="right" if place >= words else "left", no_wrap=not wraps)
    for row in rows:
        shown.add_row(*row)
    console.print(shown, highlight=False)
