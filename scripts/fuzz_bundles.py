"""Coverage-guided fuzzing of the reader of bundles (atheris): any bytes end in files or in one error.

    make fuzz        # or: python -m scripts.fuzz_bundles [libFuzzer options]

The first byte of an input picks what the rest is: an archive, or one file of a bundle that is otherwise whole and
signed again, so that every check is reached.
"""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import tempfile
from pathlib import Path

import atheris
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

with atheris.instrument_imports(include=["stillwatch.evidence.bundle.verify"]):
    from stillwatch.evidence.bundle import verify

from stillwatch.evidence.bundle import archive
from stillwatch.evidence.bundle.statement import envelope, signer_name, statement
from stillwatch.evidence.keys import Key

FOLDER = Path(tempfile.mkdtemp(prefix="stillwatch-fuzz-"))
KEY = Key(Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
NAMES = (
    "log.json",
    "finding.json",
    "accounts.json",
    "counts.json",
    "vectors.json",
    "chapters.json",
    "rows.jsonl",
)
WHOLE: dict[str, bytes] = {}
"""A bundle that was built, if one is named as `--bundle=FILE`; without it only archives are read."""


def one(data: bytes) -> None:
    """Read one input; whatever it is, it holds or is Broken."""
    if not data:
        return
    with contextlib.suppress(verify.Broken):
        if data[0] % 8 == 7 or not WHOLE:
            path = FOLDER / "b.zip"
            path.write_bytes(data[1:])
            verify.check(verify.unpack(path))
            return
        files = WHOLE | {NAMES[data[0] % 8]: data[1:]}
        payload = base64.b64decode(json.loads(WHOLE["statement.dsse.json"])["payload"])
        plain = json.loads(payload)["predicate"]
        files["statement.dsse.json"] = envelope(statement(files, plain | {"signer": signer_name(KEY)}), KEY)
        verify.check(files)


def seeds() -> list[bytes]:
    """A small archive, and every file of the bundle."""
    plain = {"statement.dsse.json": b"{}", "rows.jsonl": b""}
    return [b"\7" + archive.pack(plain), *(bytes([n]) + WHOLE[name] for n, name in enumerate(NAMES) if WHOLE)]


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--bundle=")]
    for argument in sys.argv[1:]:
        if argument.startswith("--bundle="):
            WHOLE |= verify.unpack(Path(argument.partition("=")[2]))
    if all(argument.startswith("-") for argument in arguments):
        corpus = FOLDER / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(seeds()):
            (corpus / f"{number}").write_bytes(seed)
        arguments.append(str(corpus))
    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()
