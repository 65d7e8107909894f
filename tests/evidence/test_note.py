"""Checkpoints and keys as strangers write them: the format's own example, and what is none."""

from __future__ import annotations

import os
import stat
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwatch.evidence.keys import ED25519, PublicKey, new_key, read_key, read_vkey, vkey
from stillwatch.evidence.note import MOST_BYTES, note_of, parse, read_checkpoint, text_of
from stillwatch.schema import InputError, OutputError
from tests.evidence.conftest import KEY, ORIGIN, OTHER

# The example of C2SP tlog-checkpoint.
EXAMPLE = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE"
    "+xeMcTOAYQ8=\n"
)
# The key of Go's checksum database, as its client has it.
SUMDB = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
# A checkpoint that it signed in 2026.
SUMDB_NOTE = (
    "go.sum database tree\n63096908\n8lHrQPRYe4KT4WQ9/Qk8/taKnD6IRHbFgfN7vQE2Y54=\n\n"
    "— sum.golang.org Az3gri/oVBN1jAhNZ/iS+W31psFAWRT20/GyrhpU6taFwulQGetBkH5S7wpGXdS935jiIGiUUAXBVHzT/P6fYhqAmAk=\n"
)


def mine(size: int = 5) -> str:
    return note_of(ORIGIN, size, bytes(32), KEY.public, KEY.sign(text_of(ORIGIN, size, bytes(32))))


def test_a_checkpoint_of_somebody_else_is_read() -> None:
    found = parse(EXAMPLE.encode())
    assert found is not None
    assert (found.origin, found.size, len(found.root)) == ("example.com/behind-the-sofa", 20852163, 32)
    assert found.text.decode() == EXAMPLE.partition("\n\n")[0] + "\n"
    name, public = read_vkey(SUMDB)
    assert vkey(name, public) == SUMDB
    signed = parse(SUMDB_NOTE.encode())
    assert signed is not None
    assert signed.signed_by(name, public)


def test_what_is_written_is_read_and_holds_for_its_key_only() -> None:
    found = parse(mine().encode())
    assert found is not None
    assert found.signed_by(ORIGIN, KEY.public)
    assert not found.signed_by(ORIGIN, OTHER.public)
    assert not found.signed_by("example.com/other", KEY.public)
    # A witness signs, too; an unknown signature does not matter, a false one of ours does.
    witness = f"— witness.example {b64encode(bytes(76)).decode()}\n"
    more = parse((mine() + witness).encode())
    assert more is not None
    assert more.signed_by(ORIGIN, KEY.public)
    forged = parse((mine() + mine(6).split("\n\n")[1]).encode())
    assert forged is not None
    assert not forged.signed_by(ORIGIN, KEY.public)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("\n5\n", "\n05\n"), ("\n5\n", "\n-5\n"), ("\n5\n", "\n5.0\n"), ("\n5\n", "\n\n"),
        ("\n5\n", "\n" + "9" * 5000 + "\n"),
        ("\n5\n", "\n٥\n"), ("\n5\n", "\n9223372036854775807\n"), ("AAAA=", "AA=="), ("AAAA=", "AAAA!"), ("—", "-"),
        ("— example", "—  example"), (ORIGIN + "\n", "\n"), (ORIGIN, "a\tb"), ("\n\n", "\n"), ("=\n", "=\r\n"),
        ("— ", "— a+b"),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_is_none(was: str, becomes: str) -> None:
    assert was in mine()
    assert parse(mine().replace(was, becomes).encode()) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"\xff" * 99,
        mine().encode() + b"x" * MOST_BYTES,
        mine().encode()[:-1],
        mine().encode() * 2,
    ],
)
def test_other_files_are_none(data: bytes) -> None:
    assert parse(data) is None


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
def test_nothing_breaks_the_reader(data: bytes) -> None:
    parse(data)
    parse(mine().encode()[:60] + data)


def test_files_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_checkpoint(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be read"):
        read_checkpoint(tmp_path)
    (tmp_path / "huge").write_bytes(b"a" * (MOST_BYTES + 5))
    with pytest.raises(InputError, match="no checkpoint"):
        read_checkpoint(tmp_path / "huge")


@pytest.mark.parametrize(
    "text",
    ["", "a", "a+b+c", SUMDB[:-1], SUMDB.replace("033d", "133d"), SUMDB.replace("+Ac4", "+Bc4"),
     "+" + SUMDB, SUMDB + "A", f"a\ud800+00000000+{b64encode(ED25519 + bytes(32)).decode()}"],
)  # fmt: skip
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no key to verify with"):
        read_vkey(text)


def test_a_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "log.pem"
    made = new_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key(path).public == made.public
    assert PublicKey(made.public).signed(b"x", read_key(path).sign(b"x"))
    before = path.read_bytes()
    with pytest.raises(OutputError, match="a file already"):
        new_key(path)
    assert path.read_bytes() == before
    if os.getuid():
        path.parent.chmod(0o500)
        with pytest.raises(OutputError):
            new_key(path.parent / "more.pem")
        path.parent.chmod(0o700)
    with pytest.raises(InputError):
        read_key(tmp_path / "none.pem")
