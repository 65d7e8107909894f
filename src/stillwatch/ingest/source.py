"""Finding inputs and looking at their first bytes: what a file is, before anything reads it.

A file is known by content, never by its name: compression by magic bytes, container by the head of the
decompressed stream. Names matter for side tables only (`accounts.parquet`, `sanctions.csv.gz`, ...).
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import stat
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, cast

import msgspec
import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from stillwatch.schema.errors import EmptyLogError, FormatError, InputError, UsageError, Where, no_room
from stillwatch.schema.tables import SIDE_TABLES

Container = Literal["parquet", "arrow", "jsonl", "json", "csv", "empty"]
Compression = Literal["plain", "gzip", "zstd"]

HEAD_BYTES = 65_536
"""How much of the decompressed stream formats are recognised from."""

DATA_SUFFIXES = frozenset(
    {".parquet", ".pq", ".arrow", ".feather", ".ipc", ".jsonl", ".ndjson", ".json", ".log", ".csv", ".tsv"}
)
"""Names that count as logs inside a directory; a file named on the command line may have any name."""

LISTINGS = frozenset({"refused.jsonl"})
"""What this program itself writes beside canonical tables: never taken for a log inside a directory."""

_COMPRESSED_SUFFIXES = frozenset({".gz", ".zst"})
_READ_ERRORS = (OSError, EOFError, pa.ArrowException)


class ByteStream(Protocol):
    """What the readers need of a stream."""

    def read(self, n: int) -> bytes: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class InputInfo:
    """One input of a scan, as the results list it."""

    path: str
    """As the caller named it; `-` for standard input."""
    number: int
    """Position in the scan, from 0: `raw_ref.input`."""
    bytes: int
    """Size on disk, compressed."""
    digest: str
    """SHA-256 of the bytes on disk, hex."""
    format: str
    """`<importer>/<container>` and the compression, e.g. `litellm/jsonl+gzip`."""


@dataclass(frozen=True, slots=True)
class Source:
    """One input file, recognised but not yet read."""

    path: str
    local: Path
    number: int
    size: int
    compression: Compression
    container: Container
    head: bytes = field(repr=False)
    columns: tuple[str, ...] | None = None
    """Column names where the container declares them (Parquet, Arrow, CSV)."""
    given: Path | None = None
    """The file as it was given, where `local` is an unpacked copy of it."""
    packing: Compression = "plain"
    """How the file as given is compressed."""

    @property
    def original(self) -> Path:
        """The bytes that the digest covers."""
        return self.given or self.local

    def open(self) -> ByteStream:
        """The decompressed byte stream. Reading a damaged one raises FormatError."""
        return _Checked(open_stream(self.local, self.compression), self.path)


class _Checked:
    """Turns what a damaged stream raises into FormatError with the file's name."""

    def __init__(self, stream: ByteStream, path: str) -> None:
        self._stream = stream
        self._path = path

    def read(self, n: int) -> bytes:
        try:
            return bytes(self._stream.read(n))
        except _READ_ERRORS as error:
            raise _damaged(self._path, error) from error

    def close(self) -> None:
        self._stream.close()


@dataclass(frozen=True, slots=True)
class Found:
    """What the paths of a call lead to."""

    logs: list[str]
    side: dict[str, str]
    """Side table name -> path."""
    skipped: list[str]
    """Files inside named directories that are neither logs nor side tables."""


def discover(paths: Sequence[str]) -> Found:
    """Expand files, directories, globs and `-` into logs and side tables, in a stable order.

    Side tables are taken by name wherever they turn up. Hidden files and folders named `truth` are never
    opened. Raises UsageError (no path, two side tables of one name), InputError (nothing there).
    """
    if not paths:
        raise UsageError("no log given", hint="name files, directories or globs, or - for standard input")
    found = Found([], {}, [])
    for given in paths:
        if given == "-":
            _add_log(found, given)
        elif os.path.isdir(given) and Path(given).name == "truth":
            raise InputError("a folder `truth` holds answers, not logs", where=Where(given))
        elif os.path.isdir(given):
            _add_directory(found, Path(given))
        elif os.path.exists(given):
            _add_file(found, given)
        elif any(mark in given for mark in "*?["):
            matches = [match for match in sorted(glob.glob(given, recursive=True)) if not _is_truth(match)]
            if not matches:
                raise InputError("the pattern matches no file", where=Where(given))
            for match in matches:
                if os.path.isfile(match):
                    _add_file(found, match)
        else:
            raise InputError("no such file or directory", where=Where(given), hint="check the path")
    return found


def _is_truth(path: str) -> bool:
    return "truth" in Path(path).parts


def _add_log(found: Found, path: str) -> None:
    # The same file named twice would turn every one of its rows into a duplicate.
    if path not in found.logs:
        found.logs.append(path)


def _add_file(found: Found, path: str) -> None:
    stem = Path(path).name.split(".", 1)[0]
    if stem not in SIDE_TABLES:
        _add_log(found, path)
        return
    before = found.side.setdefault(stem, path)
    if before != path:
        raise UsageError(
            f"two {stem} tables: {before} and {path}",
            hint=f"name one of them, or join them into one {stem} table",
        )


def _add_directory(found: Found, top: Path) -> None:
    for folder, names, files in os.walk(top):
        names[:] = sorted(name for name in names if not name.startswith(".") and name != "truth")
        if "findings.json" in files:
            # Results of an earlier scan, perhaps of this very folder: their tables are no logs.
            if Path(folder) == top:
                raise InputError(
                    "this is a results folder, not a log",
                    where=Where(str(top)),
                    hint="name the log that was scanned; `stillwatch explain` reads results",
                )
            found.skipped.extend(os.path.join(folder, name) for name in sorted(files))
            names[:] = []
            continue
        for name in sorted(files):
            path = os.path.join(folder, name)
            if name.startswith("."):
                continue
            suffixes = Path(name).suffixes
            plain = [suffix for suffix in suffixes if suffix not in _COMPRESSED_SUFFIXES]
            is_side = name.split(".", 1)[0] in SIDE_TABLES
            if (
                name in LISTINGS
                or (plain and plain[-1] not in DATA_SUFFIXES)
                or (is_side and Path(folder) != top)
            ):
                found.skipped.append(path)
            else:
                _add_file(found, path)


def open_stream(local: Path, compression: Compression) -> ByteStream:
    """The decompressed bytes of a file; several members or frames in a row read as one stream."""
    if compression == "plain":
        return cast(ByteStream, local.open("rb", buffering=0))
    return cast(ByteStream, pa.CompressedInputStream(pa.OSFile(str(local), "rb"), compression))


def spool(stream: BinaryIO, folder: Path) -> Path:
    """Copy standard input or a pipe to a private temporary file, so that it can be read more than once."""
    try:
        handle, name = tempfile.mkstemp(prefix="stdin-", dir=folder)
        with os.fdopen(handle, "wb", buffering=0) as out:
            while block := stream.read(1 << 20):
                _write_all(out, block)
    except OSError as error:
        raise no_room(error, "while standard input or a pipe was copied") from error
    return Path(name)


def _write_all(out: RawIOBase, block: bytes) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[out.write(rest) or 0 :]


def inspect(path: str, number: int, folder: Path) -> Source:
    """Recognise compression and container of one input.

    `folder` takes the spooled standard input and decompressed copies of formats that need random access.
    Raises InputError (unreadable), FormatError (damaged or of no known kind). An empty file is container
    `empty`: one empty file among many is no reason to stop.
    """
    try:
        local = _local(path, folder)
        size = local.stat().st_size
        with local.open("rb") as raw:
            magic = raw.read(8)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or 'I/O error'}", where=Where(path)) from error
    compression = _compression(magic)
    head = _read_head(path, local, compression)
    container = _container(path, head)
    given, packing = local, compression
    if compression != "plain" and container in ("parquet", "arrow"):
        local, compression = _unpacked(path, local, compression, folder), "plain"
    columns: tuple[str, ...] | None = None
    if container in ("parquet", "arrow"):
        columns = _declared_columns(path, local, container)
    elif container == "csv":
        columns = tuple(csv_header(head, path))
    if columns is not None:
        _refuse_repeated(path, columns)
    name = shown(path)
    return Source(name, local, number, size, compression, container, head, columns, given, packing)


def _local(path: str, folder: Path) -> Path:
    """The file to read: a copy of what can be read only once. InputError for devices."""
    if path == "-":
        return spool(sys.stdin.buffer, folder)
    mode = os.stat(path).st_mode
    if stat.S_ISFIFO(mode):
        with open(path, "rb") as pipe:
            return spool(pipe, folder)
    if not stat.S_ISREG(mode) and not os.path.samefile(path, os.devnull):
        raise InputError(
            "neither a file nor a pipe", where=Where(path), hint="name a file, or - for standard input"
        )
    return Path(path)


def shown(path: str) -> str:
    """A path as text that any file and terminal takes: bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def digest(local: Path) -> str:
    """SHA-256 of a file in hex; streams, and releases the interpreter lock, so threads help."""
    value = hashlib.sha256()
    with local.open("rb", buffering=0) as raw:
        while block := raw.read(1 << 20):
            value.update(block)
    return value.hexdigest()


def _compression(magic: bytes) -> Compression:
    if magic.startswith(b"\x1f\x8b"):
        return "gzip"
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return "zstd"
    return "plain"


def _read_head(path: str, local: Path, compression: Compression) -> bytes:
    parts: list[bytes] = []
    have = 0
    try:
        stream = open_stream(local, compression)
        try:
            while have < HEAD_BYTES:
                part = bytes(stream.read(HEAD_BYTES - have))
                if not part:
                    break
                parts.append(part)
                have += len(part)
        finally:
            stream.close()
    except _READ_ERRORS as error:
        # A short stream may still show its first rows before it breaks; the reader reports the damage.
        if not parts:
            raise _damaged(path, error) from error
    return b"".join(parts)


def _damaged(path: str, error: BaseException) -> FormatError:
    text = str(error).lower()
    how = "is truncated" if "truncated" in text or "ended before" in text else "is corrupt"
    return FormatError(
        f"the compressed stream {how}",
        where=Where(path),
        hint="copy the file again, or leave it out of the scan",
    )


def _container(path: str, head: bytes) -> Container:
    if not head.strip():
        return "empty"
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"ARROW1") or (head.startswith(b"\xff\xff\xff\xff") and len(head) > 8):
        return "arrow"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FormatError("the text is UTF-16", where=Where(path), hint="convert it to UTF-8 first (iconv)")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"["):
        return "json"
    lines = text.split(b"\n")
    if any(_is_object(line) for line in lines):
        return "jsonl"
    if text.startswith(b"{"):
        # No complete line in sight: one very long line, or one object over many lines.
        first = lines[0].rstrip()
        return "json" if len(lines) > 1 and not first.endswith(b"}") else "jsonl"
    if _is_binary(head):
        raise FormatError(
            "an unknown binary format",
            where=Where(path),
            hint="Parquet, Arrow, JSON, JSONL and CSV are read, each plain, gzip or zstd",
        )
    if len(csv_header(head, path)) < 2:
        raise FormatError(
            "neither JSON nor CSV: the first line has no columns",
            where=Where(path, row=1),
            hint="Parquet, Arrow, JSON, JSONL and CSV are read, each plain, gzip or zstd",
        )
    return "csv"


def _is_object(line: bytes) -> bool:
    stripped = line.strip()
    if not (stripped.startswith(b"{") and stripped.endswith(b"}")):
        return False
    try:
        msgspec.json.decode(stripped)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _is_binary(head: bytes) -> bool:
    """Control characters in the first line, where a header would stand, or all over the place.

    Single ones further down are somebody's prompt.
    """
    marks = rb"[\x00-\x08\x0e-\x1f]"
    return bool(re.search(marks, head.split(b"\n", 1)[0])) or len(re.findall(marks, head)) > len(head) // 8


def csv_delimiter(head: bytes) -> str:
    """The delimiter of a CSV file: whichever of comma, tab and semicolon its first line has most of."""
    first = head.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0]
    return max((",", "\t", ";"), key=lambda mark: first.count(mark.encode()))


def csv_header(head: bytes, path: str) -> list[str]:
    """Column names of a CSV file from its first line, unquoted; FormatError if it is not UTF-8."""
    first = head.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].rstrip(b"\r")
    try:
        text = first.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("the header line is not UTF-8", where=Where(path, row=1)) from error
    names = text.split(csv_delimiter(head))
    return [name.strip().strip('"').strip() for name in names]


def _refuse_repeated(path: str, columns: tuple[str, ...]) -> None:
    seen: set[str] = set()
    for name in columns:
        if name in seen:
            raise FormatError(
                "a column name occurs twice",
                where=Where(path, column=name),
                hint="rename one of the two columns",
            )
        seen.add(name)


def _unpacked(path: str, local: Path, compression: Compression, folder: Path) -> Path:
    """Parquet and Arrow files need random access: unpack a compressed one beside the spooled input."""
    handle, name = tempfile.mkstemp(prefix="unpacked-", dir=folder)
    stream = _Checked(open_stream(local, compression), path)
    try:
        with os.fdopen(handle, "wb") as out:
            while block := stream.read(1 << 20):
                out.write(block)
    except OSError as error:
        raise no_room(error, "while a compressed table was unpacked") from error
    finally:
        stream.close()
    return Path(name)


def _declared_columns(path: str, local: Path, container: Container) -> tuple[str, ...]:
    try:
        if container == "parquet":
            return tuple(pq.read_schema(local).names)
        return tuple(arrow_reader(local).schema.names)
    except (*_READ_ERRORS, ValueError) as error:
        raise FormatError(
            f"the {'Parquet' if container == 'parquet' else 'Arrow'} file is truncated or corrupt",
            where=Where(path),
            hint="copy the file again, or leave it out of the scan",
        ) from error


def arrow_reader(local: Path) -> ipc.RecordBatchStreamReader | ipc.RecordBatchFileReader:
    """A reader for an Arrow IPC file of either kind (file, stream)."""
    mapped = pa.memory_map(str(local), "rb")
    try:
        return ipc.open_file(mapped)
    except pa.ArrowInvalid:
        mapped.seek(0)
        return ipc.open_stream(mapped)


def refuse_empty(sources: Sequence[Source]) -> None:
    """EmptyLogError when none of the inputs holds anything."""
    if all(source.container == "empty" for source in sources):
        names = ", ".join(source.path for source in sources[:3])
        raise EmptyLogError(
            "the log is empty", where=Where(names), hint="check that the export ran and wrote rows"
        )
