"""The log's ed25519 key (RFC 8032), and how its public half is written for strangers (C2SP signed-note)."""

from __future__ import annotations

import hashlib
import os
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

from stillwatch.schema.errors import InputError, OutputError, Where, unwritable
from stillwatch.store.decisions import ed25519_module, read_private

ED25519 = b"\1"
"""Signature type of the signed-note format."""
COSIGNED = b"\4"
"""That of witnesses, whose signatures carry a time (C2SP tlog-cosignature)."""
NEEDED_FOR = "the transparency log"


class Key:
    """A private ed25519 key. Needs the extra `evidence`."""

    def __init__(self, private: Any) -> None:
        self._private = private
        self.public: bytes = private.public_key().public_bytes_raw()
        """32 bytes."""

    def sign(self, data: bytes) -> bytes:
        """Signature over `data`, 64 bytes."""
        return bytes(self._private.sign(data))


class PublicKey:
    """Checks what a key signed. Needs the extra `evidence`."""

    def __init__(self, public: bytes) -> None:
        """ValueError if these are not the 32 bytes of a key."""
        self._public = _ed25519().Ed25519PublicKey.from_public_bytes(public)

    def signed(self, data: bytes, signature: bytes) -> bool:
        """Whether `signature` is the key's over `data`."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._public.verify(signature, data)
        except InvalidSignature:
            return False
        return True


def _ed25519() -> Any:
    return ed25519_module("evidence", NEEDED_FOR)


def read_key(path: Path) -> Key:
    """The key in a PEM file (PKCS #8, without a passphrase). InputError where there is none."""
    return Key(read_private(path, _ed25519()))


def new_key(path: Path) -> Key:
    """Make a key and write it to `path` (PEM, mode 0600). OutputError if something is there."""
    from_library = _ed25519()
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    private = from_library.Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not replaced in one step: whoever loses a key to another one can sign for that log no more.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise OutputError(
            "there is a file already", where=Where(str(path)), hint="leave --new-key out to use the key in it"
        ) from error
    except OSError as error:
        raise unwritable(error, str(path), "the key") from error
    return Key(private)


def key_id(name: str, public: bytes, kind: bytes = ED25519) -> bytes:
    """The first 4 bytes of SHA-256(name, newline, signature type, key): what a signature line begins with."""
    return hashlib.sha256(name.encode() + b"\n" + kind + public).digest()[:4]


def vkey(name: str, public: bytes, kind: bytes = ED25519) -> str:
    """`name+id+key`, as verifiers are told of a key."""
    return f"{name}+{key_id(name, public, kind).hex()}+{b64encode(kind + public).decode()}"


def read_vkey(text: str, kind: bytes = ED25519) -> tuple[str, bytes]:
    """Name and public key (32 bytes) of a `vkey`. InputError where it is none of that type."""
    name, _, rest = text.strip().partition("+")
    number, _, encoded = rest.partition("+")
    try:
        raw = b64decode(encoded, validate=True)
        public = raw[1:]
        whole = name and raw[:1] == kind and len(public) == 32 and number == key_id(name, public, kind).hex()
    except (ValueError, UnicodeEncodeError):
        whole = False
    if not whole:
        raise InputError(
            "this is no key to verify with" if kind == ED25519 else "this is no key of a witness",
            hint="it is written NAME+ID+KEY, as `stillwatch log verify` prints it"
            if kind == ED25519
            else "it is written NAME+ID+KEY, as the witness publishes it (C2SP tlog-cosignature)",
        )
    return name, public
