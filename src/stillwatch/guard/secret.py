"""The operator's secret, and the keyed hashes that stand for accounts, API keys and appeals.

BLAKE2b with a key and a personalisation per purpose (RFC 7693): equal inputs of different purposes never meet, and
without the secret nobody can tell whether an account that they know is in a snapshot. A whole snapshot is sealed by
HMAC-SHA-256 (RFC 2104), which processors have instructions for: BLAKE2b takes three times as long, half of a swap.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from stillwatch.schema.errors import InputError, UsageError, Where

VARIABLE, FILE_VARIABLE = "STILLWATCH_GUARD_SECRET", "STILLWATCH_GUARD_SECRET_FILE"
LEAST_BYTES, MOST_BYTES = 16, 4096
_PURPOSES = ("account", "api-key", "appeal", "check")


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret of at least `LEAST_BYTES` bytes. Its text form says nothing about it."""

    value: bytes = field(repr=False)
    _states: dict[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.value) < LEAST_BYTES:
            raise UsageError(
                f"the guard's secret has {len(self.value)} bytes, {LEAST_BYTES} are the least",
                hint="make one with: openssl rand -hex 32",
            )
        key = hashlib.blake2b(self.value).digest()
        states: dict[str, Any] = {
            name: hashlib.blake2b(key=key, digest_size=8, person=name.encode()) for name in _PURPOSES
        }
        sealing = hashlib.blake2b(key=key, digest_size=32, person=b"snapshot").digest()
        states["snapshot"] = hmac.new(sealing, digestmod=hashlib.sha256)
        object.__setattr__(self, "_states", states)

    def account(self, account_id: str) -> int:
        """Keyed hash of an account's id, 64 bits. Never 0."""
        return self._number("account", account_id.encode("utf-8", "replace"))

    def api_key(self, sha256_hex: str) -> int:
        """Keyed hash of an API key, given by its SHA-256 in hex, 64 bits. Never 0."""
        return self._number("api-key", sha256_hex.lower().encode("utf-8", "replace"))

    def appeal(self, account: int, campaign: str) -> str:
        """Reference under which somebody may appeal: tells nothing to whoever lacks the secret. 16 hex digits."""
        return f"{self._number('appeal', b'%d:' % account + campaign.encode()):016x}"

    def spans(self) -> bytes:
        """The key under which spans hold the hash of a request's input, 32 bytes."""
        key = hashlib.blake2b(self.value).digest()
        return hashlib.blake2b(key=key, digest_size=32, person=b"spans").digest()

    def check(self) -> bytes:
        """Eight bytes by which a snapshot tells whether it was made with this secret."""
        return bytes(self._states["check"].copy().digest())

    def seal(self, *parts: Iterable[bytes | memoryview]) -> bytes:
        """Keyed digest of the parts one after the other, 32 bytes."""
        state = self._states["snapshot"].copy()
        for part in chain.from_iterable(parts):
            state.update(part)
        return bytes(state.digest())

    def _number(self, purpose: str, data: bytes) -> int:
        state = self._states[purpose].copy()
        state.update(data)
        return int.from_bytes(state.digest(), "little") or 1


def read_secret(file: Path | None = None, environment: Mapping[str, str] | None = None) -> Secret:
    """The secret from `file`, else from the environment. UsageError where there is none, InputError if unreadable."""
    env = os.environ if environment is None else environment
    if file is None and env.get(VARIABLE):
        return Secret(env[VARIABLE].strip().encode())
    if file is None and env.get(FILE_VARIABLE):
        file = Path(env[FILE_VARIABLE])
    if file is None:
        raise UsageError(
            "the guard needs a secret",
            hint=f"set {VARIABLE}, or name a file with {FILE_VARIABLE} or --secret-file",
        )
    try:
        with file.open("rb") as handle:
            value = handle.read(MOST_BYTES + 1).strip()
    except OSError as error:
        reason = error.strerror or "it cannot be opened"
        raise InputError(
            f"the file with the secret cannot be read: {reason}", where=Where(file.name)
        ) from error
    if len(value) > MOST_BYTES:
        raise InputError(f"the secret is longer than {MOST_BYTES} bytes", where=Where(file.name))
    return Secret(value)
