"""docs/watch.md names every option of the command, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main

from stillwatch.cli.main import app

PAGE = Path(__file__).parents[3] / "docs" / "watch.md"


def test_the_page_lists_the_options() -> None:
    command = typer.main.get_command(app).commands["watch"]  # type: ignore[attr-defined]
    known = {name for parameter in command.params for name in parameter.opts if name.startswith("--")}
    table = PAGE.read_text().split("## Options")[1]
    listed = set(re.findall(r"`(--[a-z-]+)`", table))
    assert listed == known - {"--help"}
    used = set(re.findall(r"(?<!`)(--[a-z-]+) ", PAGE.read_text().split("```")[1]))
    assert used <= known | {"--snapshot", "--proxies"}
