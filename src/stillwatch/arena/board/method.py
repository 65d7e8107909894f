"""A method under test: anything that turns a log folder into results folders, run in a process of its own."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillwatch.engine.memory import peak_memory_mib

Run = Callable[[Path, Path], None]
"""(log folder, empty folder): writes one results folder a setting below the second."""


@dataclass(frozen=True, slots=True)
class Method:
    """A detector or a baseline.

    `run` must be a function of a module: it is called in a new process. Of each results folder that it writes,
    `arena.score` reads `findings.json` and `accounts.parquet`.
    """

    name: str
    about: str
    run: Run
    settings: tuple[str, ...] = ("all",)
    """Names of the results folders that it writes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run went: wall seconds, most memory of its process, and what went wrong, if anything did."""

    wall_s: float
    peak_memory_mib: int
    failure: str | None


def _inside(run: Run, log: Path, out: Path, pipe: Any) -> None:
    began = time.monotonic()
    failure = None
    try:
        run(log, out)
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        failure = f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
    pipe.send((time.monotonic() - began, peak_memory_mib(), failure))
    pipe.close()


def run_apart(method: Method, log: Path, out: Path) -> Outcome:
    """Run a method in a new process, so that its memory is its own and its end is not ours."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    began = time.monotonic()
    process = context.Process(target=_inside, args=(method.run, log, out, theirs))
    process.start()
    theirs.close()
    try:
        wall, memory, failure = ours.recv()
    except EOFError:
        wall, memory, failure = time.monotonic() - began, 0, None
    except BaseException:
        process.kill()
        raise
    finally:
        process.join()
    if process.exitcode and failure is None:
        failure = f"the process ended with code {process.exitcode}"
    return Outcome(round(wall, 2), memory, failure)
