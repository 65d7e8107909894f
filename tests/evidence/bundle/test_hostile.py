"""Bundles from outside are hostile: bombs, tricks with names, damaged JSON, other types. One error, no traceback."""

from __future__ import annotations

import contextlib
import io
import json
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillwatch.evidence.bundle import archive
from stillwatch.evidence.bundle.verify import MOST_FILES, Broken, check, count_tail, main, parse, unpack
from stillwatch.schema.errors import InputError
from tests.evidence.bundle.conftest import Files, Made, signed_again

PLAIN = {"a.json": b"{}", "b.json": b"[1]"}


def zipped(*files: tuple[str, bytes], mode: int = 0o100644, **info: Any) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, data in files:
            one = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            one.create_system, one.external_attr, one.compress_type = 3, mode << 16, zipfile.ZIP_DEFLATED
            for key, value in info.items():
                setattr(one, key, value)
            made.writestr(one, data)
    return out.getvalue()


def refused(data: bytes, tmp_path: Path) -> str:
    path = tmp_path / "b.zip"
    path.write_bytes(data)
    with pytest.raises(Broken) as error:
        unpack(path)
    assert main([str(path)]) == 1
    with pytest.raises(InputError):
        archive.read(path)
    return str(error.value)


def test_hostile_archives(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    good = archive.pack(PLAIN)
    (tmp_path / "b.zip").write_bytes(good)
    assert unpack(tmp_path / "b.zip") == PLAIN
    assert "zip bomb" in refused(zipped(("a", bytes(8 << 20))), tmp_path)
    assert "larger than" in refused(zipped(("a", bytes(40 << 20))), tmp_path)
    for name in ("../a", "/etc/passwd", "a/b", "..", "C:\\a", "\u202etxt", "", "-" * 90):
        assert "odd name" in refused(zipped((name, b"x")), tmp_path)
    assert "odd name" in refused(zipped(("aXb", b"x")).replace(b"aXb", b"a\0b"), tmp_path)
    assert "holds it twice" in refused(zipped(("a", b"x"), ("a", b"y")), tmp_path)
    assert "no plain file" in refused(zipped(("a", b"/etc/passwd"), mode=0o120777), tmp_path)
    assert "no plain file" in refused(zipped(("a", b""), mode=0o040755), tmp_path)
    assert "no plain file" in refused(zipped(("a", b"x"), compress_type=zipfile.ZIP_LZMA), tmp_path)
    assert "more than" in refused(zipped(*((f"f{n}", b"") for n in range(MOST_FILES + 1))), tmp_path)
    assert "hidden" in refused(zipped(("a", b"x"), date_time=(1999, 1, 1, 0, 0, 0)), tmp_path)
    assert "hidden" in refused(zipped(("a", b"x"), extra=b"\xff\xff\4\0abcd"), tmp_path)
    for wrong in (
        b"",
        b"PK",
        good[:-1],
        good[:200],
        b"x" + good,
        good + b"x",
        good[:-2] + b"\1\0c",
        good * 2,
    ):
        refused(wrong, tmp_path)
    # A directory that says other things than what stands before the files.
    central = good.index(b"PK\1\2")
    for at, value in ((8, 1), (20, 9), (24, 99), (42, 7), (16, 3)):
        refused(good[: central + at] + struct.pack("<H", value) + good[central + at + 2 :], tmp_path)
    # A larger count of files than there are; a directory of a gigabyte; more than one disk.
    for at, value in ((12, 9), (10, 9), (18, 1 << 15), (4, 1), (6, 1), (8, 1)):
        refused(good[: -22 + at] + struct.pack("<H", value) + good[-20 + at :], tmp_path)
    with (tmp_path / "b.zip").open("wb") as file:
        file.truncate(40 << 20)
    assert "more than" in refused((tmp_path / "b.zip").read_bytes(), tmp_path)


def test_hostile_json() -> None:
    for text in (
        "NaN", "[Infinity]", "[-Infinity]", "1e999", "[1e305]", "9" * 50, "[" * 100_000, '{"a":' * 100_000,
        '{"a":1,"a":2}', "", "{", "\ufeff{}", "[1,]", "'a'", "nul", "\x00",
    ):  # fmt: skip
        with pytest.raises(Broken):
            parse(text, "x")
    with pytest.raises(Broken):
        parse(b"\xff\xfe", "x")
    assert parse(b'{"a":[1,-2.5,"\\ud800",true,null]}', "x") == {"a": [1, -2.5, "\ud800", True, None]}


NAMES = ("accounts.json", "chapters.json", "counts.json", "finding.json", "log.json", "vectors.json")
JUNK = (
    "null", "true", "false", "0", "-1", "1e-320", "-1e299", "9007199254740993",
    '"x"', '"\\ud800"', '"../x"', "[]", "{}",
    "[[]]", '{"a":{}}', "[0,0,0,0,0]", '""', "0.5", "123456789012345678", '[["a",1],["a",2]]',
)  # fmt: skip


def _replaced(plain: Any, rng: random.Random) -> Any:
    """The document with one place in it, somewhere, filled with junk, or gone."""
    holder = plain
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            return plain
        key = rng.choice(keys)
        if not isinstance(holder[key], dict | list) or not holder[key] or rng.random() < 0.25:
            if rng.random() < 0.2:
                del holder[key]
            else:
                holder[key] = json.loads(rng.choice(JUNK))
            return plain
        holder = holder[key]


@pytest.mark.parametrize("times", [2, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [*NAMES, "rows.jsonl", "statement"])
def test_other_types_anywhere_end_in_one_error_or_hold(made: Made, name: str, times: int) -> None:
    """Signed again, so that every check is reached. What only a person reads may be other words and still hold."""
    files: Files = made.small
    rng = random.Random(name)
    for _ in range(times):
        if name == "statement":
            forged = signed_again(files, change=lambda said: _replaced(said, rng))
        elif name == "rows.jsonl":
            first, _, rest = files[name].partition(b"\n")
            plain = _replaced(json.loads(first), rng)
            forged = files | {name: json.dumps(plain).encode() + b"\n" + rest}
        else:
            plain = _replaced(json.loads(files[name]), rng)
            forged = signed_again(files | {name: json.dumps(plain).encode()})
        with contextlib.suppress(Broken):
            check(forged)


@given(st.binary(max_size=400))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    refused(data, tmp_path)


def test_work_has_an_end(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would take days is refused before it is computed."""
    monkeypatch.setattr("stillwatch.evidence.bundle.verify.MOST_STEPS", 20_000)
    with pytest.raises(Broken, match="bits: there is too much to be computed"):
        check(made.small)
    plain = json.loads(made.small["vectors.json"])
    table = plain["tables"]["proof_direct"]
    table["rows"] = table["rows"] * 20
    monkeypatch.undo()
    with pytest.raises(Broken, match="too long"):
        check(signed_again(made.small | {"vectors.json": json.dumps(plain).encode()}))
    with pytest.raises(Broken, match="too large to be computed"):
        count_tail(10**16 - 1, 1e16, 0, False)
