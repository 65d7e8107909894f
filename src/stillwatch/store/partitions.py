"""Sketched exchanges on disk, one Parquet file per UTC day and input, that a running service adds to.

Rows arrive as *segments*: one file each, renamed into place when it is whole, whose metadata holds how far its input
has been read. So rows and position are committed together, and a reader that starts again goes on where the newest
segment ends. `compact` moves segments into day files; the manifest, replaced in one step, says which files count.
Whatever a crash leaves beside it is deleted when the folder is opened.

    manifest.json                 files that count, and through which segment of each input they reach; what the
                                  journal is yet to be told of them
    segments/<input>-<n>.parquet  not yet in a day file
    days/<day>/<input>.<n>.parquet
    refused/<input>-<n>.jsonl     rows that were refused in the segments up to n: place and reason, no content
    owners.<n>.parquet            what the logs say about who holds the accounts
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stillwatch.schema.errors import InputError, UsageError, Where, unwritable
from stillwatch.schema.journal import Journal, tell_all
from stillwatch.schema.refusals import Refusal
from stillwatch.store.files import sync_folder, write_whole
from stillwatch.store.manifest import Event, Manifest, Part, Through, read_manifest
from stillwatch.store.owners import Owner, accounts_of, in_order, owners_in, owners_table
from stillwatch.store.rows import ROWS, by_day, one_table, read_rows, shaped
from stillwatch.store.segments import Head, read_head, segment
from stillwatch.store.without import is_of, rows_of

Kind = Literal["partition", "partition_deleted"]
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""What an input may be called: it becomes part of file names."""
MOST_PARTS = 12
"""Files that one day and input may have while rows still come in; then they are made one."""


@dataclass(slots=True)
class _Input:
    """State of one input in this process."""

    next: int = 0
    position: Any = None
    waiting: list[tuple[Path, Head]] = field(default_factory=list)
    """Segments that are in no day file yet."""


class Partitions:
    """The folder. One process at a time; not for several threads at once."""

    def __init__(self, folder: Path, journal: Journal | None = None) -> None:
        """Opens or makes the folder (mode 0700), and deletes what counts no more.

        UsageError if another process has it, InputError if its manifest is damaged or of another version.
        """
        self.folder = folder
        self._journal = journal
        try:
            for name in ("segments", "days", "refused"):
                (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unwritable(error, str(folder), "the partitions") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise UsageError(
                "another process writes these partitions",
                hint=f"stop it, or name another folder than {folder}",
            ) from error
        try:
            found = read_manifest(folder / "manifest.json")
            if found is None:
                # Without it nobody can tell which files count: only an empty folder gets a new one.
                if any(folder.glob("days/*/*")):
                    raise InputError(
                        "the manifest of the partitions is missing",
                        where=Where(str(folder / "manifest.json")),
                        hint="restore it from a backup: it says which files count",
                    )
                self._replace(Manifest())
            else:
                self.manifest = found
            self._inputs: dict[str, _Input] = {}
            for name, through in self.manifest.inputs.items():
                self._inputs[name] = _Input(through.segment + 1, through.position)
            self._clean()
            self._recover()
            self._announce()
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._lock)

    def position(self, name: str) -> Any:
        """How far an input has been read and kept; None for one that is new."""
        return self._inputs[name].position if name in self._inputs else None

    @property
    def newest_us(self) -> int:
        """Event time of the newest row in day files, 0 without one."""
        return self.manifest.newest_us

    @property
    def waiting(self) -> int:
        """Segments that are in no day file yet."""
        return sum(len(entry.waiting) for entry in self._inputs.values())

    def commit(
        self,
        name: str,
        batches: Sequence[pa.RecordBatch],
        position: Any,
        *,
        refusals: Sequence[Refusal] = (),
        owners: Mapping[Owner, int] | None = None,
    ) -> None:
        """Keep rows (canonical, without text) of one input, and how far it has been read. Durable on return.

        OutputError if they cannot be written: then nothing of it is there.
        """
        if not NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is no name for an input", hint="small letters, digits, - and _, at most 64"
            )
        entry = self._inputs.setdefault(name, _Input())
        table = pa.Table.from_batches([shaped(batch) for batch in batches], schema=ROWS)
        head = Head(
            input=name,
            number=entry.next,
            position=position,
            rows=table.num_rows,
            refusals=list(refusals),
            owners=in_order(owners or {}),
        )
        path = self.folder / "segments" / f"{name}-{head.number:012d}.parquet"
        write_whole(path, [segment(table, head)], "the rows")
        sync_folder(path.parent)
        entry.next += 1
        entry.position = position
        entry.waiting.append((path, head))

    def compact(self) -> list[Part]:
        """Move all segments into day files; returns the files that are new."""
        taken = {name: list(entry.waiting) for name, entry in self._inputs.items() if entry.waiting}
        number = self.manifest.number + 1
        parts = list(self.manifest.parts)
        inputs = dict(self.manifest.inputs)
        fresh: dict[tuple[str, str], list[pa.Table]] = {}
        owners: Counter[Owner] = Counter()
        for name, segments in taken.items():
            through = inputs.get(name, Through())
            refused = [refusal for _, head in segments for refusal in head.refusals]
            last = segments[-1][1]
            if refused:
                lines = [msgspec.json.encode(refusal) + b"\n" for refusal in refused]
                write_whole(
                    self.folder / "refused" / f"{name}-{last.number:012d}.jsonl", lines, "refused rows"
                )
            for path, head in segments:
                for account, entity, domain, count in head.owners:
                    owners[account, entity, domain] += count
                for day, table in by_day(read_rows(path)):
                    fresh.setdefault((day, name), []).append(table)
            inputs[name] = Through(
                segment=last.number,
                position=last.position,
                rows=through.rows + sum(head.rows for _, head in segments),
                refused=through.refused + len(refused),
                doubled=through.doubled,
            )
        newest = max([part.day for part in parts] + [day for day, _ in fresh] + [""])
        made: list[Part] = []
        grown = {(part.day, part.input) for part in parts} | set(fresh)
        for day, name in sorted(grown):
            old = [part for part in parts if (part.day, part.input) == (day, name)]
            new = fresh.get((day, name), [])
            # Days that are over have one file; a late row makes it anew.
            whole = day < newest or len(old) >= MOST_PARTS
            if not new and (len(old) < 2 or not whole):
                continue
            kept = old if whole else []
            tables = [read_rows(self.folder / part.file) for part in kept] + new
            known = [] if whole else [read_rows(self.folder / part.file, ["exchange_id"]) for part in old]
            table, doubled = one_table(tables, known)
            through = inputs[name]
            inputs[name] = msgspec.structs.replace(through, doubled=through.doubled + doubled)
            parts = [part for part in parts if part not in kept]
            if table.num_rows:
                made.append(self._write_part(day, name, number, table))
        if not taken and not made:
            return []
        keeper = self.manifest.owners
        if owners:
            keeper = self._write_owners(number, owners)
        self._replace(
            Manifest(
                number=number,
                parts=tuple(sorted([*parts, *made], key=lambda part: part.file)),
                inputs=inputs,
                owners=keeper,
                unannounced=self._with_events("partition", made),
            )
        )
        for name, segments in taken.items():
            self._inputs[name].waiting = self._inputs[name].waiting[len(segments) :]
        self._announce()
        self._clean()
        return made

    def window(self, days: int, until_us: int | None = None) -> list[Part]:
        """The files of the last `days` days, up to the newest row's day or that of `until_us`."""
        return self.manifest.window(days, until_us)

    def drop(self, days: int) -> list[Part]:
        """Delete what is older than the last `days` days; returns what went."""
        kept = set(self.window(days))
        end = self.manifest.end(days)
        return self._delete([part for part in self.manifest.parts if part not in kept and part.day <= end])

    def _delete(self, gone: list[Part]) -> list[Part]:
        if gone:
            parts = tuple(part for part in self.manifest.parts if part not in gone)
            self._replace(
                msgspec.structs.replace(
                    self.manifest,
                    number=self.manifest.number + 1,
                    parts=parts,
                    unannounced=self._with_events("partition_deleted", gone),
                )
            )
            self._announce()
            self._clean()
        return gone

    def drop_before(self, day: str) -> list[Part]:
        """Delete the files of the days before `day` (ISO 8601); returns what went. `drop` goes by the data's end."""
        self.compact()
        return self._delete([part for part in self.manifest.parts if part.day < day])

    def holding(self, account: str) -> list[Part]:
        """The files that hold rows of an account, once all segments are in day files."""
        self.compact()
        return [part for part in self.manifest.parts if self._rows_of(part, account).any()]

    def forget(self, account: str) -> bool:
        """Write the files that hold rows of an account anew without them; whether there was anything of it.

        What the logs said about its owner goes, too. In one step: the manifest's.
        """
        gone = self.holding(account)
        number, parts, made = self.manifest.number + 1, list(self.manifest.parts), []
        for part in gone:
            table = read_rows(self.folder / part.file)
            table = table.filter(pa.array(~rows_of(table, account)))
            parts.remove(part)
            if table.num_rows:
                made.append(self._write_part(part.day, part.input, number, table))
        keeper = self.manifest.owners
        if keeper is not None:
            owners = owners_in(read_rows(self.folder / keeper))
            others = Counter(
                {owner: count for owner, count in owners.items() if not is_of(owner[0], account)}
            )
            if len(others) < len(owners):
                keeper = self._put_owners(number, others) if others else None
        if not gone and keeper == self.manifest.owners:
            return False
        self._replace(
            msgspec.structs.replace(
                self.manifest,
                number=number,
                parts=tuple(sorted([*parts, *made], key=lambda part: part.file)),
                owners=keeper,
                unannounced=self._with_events("partition_deleted", gone, "partition", made),
            )
        )
        self._announce()
        self._clean()
        return True

    def _rows_of(self, part: Part, account: str) -> npt.NDArray[np.bool_]:
        return rows_of(read_rows(self.folder / part.file, ["account_id"]), account)

    def accounts(self) -> pa.Table | None:
        """An accounts table of what the logs say about owners; the commonest of several declarations counts."""
        if self.manifest.owners is None:
            return None
        return accounts_of(read_rows(self.folder / self.manifest.owners))

    def _write_part(self, day: str, name: str, number: int, table: pa.Table) -> Part:
        file = f"days/{day}/{name}.{number}.parquet"
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd", store_schema=False)
        data = sink.getbuffer()
        write_whole(self.folder / file, [data], "a partition")
        sync_folder((self.folder / file).parent)
        ts = table.column("ts").cast(pa.int64())
        return Part(
            day=day,
            input=name,
            file=file,
            rows=table.num_rows,
            digest=hashlib.sha256(data).hexdigest(),
            first_us=pc.min(ts).as_py(),
            last_us=pc.max(ts).as_py(),
        )

    def _write_owners(self, number: int, owners: Counter[Owner]) -> str:
        if self.manifest.owners is not None:
            owners.update(owners_in(read_rows(self.folder / self.manifest.owners)))
        return self._put_owners(number, owners)

    def _put_owners(self, number: int, owners: Counter[Owner]) -> str:
        file = f"owners.{number}.parquet"
        sink = io.BytesIO()
        pq.write_table(owners_table(owners), sink, compression="zstd")
        write_whole(self.folder / file, [sink.getbuffer()], "the owners")
        return file

    def _replace(self, manifest: Manifest) -> None:
        write_whole(self.folder / "manifest.json", [msgspec.json.encode(manifest)], "the manifest")
        sync_folder(self.folder)
        self.manifest = manifest

    def _with_events(
        self, kind: Kind, parts: Sequence[Part], then: Kind = "partition", more: Sequence[Part] = ()
    ) -> tuple[Event, ...] | msgspec.UnsetType:
        """The events that the next manifest has to hold: those that wait, and one for each of `parts` and `more`."""
        new = [Event(kind=kind, part=part) for part in parts] + [Event(kind=then, part=part) for part in more]
        if self._journal is None:
            new = []
        return (*(self.manifest.unannounced or ()), *new) or msgspec.UNSET

    def _announce(self) -> None:
        """Tell the journal what waits in the manifest, and note that it was told.

        The manifest holds the events of its own step, so that none is lost wherever the process ends. If it ends in
        here they are told again: the same file and digest, and no other part ever has that file name.
        """
        waiting = self.manifest.unannounced or ()
        if self._journal is None or not waiting:
            return
        tell_all(self._journal, [(event.kind, event.payload) for event in waiting])
        self._replace(msgspec.structs.replace(self.manifest, unannounced=msgspec.UNSET))

    def _clean(self) -> None:
        """Delete files that do not count: of a step that broke off, or replaced by others."""
        counted = {part.file for part in self.manifest.parts}
        for path in self.folder.glob("days/*/*"):
            if str(path.relative_to(self.folder)) not in counted:
                path.unlink()
        for path in self.folder.glob("days/*"):
            if not any(path.iterdir()):
                path.rmdir()
        for path in self.folder.glob("owners.*.parquet"):
            if path.name != self.manifest.owners:
                path.unlink()
        for path in [
            *self.folder.glob("segments/.*"),
            *self.folder.glob("refused/.*"),
            *self.folder.glob(".*-*"),
        ]:
            path.unlink()
        for path in self.folder.glob("segments/*.parquet"):
            name, _, number = path.stem.rpartition("-")
            if int(number) <= self.manifest.inputs.get(name, Through()).segment:
                path.unlink()
        for path in self.folder.glob("refused/*.jsonl"):
            name, _, number = path.stem.rpartition("-")
            if int(number) > self.manifest.inputs.get(name, Through()).segment:
                path.unlink()

    def _recover(self) -> None:
        """Take up the segments that are in no day file."""
        for path in sorted(self.folder.glob("segments/*.parquet")):
            head = read_head(path)
            entry = self._inputs.setdefault(head.input, _Input())
            entry.waiting.append((path, head))
            entry.next, entry.position = head.number + 1, head.position
