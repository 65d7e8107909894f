"""The scoreboard: methods against made logs, over seeds, with intervals."""

from stillwatch.arena.board.cells import Cell, parse_seeds, plan
from stillwatch.arena.board.measure import Place, forget, measure, numbers
from stillwatch.arena.board.method import Method
from stillwatch.arena.board.output import keep_search, write
from stillwatch.arena.board.summary import summarise
from stillwatch.arena.board.tables import markdown, search_table

__all__ = [
    "Cell",
    "Method",
    "Place",
    "forget",
    "keep_search",
    "markdown",
    "measure",
    "numbers",
    "parse_seeds",
    "plan",
    "search_table",
    "summarise",
    "write",
]
