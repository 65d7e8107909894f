"""Pseudonyms: keyed hashes that stand for accounts and the like in whatever leaves the machine.

HMAC-SHA-256 (RFC 2104) under a random key of its own for each purpose and partner, so that two partners cannot join
what they were given, and neither can test a guess. Keys rotate: a new one is used from then on, old ones still tell
which account an earlier export meant. A key that is destroyed leaves pseudonyms that nobody can trace back to
anything, wherever copies of them lie (crypto-shredding).
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import secrets
from base64 import b32encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from stillwatch.schema.errors import InputError, OutputError, UsageError, Where
from stillwatch.store.files import alone, sync_folder, write_whole

VERSION = 1
MOST_BYTES = 1 << 20
SECRET_BYTES = 32
PURPOSES = ("appeal", "bundle", "erasure", "fingerprint", "share")
"""appeal: accounts in what is noted of appeals; bundle: evidence; erasure: accounts that were forgotten; fingerprint:
families' wording, under a key that both sides have; share: indicators and lists for a partner."""
_PARTNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}|")
_KIND = re.compile(r"[a-z][a-z_]{0,31}")
_ID = re.compile(r"[0-9a-f]{8}")
Clock = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


class KeyRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key of the ring."""

    id: str
    purpose: str
    partner: str
    created: datetime
    retired: datetime | None = None
    """Since when another one is used; old pseudonyms can still be told."""
    destroyed: datetime | None = None
    secret: str | None = None
    """Hex; None once it is destroyed."""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: int
    keys: list[KeyRow]


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Pseudonyms under one key. Its text form says nothing about the key."""

    key_id: str
    """8 hex digits that both sides of an agreed key compute alike."""
    purpose: str
    secret: bytes = field(repr=False)

    def of(self, kind: str, value: str) -> str:
        """The pseudonym of `value`: kind, key id and 128 bits in base32, with `-`. UsageError for an odd kind."""
        text = b32encode(self.digest(kind, value.encode("utf-8", "surrogatepass"))[:16]).decode()
        return f"{kind}-{self.key_id}-{text.rstrip('=').lower()}"

    def digest(self, kind: str, value: bytes) -> bytes:
        """HMAC-SHA-256 over purpose, kind and value, each after a zero byte: 32 bytes."""
        return hmac.digest(self.secret, self.prefix(kind) + value, "sha256")

    def prefix(self, kind: str) -> bytes:
        """What `digest` puts before a value. UsageError for an odd kind."""
        if not _KIND.fullmatch(kind):
            raise UsageError(f"{kind!a} is no kind of thing that has pseudonyms")
        return b"%b\0%b\0" % (self.purpose.encode(), kind.encode())


class KeyRing:
    """The keys, in one file (JSON, mode 0600) that several processes may use.

    Whoever has it can tell whom every pseudonym stands for: it stays with the operator.
    """

    def __init__(self, path: Path, clock: Clock = _now) -> None:
        """The ring in `path`. InputError where there is none."""
        self.path, self._clock = path, clock
        self.rows()

    @classmethod
    def create(cls, path: Path, clock: Clock = _now) -> KeyRing:
        """Make an empty ring. OutputError if something is there: a ring that is lost cannot be made again."""
        with alone(path, "the key ring"):
            if path.exists():
                raise OutputError(
                    "there is a file already", where=Where(str(path)), hint="a key ring is never replaced"
                )
            _write(path, [])
        return cls(path, clock)

    @classmethod
    def read(cls, path: Path, clock: Clock = _now) -> KeyRing:
        """The ring in `path`. InputError where there is none."""
        return cls(path, clock)

    def rows(self) -> list[KeyRow]:
        """All keys that there ever were, oldest first. InputError if the file was damaged."""
        return _read(self.path)

    def names(self, purpose: str, partner: str = "") -> Pseudonyms:
        """Pseudonyms under the current key, which is made and kept when it is first asked for."""
        _check(purpose, partner)
        if (found := _current(self.rows(), purpose, partner)) is not None:
            return _of(found)
        with alone(self.path, "the key ring"):
            keys = self.rows()
            if (found := _current(keys, purpose, partner)) is not None:
                return _of(found)
            return self._add(keys, purpose, partner, secrets.token_bytes(SECRET_BYTES))

    def every(self, purpose: str, partner: str = "") -> list[Pseudonyms]:
        """Pseudonyms under each key that was not destroyed, the current one first."""
        _check(purpose, partner)
        mine = [k for k in self.rows() if (k.purpose, k.partner) == (purpose, partner) and k.secret]
        # The current one was added last.
        return [_of(key) for key in mine[::-1]]

    def partner(self, name: str) -> str:
        """What the transparency log calls a partner: of purpose `share`, for nobody but the ring's owner to tell.

        The key is of no partner in particular, so that the same partner has one name until it is rotated.
        """
        _check("share", name)
        return self.names("share").of("partner", name)

    def rotate(self, purpose: str, partner: str = "") -> Pseudonyms:
        """Use a new random key from now on."""
        return self.agree(purpose, partner, secrets.token_bytes(SECRET_BYTES))

    def agree(self, purpose: str, partner: str, secret: bytes) -> Pseudonyms:
        """Use a key that was agreed on with the partner, from now on. UsageError if it is short or there already."""
        _check(purpose, partner)
        if len(secret) != SECRET_BYTES:
            raise UsageError(
                f"a key has {SECRET_BYTES} bytes, this one {len(secret)}",
                hint="make one with: openssl rand -hex 32",
            )
        with alone(self.path, "the key ring"):
            keys, at = self.rows(), self._clock()
            retired = [
                msgspec.structs.replace(key, retired=at)
                if (key.purpose, key.partner) == (purpose, partner) and key.retired is None
                else key
                for key in keys
            ]
            return self._add(retired, purpose, partner, secret)

    def destroy(self, key_id: str) -> KeyRow:
        """Forget a key for good: what its pseudonyms stand for can be told no more. UsageError if there is none."""
        with alone(self.path, "the key ring"):
            keys = self.rows()
            found = next((key for key in keys if key.id == key_id and key.secret), None)
            if found is None:
                raise UsageError(
                    "there is no such key, or it was destroyed before",
                    hint=f"stillwatch keys list {self.path}",
                )
            at = self._clock()
            gone = msgspec.structs.replace(found, secret=None, destroyed=at, retired=found.retired or at)
            _write(self.path, [gone if key is found else key for key in keys])
            return gone

    def _add(self, keys: list[KeyRow], purpose: str, partner: str, secret: bytes) -> Pseudonyms:
        number = _number(secret)
        if any(key.id == number for key in keys):
            raise UsageError(
                "this key is in the ring already", hint="each purpose and partner needs a key of its own"
            )
        row = KeyRow(id=number, purpose=purpose, partner=partner, created=self._clock(), secret=secret.hex())
        _write(self.path, [*keys, row])
        return _of(row)


def _number(secret: bytes) -> str:
    """The key's id, which both sides of an agreed key compute alike."""
    return hmac.digest(secret, b"stillwatch key id", "sha256").hex()[:8]


def _of(key: KeyRow) -> Pseudonyms:
    if key.secret is None:
        # An HMAC under no key would be a plain hash: `_read` lets no such row through.
        raise ValueError("the key was destroyed")
    return Pseudonyms(key.id, key.purpose, bytes.fromhex(key.secret))


def _current(keys: list[KeyRow], purpose: str, partner: str) -> KeyRow | None:
    mine = [k for k in keys if (k.purpose, k.partner, k.retired) == (purpose, partner, None)]
    return mine[-1] if mine else None


def _check(purpose: str, partner: str) -> None:
    if purpose not in PURPOSES:
        raise UsageError(f"{purpose!a} is no purpose of a key", hint=f"one of {', '.join(PURPOSES)}")
    if not _PARTNER.fullmatch(partner):
        raise UsageError(
            f"{partner!a} cannot name a partner",
            hint="letters, digits and . _ - only, at most 64; a letter first",
        )


def _read(path: Path) -> list[KeyRow]:
    where = Where(path.name)
    try:
        data = _bytes(path)
    except FileNotFoundError as error:
        raise InputError(
            "there is no key ring", where=Where(str(path)), hint=f"stillwatch keys init {path}"
        ) from error
    except OSError as error:
        raise InputError(f"the key ring cannot be read: {error.strerror}", where=where) from error
    try:
        if len(data) > MOST_BYTES:
            raise ValueError
        found = msgspec.json.decode(data, type=_File)
        for key in found.keys:
            _check(key.purpose, key.partner)
            whole = key.secret is None or len(bytes.fromhex(key.secret)) == SECRET_BYTES
            if not whole or not _ID.fullmatch(key.id) or (key.secret is None) != (key.destroyed is not None):
                raise ValueError
            if key.destroyed is not None and key.retired is None:
                raise ValueError
            if key.secret is not None and key.id != _number(bytes.fromhex(key.secret)):
                raise ValueError
        live = [(key.purpose, key.partner) for key in found.keys if key.retired is None]
        if len({key.id for key in found.keys}) != len(found.keys) or len(set(live)) != len(live):
            raise ValueError
    except (msgspec.DecodeError, UnicodeDecodeError, UsageError, ValueError) as error:
        raise InputError(
            "this is no key ring, or it is damaged", where=where, hint="restore it from a copy; never edit it"
        ) from error
    if found.version != VERSION:
        raise InputError(
            f"the key ring has version {found.version}, this program reads {VERSION}", where=where
        )
    return found.keys


def _bytes(path: Path) -> bytes:
    """The file's content; read again if it was replaced meanwhile, because then it may be wiped already."""
    while True:
        with path.open("rb") as handle:
            data = handle.read(MOST_BYTES + 1)
            mine, now = os.fstat(handle.fileno()), path.stat()
        if (mine.st_dev, mine.st_ino) == (now.st_dev, now.st_ino):
            return data


def _write(path: Path, keys: list[KeyRow]) -> None:
    """Replace the file, and wipe the one before, which holds secrets that may be destroyed later."""
    plain = msgspec.json.format(msgspec.json.encode(_File(version=VERSION, keys=keys)), indent=2)
    with _wiping(path) if path.exists() else contextlib.nullcontext():
        write_whole(path, [plain, b"\n"], "the key ring")
        sync_folder(path.parent)


@contextlib.contextmanager
def _wiping(path: Path) -> Iterator[None]:
    """The file that is replaced meanwhile is overwritten, as far as the disk lets a program do that."""
    with path.open("r+b") as old:
        yield
        size = old.seek(0, os.SEEK_END)
        old.seek(0)
        old.write(bytes(size))
        old.flush()
        os.fsync(old.fileno())
