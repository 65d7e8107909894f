"""`stillwatch evidence build`, `verify`, `redact`, `verifier`: bundles for a third party."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

import typer

from stillwatch.cli.options import Format, Mapping, Overrides, now_or, pairs
from stillwatch.evidence.bundle import archive
from stillwatch.evidence.bundle.build import Source, build, verifier
from stillwatch.evidence.bundle.redact import redacted
from stillwatch.evidence.bundle.reveal import revealed
from stillwatch.evidence.bundle.verify import Broken, check, printable, report
from stillwatch.evidence.keys import read_key
from stillwatch.schema.errors import BundleError, Where
from stillwatch.store.decisions import ed25519_module
from stillwatch.store.files import write_whole
from stillwatch.store.pseudonyms import KeyRing
from stillwatch.store.results import read_findings

Bundle = Annotated[Path, typer.Argument(help="A bundle.")]
Out = Annotated[Path, typer.Option("--out", help="The new bundle; it must not exist.")]


def build_command(
    campaign: Annotated[str, typer.Argument(help="A campaign's id (g-...).")],
    results: Annotated[Path, typer.Option("--results", help="Results folder of the scan.")],
    inputs: Annotated[
        list[str],
        typer.Option("--inputs", help="The log that was scanned, or a folder of `watch`. May be repeated."),
    ],
    log: Annotated[Path, typer.Option("--log", help="The transparency log that the scan was committed to.")],
    keys: Annotated[Path, typer.Option("--keys", help="The key ring (`stillwatch keys init`).")],
    key: Annotated[Path, typer.Option("--key", help="The private ed25519 key (PEM) that signs the bundle.")],
    out: Out,
    decisions: Annotated[
        Path | None,
        typer.Option("--decisions", help="File of decisions, if there are any about the campaign."),
    ] = None,
    noted: Annotated[
        list[Path] | None,
        typer.Option(
            "--noted", help="Checkpoint noted earlier, from which the log goes on. May be repeated."
        ),
    ] = None,
    partner: Annotated[
        str, typer.Option("--partner", help="For whom it is: pseudonyms of two partners cannot be joined.")
    ] = "",
    at: Annotated[
        str | None,
        typer.Option("--at", help="When the bundle is made, as 2026-11-26T12:00:00Z; now if not given."),
    ] = None,
    show_text: Annotated[
        bool, typer.Option("--show-text", help="Put the blanked wording of its prompt families in, too.")
    ] = False,
    format: Format = None,
    mapping: Mapping = None,
    map_: Overrides = None,
) -> None:
    """Build the bundle of one campaign, and verify it."""
    archive.refuse_existing(out)
    signer = read_key(key)
    source = Source(
        results=results,
        inputs=inputs,
        audit=log,
        decisions=decisions,
        noted=noted or (),
        how={"format": format, "mapping": mapping, "overrides": pairs(map_)},
    )
    names = KeyRing.read(keys).names("bundle", partner)
    files = build(campaign, source, names, signer, now_or(at), partner=partner, show_text=show_text)
    archive.write(out, files)
    print(
        f"{out}: {out.stat().st_size:,} bytes, {len(files)} files; everything in it that can be checked holds"
    )
    print(f"Who checks it needs your key: {_signer(files)}")
    print(f"and the log's: {_vkey(files)}")


def verify_command(
    bundle: Bundle,
    signer: Annotated[
        str | None,
        typer.Option(
            "--signer", help="Who has to have signed: ed25519:KEY, or a file with it or a PEM public key."
        ),
    ] = None,
    vkey: Annotated[
        str | None, typer.Option("--vkey", help="The transparency log's key, NAME+ID+KEY, or a file with it.")
    ] = None,
    noted: Annotated[
        list[str] | None, typer.Option("--noted", help="A checkpoint that you noted. May be repeated.")
    ] = None,
    row: Annotated[
        list[str] | None, typer.Option("--row", help="A row that was revealed to you. May be repeated.")
    ] = None,
) -> None:
    """Check a bundle as its verify.py does; exit code 5 and the first thing that does not hold where not."""
    _ready()
    try:
        print("\n".join(report(bundle, signer, vkey, noted or [], row or [])))
    except Broken as error:
        raise BundleError(f"does not hold: {printable(str(error))}", where=Where(bundle.name)) from error


def redact_command(
    bundle: Bundle,
    row: Annotated[
        list[int], typer.Option("--row", help="Number of a row of rows.jsonl, from 0. May be repeated.")
    ],
    out: Out,
) -> None:
    """Take rows out of a bundle; their hashes stay, and all proofs hold."""
    _ready()
    archive.refuse_existing(out)
    less = redacted(_holding(bundle), row)
    archive.write(out, less)
    print(f"{out}: {check(less)[0]['rows']}")


def reveal_command(
    bundle: Bundle,
    row: Annotated[int, typer.Option("--row", help="Number of a row of rows.jsonl, from 0.")],
    results: Annotated[Path, typer.Option("--results", help="Results folder of the scan.")],
    inputs: Annotated[
        list[str],
        typer.Option("--inputs", help="The log that was scanned, or a folder of `watch`. May be repeated."),
    ],
    keys: Annotated[Path, typer.Option("--keys", help="The key ring.")],
    partner: Annotated[str, typer.Option("--partner", help="For whom the bundle was made.")] = "",
    format: Format = None,
    mapping: Mapping = None,
    map_: Overrides = None,
) -> None:
    """Print one row of a bundle as the log has it, with its prompt and account, and the salt that proves it."""
    _ready()
    names = KeyRing.read(keys).every("bundle", partner)
    how = {"format": format, "mapping": mapping, "overrides": pairs(map_)}
    run = read_findings(results).run
    print(json.dumps(revealed(_holding(bundle), row, inputs, run, names, how)))


def verifier_command(
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the verifier here; it must not exist.")
    ] = None,
) -> None:
    """Print the SHA-256 of this version's verify.py, to be compared with that of a bundle."""
    data = verifier()
    if out is not None:
        archive.refuse_existing(out)
        write_whole(out, [data], "the verifier")
    print(f"{hashlib.sha256(data).hexdigest()}  {'verify.py' if out is None else out}")


def _holding(bundle: Path) -> dict[str, bytes]:
    """The files of a bundle that holds. InputError where it is no archive of ours, BundleError where it does not."""
    files = archive.read(bundle)
    try:
        check(files)
    except Broken as error:
        raise BundleError(f"does not hold: {printable(str(error))}", where=Where(bundle.name)) from error
    return files


def _ready() -> None:
    """MissingExtraError before the work."""
    ed25519_module("evidence", "checking a bundle")


def _signer(files: dict[str, bytes]) -> str:
    return str(json.loads(files["statement.dsse.json"])["signatures"][0]["keyid"])


def _vkey(files: dict[str, bytes]) -> str:
    return str(json.loads(files["log.json"])["vkey"])
