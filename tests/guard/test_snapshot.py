"""A snapshot is loaded whole or not at all."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from stillwatch.cli import main
from stillwatch.guard import Secret, load, read_secret
from stillwatch.guard.build import build
from stillwatch.guard.keys import read_api_keys
from stillwatch.guard.layout import HEAD, map_snapshot, write_snapshot
from stillwatch.guard.policy import SHADOW, parse_policy
from stillwatch.schema import ColumnError, FormatError, InputError, ResultError, SnapshotError, UsageError
from tests.guard.conftest import SECRET, Scanned


def test_the_same_results_give_the_same_bytes(demo: Scanned, tmp_path: Path) -> None:
    again = demo.made(tmp_path / "again")
    assert again.read_bytes() == demo.path.read_bytes()
    assert again.stat().st_mode & 0o777 == 0o600
    assert demo.snapshot.accounts > 3000
    assert not demo.snapshot.arrays.account_hash.flags.writeable


def test_no_id_is_in_the_file(demo: Scanned) -> None:
    data = demo.path.read_bytes()
    for row in demo.members():
        assert row["account_id"].encode() not in data


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: b"", "too short"),
        (lambda d: d[:100], "too short"),
        (lambda d: b"PAR1" + d[4:], "this is no snapshot"),
        (lambda d: d[:8] + struct.pack("<I", 3) + d[12:], "version 3, this program reads 2"),
        (lambda d: d[:-1], "truncated"),
        (lambda d: d[: len(d) // 2], "truncated"),
        (lambda d: d + b"\0", "has grown"),
        (lambda d: d[:-1] + bytes([d[-1] ^ 1]), "its seal does not match"),
        (lambda d: d[: HEAD + 5] + b"!" + d[HEAD + 6 :], "its seal does not match"),
        (lambda d: d[:24] + struct.pack("<Q", 1 << 40) + d[32:], "its seal does not match"),
        (lambda d: d[:50] + bytes([d[50] ^ 8]) + d[51:], "its seal does not match"),
    ],
)  # fmt: skip
def test_a_damaged_snapshot_is_refused(demo: Scanned, tmp_path: Path, change: object, says: str) -> None:
    path = tmp_path / "snapshot"
    path.write_bytes(change(demo.path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(SnapshotError, match=says) as caught:
        load(path, SECRET)
    assert str(path) in str(caught.value)


def test_every_byte_is_under_the_seal(demo: Scanned, tmp_path: Path) -> None:
    data = bytearray(demo.path.read_bytes())
    path = tmp_path / "snapshot"
    rng = np.random.default_rng(0)
    for at in [*range(0, HEAD, 3), *rng.integers(0, len(data), 30).tolist()]:
        data[at] ^= 0x10
        path.write_bytes(data)
        data[at] ^= 0x10
        with pytest.raises(SnapshotError):
            load(path, SECRET)


def test_another_secret_opens_nothing(demo: Scanned, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="another secret"):
        load(demo.path, Secret(b"another secret of the tests"))
    with pytest.raises(SnapshotError, match="cannot be read"):
        load(tmp_path / "none", SECRET)
    with pytest.raises(SnapshotError, match="cannot be read"):
        load(tmp_path, SECRET)


def test_what_another_program_sealed_is_refused(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "other", {"no": "meta"}, {"key_hash": np.zeros(3)}, SECRET)
    with pytest.raises(SnapshotError, match="header cannot be used"):
        load(tmp_path / "other", SECRET)
    meta, arrays = map_snapshot(tmp_path / "other", SECRET, dict)
    assert meta == {"no": "meta"}
    assert arrays["key_hash"].tolist() == [0, 0, 0]


def test_the_secret_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("0123456789abcdef\n")
    one = read_secret(file)
    assert one == read_secret(None, {"STILLWATCH_GUARD_SECRET": "0123456789abcdef"})
    assert one == read_secret(None, {"STILLWATCH_GUARD_SECRET_FILE": str(file)})
    assert "0123456789abcdef" not in repr(one)
    assert one.account("a") != one.api_key("a")
    with pytest.raises(UsageError, match="needs a secret"):
        read_secret(None, {})
    with pytest.raises(UsageError, match="16 are the least"):
        Secret(b"short")
    file.write_bytes(b"x" * 5000)
    with pytest.raises(InputError, match="longer than"):
        read_secret(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_secret(tmp_path / "none")


def test_results_that_lack_what_the_guard_needs_are_refused(demo: Scanned, tmp_path: Path) -> None:
    for file in demo.results.iterdir():
        if not file.name.startswith("scoring_"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ResultError, match="scan again with this version"):
        build(tmp_path, parse_policy(SHADOW), SECRET)


@pytest.mark.parametrize(
    ("text", "line", "kind", "says"),
    [
        ("account_id\na\n", 1, ColumnError, "needs the columns"),
        ("account_id,key,key_sha256\na,b,c\n", 1, ColumnError, "needs the columns"),
        ("account_id,key\na,sk-1\n,sk-2\n", 3, FormatError, "without account_id or key"),
        ("account_id,key\na\n", 2, FormatError, "without account_id or key"),
        ("account_id,key_sha256\na,sk-1\n", 2, FormatError, "not 64 hex digits"),
    ],
)
def test_a_wrong_table_of_keys_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, kind: type[InputError], says: str
) -> None:
    path = tmp_path / "keys.csv"
    path.write_text(text)
    with pytest.raises(kind, match=says) as caught:
        read_api_keys(path)
    assert caught.value.where is not None
    assert caught.value.where.line == line
    assert "sk-" not in str(caught.value)


def test_the_command_makes_a_snapshot(
    demo: Scanned, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, keys = tmp_path / "snapshot", tmp_path / "keys.csv"
    keys.write_text(
        "account_id,key\n" + "".join(f"{r['account_id']},sk-{i}\n" for i, r in enumerate(demo.members()))
    )

    def run(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(("guard", "snapshot", str(demo.results), "--out", str(out), *args))
        text = capsys.readouterr()
        return int(stop.value.code or 0), text.out, text.err

    monkeypatch.delenv("STILLWATCH_GUARD_SECRET", raising=False)
    assert run()[0] == 2
    monkeypatch.setenv("STILLWATCH_GUARD_SECRET", "a secret of the tests, no other")
    code, text, _ = run("--keys", str(keys), "--accounts", str(demo.log / "accounts.parquet"))
    assert code == 0
    assert "mode shadow" in text
    assert f"{len(demo.members())} API keys" in text
    assert load(out, SECRET).accounts == demo.snapshot.accounts
    (tmp_path / "policy.toml").write_text("version = 1\n[[rule]]\n")
    code, _, err = run("--policy", str(tmp_path / "policy.toml"))
    assert (code, "policy.toml, line 2: " in err) == (3, True)
    assert run("--days", "0")[0] == 2
