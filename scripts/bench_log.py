"""What the transparency log costs: `make bench-log`. Prints figures beside the goal.

Appends a second, one by one (each is on disk when it returns) and many at once; entries a second that are verified;
and the share of a scan's time that committing it takes, for the demo's log, as `scan --log` and `watch --log` do it.
The folder decides what a disk is: it should be on the one that the log will be on.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from stillwatch import arena
from stillwatch.evidence.keys import new_key
from stillwatch.evidence.log import Event, TransparencyLog
from stillwatch.evidence.verify import verify
from stillwatch.scan import scan
from stillwatch.store.events import of_results
from stillwatch.store.results import results_of, write_results

SINGLE, MANY, ROUNDS = 1000, 20_000, 5
GOAL = 0.02


def spent(what: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def events(begin: int, count: int) -> list[Event]:
    """Findings, no two alike."""
    return [
        ("finding", {"group": f"g-{n:012x}", "accounts": n, "sha256": "0" * 64})
        for n in range(begin, begin + count)
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build"))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        key, path = new_key(folder / "key.pem"), folder / "log"
        with TransparencyLog.create(path, key, "bench.test/log") as log:
            one = spent(lambda: [log.append(kind, payload) for kind, payload in events(0, SINGLE)])
            many = spent(lambda: log.append_all(events(SINGLE, MANY)))
            again = spent(lambda: log.append_all(events(SINGLE, MANY)))
        checked = spent(lambda: verify(path))
        print(
            f"one by one: {SINGLE / one:,.0f} appends/s; at once: {MANY / many:,.0f}; told again: {MANY / again:,.0f}"
        )
        size = path.stat().st_size / (SINGLE + MANY)
        print(f"verify: {(SINGLE + MANY) / checked:,.0f} entries/s; {size:.0f} bytes each")
        arena.make("demo", folder / "source", seed=3)
        scan([str(folder / "source")])
        shares = []
        for number in range(ROUNDS):
            # As `watch` names its folders: another scan with the same outcome is another event.
            out = folder / f"{number:09d}-1"
            took = spent(lambda out=out: write_results(out, results_of(scan([str(folder / "source")]))))  # type: ignore[misc]

            def commit(out: Path = out) -> None:
                with TransparencyLog(path, key) as log:
                    log.append_all(of_results(out))

            shares.append((spent(commit), took))
        added, took = (statistics.median(values) for values in zip(*shares, strict=True))
        print(
            f"a scan of the demo: {took:.2f} s, {len(of_results(out))} events committed in {added * 1e3:.0f} ms: "
            f"{added / took:.2%} (goal: at most {GOAL:.0%})"
        )


if __name__ == "__main__":
    main()
