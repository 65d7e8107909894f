"""Sketched exchanges on disk, one Parquet file per UTC day and input, that a running service adds to.

Rows arrive as *segments*: one file each, renamed into place when it is whole, whose metadata holds how far its input
has been read. So rows and position are committed together, and a reader that starts again goes on where the newest
segment ends. `compact` moves segments into day files; the manifest, replaced in one step, says which files count.
Whatever a crash leaves beside it is deleted when the folder is opened.

    manifest.json                 files that count, and through which segment of each input they reach
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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stillwatch.schema.errors import InputError, UsageError, Where, unwritable
from stillwatch.schema.journal import Journal, NullJournal
from stillwatch.schema.refusals import Refusal
from stillwatch.schema.tables import ACCOUNTS, EXCHANGES
from stillwatch.store.files import write_whole

VERSION = 1
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""What an input may be called: it becomes part of file names."""
MOST_PARTS = 12
"""Files that one day and input may have while rows still come in; then they are made one."""
LEAST_OF_WINDOW = 0.01
TEXTS = frozenset({"system", "prompt", "response", "raw_ref"})
ROWS = pa.schema([column for column in EXCHANGES if column.name not in TEXTS])
"""The columns of a partition: no text, and no place in an input that is gone."""
OWNERS = pa.schema(
    [
        pa.field("account_id", pa.string(), nullable=False),
        pa.field("entity_id", pa.string()),
        pa.field("email_domain", pa.string()),
        pa.field("count", pa.int64(), nullable=False),
    ]
)
_META = b"stillwatch"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a day and input."""

    day: str
    input: str
    file: str
    rows: int
    digest: str
    """SHA-256, hex."""
    first_us: int
    last_us: int


class Through(msgspec.Struct, frozen=True, kw_only=True):
    """How far an input has come."""

    segment: int = -1
    position: Any = None
    """Whatever the input's reader needs to go on."""
    rows: int = 0
    refused: int = 0
    doubled: int = 0
    """Rows that had come before under the same id."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What counts. Everything else in the folder is left over from something that broke off."""

    version: int = VERSION
    number: int = 0
    parts: tuple[Part, ...] = ()
    inputs: dict[str, Through] = {}
    owners: str | None = None


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata of a segment."""

    input: str
    number: int
    position: Any
    rows: int
    refusals: list[Refusal] = []
    owners: list[tuple[str, str | None, str | None, int]] = []


@dataclass(slots=True)
class _Input:
    """State of one input in this process."""

    next: int = 0
    position: Any = None
    waiting: list[tuple[Path, _Head]] = field(default_factory=list)
    """Segments that are in no day file yet."""


Owner = tuple[str, str | None, str | None]
"""Account, declared owner, mail domain."""


class Partitions:
    """The folder. One process at a time; not for several threads at once."""

    def __init__(self, folder: Path, journal: Journal | None = None) -> None:
        """Opens or makes the folder (mode 0700), and deletes what counts no more.

        UsageError if another process has it, InputError if its manifest is damaged or of another version.
        """
        self.folder = folder
        self._journal = journal or NullJournal()
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
            found = _read_manifest(folder / "manifest.json")
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
        return max((part.last_us for part in self.manifest.parts), default=0)

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
        table = pa.Table.from_batches([_shaped(batch) for batch in batches], schema=ROWS)
        head = _Head(
            input=name,
            number=entry.next,
            position=position,
            rows=table.num_rows,
            refusals=list(refusals),
            owners=[(*owner, count) for owner, count in sorted((owners or {}).items(), key=_owner_order)],
        )
        path = self.folder / "segments" / f"{name}-{head.number:012d}.parquet"
        sink = io.BytesIO()
        pq.write_table(
            table.replace_schema_metadata({_META: msgspec.json.encode(head)}), sink, compression="zstd"
        )
        write_whole(path, [sink.getbuffer()], "the rows")
        _sync(path.parent)
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
                for day, table in _by_day(_read(path)):
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
            tables = [_read(self.folder / part.file) for part in kept] + new
            known = [] if whole else [_read(self.folder / part.file, ["exchange_id"]) for part in old]
            table, doubled = _one(tables, known)
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
            )
        )
        for name, segments in taken.items():
            self._inputs[name].waiting = self._inputs[name].waiting[len(segments) :]
        for part in made:
            self._journal.append(
                "partition",
                {"file": part.file, "rows": part.rows, "sha256": part.digest, "input": part.input},
            )
        self._clean()
        return made

    def window(self, days: int, until_us: int | None = None) -> list[Part]:
        """The files of the last `days` days, up to the newest row's day or that of `until_us`."""
        end = self._end(days) if until_us is None else _day(until_us)
        begin = (date.fromisoformat(end) - timedelta(days=days - 1)).isoformat()
        return [part for part in self.manifest.parts if begin <= part.day <= end]

    def _end(self, days: int) -> str:
        """The last day of a window: the newest one whose window holds `LEAST_OF_WINDOW` of the fullest one's rows.

        A few rows with a wrong date must not empty the window, or delete what is older than they are.
        """
        rows: Counter[str] = Counter()
        for part in self.manifest.parts:
            rows[part.day] += part.rows
        held: dict[str, int] = {}
        for day in rows:
            begin = (date.fromisoformat(day) - timedelta(days=days - 1)).isoformat()
            held[day] = sum(count for other, count in rows.items() if begin <= other <= day)
        enough = LEAST_OF_WINDOW * max(held.values(), default=0)
        return max((day for day, count in held.items() if count >= enough), default=_day(0))

    def drop(self, days: int) -> list[Part]:
        """Delete what is older than the last `days` days; returns what went."""
        kept = set(self.window(days))
        end = self._end(days)
        gone = [part for part in self.manifest.parts if part not in kept and part.day <= end]
        if gone:
            parts = tuple(part for part in self.manifest.parts if part not in gone)
            self._replace(
                msgspec.structs.replace(self.manifest, number=self.manifest.number + 1, parts=parts)
            )
            for part in gone:
                self._journal.append(
                    "partition_deleted", {"file": part.file, "rows": part.rows, "sha256": part.digest}
                )
            self._clean()
        return gone

    def accounts(self) -> pa.Table | None:
        """An accounts table of what the logs say about owners; the commonest of several declarations counts."""
        if self.manifest.owners is None:
            return None
        table = _read(self.folder / self.manifest.owners)
        columns: dict[str, pa.Array] = {}
        names = sorted(set(table.column("account_id").to_pylist()))
        columns["account_id"] = pa.array(names, pa.string())
        for column in ("entity_id", "email_domain"):
            best: dict[str, tuple[int, str]] = {}
            said = table.filter(pc.is_valid(table.column(column)))
            summed = said.group_by(["account_id", column]).aggregate([("count", "sum")]).to_pydict()
            for account, value, count in zip(
                summed["account_id"], summed[column], summed["count_sum"], strict=True
            ):
                best[account] = min(best.get(account, (0, "")), (-count, value))
            columns[column] = pa.array([best.get(name, (0, None))[1] for name in names], pa.string())
        return pa.Table.from_arrays(
            [columns.get(f.name, pa.nulls(len(names), f.type)) for f in ACCOUNTS], schema=ACCOUNTS
        )

    def _write_part(self, day: str, name: str, number: int, table: pa.Table) -> Part:
        file = f"days/{day}/{name}.{number}.parquet"
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd", store_schema=False)
        data = sink.getbuffer()
        write_whole(self.folder / file, [data], "a partition")
        _sync((self.folder / file).parent)
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
            for row in _read(self.folder / self.manifest.owners).to_pylist():
                owners[row["account_id"], row["entity_id"], row["email_domain"]] += row["count"]
        listed = sorted(owners.items(), key=_owner_order)
        table = pa.table(
            [pa.array([owner[place] for owner, _ in listed], pa.string()) for place in range(3)]
            + [pa.array([count for _, count in listed], pa.int64())],
            schema=OWNERS,
        )
        file = f"owners.{number}.parquet"
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        write_whole(self.folder / file, [sink.getbuffer()], "the owners")
        return file

    def _replace(self, manifest: Manifest) -> None:
        write_whole(self.folder / "manifest.json", [msgspec.json.encode(manifest)], "the manifest")
        _sync(self.folder)
        self.manifest = manifest

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
            try:
                head = msgspec.json.decode(pq.read_schema(path).metadata[_META], type=_Head)
            except (OSError, KeyError, TypeError, pa.ArrowException, msgspec.DecodeError) as error:
                raise InputError(
                    "rows that were kept cannot be read",
                    where=Where(str(path)),
                    hint="restore the file from a backup, or remove it: its rows are lost then",
                ) from error
            entry = self._inputs.setdefault(head.input, _Input())
            entry.waiting.append((path, head))
            entry.next, entry.position = head.number + 1, head.position


def _read_manifest(path: Path) -> Manifest | None:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(
            "the manifest of the partitions is damaged",
            where=Where(str(path)),
            hint="restore it from a backup: it says which files count",
        ) from error
    if found.version != VERSION:
        raise InputError(
            f"these partitions have version {found.version}, this program writes {VERSION}",
            where=Where(str(path)),
            hint="name another folder",
        )
    return found


def _owner_order(entry: tuple[Owner, int]) -> tuple[str, str, str]:
    (account, entity, domain), _ = entry
    return account, entity or "", domain or ""


def _shaped(batch: pa.RecordBatch) -> pa.RecordBatch:
    have = set(batch.schema.names)
    arrays = [
        batch.column(f.name).cast(f.type) if f.name in have else pa.nulls(batch.num_rows, f.type)
        for f in ROWS
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=ROWS)


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        # Not `read_table`: it would take folder names for columns.
        with pq.ParquetFile(path) as file:
            return file.read(columns).replace_schema_metadata()
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            "a partition is missing or damaged", where=Where(str(path)), hint="restore it from a backup"
        ) from error


def _day(us: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).date().isoformat()


def _by_day(table: pa.Table) -> Iterable[tuple[str, pa.Table]]:
    """The rows of each UTC day."""
    if table.num_rows == 0:
        return
    days = pc.floor_temporal(table.column("ts"), unit="day").cast(pa.int64())
    for day in pc.unique(days).to_pylist():
        yield _day(day), table.filter(pc.equal(days, day))


def _one(tables: Sequence[pa.Table], known: Sequence[pa.Table]) -> tuple[pa.Table, int]:
    """One table in the order of time and id, each id once, none that is `known`; and how many rows went for that."""
    table = pa.concat_tables([ROWS.empty_table(), *(t.select(ROWS.names).cast(ROWS) for t in tables)])
    before = table.num_rows
    if known:
        ids = pa.concat_tables(known).column("exchange_id").combine_chunks()
        table = table.filter(pc.invert(pc.is_in(table.column("exchange_id"), value_set=ids)))
    table = table.append_column("_at", pa.array(range(table.num_rows), pa.int64()))
    first = table.group_by("exchange_id", use_threads=False).aggregate([("_at", "min")])
    if first.num_rows < table.num_rows:
        table = table.filter(
            pc.is_in(table.column("_at"), value_set=first.column("_at_min").combine_chunks())
        )
    table = table.sort_by([("ts", "ascending"), ("exchange_id", "ascending")]).select(ROWS.names)
    return table.combine_chunks(), before - table.num_rows


def _sync(folder: Path) -> None:
    """A rename is durable once its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
