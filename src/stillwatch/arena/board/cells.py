"""What a scoreboard measures: one made log a cell, and the files that its numbers go to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stillwatch.arena.make import SCENARIOS, make
from stillwatch.schema.errors import UsageError


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One log of the arena: everything that its bytes depend on besides the reference texts."""

    scenario: str
    accounts: int
    exchanges: int
    seed: int
    operation: str = ""
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def group(self) -> str:
        """Name of the cells that differ from this one in the seed only."""
        name = f"{self.scenario}-{self.accounts}-{self.exchanges}"
        if self.operation:
            name += f"-{self.operation}"
        if self.settings:
            plain = " ".join(f"{key}={value}" for key, value in self.settings)
            name += "-" + hashlib.sha256(plain.encode()).hexdigest()[:8]
        return name

    @property
    def name(self) -> str:
        """Name of the log's folder and of the files of its numbers."""
        return f"{self.group}-s{self.seed}"

    def compose(self, folder: Path, corpora: Path | None, traces: Path | None) -> None:
        """Make the log, unless it is there."""
        if (folder / "truth" / "accounts.parquet").exists():
            return
        make(
            self.scenario,
            folder,
            seed=self.seed,
            accounts=self.accounts,
            exchanges=self.exchanges,
            corpora=corpora,
            traces=traces,
            operation=self.operation or None,
            settings=dict(self.settings) or None,
        )


def parse_seeds(text: str) -> list[int]:
    """`5` is the seeds 1 to 5; `1-5,51` names them. UsageError for anything else."""
    if re.fullmatch(r"\d+", text):
        return list(range(1, int(text) + 1))
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not found:
            raise UsageError(
                f"{text!r} names no seeds", hint="write a number of seeds, or seeds as in 1-5,51"
            )
        first, last = int(found[1]), int(found[2] or found[1])
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def plan(
    scenarios: Sequence[str],
    seeds: Sequence[int],
    *,
    accounts: Sequence[int] = (),
    operation: str | None = None,
    settings: Sequence[tuple[str, str]] = (),
) -> list[Cell]:
    """Every scenario with every population and seed. Without `accounts`, each scenario has its own size.

    Exchanges grow with the accounts as they do in the scenario. UsageError for an unknown scenario.
    """
    cells = []
    for scenario in scenarios:
        if scenario not in SCENARIOS:
            raise UsageError(f"there is no scenario {scenario!r}", hint=f"choose from {', '.join(SCENARIOS)}")
        usual, rows = SCENARIOS[scenario]
        for size in accounts or (usual,):
            exchanges = rows if size == usual else max(size, round(rows * size / usual))
            cells += [
                Cell(scenario, size, exchanges, seed, operation or "", tuple(settings)) for seed in seeds
            ]
    return cells
