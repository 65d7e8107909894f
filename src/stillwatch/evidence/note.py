"""Checkpoints: what a log's tree was at one size, signed. Text that other people's tools read as well.

The format is C2SP tlog-checkpoint in a C2SP signed-note: origin, size, root (base64), an empty line, and signatures.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path

from stillwatch.evidence.keys import COSIGNED, PublicKey, key_id
from stillwatch.schema.errors import InputError, UsageError, Where

MOST_BYTES = 64 << 10
MOST_SIGNATURES = 64
MOST_SIZE = 1 << 62
LAST_TIME = 253_402_300_799
"""The end of the year 9999."""
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint as somebody noted it; not yet verified."""

    origin: str
    size: int
    root: bytes
    text: bytes
    """What is signed."""
    signatures: tuple[tuple[str, bytes, bytes], ...]
    """(key name, key id, signature)."""

    def signed_by(self, name: str, public: bytes) -> bool:
        """Whether a signature is this key's; signatures of other keys (witnesses) do not matter."""
        mine = [sig for who, number, sig in self.signatures if (who, number) == (name, key_id(name, public))]
        key = PublicKey(public)
        return bool(mine) and all(key.signed(self.text, signature) for signature in mine)

    def cosigned_by(self, name: str, public: bytes) -> int | None:
        """When a witness cosigned it (C2SP tlog-cosignature, ed25519): seconds since 1970, the first if several.

        None if none of its cosignatures holds, or one does not.
        """
        mine = [
            sig
            for who, number, sig in self.signatures
            if (who, number) == (name, key_id(name, public, COSIGNED))
        ]
        key, times = PublicKey(public), []
        for signature in mine:
            at = int.from_bytes(signature[:8])
            if len(signature) != 72 or not 0 < at <= LAST_TIME:
                return None
            if not key.signed(b"cosignature/v1\ntime %d\n" % at + self.text, signature[8:]):
                return None
            times.append(at)
        return min(times, default=None)


def text_of(origin: str, size: int, root: bytes) -> bytes:
    """What a checkpoint's signature is over."""
    return f"{origin}\n{size}\n{b64encode(root).decode()}\n".encode()


def note_of(origin: str, size: int, root: bytes, public: bytes, signature: bytes) -> str:
    """The checkpoint with its signature."""
    line = b64encode(key_id(origin, public) + signature).decode()
    return f"{text_of(origin, size, root).decode()}\n\u2014 {origin} {line}\n"


def check_origin(origin: str) -> str:
    """The origin again. UsageError where it cannot name a log."""
    if not re.fullmatch(r"[A-Za-z0-9._/:-]{1,128}", origin):
        raise UsageError(
            f"{origin!a} cannot name a log",
            hint="letters, digits and . _ / : - only, at most 128; for example example.com/stillwatch",
        )
    return origin


def read_checkpoint(path: Path) -> Checkpoint:
    """A noted checkpoint. InputError where the file is none."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"the checkpoint cannot be read: {error.strerror}", where=Where(path.name)
        ) from error
    found = parse(data)
    if found is None:
        raise InputError(
            "this is no checkpoint of a transparency log",
            where=Where(path.name),
            hint="it is what `stillwatch log checkpoint` wrote; C2SP tlog-checkpoint says how it looks",
        )
    return found


def parse(data: bytes) -> Checkpoint | None:
    """The checkpoint in `data`, None if it holds none."""
    body, mark, rest = data.rpartition(b"\n\n")
    if len(data) > MOST_BYTES or not mark or not rest.endswith(b"\n"):
        return None
    try:
        lines, signed = (body.decode() + "\n").split("\n"), rest.decode().split("\n")[:-1]
    except UnicodeDecodeError:
        return None
    if any(ord(sign) < 32 for line in (*lines, *signed) for sign in line):
        return None
    if len(lines) < 4 or not all(lines[:-1]) or not 0 < len(signed) <= MOST_SIGNATURES:
        return None
    if not _SIZE.fullmatch(lines[1]) or int(lines[1]) >= MOST_SIZE:
        return None
    signatures = []
    try:
        root = b64decode(lines[2], validate=True)
        for line in signed:
            dash, name, encoded = line.split(" ")
            raw = b64decode(encoded, validate=True)
            if dash != "\u2014" or not name or "+" in name or len(raw) <= 4:
                return None
            signatures.append((name, raw[:4], raw[4:]))
    except ValueError:
        return None
    if len(root) != 32:
        return None
    return Checkpoint(lines[0], int(lines[1]), root, body + b"\n", tuple(signatures))
