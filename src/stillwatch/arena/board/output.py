"""The files of a scoreboard, each written in one step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillwatch.arena.board.measure import Place
from stillwatch.arena.board.page import render
from stillwatch.arena.board.tables import Board, markdown
from stillwatch.arena.files import write_text


def write(place: Place, board: Board) -> None:
    """`board.json`, `board.md` and `board.html`, with the searches of adversaries that lie beside them.

    OutputError where the place cannot be written.
    """
    searches = sorted(place.out.glob("adversary-*.json"))
    board = {**board, "adversaries": [json.loads(path.read_text(encoding="utf-8")) for path in searches]}
    files = {
        "board.json": json.dumps(board, indent=2, sort_keys=True) + "\n",
        "board.md": markdown(board),
        "board.html": render(board),
    }
    for name, text in files.items():
        write_text(place.out / name, text)


def keep_search(out: Path, found: Mapping[str, Any]) -> None:
    """Write what an adversary's search has found. OutputError where the place cannot be written."""
    write_text(out / f"adversary-{found['past']}.json", json.dumps(found, indent=2, sort_keys=True) + "\n")
