"""The key ring under attack: what is left on the disk, what a hostile file makes of it, who reads meanwhile."""

from __future__ import annotations

import json
import os
import stat
import threading
from base64 import b32decode
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from stillwatch.schema.errors import InputError, OutputError, UsageError
from stillwatch.store import pseudonyms
from stillwatch.store.pseudonyms import PURPOSES, KeyRing

GUESSES = [f"acct-{n}" for n in range(2000)]


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing.create(tmp_path / "ring.json", lambda: datetime(2026, 3, 1, tzinfo=UTC))


def test_whoever_has_one_partners_list_can_neither_guess_nor_join(ring: KeyRing) -> None:
    # The last one is of another ring of the same program: nothing is derived from what is public.
    other = KeyRing.create(ring.path.with_name("other.json"))
    many = [
        ring.names("share", "a"),
        ring.names("share", "b"),
        ring.names("bundle"),
        ring.rotate("share", "a"),
    ]
    lists = [{names.of("account", g)[-26:] for g in GUESSES} for names in (*many, other.names("share", "a"))]
    assert all(len(told) == len(GUESSES) for told in lists)
    assert not any(one & two for place, one in enumerate(lists) for two in lists[:place])


def test_128_bits_are_shown_and_all_of_them_count(ring: KeyRing) -> None:
    names = ring.names("share")
    raw = [b32decode(names.of("account", guess)[-26:].upper() + "======") for guess in GUESSES]
    assert {len(value) for value in raw} == {16}
    ones = [sum(value[bit // 8] >> bit % 8 & 1 for value in raw) for bit in range(128)]
    # Each bit is set in half of them: 2,000 tosses leave 1,000 +- 200 in 9 of 10**18 cases.
    assert min(ones) > 800
    assert max(ones) < 1200


def test_kind_and_value_do_not_run_into_each_other(ring: KeyRing) -> None:
    names = ring.names("share")
    pairs = [
        ("account", "x"),
        ("accoun", "tx"),
        ("account", "x\0"),
        ("account", "\0x"),
        ("account", ""),
        ("a", "x"),
    ]
    assert len({names.digest(kind, value.encode()) for kind, value in pairs}) == len(pairs)
    for kind in ("", "Account", "a-b", "a\0b", "a\n", "x" * 33):
        with pytest.raises(UsageError):
            names.of(kind, "x")


def test_no_version_of_the_file_keeps_a_destroyed_key(ring: KeyRing) -> None:
    secret = ring.names("share", "acme").secret.hex().encode()
    # Each of these writes the file anew; what was there stays on the disk unless it is wiped.
    steps: list[Callable[[], Any]] = [
        lambda: ring.names("bundle"), lambda: ring.rotate("share", "acme"), lambda: ring.rotate("bundle"),
        lambda: ring.agree("fingerprint", "acme", os.urandom(32)),
    ]  # fmt: skip
    versions = []
    for number, step in enumerate(steps):
        kept = ring.path.with_name(f"block-{number}")
        kept.hardlink_to(ring.path)
        versions.append(kept)
        assert secret in kept.read_bytes()
        step()
    assert all(set(version.read_bytes()) == {0} for version in versions)
    key_id = next(row.id for row in ring.rows() if row.secret is not None and row.secret.encode() == secret)
    ring.destroy(key_id)
    assert not [path for path in ring.path.parent.iterdir() if secret in path.read_bytes()]


def test_a_destroyed_key_does_not_come_back(ring: KeyRing) -> None:
    names = ring.names("share", "acme")
    ring.destroy(names.key_id)
    with pytest.raises(UsageError, match="already"):
        ring.agree("share", "acme", names.secret)


def test_wiping_reaches_the_disk_after_the_new_file(ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    key, order = ring.names("share"), []
    real_replace, real_fsync = os.replace, os.fsync
    old = ring.path.stat().st_ino

    def replaced(*args: Any) -> None:
        order.append("replaced")
        real_replace(*args)

    def synced(handle: int) -> None:
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            order.append("folder")
        else:
            order.append("wiped" if found.st_ino == old else "new")
        real_fsync(handle)

    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(os, "fsync", synced)
    ring.destroy(key.key_id)
    assert order == ["new", "replaced", "folder", "wiped"]


def test_whoever_reads_meanwhile_reads_one_version_whole(ring: KeyRing) -> None:
    ring.names("share")
    stop, problems, read = threading.Event(), [], []

    def reader() -> None:
        while not stop.is_set():
            try:
                read.append(ring.names("share").key_id)
            except Exception as error:
                problems.append(error)

    threads = [threading.Thread(target=reader) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(25):
        ring.rotate("bundle")
    stop.set()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(set(read)) == 1


def test_a_file_that_says_a_destroyed_key_is_in_use_gives_no_plain_hash(ring: KeyRing) -> None:
    ring.names("share")
    plain = json.loads(ring.path.read_bytes())
    row = plain["keys"][0]
    at = "2026-03-01T00:00:00Z"
    for change in (
        {"secret": None, "destroyed": at, "retired": None},
        {"secret": "", "destroyed": None},
        {"id": "00000000"},
        {"secret": "00" * 32},
    ):
        ring.path.write_text(json.dumps({**plain, "keys": [{**row, **change}]}))
        with pytest.raises(InputError):
            KeyRing.read(ring.path)
    with pytest.raises(ValueError):
        pseudonyms._of(pseudonyms.KeyRow(id="0" * 8, purpose="share", partner="", created=datetime.now(UTC)))


def test_nobody_else_may_read_or_hold_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ring = KeyRing.create(tmp_path / "ring.json")
        ring.names("share")
        ring.rotate("share")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"ring.json": 0o600, ".ring.json.lock": 0o600}


def test_odd_places_are_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        KeyRing.read(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        KeyRing.create(tmp_path / "file" / "ring.json")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    KeyRing.create(tmp_path / "target").names("share")
    secret = json.loads((tmp_path / "target").read_text())["keys"][0]["secret"]
    linked = KeyRing.read(tmp_path / "link")
    linked.destroy(linked.names("share").key_id)
    assert not [path for path in tmp_path.iterdir() if secret.encode() in path.read_bytes()]


def test_the_purposes_are_these() -> None:
    """Each is a key of its own: one more has to be named in docs/privacy.md."""
    assert PURPOSES == ("appeal", "bundle", "erasure", "fingerprint", "share")
