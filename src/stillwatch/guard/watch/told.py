"""What the service tells the transparency log: its scans, what they found, its snapshots, and the decisions."""

from __future__ import annotations

from pathlib import Path

from stillwatch.guard.committed import of_snapshot
from stillwatch.schema.errors import StillwatchError
from stillwatch.schema.journal import Journal, tell_all
from stillwatch.store.appeals import read_appeals
from stillwatch.store.decisions import read_decisions
from stillwatch.store.events import of_appeals, of_decisions, of_results


class Telling:
    """Knows what this process has told. What an earlier one may have told is told again: the log takes it once."""

    def __init__(
        self,
        journal: Journal | None,
        results: Path,
        decisions: str | None,
        appeals: str | None = None,
        snapshot: Path | None = None,
    ) -> None:
        self._journal, self._results, self._snapshot = journal, results, snapshot
        self._decisions, self._appeals = decisions, appeals
        self._told: set[str] = set()

    def waits(self, name: str) -> bool:
        """Whether the results folder of that name has yet to be told of: it must not be deleted before."""
        return self._journal is not None and name not in self._told

    def tell(self) -> None:
        """Tell of every row of the decisions and the appeals, every results folder and the snapshot, if new.

        Raises the first error once everything else was told.
        """
        if self._journal is None:
            return
        problem: StillwatchError | OSError | None = None
        try:
            self._tell_decisions(self._journal)
        except (StillwatchError, OSError) as error:
            problem = error
        for folder in sorted(self._results.glob("[0-9]*")):
            if folder.name in self._told:
                continue
            try:
                tell_all(self._journal, of_results(folder))
                self._told.add(folder.name)
            except (StillwatchError, OSError) as error:
                problem = problem or error
        try:
            self._tell_snapshot(self._journal)
        except (StillwatchError, OSError) as error:
            problem = problem or error
        if problem is not None:
            raise problem

    def _tell_snapshot(self, journal: Journal) -> None:
        """Of the snapshot that is in place; one that was replaced before it was told of acted on nobody for long."""
        try:
            found = None if self._snapshot is None else self._snapshot.stat()
        except FileNotFoundError:
            return
        if self._snapshot is None or found is None:
            return
        mark = f"snapshot {found.st_ino} {found.st_size} {found.st_mtime_ns}"
        if mark not in self._told:
            tell_all(journal, [of_snapshot(self._snapshot)])
            self._told.add(mark)

    def _tell_decisions(self, journal: Journal) -> None:
        rows = [] if self._decisions is None else read_decisions(Path(self._decisions))
        new = [row for row in rows if row.hash not in self._told]
        if new:
            tell_all(journal, of_decisions(new))
            self._told.update(row.hash for row in new)
        appeals = [] if self._appeals is None else read_appeals(Path(self._appeals))
        unheard = [row for row in appeals if row.hash not in self._told]
        if unheard:
            tell_all(journal, of_appeals(unheard))
            self._told.update(row.hash for row in unheard)
