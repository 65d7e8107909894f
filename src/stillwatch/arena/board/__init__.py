"""The scoreboard: methods against made logs, over seeds, with intervals."""

from stillwatch.arena.board.cells import Cell, parse_seeds, plan
from stillwatch.arena.board.measure import Place, forget, measure, numbers
from stillwatch.arena.board.method import Method
from stillwatch.arena.board.output import write
from stillwatch.arena.board.summary import summarise
from stillwatch.arena.board.tables import markdown

__all__ = [
    "Cell",
    "Method",
    "Place",
    "forget",
    "markdown",
    "measure",
    "numbers",
    "parse_seeds",
    "plan",
    "summarise",
    "write",
]
