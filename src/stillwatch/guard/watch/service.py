"""The loop: take in what came, scan the window every few minutes in a child process, put a new snapshot in place.

One thread keeps rows (`step`), so that partitions have one writer; the HTTP receiver only hands bodies over. Event
time decides what the window is; the clock only says when to scan.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from stillwatch.guard.doors.fetch import publish
from stillwatch.guard.watch.child import Child
from stillwatch.guard.watch.consume import Feed
from stillwatch.guard.watch.intake import Intake, Piece, Taken
from stillwatch.guard.watch.queue import Queue
from stillwatch.guard.watch.receive import Inbox, Parcel, busy, kept, no_log
from stillwatch.guard.watch.rescan import Files, Job, Outcome, write_accounts
from stillwatch.guard.watch.tail import Tail
from stillwatch.guard.watch.told import Telling
from stillwatch.schema.errors import OutputError, StillwatchError
from stillwatch.schema.journal import Journal
from stillwatch.store.files import write_whole
from stillwatch.store.partitions import Partitions

COMMIT_S = 2.0
"""Rows of a file wait so long for others, unless there are many."""
COMMIT_BYTES = 4 << 20
COMPACT_SEGMENTS = 256
"""Segments after which they are put into day files although no scan is due."""
PUBLISH_S = 5.0
"""Between two tries to put a snapshot where it is published."""
KEPT_RESULTS = 3
"""Results folders that stay: the last one is the next one's past."""


@dataclass(frozen=True, slots=True)
class Source:
    """A log that is followed."""

    name: str
    patterns: tuple[str, ...]
    intake: Intake = field(default_factory=Intake)


@dataclass(frozen=True, slots=True)
class Settings:
    """How the service runs."""

    folder: Path
    snapshot: Path
    every_s: float = 300.0
    window_days: int = 14
    keep_days: int = 30
    seed: int = 0
    files: Files = field(default_factory=Files)
    sources: tuple[Source, ...] = ()
    received: Intake = field(default_factory=Intake)
    """How bodies are read; their format is the path's."""
    queues: tuple[Queue, ...] = ()
    publish: str | None = None
    """`valkey://` address that each new snapshot is put to, besides the file."""
    live: bool = True
    """Logs are still being written. False where old ones are read at once."""


@dataclass(slots=True)
class Counters:
    """What happened since the start. Numbers only grow, but those that say how things are now."""

    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(input, `kept` | `refused` | `passed` | `truncated` | `lost` | `away`) -> rows; files for `truncated`, messages
    that a queue had no more for `lost`, tries that did not reach its broker for `away`."""
    newest_us: dict[str, int] = field(default_factory=dict)
    """Event time of the newest row of each input."""
    behind: dict[str, int] = field(default_factory=dict)
    """Bytes of followed files that are not yet read."""
    scans: int = 0
    failed: int = 0
    """Scans or snapshots that did not come about; the old snapshot stayed."""
    problem: str | None = None
    """What was wrong with the last one; None once one is good."""
    last: Outcome | None = None
    late: int = 0
    """Scans that took longer than the time between two."""
    compacted: int = 0
    unpublished: int = 0
    """Times that a snapshot could not be put where it is published."""

    clock: Callable[[], float] = time.time

    @property
    def scan_s(self) -> float:
        """Seconds that the last scan took, 0 before the first."""
        return 0.0 if self.last is None else self.last.scan_s

    @property
    def lag_s(self) -> dict[str, float]:
        """Seconds between the newest row of each input and now."""
        now = self.clock() * 1e6
        return {name: max(0.0, (now - newest) / 1e6) for name, newest in list(self.newest_us.items())}


Say = Callable[[str], None]


class Service:
    """Not for several threads, but `inbox`."""

    def __init__(
        self,
        settings: Settings,
        say: Say,
        *,
        journal: Journal | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Opens the partitions. Raises what `Partitions` and `Feed` raise."""
        self.settings, self._say, self._clock = settings, say, clock
        self.inbox = Inbox()
        self.counters = Counters(clock=clock)
        self.partitions = Partitions(settings.folder / "partitions", journal)
        self._telling = Telling(
            journal,
            settings.folder / "results",
            settings.files.decisions,
            settings.files.appeals,
            settings.snapshot,
        )
        for part in self.partitions.manifest.parts:
            newest = self.counters.newest_us
            newest[part.input] = max(part.last_us, newest.get(part.input, 0))
        self._tails: dict[str, Tail] = {}
        self._intakes: dict[str, Intake] = {}
        for source in settings.sources:
            state = self.partitions.position(source.name) or {}
            self._tails[source.name] = Tail(list(source.patterns), state)
            fixed = source.intake.format or state.get("format")
            self._intakes[source.name] = replace(source.intake, format=fixed)
        self._since: dict[str, float] = {}
        self._child: Child | None = None
        self._started = 0.0
        self._scanned: int | None = None
        """Number of the manifest that the last scan saw."""
        self._marks = self._file_marks()
        self._unpublished: float | None = None
        """When the snapshot is to be published, by `time.monotonic`; None where it is."""
        self._feeds: list[Feed] = []
        try:
            for queue in settings.queues:
                self._feeds.append(Feed(queue, self.partitions.position(queue.name), live=settings.live))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop a scan that is under way, and let go of the folder. Bodies that wait are turned away."""
        if self._child is not None:
            self._child.kill()
        for parcel in self.inbox.take(1 << 62):
            parcel.answer(busy())
        for feed in self._feeds:
            feed.close()
        self.partitions.close()

    # Taking in

    def step(self) -> bool:
        """Keep what came; whether there was anything. OutputError where rows cannot be kept."""
        busy_ = self._take_parcels()
        for source in self.settings.sources:
            busy_ |= self._follow(source)
        for feed in self._feeds:
            busy_ |= self._consume(feed)
        if self.partitions.waiting >= COMPACT_SEGMENTS and self._child is None:
            try:
                self._compact()
            except StillwatchError as error:
                # The rows are kept as they are.
                self._trouble(str(error))
        return busy_

    def _take_parcels(self) -> bool:
        parcels = self.inbox.take()
        by_input: dict[tuple[str, str], list[Parcel]] = {}
        for parcel in parcels:
            by_input.setdefault((parcel.input, parcel.format), []).append(parcel)
        for (name, format), mine in by_input.items():
            intake = replace(self.settings.received, format=format)
            try:
                each = [intake.read([Piece(name, parcel.data)]) for parcel in mine]
                whole = _together(each)
                self._keep(name, whole, None)
            except OutputError as error:
                self._trouble(str(error))
                for parcel in mine:
                    parcel.answer(busy())
                continue
            except BaseException:
                for parcel in mine:
                    parcel.answer(busy())
                raise
            for parcel, taken in zip(mine, each, strict=True):
                if taken.rows or taken.passed or not taken.refusals:
                    parcel.answer(kept(taken.rows, len(taken.refusals)))
                else:
                    parcel.answer(no_log(taken.refusals[0].reason))
        return bool(parcels)

    def _follow(self, source: Source) -> bool:
        tail = self._tails[source.name]
        polled = tail.poll(final=not self.settings.live)
        self.counters.behind[source.name] = polled.behind
        size = sum(len(piece.data) for piece in polled.pieces)
        if not size and not polled.refusals:
            return False
        began = self._since.setdefault(source.name, time.monotonic())
        if size < COMMIT_BYTES and time.monotonic() - began < COMMIT_S and self.settings.live:
            return False
        intake = self._intakes[source.name]
        taken = intake.read(polled.pieces)
        taken.refusals = [*polled.refusals, *taken.refusals]
        if intake.format is None and taken.format is not None:
            self._intakes[source.name] = replace(intake, format=taken.format)
        state = {**polled.state, "format": self._intakes[source.name].format}
        try:
            self._keep(source.name, taken, state)
        except OutputError as error:
            # Not kept, so not advanced: it is read again.
            self._trouble(str(error))
            return False
        if polled.truncated:
            self.counters.events[source.name, "truncated"] += polled.truncated
            self._say(f"{source.name}: {polled.truncated} files were cut off while they were followed")
        tail.advance(polled.state)
        del self._since[source.name]
        return True

    def _consume(self, feed: Feed) -> bool:
        try:
            return feed.step(self._keep)
        except OutputError as error:
            # Not kept, so it stays handed over, and is tried again.
            self._trouble(str(error))
            return False
        finally:
            feed.tell(self._say, self.counters.events)

    def _keep(self, name: str, taken: Taken, position: object) -> None:
        self.partitions.commit(name, taken.batches, position, refusals=taken.refusals, owners=taken.owners)
        events = self.counters.events
        events[name, "kept"] += taken.rows
        events[name, "refused"] += len(taken.refusals)
        events[name, "passed"] += taken.passed
        if taken.newest_us:
            newest = self.counters.newest_us
            newest[name] = max(taken.newest_us, newest.get(name, 0))

    def _compact(self) -> None:
        made = self.partitions.compact()
        self.counters.compacted += len(made)
        for part in self.partitions.drop(self.settings.keep_days):
            self._say(f"{part.day}: {part.rows:,} rows of {part.input} deleted, they are older than is kept")

    # Scanning

    @property
    def scanning(self) -> bool:
        return self._child is not None

    def due(self, now: float) -> bool:
        """Whether a scan or a new snapshot is to begin. `now`: of `time.monotonic`."""
        if self._child is not None:
            return False
        return self._started == 0.0 or now - self._started >= self.settings.every_s or self._files_changed()

    def begin(self) -> bool:
        """Begin a scan of the window, or a new snapshot where only files changed; whether there was need."""
        self._tell()
        try:
            self._compact()
            self._started = time.monotonic()
            marks = self._file_marks()
            number = self.partitions.manifest.number
            parts = self.partitions.window(self.settings.window_days)
            current = self._current()
            if not parts or (number == self._scanned and marks == self._marks):
                self._marks = marks
                return False
            rescan = number != self._scanned or current is None or self._scans_differ(marks)
            self._marks = marks
            results = self.settings.folder / "results" / f"{number:09d}-{int(self._clock())}"
            owners = None
            if self.settings.files.accounts is None:
                table = self.partitions.accounts()
                if table is not None and table.num_rows:
                    owners = self.settings.folder / "owners.parquet"
                    write_accounts(owners, table)
            job = Job(
                logs=[str(self.partitions.folder / part.file) for part in parts],
                scan=rescan,
                results=str(results if rescan else current),
                earlier=None if current is None else str(current),
                owners=None if owners is None else str(owners),
                snapshot=str(self.settings.snapshot),
                files=self.settings.files,
                seed=self.settings.seed,
            )
        except (StillwatchError, OSError) as error:
            self._fail(str(error))
            return False
        self._scanned = number
        self._child = Child(job)
        return True

    def finish(self, wait: bool = False) -> Outcome | None:
        """How the scan went that is over; None while there is none."""
        if self._child is None or not (wait or self._child.over):
            return None
        job, outcome, self._child = self._child.job, self._child.outcome(), None
        if outcome.error is not None:
            self._scanned = None
            if job.scan:
                shutil.rmtree(job.results, ignore_errors=True)
            self._fail(outcome.error)
            return outcome
        counters = self.counters
        counters.problem, counters.last = None, outcome
        counters.scans += job.scan
        took = outcome.scan_s + outcome.build_s
        self._tell()
        if job.scan:
            self._point_at(Path(job.results))
            counters.late += took > self.settings.every_s
            self._say(_told(outcome, self.settings))
        else:
            self._say(f"snapshot made anew in {outcome.build_s:.1f} s: a file beside it changed")
        if outcome.note is not None:
            self._say(outcome.note)
        self._unpublished = 0.0
        self.publish(time.monotonic())
        return outcome

    def publish(self, now: float) -> bool:
        """Put a new snapshot where it is published; whether nothing is left to do. `now`: of `time.monotonic`."""
        if self.settings.publish is None or self._unpublished is None:
            return True
        if now < self._unpublished:
            return False
        try:
            publish(self.settings.snapshot, self.settings.publish)
        except (StillwatchError, OSError) as error:
            if not self._unpublished:
                self._say(f"the snapshot is not published, it is tried again: {error}")
            self._unpublished = now + PUBLISH_S
            self.counters.unpublished += 1
            return False
        self._unpublished = None
        return True

    def _fail(self, problem: str) -> None:
        self.counters.failed += 1
        self._trouble(f"the snapshot stays as it is: {problem}")

    def _trouble(self, problem: str) -> None:
        if problem != self.counters.problem:
            self._say(problem)
        self.counters.problem = problem

    def _tell(self) -> None:
        """Commit to the transparency log what is new; what cannot be committed waits, and stops no scan."""
        try:
            self._telling.tell()
        except (StillwatchError, OSError) as error:
            self._trouble(f"not in the transparency log yet: {error}")

    def _current(self) -> Path | None:
        """Results of the last good scan."""
        try:
            name = (self.settings.folder / "results" / "current").read_text().strip()
        except OSError:
            return None
        folder = self.settings.folder / "results" / name
        return folder if name and (folder / "findings.json").exists() else None

    def _point_at(self, results: Path) -> None:
        folder = results.parent
        write_whole(folder / "current", [results.name.encode()], "the name of the results")
        kept = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        for old in kept[:-KEPT_RESULTS]:
            if old != results and not self._telling.waits(old.name):
                shutil.rmtree(old, ignore_errors=True)

    def _file_marks(self) -> dict[str, tuple[int, int, int] | None]:
        """What tells whether a file that people keep is another one."""
        out: dict[str, tuple[int, int, int] | None] = {}
        for name, path in msgspec.structs.asdict(self.settings.files).items():
            if path is None:
                continue
            try:
                found = os.stat(path)
            except OSError:
                out[name] = None
                continue
            out[name] = (found.st_ino, found.st_size, found.st_mtime_ns)
        return out

    def _files_changed(self) -> bool:
        return self._file_marks() != self._marks

    def _scans_differ(self, marks: dict[str, tuple[int, int, int] | None]) -> bool:
        """Whether a file changed that a scan reads."""
        mine = ("accounts", "sanctions", "releases", "references", "rules")
        return any(marks.get(name) != self._marks.get(name) for name in mine)


def _together(each: list[Taken]) -> Taken:
    whole = Taken()
    for taken in each:
        whole.add(taken)
    return whole


def _told(outcome: Outcome, settings: Settings) -> str:
    """One line about a scan, its time against the window and the time between two."""
    took = outcome.scan_s + outcome.build_s
    days = (outcome.last_us - outcome.first_us) / 86_400e6
    line = (
        f"scanned {outcome.rows:,} exchanges of {outcome.accounts:,} accounts, {days:.1f} of "
        f"{settings.window_days} days, in {took:.1f} s ({took / settings.every_s:.0%} of the time between two scans, "
        f"{outcome.peak_mib:,.0f} MiB): {outcome.campaigns} campaigns, {outcome.leads} leads"
    )
    if outcome.kept:
        line += f"; {outcome.kept} campaigns go on because they are refused"
    if outcome.refused:
        line += f"; {outcome.refused:,} rows came more than once"
    if took > settings.every_s:
        line += "; scans take longer than the time between two: raise --every or lower --window-days"
    return line
