"""The proving ground: synthetic logs with known truth, and the score of a detector's result files."""

from __future__ import annotations

from stillwatch.arena.field import ALL_OPERATIONS, EVERY_OPERATION
from stillwatch.arena.leak import LeakReport, leak_check
from stillwatch.arena.make import SCENARIOS, make
from stillwatch.arena.parameters import parse_settings
from stillwatch.arena.score import FalseCampaign, Proportion, Score, proportion, render, score
from stillwatch.arena.write import MakeSummary

__all__ = [
    "ALL_OPERATIONS",
    "EVERY_OPERATION",
    "SCENARIOS",
    "FalseCampaign",
    "LeakReport",
    "MakeSummary",
    "Proportion",
    "Score",
    "leak_check",
    "make",
    "parse_settings",
    "proportion",
    "render",
    "score",
]
