"""Whether a scan that is made again is made of what was recorded: inputs, settings, computer, and the log's word."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stillwatch.evidence.entry import Entry
from stillwatch.evidence.read import entries
from stillwatch.evidence.verify import verify
from stillwatch.ingest.read import Log
from stillwatch.scan.partner import TABLE
from stillwatch.schema.errors import InputError, ResultError, UsageError, Where
from stillwatch.schema.results import Run, TableUsed
from stillwatch.store.manifest import read_manifest
from stillwatch.store.owners import accounts_of
from stillwatch.store.rows import read_rows


@dataclass(frozen=True, slots=True)
class Sources:
    """What is to be read again."""

    paths: list[str]
    format: str | None = None
    """Name of the importer, where it is known."""
    side: dict[str, str] = field(default_factory=dict)
    """Side tables by name."""
    absent: int = 0
    """Recorded partitions that the folder no longer holds."""


def sources_of(paths: Sequence[str], run: Run, scratch: Path) -> Sources:
    """The inputs at `paths`; of a folder of `watch` the partitions that the scan read, and its table of owners.

    A table of owners is written to `scratch`. UsageError for standard input, which cannot be read twice.
    """
    if "-" in paths:
        raise UsageError(
            "a replay reads its inputs twice, standard input can be read once", hint="name a file"
        )
    if len(paths) != 1:
        return Sources(list(paths))
    for folder in (Path(paths[0]), Path(paths[0]) / "partitions"):
        manifest = read_manifest(folder / "manifest.json") if folder.is_dir() else None
        if manifest is None:
            continue
        recorded = {entry.digest for entry in run.inputs}
        parts = [part for part in manifest.parts if part.digest in recorded]
        side = {}
        if manifest.owners is not None:
            owners = accounts_of(read_rows(folder / manifest.owners))
            if owners.num_rows:
                side["accounts"] = str(scratch / "owners.parquet")
                pq.write_table(owners, side["accounts"], compression="zstd")
        if not parts:
            raise InputError(
                "this folder holds none of the partitions that were recorded",
                where=Where(str(folder)),
                hint="partitions are deleted with age, and made one when their day is over",
            )
        return Sources(
            [str(folder / part.file) for part in parts], "canonical", side, len(recorded) - len(parts)
        )
    return Sources(list(paths))


def check_inputs(run: Run, log: Log) -> None:
    """InputError unless the opened log and its side tables have the SHA-256 digests that were recorded."""
    recorded = Counter(entry.digest for entry in run.inputs)
    there = Counter(entry.digest for entry in log.inputs)
    for entry in log.inputs:
        if there[entry.digest] > recorded[entry.digest]:
            raise InputError(
                f"this is none of the {len(run.inputs):,} inputs that were recorded: SHA-256 {entry.digest}",
                where=Where(entry.path),
                hint="give the files that the scan was given, unchanged",
            )
    lacking = sorted((recorded - there).elements())
    if lacking:
        raise InputError(
            f"{len(lacking):,} of the {len(run.inputs):,} recorded inputs are not here: SHA-256 {lacking[0]}"
            + (" and others" if len(lacking) > 1 else ""),
            hint="give all files that the scan was given; partitions of `watch` are deleted with age, and made one "
            "when their day is over",
        )
    known = {table.name: table.digest for table in run.side}
    for name in sorted({*known, *log.side_digests}):
        if name not in log.side_digests:
            raise InputError(
                f"the scan had a table of {name}, which is not here", hint=f"give it with --{name}"
            )
        if name not in known:
            raise InputError(f"the scan had no table of {name}", hint="leave it out")
        if known[name] != log.side_digests[name]:
            raise InputError(
                f"the table of {name} is another one: SHA-256 {log.side_digests[name]}, recorded {known[name]}",
                hint=f"give the one that the scan had with --{name}",
            )


def check_settings(run: Run, digest: str, tables: Sequence[TableUsed]) -> None:
    """UsageError unless the configuration's digest is the one that was recorded; says which part it is, if known."""
    if digest == run.config_digest:
        return
    recorded, mine = ({table.name: table.digest for table in side} for side in (run.tables, tables))
    for name in sorted({*recorded, *mine}):
        if recorded.get(name) != mine.get(name):
            what = (
                "another one" if name in recorded and name in mine else "here" if name in mine else "not here"
            )
            raise UsageError(
                f"the lookup table {name} that the scan had is {what}"
                if name in recorded
                else f"there is a lookup table {name}, which the scan did not have",
                hint="give --intel, --keys and --at as the scan was given them"
                if name == TABLE
                else "STILLWATCH_DATA names the folder of lookup tables; `stillwatch data` makes one",
            )
    raise UsageError(
        f"the settings are others than the scan's: configuration {digest}, recorded {run.config_digest}",
        hint="the rule pack is part of them: give --rules as the scan was given it",
    )


def committed(log: Path, run: Run, results: str, key: bytes | None = None) -> Entry:
    """The entry of a transparency log, all of which holds, that committed the scan with these results.

    `results`: their digest; `key`: the public key that has to have signed. ResultError if there is none or it says
    something else about the scan, JournalError if the log does not hold.
    """
    verify(log, key=key)
    for entry in entries(log, kind="scan"):
        told = _told(entry)
        if told.get("results") != results:
            continue
        for name, value in (("version", run.version), ("config", run.config_digest), ("seed", run.seed)):
            if told.get(name) != value:
                raise ResultError(
                    f"the log says something else about the scan's {name}: {told.get(name)}, the results {value}",
                    where=Where(str(log)),
                )
        return entry
    raise ResultError(
        "the transparency log holds no scan with these results",
        where=Where(str(log)),
        hint="they were changed after they were committed, or never were",
    )


def _told(entry: Entry) -> dict[str, Any]:
    """The payload; nothing where it was removed, or is not what Stillwatch writes."""
    try:
        plain = None if entry.payload is None else json.loads(entry.payload)
    except (ValueError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}


def other_computer(recorded: Any, mine: Mapping[str, Any]) -> list[str]:
    """What computed the recorded numbers and does not compute here, in words.

    `recorded`: the content of a `run.json`, which nobody signs and may hold anything.
    """
    out = []
    for name, here in _programs(mine).items():
        was = _programs(recorded).get(name)
        if was is not None and was != here:
            out.append(f"{name} {was}, here {here}")
    return out


def _programs(info: Any) -> dict[str, str]:
    """Name and version of what computes, as `run.json` has it; what is no short plain text is left out."""
    if not isinstance(info, dict):
        return {}
    packages = info.get("packages")
    named = {name: info.get(name) for name in ("python", "machine")}
    named |= packages if isinstance(packages, dict) else {}
    return {
        name: version
        for name, version in sorted(named.items())
        if isinstance(version, str) and len(version) <= 80 and version.isascii() and version.isprintable()
    }
