"""A small transparency log, and what its tests look at."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stillwatch.evidence.keys import Key
from stillwatch.evidence.log import TransparencyLog

KEY, OTHER = (Key(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2))
ORIGIN = "example.com/log"


def ticking() -> Callable[[], datetime]:
    """A clock that goes on a second each time it is asked."""
    at = [datetime(2026, 3, 1, tzinfo=UTC)]

    def clock() -> datetime:
        at[0] += timedelta(seconds=1)
        return at[0]

    return clock


def filled(path: Path, count: int = 12, key: Key = KEY) -> Path:
    """A closed log of `count` events after its first entry."""
    with TransparencyLog.create(path, key, ORIGIN, ticking()) as log:
        log.append_all([("finding", {"group": f"g-{n}", "accounts": n}) for n in range(count)])
    return path


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A log of 13 entries."""
    return filled(tmp_path / "log")


def run_sql(path: Path, *statements: str | tuple[str, tuple[object, ...]]) -> None:
    """Change the file as somebody without the key would."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement) if isinstance(statement, str) else db.execute(*statement)


def events_of(path: Path) -> list[tuple[int, str, bytes | None]]:
    """Number, kind and payload of every entry, as the file has them."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT number, kind, payload FROM entries ORDER BY number").fetchall()
