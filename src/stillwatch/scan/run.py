"""The public call: logs in, a results folder's content out."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TypedDict, Unpack

import llvmlite.binding as llvm
import numpy as np
import pyarrow as pa

from stillwatch.campaign.freed import Freed
from stillwatch.campaign.lineage import Earlier
from stillwatch.campaign.record import iso
from stillwatch.engine.memory import peak_memory_mib
from stillwatch.ingest import Log, open_log
from stillwatch.ingest.lookup import NO_LOOKUPS, Lookups
from stillwatch.scan.collect import COLUMNS, Collector, Reduced
from stillwatch.scan.conclude import ROADS, conclude
from stillwatch.scan.findings import release_events, tabulate
from stillwatch.scan.inherit import inherited
from stillwatch.scan.judge import Finding, Judged, judge
from stillwatch.scan.partner import Heard, Intel, intel_used, notes_of
from stillwatch.scan.sight import BUSY, Seen, known_accounts, sights, table_sights
from stillwatch.scan.units import align
from stillwatch.schema.errors import EmptyLogError, UsageError
from stillwatch.schema.refusals import Refusal
from stillwatch.schema.results import SCHEMA_VERSION, Findings, InputFile, Run, TableUsed
from stillwatch.schema.tables import SEPARATOR
from stillwatch.sketch import RulePack, default_rules

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How a scan runs. Everything here is part of the configuration digest."""

    seed: int = 0
    roads: tuple[str, ...] = ROADS
    """Roads to the verdict `campaign` that are open; the arena measures each alone."""
    most_references: int | None = None
    """Use at most so many reference groups (the arena measures 0, 20, 50); None: all."""

    def digest(self, tables: Sequence[TableUsed] = (), rules: str = "", appeals: str | None = None) -> str:
        """SHA-256 of the options, of the lookup tables at hand, of the rule pack and of the appeals (both by their
        digests), hex."""
        plain: dict[str, object] = {
            "seed": self.seed,
            "roads": list(self.roads),
            "most_references": self.most_references,
            "rules": rules,
        }
        if tables:
            plain["tables"] = {table.name: table.digest for table in tables}
        if appeals is not None:
            plain["appeals"] = appeals
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a scan found, ready for `store.write_results`."""

    findings: Findings
    accounts: pa.Table
    streams: pa.Table
    families: pa.Table
    profiles: pa.Table
    waterfall: pa.Table
    refusals: list[Refusal]
    run_info: dict[str, object] = field(default_factory=dict)
    scoring: dict[str, pa.Table] = field(default_factory=dict)
    proof: dict[str, pa.Table] = field(default_factory=dict)
    heard: Heard | None = None
    """What became of partners' indicators; None where the scan had none."""


def _silent(stage: str, done: int, total: int) -> None:
    """No progress display."""


def version() -> str:
    """Version of the installed package."""
    try:
        return metadata.version("stillwatch")
    except metadata.PackageNotFoundError:
        return "0+source"


def packages() -> dict[str, str]:
    """Versions of the packages that compute what a scan says."""
    return {name: metadata.version(name) for name in ("igraph", "numba", "numpy", "pyarrow", "scipy")}


def machine() -> str:
    """The kind of processor, as far as compiled code depends on it."""
    return f"{platform.machine()} {llvm.get_host_cpu_name()}"


class How(TypedDict, total=False):
    """How a log is read, beside its paths."""

    format: str | None
    mapping: Path | None
    overrides: Mapping[str, str] | None
    side: Mapping[str, str] | None
    strict: bool
    lookups: Lookups
    """Tables of what is publicly known; the results name them by digest, and say what was lost without them."""
    rules: RulePack
    """The rule pack that tells what requests ask for; that of this version by default."""
    keep_refused: bool
    """List refused rows with their bytes, which may hold anything that a log holds."""
    freed: Freed | None
    """What was decided after appeals; part of the configuration digest."""
    earlier: Earlier | None
    """An earlier scan: groups that go on from its groups keep their ids."""
    intel: Intel | None
    """Indicators of partners; the results name those in force by digest."""
    progress: Progress


def scan(paths: Sequence[str], *, options: Options | None = None, **how: Unpack[How]) -> Scanned:
    """Scan logs (files, globs, directories, `-`), read as `How` says. Writes nothing.

    Raises StillwatchError's kinds.
    """
    return scan_each(paths, [options or Options()], **how)[0]


def scan_each(paths: Sequence[str], settings: Sequence[Options], **how: Unpack[How]) -> list[Scanned]:
    """What `scan` finds with each of several settings of one seed; the log is read and judged once."""
    if len({options.seed for options in settings}) != 1:
        raise UsageError("settings that are measured together have one seed")
    lookups, rules = how.get("lookups", NO_LOOKUPS), how.get("rules") or default_rules()
    progress = how.get("progress", _silent)
    started = time.monotonic()
    marks: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory(prefix="stillwatch-") as folder,
        open_log(
            paths,
            format=how.get("format"),
            mapping=how.get("mapping"),
            overrides=how.get("overrides"),
            side=how.get("side"),
            columns=COLUMNS,
            strict=how.get("strict", False),
            lookups=lookups,
        ) as log,
    ):
        collector = Collector(Path(folder), lookups, rules)
        try:
            rows = _read(log, collector, progress)
            marks["read"] = time.monotonic() - started
            tables = dict(log.side)
            owners = log.owners.table()
            if "accounts" not in tables and owners.num_rows:
                tables["accounts"] = owners
            reduced = collector.finish(tables.get("accounts"))
            freed = how.get("freed")
            units = align(reduced, tables, lookups, frozenset() if freed is None else freed.accounts)
            marks["reduce"] = time.monotonic() - started
            judged = judge(reduced, units, settings[0].seed, progress, how.get("intel"))
            marks["judge"] = time.monotonic() - started
            refusals = log.refusals_with_bytes() if how.get("keep_refused") else list(log.refusals)
            inputs = _inputs(log, rows, refusals)
            side = [
                TableUsed(name=name, rows=log.side[name].num_rows, digest=found)
                for name, found in log.side_digests.items()
            ]
            releases = release_events(tables.get("releases"))
            sight = [*sights(_seen(reduced, tables)), *table_sights(lookups)]
            earlier = how.get("earlier")
            used = [*lookups.used, *intel_used(judged.heard.live if judged.heard else ())]

            def outcome(options: Options) -> Scanned:
                progress("members", 0, 1)
                concluded = conclude(judged, roads=options.roads, most_references=options.most_references)
                progress("skeletons", 0, 1)
                result = tabulate(
                    concluded.judged,
                    concluded.listed,
                    concluded.assigned,
                    tables.get("releases"),
                    log,
                    concluded.honest,
                )
                if earlier is not None:
                    result = inherited(result, earlier)
                marks["members"] = time.monotonic() - started
                compared = concluded.judged.conformal
                run = Run(
                    version=version(),
                    config_digest=options.digest(used, rules.digest, None if freed is None else freed.digest),
                    seed=options.seed,
                    inputs=inputs,
                    accounts=reduced.accounts,
                    exchanges=int(reduced.volume.sum()),
                    refused=len(refusals),
                    first_ts=iso(int(reduced.first_us[reduced.first_us > 0].min())),
                    last_ts=iso(int(reduced.last_us.max())),
                    candidates=judged.candidates,
                    confirmed=len(judged.findings),
                    references=compared.references,
                    references_needed=compared.needed,
                    p_min=compared.p_min,
                    reach=reach(concluded.judged),
                    sight=sight,
                    releases=releases,
                    notes=_notes(concluded.judged, concluded.listed),
                    tables=used,
                    previous=None if earlier is None else earlier.digest,
                    appeals=None if freed is None else freed.digest,
                    side=side,
                )
                info = {
                    "wall_s": round(time.monotonic() - started, 3),
                    "stages_s": {name: round(value, 3) for name, value in marks.items()},
                    "peak_memory_mib": peak_memory_mib(),
                    "paths": [entry.path for entry in log.inputs],
                    "skipped": list(log.skipped),
                    "python": sys.version.split()[0],
                    "machine": machine(),
                    "packages": packages(),
                }
                return Scanned(
                    Findings(schema_version=SCHEMA_VERSION, run=run, groups=result.groups),
                    result.accounts,
                    result.streams,
                    result.families,
                    result.profiles,
                    result.waterfall,
                    refusals,
                    info,
                    result.scoring,
                    result.proof,
                    judged.heard,
                )

            return [outcome(options) for options in settings]
        finally:
            collector.close()


def _read(log: Log, collector: Collector, progress: Progress) -> dict[int, int]:
    """The whole log into the collector; rows by input. EmptyLogError where nothing can be used."""
    rows: dict[int, int] = {}
    for batch in log.batches():
        collector.add(batch)
        numbers = batch.column("raw_ref").field("input").to_numpy(zero_copy_only=False)
        for number, count in zip(*np.unique(numbers, return_counts=True), strict=True):
            rows[int(number)] = rows.get(int(number), 0) + int(count)
        progress("read", collector.rows, 0)
    if collector.rows == 0:
        raise EmptyLogError(
            "no row of the log could be used",
            hint="`stillwatch check` lists why rows were refused; --map or a mapping file may help",
        )
    if collector.rows == collector.own_refusals:
        raise EmptyLogError(
            "every row of the log is a request that Stillwatch itself refused",
            hint="scan a log that also holds the traffic that was let through",
        )
    return rows


def _inputs(log: Log, rows: Mapping[int, int], refusals: Sequence[Refusal]) -> list[InputFile]:
    refused: dict[str, int] = {}
    for refusal in refusals:
        refused[refusal.file] = refused.get(refusal.file, 0) + 1
    return [
        InputFile(
            rows=rows.get(info.number, 0),
            refused=refused.get(info.path, 0),
            digest=info.digest,
            format=info.format,
        )
        for info in log.inputs
    ]


def reach(judged: Judged) -> str:
    """What the references allow, in words."""
    outcome = judged.conformal
    tested = len(outcome.p)
    if outcome.references < 9:
        return (
            f"{outcome.references} reference groups: the road by references is closed (9 are the least). "
            "Mark verified organisations of 8 or more accounts in the accounts table, or list groups in references."
        )
    return (
        f"{outcome.references} reference groups against {tested} groups that a direct test singles out: the "
        f"smallest p is "
        f"{outcome.p_min:.4f}; {outcome.needed} references suffice to name every group that scores above all of them."
    )


def _seen(reduced: Reduced, tables: Mapping[str, pa.Table]) -> Seen:
    """What the log held, for the words on what could not be seen."""
    owners = {name.partition(SEPARATOR)[0] for name in reduced.principals}
    return Seen(
        rows=int(reduced.volume.sum()) + reduced.own_refusals,
        filled=reduced.filled,
        accounts=len(owners),
        busy=int((reduced.volume >= BUSY).sum()),
        known=known_accounts(tables.get("accounts"), owners),
        tables=frozenset(tables),
    )


def _notes(judged: Judged, listed: Sequence[Finding]) -> list[str]:
    notes = []
    reduced = judged.context.reduced
    quiet = len(judged.findings) + len(judged.references) - len(listed)
    if quiet:
        notes.append(
            f"{quiet} coordinated groups are not listed: no direct test fired and no road named them."
        )
    shut = int(judged.context.units.gateway.sum())
    if shut:
        notes.append(
            f"{shut} accounts of registered gateways without verified end users were not judged as accounts."
        )
    free = int(judged.context.units.freed.sum())
    if free:
        count = "One account was" if free == 1 else f"{free:,} accounts were"
        notes.append(f"{count} freed by an appeal, and named in no campaign or lead.")
    if reduced.untagged:
        notes.append(
            f"{reduced.untagged:,} prompts came as sketches with tags of another rule pack than version "
            f"{reduced.rules.version}: what they ask for was not read."
        )
    if judged.heard is not None:
        notes += notes_of(judged.heard)
    return notes
