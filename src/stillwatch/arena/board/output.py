"""`board.json`, `board.md` and `board.html`, each written in one step."""

from __future__ import annotations

import json
import os

from stillwatch.arena.board.measure import Place
from stillwatch.arena.board.page import render
from stillwatch.arena.board.tables import Board, markdown
from stillwatch.schema.errors import unwritable


def write(place: Place, board: Board) -> None:
    """Write the three files. OutputError where the place cannot be written."""
    files = {
        "board.json": json.dumps(board, indent=2, sort_keys=True) + "\n",
        "board.md": markdown(board),
        "board.html": render(board),
    }
    try:
        for name, text in files.items():
            temporary = place.out / f".{name}.{os.getpid()}"
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(place.out / name)
    except OSError as error:
        raise unwritable(error, str(place.out), "the scoreboard") from error
