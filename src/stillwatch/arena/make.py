"""`make`: one scenario to one folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stillwatch.arena.compose import compose
from stillwatch.arena.field import EVERY_OPERATION, SCENARIO_OPERATIONS
from stillwatch.arena.infrastructure import make_network, make_stacks
from stillwatch.arena.population import populate
from stillwatch.arena.sessions import draw_sessions
from stillwatch.arena.shards import write_shards
from stillwatch.arena.text import BuiltinText, TextSource
from stillwatch.arena.timing import DAY_US, Bursts
from stillwatch.arena.world import LOG_HOURS, World
from stillwatch.arena.write import MakeSummary, summary, write_whole
from stillwatch.schema.errors import OutputError, UsageError, Where, unwritable

SCENARIOS = {
    "null": (20_000, 500_000),
    "mixed": (20_000, 500_000),
    "demo": (4_000, 60_000),
    "field": (20_000, 500_000),
    "wide": (20_000, 500_000),
    "september": (12_000, 360_000),
    "rare": (1_000_000, 6_000_000),
}
"""Default accounts and exchanges of each scenario."""
LARGEST_WHOLE = 200_000
"""Accounts from which a log is composed in shards."""
_STREAM_OF_DRAWS = {"demo": 0, "mixed": 1, "null": 2, "field": 3, "wide": 4, "september": 5, "rare": 6}
"""Fixed numbers: a scenario that is added later must not change what the others draw."""

_EPOCH_DAY = 20_454
"""First day of the earliest log, in days since 1970 (January 2026)."""

CORPORA_VARIABLE = "STILLWATCH_CORPORA"


def make(
    scenario: str,
    out: Path,
    *,
    seed: int = 0,
    accounts: int | None = None,
    exchanges: int | None = None,
    corpora: Path | None = None,
    traces: Path | None = None,
    operation: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> MakeSummary:
    """Generate a synthetic log with its truth into `out` (created with mode 0700, in one step).

    `scenario`: `null` (honest only), `mixed` (with operations), `demo` (small, built-in text only), `field`
    (more look-alikes and operations), `wide` (all of them) `september` (pools of one reseller) or `rare` (one
    operation of 100 accounts in a million). In `field`, `wide` and `rare`, `operation` names one to stand alone, and
    `settings` replace its drawn parameters, as text by name. A log of more than 200,000 accounts is composed and
    written in shards, in bounded memory (`stillwatch.arena.shards`).
    `corpora`: a Parquet file of reference texts (default: the environment variable STILLWATCH_CORPORA);
    without it the built-in grammar writes all text. `traces`: a folder with recorded serving rates.
    The same arguments give the same bytes. Raises UsageError and OutputError.
    """
    if scenario not in SCENARIOS:
        raise UsageError(f"there is no scenario {scenario!r}", hint=f"choose one of {', '.join(SCENARIOS)}")
    if operation is not None and operation not in SCENARIO_OPERATIONS.get(scenario, ()):
        raise UsageError(
            f"the scenario {scenario} cannot hold an operation {operation!r} alone",
            hint=f"the scenario wide can hold {', '.join(EVERY_OPERATION)}",
        )
    if settings and operation is None:
        raise UsageError("parameters can only be set for one operation", hint="name it with --operation")
    out = out.absolute()
    default_accounts, default_exchanges = SCENARIOS[scenario]
    n_accounts = default_accounts if accounts is None else accounts
    n_exchanges = default_exchanges if exchanges is None else exchanges
    if n_accounts < 200 or n_exchanges < n_accounts:
        raise UsageError("a scenario needs at least 200 accounts and one exchange per account")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(
            "the output folder exists and is not empty", where=Where(file=out.name), hint="name a new folder"
        )
    world = _world(scenario, seed, n_accounts, n_exchanges, _source(scenario, seed, corpora), traces)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir(mode=0o700)
        if scenario == "rare" or n_accounts > LARGEST_WHOLE:
            made = write_shards(world, temporary, operation, settings)
        else:
            populate(world, operation, settings)
            composed = compose(world, draw_sessions(world))
            write_whole(world, composed, temporary)
            made = summary(world, composed)
        temporary.replace(out)
    except OSError as error:
        raise unwritable(error, str(out), "the log") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return made


def _source(scenario: str, seed: int, corpora: Path | None) -> TextSource:
    path = corpora
    if path is None and os.environ.get(CORPORA_VARIABLE):
        path = Path(os.environ[CORPORA_VARIABLE])
    if path is None or scenario == "demo":
        return BuiltinText(seed)
    from stillwatch.arena.corpora import CorporaText

    return CorporaText(path, seed)


def _world(
    scenario: str, seed: int, accounts: int, exchanges: int, source: TextSource, traces: Path | None
) -> World:
    rng = np.random.default_rng([seed, _STREAM_OF_DRAWS[scenario]])
    day = _EPOCH_DAY + int(rng.integers(0, 200))
    start = day * DAY_US
    return World(
        seed=seed,
        scenario=scenario,
        start_us=start,
        first_weekday=(day + 3) % 7,
        rng=rng,
        source=source,
        network=make_network(rng, accounts),
        stacks=make_stacks(rng),
        bursts=Bursts(LOG_HOURS, traces),
        requested_accounts=accounts,
        requested_exchanges=exchanges,
        models=["atlas-small-2", "atlas-large-2", "atlas-code-1", "atlas-large-3"],
        release_us=start + int(rng.uniform(4, 9) * DAY_US),
    )
