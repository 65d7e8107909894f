"""docs/sharing.md can be followed line by line; its samples are real, and its table of techniques is whole."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stillwatch.campaign.techniques import ATLAS_VERSION, ATTACK_VERSION, CATALOGUE
from stillwatch.evidence.sharing import FORMATS, TLP, wire
from stillwatch.evidence.sharing.taxii import VARIABLE
from stillwatch.store.results import Results
from tests.evidence.sharing.kit import CAMPAIGN, folder, run
from tests.evidence.sharing.test_outgoing import ANNA, BELA, decided

PAGE = (Path(__file__).parents[3] / "docs" / "sharing.md").read_text()
GOLDEN = Path(__file__).parent / "golden"
PARTS = re.split(r"^```(\w*)\n", PAGE, flags=re.MULTILINE)
BLOCKS = list(zip(PARTS[1::4], PARTS[2::4], strict=True))
"""(language, text) of each block of code."""


def test_the_commands_do_what_the_page_says(
    sample: Callable[..., Results],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder(Path("results"), sample)
    Path("agreed.txt").write_text("ab" * 32 + "\n")
    key = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    Path("our.pem").write_bytes(key)
    decided(Path("decisions.jsonl"), CAMPAIGN, ANNA, BELA)
    lines = [line for _, block in BLOCKS for line in block.splitlines() if line.startswith("stillwatch ")]
    assert len(lines) > 12
    formats: list[str] = []
    for line in lines:
        words = [CAMPAIGN if word == "CAMPAIGN" else word for word in shlex.split(line)[1:]]
        if words[1] in ("push", "pull"):
            # Nobody is at that address; that the options are right is all that can be seen.
            words[words.index("--server") + 1] = "http://127.0.0.1:1/api1/"
            monkeypatch.setattr(wire, "TRIES", 1)
            assert "cannot be reached" in run(capsys, *words, fails=3)
            continue
        run(capsys, *words)
        if "--format" in words:
            formats.append(words[words.index("--format") + 1])
            assert Path(words[words.index("--out") + 1]).stat().st_size > 100
    assert set(formats) == set(FORMATS)
    assert b'"withdrawn"' in Path("list.jsonl").read_bytes()
    assert b"acct-0" in Path("own.jsonl").read_bytes()


def test_the_samples_are_of_the_golden_files() -> None:
    golden = {line.strip().rstrip(",") for path in GOLDEN.iterdir() for line in path.read_text().splitlines()}
    samples = [block for kind, block in BLOCKS if kind == "json" or block.startswith("kind,")]
    assert len(samples) == len(FORMATS)
    for sample in samples:
        for line in sample.splitlines():
            assert line.strip().rstrip(",") in golden


def test_the_table_has_every_technique_as_it_is_named() -> None:
    table = PAGE.split("| id | name | tactic | named where |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in table.splitlines()[2:]]
    assert rows == [[entry.id, entry.name, entry.tactic] for entry in CATALOGUE.values()]
    assert f"MITRE ATLAS {ATLAS_VERSION} and ATT&CK {ATTACK_VERSION}" in PAGE


def test_the_page_names_every_format_label_and_option() -> None:
    table = PAGE.split("| `--format` |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(FORMATS)
    assert f"one of {', '.join(TLP)}" in PAGE
    assert VARIABLE in PAGE
