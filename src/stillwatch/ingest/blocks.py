"""Cutting a byte stream into rows: JSON lines, JSON arrays and CSV records, in blocks of bounded size.

A block knows, for each of its rows, the row number and the byte offset in the decompressed file, so that
any later refusal can say where it stands. Nothing here looks at values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from stillwatch.ingest.source import ByteStream

BLOCK_BYTES = 8 << 20
"""Bytes read at a time: large enough to amortise, small enough that ten of them fit anywhere."""

MAX_ROW_BYTES = 256 << 20
"""A longer row is refused: beyond it an unclosed bracket or quote is likelier than a prompt."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Broken:
    """A stretch of input that is not a row."""

    row: int
    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows: row i is `data[starts[i]:ends[i]]`."""

    data: bytes
    starts: Ints
    ends: Ints
    rows: Ints
    """Row numbers, from 1: the line for JSON lines, the element for arrays, the record for CSV."""
    base: int
    """Offset of `data` in the decompressed file, in bytes."""
    broken: list[Broken]

    def slices(self) -> list[bytes]:
        """The rows as separate byte strings."""
        data = self.data
        return [data[start:end] for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True)]


_NONE: Ints = np.zeros(0, dtype=np.int64)
_BOM = b"\xef\xbb\xbf"
_RESTART = re.compile(rb"\n[\[{]")
_MAX_RESTARTS = 64
"""Each restart scans the rest again; a file that needs more of them is not JSON."""


def line_blocks(stream: ByteStream) -> Iterator[Block]:
    """Rows are the non-blank lines of the stream."""
    offset, line = 0, 1
    rest = b""
    first = True
    for chunk, last in _chunks(stream):
        data = rest + chunk if rest else chunk
        if first and len(data) < len(_BOM) and not last:
            rest = data
            continue
        if first and data.startswith(_BOM):
            data, offset = data[len(_BOM) :], len(_BOM)
        first = False
        cut = len(data) if last else data.rfind(b"\n") + 1
        if cut == 0:
            if len(data) > MAX_ROW_BYTES:
                yield Block(b"", _NONE, _NONE, _NONE, offset, [Broken(line, offset, _too_long())])
                dropped, rest = _skip_line(stream)
                offset, line = offset + len(data) + dropped, line + 1
                continue
            rest = data
            continue
        block, rest = data[:cut], data[cut:]
        ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == 10).astype(np.int64)
        if not block.endswith(b"\n"):
            ends = np.append(ends, len(block))
        starts = np.concatenate([np.zeros(1, dtype=np.int64), ends[:-1] + 1]) if len(ends) else ends
        numbers = np.arange(line, line + len(ends), dtype=np.int64)
        keep = _not_blank(block, starts, ends)
        yield Block(block, starts[keep], ends[keep], numbers[keep], offset, [])
        offset, line = offset + cut, line + len(ends)


def _not_blank(block: bytes, starts: Ints, ends: Ints) -> npt.NDArray[np.bool_]:
    """True for rows with anything but white space. Only short lines are looked at closely."""
    keep = ends > starts
    for index in np.flatnonzero(keep & (ends - starts < 64)):
        if not block[starts[index] : ends[index]].strip():
            keep[index] = False
    return keep


def _too_long() -> str:
    return f"the row is longer than {MAX_ROW_BYTES >> 20} MiB"


def _skip_line(stream: ByteStream) -> tuple[int, bytes]:
    """Drop bytes up to the next newline; returns how many were dropped and what follows it."""
    dropped = 0
    while chunk := stream.read(BLOCK_BYTES):
        cut = chunk.find(b"\n")
        if cut >= 0:
            return dropped + cut + 1, chunk[cut + 1 :]
        dropped += len(chunk)
    return dropped, b""


def _chunks(stream: ByteStream) -> Iterator[tuple[bytes, bool]]:
    """(bytes, is it the last); the last one may be empty."""
    while chunk := stream.read(BLOCK_BYTES):
        yield chunk, False
    yield b"", True


def json_blocks(stream: ByteStream) -> Iterator[Block]:
    """Rows are the objects of JSON arrays: one array over the whole file, several in a row, or bare objects
    one after another over any number of lines. Anything else between them is a row of its own, which the
    decoder then refuses.
    """
    offset, row = 0, 1
    rest = b""
    restarts = 0
    for chunk, last in _chunks(stream):
        data = rest + chunk if rest else chunk
        if offset == 0 and not last and len(data) < len(_BOM):
            rest = data
            continue
        if offset == 0 and data.startswith(_BOM):
            data, offset = data[len(_BOM) :], len(_BOM)
        again = True
        while again:
            starts, ends, consumed, unclosed = _split_json(np.frombuffer(data, dtype=np.uint8), last)
            broken: list[Broken] = []
            numbers = np.arange(row, row + len(starts), dtype=np.int64)
            row += len(starts)
            again = bool(unclosed) and (last or len(data) - consumed > MAX_ROW_BYTES)
            if again:
                reason = "an object opens here and never closes" if last else _too_long()
                broken.append(Broken(row, offset + consumed, reason))
                row += 1
            if len(starts) or broken:
                yield Block(data, starts, ends, numbers, offset, broken)
            if again:
                # Go on where a line begins with a bracket, as a new object or array would.
                restarts += 1
                found = _RESTART.search(data, consumed)
                again = found is not None and restarts <= _MAX_RESTARTS
                consumed = found.start() + 1 if again and found is not None else len(data)
            data = data[consumed:]
            offset += consumed
        rest = data


def record_blocks(stream: ByteStream, delimiter: str, width: int) -> Iterator[Block]:
    """Rows are the CSV records after the header, RFC 4180 quoting; row 1 is the first after the header.

    Records that have not `width` fields become `broken`. A quote that never closes costs its own line only.
    """
    offset, row = 0, 0
    rest = b""
    mark = ord(delimiter)
    for chunk, last in _chunks(stream):
        data = rest + chunk if rest else chunk
        if offset == 0 and data.startswith(_BOM):
            data, offset = data[len(_BOM) :], len(_BOM)
        done = False
        while not done:
            starts, ends, fields, consumed = _split_csv(np.frombuffer(data, dtype=np.uint8), mark, last)
            stuck = len(data) - consumed > (0 if last else MAX_ROW_BYTES)
            broken: list[Broken] = []
            numbers = np.arange(row, row + len(starts), dtype=np.int64)
            row += len(starts)
            bad = fields != width
            if len(numbers) and numbers[0] == 0:
                bad[0] = False
            for index in np.flatnonzero(bad):
                reason = f"{fields[index]} fields where the header has {width}"
                broken.append(Broken(int(numbers[index]), offset + int(starts[index]), reason))
            if stuck:
                broken.append(Broken(row, offset + consumed, "a quote opens here and never closes"))
                row += 1
            keep = ~bad & (numbers > 0)
            if len(starts) or broken:
                yield Block(data, starts[keep], ends[keep], numbers[keep], offset, broken)
            if stuck:
                cut = data.find(b"\n", consumed)
                consumed = cut + 1 if cut >= 0 else len(data)
            data = data[consumed:]
            offset += consumed
            done = not stuck or not data
        rest = data


@numba.njit(cache=True)
def _split_json(data: npt.NDArray[np.uint8], last: bool) -> tuple[Ints, Ints, int, bool]:
    """Starts, ends, how far they reach, and whether an object is still open there."""
    size = len(data)
    room = 1024
    starts = np.empty(room, dtype=np.int64)
    ends = np.empty(room, dtype=np.int64)
    count = 0
    consumed = 0
    at = 0
    while at < size:
        byte = data[at]
        # Between objects: white space, commas and array brackets carry nothing.
        if byte == 32 or byte == 9 or byte == 10 or byte == 13 or byte == 44 or byte == 91 or byte == 93:
            at += 1
            consumed = at
            continue
        begin = at
        closed = False
        if byte == 123:
            depth = 0
            in_string = False
            while at < size:
                byte = data[at]
                if in_string:
                    if byte == 92:
                        at += 1
                    elif byte == 34:
                        in_string = False
                    elif byte == 10:
                        # No JSON string holds a raw line break: this row is broken, the next may not be.
                        closed = True
                        break
                elif byte == 34:
                    in_string = True
                elif byte == 123 or byte == 91:
                    depth += 1
                elif byte == 125 or byte == 93:
                    depth -= 1
                    if depth == 0:
                        closed = True
                        at += 1
                        break
                at += 1
            if not closed:
                return starts[:count], ends[:count], begin, True
        else:
            while at < size and data[at] != 10 and data[at] != 44 and data[at] != 93 and data[at] != 123:
                at += 1
            if at == size and not last:
                return starts[:count], ends[:count], begin, False
        if count == room:
            room *= 2
            more = np.empty(room, dtype=np.int64)
            more[:count] = starts
            starts = more
            more = np.empty(room, dtype=np.int64)
            more[:count] = ends
            ends = more
        starts[count] = begin
        ends[count] = at
        count += 1
        consumed = at
    return starts[:count], ends[:count], consumed, False


@numba.njit(cache=True)
def _split_csv(data: npt.NDArray[np.uint8], mark: int, last: bool) -> tuple[Ints, Ints, Ints, int]:
    """Starts, ends (without the line break), fields per record, and how far complete records reach."""
    size = len(data)
    room = 1024
    starts = np.empty(room, dtype=np.int64)
    ends = np.empty(room, dtype=np.int64)
    fields = np.empty(room, dtype=np.int64)
    count = 0
    consumed = 0
    at = 0
    while at < size:
        begin = at
        width = 1
        quoted = False
        fresh = True
        complete = False
        while at < size:
            byte = data[at]
            if quoted:
                if byte == 34:
                    if at + 1 < size and data[at + 1] == 34:
                        at += 1
                    else:
                        quoted = False
            elif byte == 34 and fresh:
                quoted = True
                fresh = False
            elif byte == mark:
                width += 1
                fresh = True
            elif byte == 10:
                complete = True
                break
            else:
                fresh = False
            at += 1
        if not complete and (quoted or not last):
            break
        end = at
        at += 1
        if end > begin and data[end - 1] == 13:
            end -= 1
        consumed = min(at, size)
        if end == begin:
            continue
        if count == room:
            room *= 2
            more = np.empty(room, dtype=np.int64)
            more[:count] = starts
            starts = more
            more = np.empty(room, dtype=np.int64)
            more[:count] = ends
            ends = more
            more = np.empty(room, dtype=np.int64)
            more[:count] = fields
            fields = more
        starts[count] = begin
        ends[count] = end
        fields[count] = width
        count += 1
    return starts[:count], ends[:count], fields[:count], consumed
