"""docs/evidence.md can be followed, line by line, and names every kind of event."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from stillwatch.cli import main
from stillwatch.evidence.database import KEPT
from stillwatch.store.events import APPEALS, KINDS

_FILE = Path(__file__).parents[2] / "docs" / "evidence.md"
PAGE = _FILE.read_text().partition("## The transparency log")[2]  # the walk before it: bundle/test_docs.py


def test_the_commands_do_what_the_page_says(
    scanned: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line for line in PAGE.split("```")[1].splitlines() if line.startswith("stillwatch ")]
    assert len(lines) == 8
    for command in lines:
        words = [str(scanned[0]) if word == "LOG" else word for word in shlex.split(command)[1:]]
        with pytest.raises(SystemExit) as stop:
            main(words)
        said = capsys.readouterr()
        assert not stop.value.code, (command, said.err)
        if words[:2] == ["log", "verify"]:
            shown, printed = PAGE.split("```")[3].strip().splitlines(), said.out.splitlines()
            assert [line.split(" ")[0] for line in printed[2:]] == [line.split(" ")[0] for line in shown[2:]]
            assert printed[1].partition(" ")[2] == shown[1].partition(" ")[2]
            assert re.sub(r"\d+", "", printed[4]) == re.sub(r"\d+", "", shown[4])


def test_the_page_names_every_kind() -> None:
    table = PAGE.split("| kind | payload |")[1].split("\n\n")[0]
    named = set(re.findall(r"`([a-z_]+)`", "".join(row.split("|")[1] for row in table.splitlines() if row)))
    told = {
        "partition",
        "partition_deleted",
        "scan",
        "finding",
        "snapshot",
        "share",
        "intel",
        "deleted",
        "forgotten",
    }
    assert named == {*KEPT, *told, *KINDS.values(), *APPEALS}
