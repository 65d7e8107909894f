"""Exit codes and what a person reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stillwatch.cli import main

LINE = '{{"exchange_id": "e{0}", "ts": "2026-03-01T00:00:{0:02d}Z", "account_id": "a{1}", "model": "m"}}\n'


def _run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(args)
    out = capsys.readouterr()
    return int(stop.value.code or 0), out.out, out.err


def _log(folder: Path) -> Path:
    path = folder / "log.jsonl"
    path.write_text("".join(LINE.format(i, i % 3) for i in range(30)))
    return path


def test_check_says_what_is_blind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "check", str(_log(tmp_path)))
    assert code == 0
    assert "30 rows of 3 accounts in 1 file, read as canonical" in out
    assert "blind" in out


def test_a_scan_without_evidence_finds_nothing_and_says_what_would_help(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = _run(capsys, "scan", str(_log(tmp_path)), "--out", str(tmp_path / "out"))
    assert code == 0
    assert "0 reference groups" in out
    assert (tmp_path / "out" / "findings.json").exists()
    code, _, err = _run(capsys, "scan", str(_log(tmp_path)), "--out", str(tmp_path / "out"))
    assert (code, "already exists" in err) == (4, True)
    after = ("--previous", str(tmp_path / "out"))
    code, _, _ = _run(capsys, "scan", str(_log(tmp_path)), "--out", str(tmp_path / "next"), *after)
    assert code == 0
    code, out, _ = _run(capsys, "explain", str(tmp_path / "next"), "a1")
    assert (code, "in none of the 0 groups" in out) == (0, True)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("scan", "nothing.jsonl", "--out", "x"), 3, "no such file"),
        (("scan", "LOG", "--out", "x", "--format", "klingon"), 2, "unknown format"),
        (("scan", "LOG", "--out", "x", "--map", "oops"), 2, "--map"),
        (("scan", "LOG", "--out", "x", "--previous", "LOGDIR"), 5, "findings.json is missing"),
        (("explain", "LOGDIR", "g-1"), 5, "findings.json is missing"),
        (("arena", "make", "moon", "--out", "x"), 2, "no scenario"),
        (("frobnicate",), 2, "frobnicate"),
    ],
)
def test_errors_have_their_code_and_say_what_is_wrong(
    args: tuple[str, ...],
    code: int,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    log = _log(tmp_path)
    given = [str(log) if a == "LOG" else str(tmp_path) if a == "LOGDIR" else a for a in args]
    got, _, err = _run(capsys, *given)
    assert got == code
    assert words in err
    assert not (tmp_path / "x").exists()


def test_the_scoreboard_measures_the_scan_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "board"
    args = ["arena", "run", "--scenarios", "mixed", "--accounts", "400", "--seeds", "1", "--out", str(out)]
    code, text, err = _run(capsys, *args, "--against", "rings")
    assert code == 0, err
    assert "### Methods" in text
    assert "| mixed-400-10000 | stillwatch" in text
    assert "| mixed-400-10000 | rings" in text
    assert "rings: precision" in err
    assert {p.name for p in out.iterdir()} >= {"board.html", "board.json", "board.md", "cells"}
    code, text, err = _run(capsys, *args, "--against", "rings", "--json")
    assert code == 0
    assert "composing" not in err
    assert json.loads(text)["main"] == "stillwatch"
    code, _, err = _run(capsys, *args, "--against", "magic")
    assert (code, "there is no baseline 'magic'" in err) == (2, True)
    code, _, err = _run(capsys, "arena", "run", "--out", str(out), "--seeds", "x")
    assert (code, "names no seeds" in err) == (2, True)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "--version")
    assert code == 0
    assert out.startswith("stillwatch ")
