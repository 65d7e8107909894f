"""`stillwatch evidence`: what others can check of a claim."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from stillwatch.cli.bundle import (
    build_command,
    redact_command,
    reveal_command,
    verifier_command,
    verify_command,
)
from stillwatch.cli.intel import intel_for
from stillwatch.cli.interrupt import Interrupts
from stillwatch.cli.options import Appeals, AsJson, Format, Overrides, SideTable, pairs
from stillwatch.cli.options import Mapping as MappingFile
from stillwatch.evidence.inputs import (
    Sources,
    check_inputs,
    check_settings,
    committed,
    other_computer,
    sources_of,
)
from stillwatch.evidence.keys import read_vkey
from stillwatch.evidence.replay import Comparison, claims_table, compare, renamed
from stillwatch.ingest import open_log
from stillwatch.ingest.lookup import read_lookups
from stillwatch.scan import Options, Scanned
from stillwatch.scan import scan as run_scan
from stillwatch.scan.partner import intel_used
from stillwatch.scan.run import version
from stillwatch.schema.errors import ReplayError, UsageError
from stillwatch.schema.results import Run
from stillwatch.sketch import default_rules, load_rules
from stillwatch.store.results import read_freed, read_proof, read_results, results_digest

evidence_app = typer.Typer(no_args_is_help=True, help="What others can check of a claim.")
evidence_app.command("build")(build_command)
evidence_app.command("verify")(verify_command)
evidence_app.command("redact")(redact_command)
evidence_app.command("reveal")(reveal_command)
evidence_app.command("verifier")(verifier_command)


@evidence_app.command("replay")
def replay(
    results: Annotated[Path, typer.Argument(help="Results folder of a scan.")],
    logs: Annotated[list[str], typer.Argument(help="What the scan was given; or the folder of `watch`.")],
    format: Format = None,
    mapping: MappingFile = None,
    map_: Overrides = None,
    accounts: SideTable = None,
    sanctions: SideTable = None,
    releases: SideTable = None,
    references: SideTable = None,
    appeals: Appeals = None,
    rules: Annotated[
        Path | None, typer.Option("--rules", help="Rule pack (YAML), if the scan was given one.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option("--log", help="Transparency log that has to hold these results.")
    ] = None,
    expected: Annotated[
        str | None,
        typer.Option("--vkey", help="The key that has to have signed it, NAME+ID+KEY, or a file of it."),
    ] = None,
    intel: Annotated[
        Path | None, typer.Option("--intel", help="Store of partners' indicators, if the scan was given one.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="With --intel: the key ring that the scan was given.")
    ] = None,
    at: Annotated[str | None, typer.Option("--at", help="With --intel: as the scan was given it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Scan the recorded inputs again, and compare every number that the claims follow from.

    Exit code 7 and the first difference where one differs; 2 or 3 where inputs or settings are not the recorded ones.
    """
    findings, tables = read_results(results), read_proof(results)
    run = findings.findings.run
    pack, lookups = default_rules() if rules is None else load_rules(rules), read_lookups()
    options = Options(seed=run.seed)
    if (appeals is None) != (run.appeals is None):
        raise UsageError(
            "the scan had a file of appeals" if appeals is None else "the scan had no file of appeals",
            hint="give it with --appeals; it may have grown since" if appeals is None else "leave it out",
        )
    freed = None if appeals is None else read_freed(appeals, run.appeals)
    told = intel_for(intel, keys, at)
    ended = datetime.fromisoformat(run.last_ts)
    used = [*lookups.used, *(intel_used(told.live(int(ended.timestamp()) * 1_000_000)) if told else [])]
    check_settings(run, options.digest(used, pack.digest, run.appeals), used)
    said: list[str] = [_recorded(run)]
    if log is not None:
        key = None
        if expected is not None:
            place = Path(expected)
            key = read_vkey(place.read_text(errors="replace") if place.is_file() else expected)[1]
        entry = committed(log, run, results_digest(results), key)
        said.append(f"{log}: entry {entry.number} committed these results at {entry.time}")
    with tempfile.TemporaryDirectory(prefix="stillwatch-") as scratch:
        sources = sources_of(logs, run, Path(scratch))
        side = sources.side | {
            name: str(path)
            for name, path in (
                ("accounts", accounts),
                ("sanctions", sanctions),
                ("releases", releases),
                ("references", references),
            )
            if path is not None
        }
        reading: dict[str, Any] = {
            "format": format or sources.format,
            "mapping": mapping,
            "overrides": pairs(map_),
            "side": side,
            "lookups": lookups,
        }
        with open_log(sources.paths, **reading) as opened:
            check_inputs(run, opened)
        said.append(_inputs(run))
        if not as_json:
            print("\n".join(said), flush=True)
        scanned = _scan(sources, options, pack, reading | {"freed": freed, "intel": told})
    fresh = scanned.proof | {"claims": claims_table(scanned.findings)}
    recorded = tables | {"claims": claims_table(findings.findings)}
    if run.previous is not None:
        fresh = renamed(fresh, recorded)
    found = compare(recorded, fresh)
    elsewhere = other_computer(findings.run_info, scanned.run_info)
    if run.version != version():
        elsewhere.insert(0, f"stillwatch {run.version}, here {version()}")
    if as_json:
        print(json.dumps(_plain(run, found, elsewhere)))
    else:
        print("\n".join(_lines(found)))
    _judge(found, elsewhere, quiet=as_json)


def _scan(sources: Sources, options: Options, pack: Any, reading: Mapping[str, Any]) -> Scanned:
    with Interrupts() as interrupts:
        scanned = run_scan(
            sources.paths, options=options, rules=pack, progress=lambda *_: interrupts.check(), **reading
        )
        interrupts.check()
    return scanned


def _recorded(run: Run) -> str:
    return (
        f"Recorded by stillwatch {run.version} with seed {run.seed} and configuration {run.config_digest[:12]}, "
        "which is the same here"
    )


def _inputs(run: Run) -> str:
    side = f", and the tables {', '.join(table.name for table in run.side)}" if run.side else ""
    inputs = f"{len(run.inputs):,} input{'' if len(run.inputs) == 1 else 's'}"
    return f"{inputs}{side}: the SHA-256 digests are the recorded ones. Scanning again ..."


def _lines(found: Comparison) -> list[str]:
    wide = max(len(name) for name in found.tables)
    out = []
    for name, table in found.tables.items():
        line = f"{name:<{wide}}  {table.values:>9,} values"
        if table.equal == table.values:
            line += ", all the same" if table.values else ""
        else:
            line += (
                f", {table.equal:,} the same, {table.near:,} but for last digits, {table.differ:,} different"
            )
        out.append(line)
    return out


def _plain(run: Run, found: Comparison, elsewhere: list[str]) -> dict[str, Any]:
    first = found.first
    return {
        "agrees": first is None,
        "version": run.version,
        "seed": run.seed,
        "config_digest": run.config_digest,
        "tables": {
            name: {"values": table.values, "equal": table.equal, "near": table.near, "differ": table.differ}
            for name, table in found.tables.items()
        },
        "first_difference": None if first is None else str(first),
        "elsewhere": elsewhere,
    }


def _judge(found: Comparison, elsewhere: list[str], *, quiet: bool) -> None:
    """Say how it ended. ReplayError where a value differs."""
    total, first = found.total, found.first
    if first is None:
        if not quiet:
            if elsewhere:
                print(f"Recorded by another program or computer: {'; '.join(elsewhere)}")
            if total.values == 0:
                print("These results name no campaign, nor does the scan: there is nothing to compare")
            else:
                print(f"All {total.values:,} values are what the recorded inputs give")
        return
    what = (
        f"{total.near + total.differ:,} of {total.values:,} values are not what the recorded inputs give here"
    )
    if total.differ == 0:
        what += ", all of them only in their last digits"
    reasons = (
        f"Recorded by another program or computer: {'; '.join(elsewhere)}"
        if elsewhere
        else "Inputs, settings, version, packages and processor are the same: the recorded numbers were changed."
    )
    raise ReplayError(f"{what}\n  first: {first}", hint=reasons)
