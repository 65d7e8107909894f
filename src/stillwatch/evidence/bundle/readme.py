"""`README.txt`: what the archive is, and how a stranger checks it."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Mapping
from typing import Any

WIDTH = 96
FILES = {
    "report.html": "the report for people: what is claimed, how sure it is, what speaks against it",
    "finding.json": "the finding as it was committed to the log, the run, and the keys that accounts share",
    "chapters.json": "every statement of the report with its tag and numbers; other explanations; chain of custody",
    "accounts.json": "the accounts, under pseudonyms, with their bits",
    "counts.json": "who holds how many of which key: what the bits follow from",
    "vectors.json": "null values, reference scores and all p of the run: what p and q follow from",
    "rows.jsonl": "the rows, one a line; each is a leaf of a Merkle tree",
    "log.json": "entries of the transparency log with their proofs",
    "statement.dsse.json": "what is signed: an in-toto statement in a DSSE envelope",
    "verify.py": "checks all of it, offline",
}


def readme(predicate: Mapping[str, Any], files: Mapping[str, bytes]) -> str:
    """The text. `files`: those that are there already, `verify.py` among them."""
    digest = hashlib.sha256(files["verify.py"]).hexdigest()
    parts = [
        f"Evidence of unauthorised coordinated harvesting: campaign {predicate['campaign']}, bundle made "
        f"{predicate['at']}.",
        "Open report.html in a browser; it needs no network, and prints as a document.",
        "TO CHECK IT. You need Python 3.9 or later and its package `cryptography` (pip install cryptography). Take "
        "verify.py out of the archive and run it on the archive:",
        "    unzip BUNDLE.zip verify.py\n    python verify.py BUNDLE.zip --signer KEY --vkey KEY",
        "KEY are the public keys of whoever says that this is their evidence, as they publish them; do not take them "
        "from here. Without them the check says that everything fits together, not whose it is.",
        "A verifier that comes with the evidence could have been made to agree with it. Compare its SHA-256 with the "
        "one that is published with the version of Stillwatch that is named in finding.json, or take it from there "
        "(`stillwatch evidence verifier`):",
        f"    {digest}  verify.py",
        "verify.py says what holds, how each number was checked, and what cannot be checked from "
        "here. It ends with 0 "
        "if everything that it can check holds; else with 1 and the first thing that does not. "
        "It opens no connection "
        "and writes nothing.",
        "WHAT IS IN IT",
        "\n".join(f"    {name:<20} {text}" for name, text in FILES.items()),
        "WHO IS IN IT. Accounts, exchanges and keys stand under pseudonyms: HMACs under a key that only the operator "
        "has. No row is of an account that the finding does not name. There is no prompt, "
        "address or mail domain in it"
        + ("; the blanked wording of prompts is, because it was asked for by name." if predicate["text"] else "."),
        "Rows can be taken out (`stillwatch evidence redact`): their hashes stay, and every proof with them.",
    ]  # fmt: skip
    return (
        "\n\n".join(part if part.startswith("    ") else textwrap.fill(part, WIDTH) for part in parts) + "\n"
    )
