"""The key ring: pseudonyms that nobody can trace without it, keys apart, kept, rotated and destroyed."""

from __future__ import annotations

import hashlib
import hmac
import json
import stat
import threading
from base64 import b32encode
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwatch.schema.errors import InputError, OutputError, StillwatchError, UsageError
from stillwatch.store.pseudonyms import MOST_BYTES, KeyRing, Pseudonyms

SECRET = bytes(range(32))


def clock() -> datetime:
    return datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing.create(tmp_path / "ring.json", clock)


def test_a_pseudonym_is_the_hmac_that_the_docstring_names(ring: KeyRing) -> None:
    names = ring.agree("share", "acme", SECRET)
    mac = hmac.new(SECRET, b"share\0account\0acct-7", hashlib.sha256).digest()
    assert names.digest("account", b"acct-7") == mac
    text = b32encode(mac[:16]).decode().rstrip("=").lower()
    assert names.of("account", "acct-7") == f"account-{names.key_id}-{text}"
    assert len(text) == 26


def test_kinds_purposes_and_partners_never_meet(ring: KeyRing) -> None:
    one = ring.names("share", "acme")
    others = [ring.names("share", "globex"), ring.names("bundle", "acme"), ring.names("share")]
    assert len({n.digest("account", b"a") for n in (one, *others)}) == 4
    assert one.digest("account", b"a") != one.digest("exchange", b"a")
    same = Pseudonyms("00000000", "bundle", one.secret)
    assert same.digest("account", b"a") != one.digest("account", b"a")


@given(st.text(max_size=20), st.text(max_size=20))
def test_different_values_have_different_pseudonyms(a: str, b: str) -> None:
    names = Pseudonyms("00000000", "share", SECRET)
    assert (names.of("account", a) == names.of("account", b)) == (a == b)


def test_the_key_is_made_once_and_kept(ring: KeyRing) -> None:
    made = ring.names("bundle")
    assert KeyRing.read(ring.path).names("bundle") == made
    assert stat.S_IMODE(ring.path.stat().st_mode) == 0o600
    assert made.secret.hex() not in repr(made)


def test_processes_that_ask_at_once_get_one_key(ring: KeyRing) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(KeyRing.read(ring.path).names("share").key_id))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(found))) == (8, 1)


def test_rotation_leaves_old_pseudonyms_tellable(ring: KeyRing) -> None:
    old = ring.names("share", "acme")
    new = ring.rotate("share", "acme")
    assert ring.names("share", "acme") == new != old
    assert ring.every("share", "acme") == [new, old]
    assert ring.rotate("share", "acme") == ring.every("share", "acme")[0]
    assert ring.every("share", "acme")[1:] == [new, old]


def test_a_destroyed_key_is_gone_from_the_file_and_from_its_old_blocks(ring: KeyRing, tmp_path: Path) -> None:
    old = ring.names("share", "acme")
    ring.names("bundle")
    before = tmp_path / "still-open"
    before.hardlink_to(ring.path)
    ring.destroy(old.key_id)
    assert old.secret.hex() not in ring.path.read_text()
    assert set(before.read_bytes()) == {0}
    assert ring.every("share", "acme") == []
    assert ring.names("share", "acme").key_id != old.key_id
    assert [k.destroyed is not None for k in ring.rows()] == [True, False, False]
    with pytest.raises(UsageError, match="no such key"):
        ring.destroy(old.key_id)


def test_both_sides_of_an_agreed_key_name_it_alike(ring: KeyRing, tmp_path: Path) -> None:
    theirs = KeyRing.create(tmp_path / "theirs.json").agree("fingerprint", "us", SECRET)
    ours = ring.agree("fingerprint", "them", SECRET)
    assert ours == theirs
    assert ours.digest("posting", b"x") == theirs.digest("posting", b"x")
    with pytest.raises(UsageError, match="already"):
        ring.agree("fingerprint", "others", SECRET)
    assert [key.retired for key in ring.rows()] == [None]


@pytest.mark.parametrize(
    ("purpose", "partner"), [("fun", ""), ("share", "a/b"), ("share", "é"), ("share", "x" * 65)]
)
def test_odd_purposes_and_partners_are_refused(ring: KeyRing, purpose: str, partner: str) -> None:
    before = ring.path.read_bytes()
    with pytest.raises(UsageError):
        ring.names(purpose, partner)
    assert ring.path.read_bytes() == before


def test_odd_kinds_and_short_keys_are_refused(ring: KeyRing) -> None:
    with pytest.raises(UsageError, match="kind"):
        ring.names("share").of("a\0b", "x")
    with pytest.raises(UsageError, match="32 bytes"):
        ring.agree("share", "acme", b"short")


def test_a_ring_is_never_replaced(ring: KeyRing) -> None:
    with pytest.raises(OutputError, match="never replaced"):
        KeyRing.create(ring.path)


def _changed(plain: dict[str, object], **key: object) -> bytes:
    keys = [{**plain["keys"][0], **key}]  # type: ignore[index]
    return json.dumps({**plain, "keys": keys}).encode()


def test_a_hostile_file_is_refused_in_words(ring: KeyRing) -> None:
    ring.names("share")
    plain = json.loads(ring.path.read_bytes())
    row = plain["keys"][0]
    hostile = [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"[" * 100_000,
        b" " * (MOST_BYTES + 1),
        json.dumps({**plain, "version": 2}).encode(),
        json.dumps({**plain, "more": 1}).encode(),
        json.dumps({**plain, "keys": [row, row]}).encode(),
        json.dumps({**plain, "keys": [row, {**row, "id": "0" * 8}]}).encode(),
        _changed(plain, secret="00"),
        _changed(plain, secret="zz" * 32),
        _changed(plain, secret=None),
        _changed(plain, id="../../etc"),
        _changed(plain, purpose="fun"),
        _changed(plain, partner="a\u001b[2J"),
        _changed(plain, created="yesterday"),
        _changed(plain, destroyed="2026-03-01T00:00:00Z"),
    ]
    for data in hostile:
        ring.path.write_bytes(data)
        with pytest.raises(InputError) as caught:
            KeyRing.read(ring.path)
        assert row["secret"] not in str(caught.value)
        assert "\x1b" not in str(caught.value)


def test_a_full_disk_leaves_the_ring_as_it_was(ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    ring.names("share")
    before = ring.path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stillwatch.store.files.os.fsync", full)
    with pytest.raises(StillwatchError):
        ring.rotate("share")
    assert ring.path.read_bytes() == before
    assert [p.name for p in ring.path.parent.iterdir() if p.name.endswith("-")] == []
