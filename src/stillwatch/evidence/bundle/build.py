"""Building a bundle: everything is read, checked against the transparency log, pseudonymised, signed and verified."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa

from stillwatch.evidence.bundle import rows as rw
from stillwatch.evidence.bundle.accounts import accounts, named_accounts
from stillwatch.evidence.bundle.archive import SMALLER, fits
from stillwatch.evidence.bundle.chapters import chapters
from stillwatch.evidence.bundle.committed import committed, log_file
from stillwatch.evidence.bundle.counts import counts, measured
from stillwatch.evidence.bundle.custody import custody
from stillwatch.evidence.bundle.page import page
from stillwatch.evidence.bundle.readme import readme
from stillwatch.evidence.bundle.statement import envelope, signer_name, statement
from stillwatch.evidence.bundle.vectors import vectors
from stillwatch.evidence.bundle.verify import Broken, check
from stillwatch.evidence.inputs import sources_of
from stillwatch.evidence.keys import Key
from stillwatch.ingest import open_log
from stillwatch.schema.errors import ResultError, UsageError, Where
from stillwatch.schema.results import Group, Run
from stillwatch.store.pseudonyms import Pseudonyms
from stillwatch.store.public import few, public_group
from stillwatch.store.results import Results, read_proof, read_results, read_scoring

TOO_MUCH = (
    "too much to be computed again here",
    "is too long",
    "too large to be computed again here",
    "too often",
)
"""How `verify.py` ends where it is not the numbers that are wrong, but how many they are."""
LONG = ("counts.json", "vectors.json")
"""Files of numbers: no line for each of them."""
_WORD = re.compile(r"[^\s\"',;:()\[\]{}<>\\/=]+")


@dataclass(frozen=True, slots=True)
class Source:
    """What a bundle is made of."""

    results: Path
    inputs: Sequence[str]
    audit: Path
    """The transparency log."""
    log_key: str = "LOG_KEY_PEM"
    """How the log's key is named in the command that commits what is missing."""
    decisions: Path | None = None
    noted: Sequence[Path] = ()
    """Checkpoints noted earlier: the bundle proves that the log goes on from them."""
    how: Mapping[str, Any] = field(default_factory=dict)
    """`format`, `mapping` and `overrides`, as for the scan."""


def build(
    campaign: str,
    source: Source,
    names: Pseudonyms,
    key: Key,
    at: datetime,
    *,
    partner: str = "",
    show_text: bool = False,
) -> dict[str, bytes]:
    """The files of the bundle. The same arguments and inputs give the same bytes.

    UsageError where there is no such group, ResultError where it is no campaign or is not committed, InputError where
    the inputs are not those of the scan. What was built is verified before it is returned.
    """
    results = read_results(source.results)
    group = _campaign(results, campaign)
    known = committed(source.audit, source.results, campaign, source.log_key, source.decisions)
    scoring = read_scoring(source.results)
    members = measured(scoring, campaign)
    named = named_accounts(results, campaign, members)
    own = _own_families(results, campaign, names)
    run = results.findings.run
    # Of a gateway's account that stands for its users, no row is shown unless the scoring tells whose.
    principals = pa.array(sorted({principal for principal, _ in named}), pa.string())
    with tempfile.TemporaryDirectory(prefix="stillwatch-") as scratch:
        # Of a folder of `watch`, the partitions that the scan read.
        read = sources_of(source.inputs, run, Path(scratch))
        how = {**source.how, "format": source.how.get("format") or read.format}
        with open_log(read.paths, columns=rw.PASSING, **how) as log:
            rw.check_inputs(log, run.inputs)
            states = rw.passed(log, principals)
        with open_log(read.paths, **how) as log:
            places = rw.check_inputs(log, run.inputs)
            chosen = rw.choose(log, places, run.inputs, principals, states, scoring, own, names)
    docs: dict[str, Any] = {
        "accounts.json": accounts(named, members, names),
        "counts.json": counts(scoring, campaign, members, names),
        "finding.json": _finding(source.results, results, group, own, names, show_text),
        "log.json": log_file(source.audit, known, source.noted),
        "vectors.json": vectors(_proof(source.results), campaign),
    }
    docs["chapters.json"] = chapters(docs)
    docs["chapters.json"]["custody"] = custody(len(chosen.lines), chosen.eligible, len(run.inputs))
    files = {name: _json(plain, name in LONG) for name, plain in docs.items()}
    files["rows.jsonl"] = b"".join(line + b"\n" for line in chosen.lines)
    files["verify.py"] = verifier()
    predicate = {
        "campaign": campaign,
        "at": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "signer": signer_name(key),
        "log": {name: docs["log.json"][name] for name in ("vkey", "checkpoint")},
        "rows": {"count": len(chosen.lines), "root": chosen.root.hex(), "eligible": chosen.eligible},
        "pseudonyms": names.key_id,
        "partner": partner,
        "text": show_text,
    }
    files["report.html"] = page(docs, predicate, files).encode()
    files["README.txt"] = readme(predicate, files).encode()
    files["statement.dsse.json"] = envelope(statement(files, predicate), key)
    _no_names(files, results, [principal for principal, _ in named])
    _verified(files)
    return files


def verifier() -> bytes:
    """The stand-alone verifier, as it goes into every bundle."""
    return resources.files("stillwatch.evidence.bundle").joinpath("verify.py").read_bytes()


def _json(plain: Any, dense: bool = False) -> bytes:
    how: dict[str, Any] = {"separators": (",", ":")} if dense else {"indent": 1}
    return (json.dumps(plain, sort_keys=True, ensure_ascii=False, **how) + "\n").encode()


def _campaign(results: Results, campaign: str) -> Group:
    for group in results.findings.groups:
        if group.id == campaign and group.verdict == "campaign":
            return group
        if group.id == campaign:
            raise ResultError(
                f"{campaign} is a {'lead' if group.verdict == 'lead' else 'cleared group'}, no campaign: "
                "only what is fit for action is fit for evidence",
                hint=f"`stillwatch explain RESULTS {campaign}` says what is missing",
            )
    raise UsageError(
        "these results have no group of that id",
        hint="`stillwatch scan --previous` keeps ids; the report lists them",
    )


def _proof(folder: Path) -> dict[str, pa.Table] | None:
    """None for results that were made before these tables were kept."""
    if not (folder / "proof_tests.parquet").exists():
        return None
    return read_proof(folder)


def _own_families(results: Results, campaign: str, names: Pseudonyms) -> dict[str, str]:
    rows = results.streams.to_pylist()
    ids = {row["family_id"] for row in rows if row["campaign_id"] == campaign}
    return {family: names.of("key", family) for family in sorted(ids)}


def _finding(
    folder: Path, results: Results, group: Group, own: Mapping[str, str], names: Pseudonyms, show_text: bool
) -> dict[str, Any]:
    """`finding.json`: the finding in the form that was committed, its keys under pseudonyms, and the run."""
    raw = next(
        g for g in json.loads((folder / "findings.json").read_bytes())["groups"] if g["id"] == group.id
    )
    keys = [
        {
            "view": part["kind"],
            "key": names.of("key", key["key"]),
            **{name: key[name] for name in ("key_kind", "group_count", "group_total", "background_total")},
            "background_count": None if few(key["background_count"]) else key["background_count"],
        }
        for part in raw["evidence"]
        for key in part["keys"]
    ]
    families = [
        {
            "family": own[row["family_id"]],
            "part": row["part"],
            "capability": row["capability"],
            **({"skeleton": row["skeleton"]} if show_text else {}),
        }
        for row in results.families.to_pylist()
        if row["family_id"] in own
    ]
    return {
        "group": public_group(raw),
        "keys": sorted(keys, key=lambda key: (key["view"], -key["group_count"], key["key"])),
        "families": sorted(families, key=lambda family: family["family"]),
        "run": _run(results.findings.run),
    }


def _run(run: Run) -> dict[str, Any]:
    plain = {
        name: getattr(run, name)
        for name in ("version", "config_digest", "seed", "accounts", "exchanges", "refused", "first_ts", "last_ts",
                     "candidates", "confirmed", "references", "references_needed", "p_min", "reach", "previous")
    }  # fmt: skip
    return plain | {
        "inputs": [
            {"sha256": entry.digest, "rows": entry.rows, "format": entry.format} for entry in run.inputs
        ],
        "sight": [{"detector": s.detector, "state": s.state, "reason": s.reason} for s in run.sight],
        "tables": [{"name": table.name, "rows": table.rows, "sha256": table.digest} for table in run.tables],
        "side": [{"name": table.name, "rows": table.rows, "sha256": table.digest} for table in run.side],
        "releases": [{"ts": event.ts, "text": event.text} for event in run.releases],
    }


def _no_names(files: Mapping[str, bytes], results: Results, principals: Sequence[str]) -> None:
    """The last look before anything leaves: no account of any group stands in it by its own name."""
    raw = set(principals) | set(results.accounts.column("account_id").to_pylist())
    for name, data in files.items():
        if name == "verify.py":
            continue
        if not raw.isdisjoint(_WORD.findall(data.decode())):
            raise ResultError(
                f"an account's own id stands in {name}; nothing was written",
                where=Where(name),
                hint="the reason of a decision, or the name of a release, may hold it",
            )


def _verified(files: dict[str, bytes]) -> None:
    """What a stranger would find. ResultError if anything does not hold, OutputError if it is too large."""
    fits(files)
    try:
        check(files)
    except Broken as error:
        raise ResultError(
            f"the bundle does not hold, so it was not written: {error}",
            hint=SMALLER
            if str(error).endswith(TOO_MUCH)
            else "the results may be of another version of this program: scan again",
        ) from error
