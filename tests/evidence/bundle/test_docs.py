"""docs/bundle.md can be followed, line by line; its files, steps and digest are those that there are."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stillwatch.cli import main
from stillwatch.evidence.bundle.readme import FILES
from stillwatch.evidence.bundle.verify import STEPS
from tests.evidence.bundle.conftest import Made

PAGE = (Path(__file__).parents[3] / "docs" / "bundle.md").read_text()
PAGE_OF_EVIDENCE = (Path(__file__).parents[3] / "docs" / "evidence.md").read_text()


def test_the_commands_do_what_the_page_says(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(made.results)
    openssl = PAGE.split("openssl ")[1].split("\n")[0]
    assert openssl == "genpkey -algorithm ed25519 -out sign.pem"
    _write_key(tmp_path / "sign.pem")
    lines = [line for line in PAGE.split("```")[1].splitlines() if line.startswith("stillwatch ")]
    said = {}
    for command in lines:
        words = [
            {"LOG": str(made.log), "CAMPAIGN": made.campaigns[-1]}.get(w, w) for w in shlex.split(command)[1:]
        ]
        with pytest.raises(SystemExit) as stop:
            main(words)
        out = capsys.readouterr()
        assert not stop.value.code, (command, out.err)
        said[words[1]] = out.out
    assert set(said) == {"init", "take", "build", "verify", "redact", "reveal", "verifier"}
    shown = [line.split() for line in PAGE.split("```")[3].strip().splitlines()]
    printed = [line.split() for line in said["verify"].splitlines()]
    assert [line[:2] for line in shown if line[:1] == ["holds"]] == [["holds", step] for step in STEPS]
    assert [line[:2] for line in printed if line[:1] == ["holds"]] == [["holds", step] for step in STEPS]
    assert "2 were taken out" in said["redact"]
    (tmp_path / "row.json").write_text(said["reveal"])
    (tmp_path / "other.json").write_text(said["reveal"].replace('"model": "', '"model": "x'))
    for bundle, row, code, words in (
        ("less.zip", "row.json", 0, "row 3 was revealed, and is the one"),
        ("case.zip", "other.json", 5, "is not the one that was committed to"),
        ("case.zip", "sign.pem", 5, "the revealed row is no JSON"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["evidence", "verify", bundle, "--row", row])
        out = capsys.readouterr()
        assert (stop.value.code or 0, words in out.out + out.err) == (code, True)
    for row, words in (("7", "taken out"), ("9999", "there is no row")):
        call = ["--results", "results", "--inputs", str(made.log), "--keys", "ring.json"]
        with pytest.raises(SystemExit) as stop:
            main(["evidence", "reveal", "less.zip", "--row", row, *call])
        assert stop.value.code == 2
        assert words in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["evidence", "verify", "results/findings.json"])
    assert stop.value.code == 5
    assert "does not hold" in capsys.readouterr().err


def test_the_whole_way_can_be_gone(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The walk of docs/evidence.md, in its order. Its scan is that of the fixture, committed by `log take`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(made.results)
    _write_key(tmp_path / "sign.pem")
    walk = (PAGE_OF_EVIDENCE.split("```")[1]).replace("LOG", str(made.log))
    campaign = made.campaigns[-1]
    rows = pq.read_table(made.results / "accounts.parquet").to_pylist()
    account = next(row["account_id"] for row in rows if row["campaign_id"] == campaign)
    given = {"CAMPAIGN": campaign, "ACCOUNT": account}
    done = []
    for line in walk.splitlines():
        words = [given.get(word, word) for word in shlex.split(line, comments=True)]
        if not words or words[0] == "openssl":
            continue
        done.append(" ".join(words[:3]))
        if words[:2] == ["stillwatch", "scan"]:
            words = ["stillwatch", "log", "take", "audit.log", "results", "--key", "audit.pem"]
        if words[1:3] == ["evidence", "replay"]:
            # A whole scan: that is test_replay's. Here it gets as far as the inputs, which are others.
            assert words[4] == str(made.log)
            words[4] = str(made.results / "streams.parquet")
            with pytest.raises(SystemExit) as stop:
                main(words[1:])
            assert stop.value.code == 3
            assert "that were recorded" in capsys.readouterr().err
            continue
        if words[0] == "unzip":
            with zipfile.ZipFile(words[1]) as archive:
                archive.extractall(words[3])
            continue
        if words[0] == "python":
            ran = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=False)
            assert (ran.returncode, "Everything that can be checked here holds." in ran.stdout) == (0, True)
            continue
        with pytest.raises(SystemExit) as stop:
            main(words[1:])
        said = capsys.readouterr()
        assert not stop.value.code, (line, said.err)
        if words[1:3] == ["evidence", "build"]:
            given["SIGNER"], given["VKEY"] = (row.split(": ")[1] for row in said.out.splitlines()[1:3])
    assert len(done) == 11
    assert (tmp_path / "dossier" / "told.html").exists()


def _write_key(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.from_private_bytes(b"\4" * 32)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def test_the_page_names_every_file() -> None:
    table = PAGE.split("| file | what it holds |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `([\w.]+)`", table, re.MULTILINE)) == {"README.txt", *FILES}
