"""docs/appeals.md and docs/population.md can be followed line by line, and say what the code has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from stillwatch.campaign.risk import COMPONENTS, CUTS
from stillwatch.cli import main
from stillwatch.report.appeal_told import Letter
from stillwatch.store.appeals import CODES
from stillwatch.store.results import read_results
from tests.report.population_world import written

DOCS = Path(__file__).parents[2] / "docs"
APPEALS, POPULATION = ((DOCS / f"{name}.md").read_text() for name in ("appeals", "population"))


def commands(page: str) -> list[str]:
    return [line for line in page.split("```")[1].splitlines() if line.startswith("stillwatch ")]


def follow(line: str, names: dict[str, str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main([names.get(word, word) for word in shlex.split(line)[1:]])
    said = capsys.readouterr()
    assert not stop.value.code, (line, said.err)
    return said.out


@pytest.fixture
def place(scanned: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """A folder as the page takes for granted, and an account that was acted on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STILLWATCH_GUARD_SECRET", "a secret of the tests, no other")
    key = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
    Path("anna.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    Path("note.txt").write_text("The benchmark is public, and ended in June.")
    Path("letter.toml").write_text(APPEALS.split("```toml")[1].split("```")[0])
    Path("results").symlink_to(scanned[1])
    rows = pq.read_table(scanned[1] / "accounts.parquet").to_pylist()
    return tmp_path, min(row["account_id"] for row in rows if row["verdict"] == "campaign")


def test_the_commands_do_what_the_page_says(
    place: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = commands(APPEALS)
    assert len(lines) == 9
    for line in lines[:-1]:
        said = follow(line, {"ACCOUNT": place[1]}, capsys)
        if line.endswith("--out dossier"):
            assert "Write to appeals@example.com" in Path("dossier/told.txt").read_text()
        if "decide" in line:
            assert said.startswith("reversed: row 1")


@pytest.mark.slow
def test_the_next_scan_names_the_freed_account_nowhere(
    place: tuple[Path, str], scanned: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for line in commands(APPEALS):
        said = follow(line, {"ACCOUNT": place[1], "LOG": str(scanned[0])}, capsys)
    assert "One account was freed by an appeal" in said
    before, after = read_results(scanned[1]), read_results(Path("results-next"))
    named = {row["account_id"] for row in before.accounts.to_pylist() if row["verdict"] == "campaign"}
    now = {row["account_id"] for row in after.accounts.to_pylist() if row["verdict"] != "cleared"}
    assert place[1] in named - now
    # The others are still found; one or two at the edge may go with it.
    assert len(named & now) >= len(named) - 3
    told = [
        part.text
        for group in after.findings.groups
        for part in group.counter_evidence
        if part.signal == "appeal"
    ]
    assert len(told) == 1
    assert "a person has to decide so" in told[0]
    assert after.findings.run.appeals
    assert after.findings.run.config_digest != before.findings.run.config_digest
    # Who checks the numbers later gives the file, too, even if it has grown meanwhile.
    grown = "stillwatch appeal receive other --results results --appeals appeals.jsonl --keys ring.json"
    follow(f"{grown} --campaign g-1", {}, capsys)
    replayed = "stillwatch evidence replay results-next LOG"
    assert "differ" not in follow(f"{replayed} --appeals appeals.jsonl", {"LOG": str(scanned[0])}, capsys)
    with pytest.raises(SystemExit) as stop:
        main(["evidence", "replay", "results-next", str(scanned[0])])
    assert stop.value.code == 2
    assert "had a file of appeals" in capsys.readouterr().err
    shown = follow(
        "stillwatch appeal show ACCOUNT --results results-next --appeals appeals.jsonl --only review",
        {"ACCOUNT": place[1]}, capsys,
    )  # fmt: skip
    assert "What the guard would measure of it now" in shown


def test_the_page_lists_every_reason_and_every_field_of_a_letter() -> None:
    for outcome, codes in CODES.items():
        rows = APPEALS.split(f"| `--outcome {outcome}` | |")[1].split("\n\n")[0]
        assert set(re.findall(r"`([a-z_]+)`", rows)) == set(codes)
    letter = APPEALS.split("```toml")[1].split("```")[0]
    assert set(re.findall(r"^([a-z_]+) =", letter, re.M)) == {f.name for f in msgspec.structs.fields(Letter)}


def test_the_population_page_s_commands_and_points_are_those_of_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = written(tmp_path, {"2026-01": {"low": 9, "high": 8}, "2026-02": {"medium": 7}})
    names = {"results-jan": str(folders[0]), "results-feb": str(folders[1])}
    for line in commands(POPULATION):
        assert "2026-02" in follow(line, names, capsys)
    assert {path.name for path in Path("population").iterdir()} == {
        f"population.{ending}" for ending in ("json", "html", "svg")
    }
    table = POPULATION.split("| component | points | how |")[1].split("\n\n")[0]
    rows = dict(re.findall(r"^\| ([^|-][^|]*) \| 0 to (\d+) \|", table, re.M))
    assert {title: int(most) for title, most in rows.items()} == dict(COMPONENTS.values())
    assert "low below 5, medium from 5, high from 10, critical from 15, of at most 27" in POPULATION
    assert list(CUTS.values()) == [0, 5, 10, 15]
    assert sum(most for _, most in COMPONENTS.values()) == 27
