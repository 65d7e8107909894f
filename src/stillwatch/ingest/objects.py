"""JSON rows of any container -> decoded objects, with a place for each and a reason for each that failed."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from stillwatch.ingest.blocks import Block, json_blocks, line_blocks
from stillwatch.ingest.registry import Broken
from stillwatch.ingest.source import Source

T = TypeVar("T")

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""All that msgspec raises for hostile bytes."""

_decode = msgspec.json.Decoder().decode


@contextmanager
def collection_paused() -> Iterator[None]:
    """No search for reference cycles inside: decoded JSON has none, and a block's many objects set off dozens.

    Never to be held across a `yield`: the caller's own objects may need it.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@dataclass(frozen=True, slots=True)
class Piece(Generic[T]):
    """Decoded rows of one block."""

    objects: list[T]
    texts: list[bytes]
    """The undecoded rows, beside `objects`."""
    rows: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    broken: list[Broken]


def read_objects(source: Source, decoder: msgspec.json.Decoder[T]) -> Iterator[Piece[T]]:
    """Decode every row of a JSON lines or JSON array source. Raises FormatError on a damaged stream."""
    stream = source.open()
    try:
        blocks = line_blocks(stream) if source.container == "jsonl" else json_blocks(stream)
        for block in blocks:
            yield decode_block(block, decoder)
    finally:
        stream.close()


def decode_block(block: Block, decoder: msgspec.json.Decoder[T]) -> Piece[T]:
    """Decode one block; rows that do not decode are left out and listed."""
    broken = [Broken(part.row, part.reason, part.offset) for part in block.broken]
    texts = block.slices()
    offsets = block.starts + block.base
    decode = decoder.decode
    try:
        with collection_paused():
            return Piece([decode(text) for text in texts], texts, block.rows, offsets, broken)
    except DECODE_ERRORS:
        pass
    objects: list[T] = []
    kept: list[int] = []
    for index, text in enumerate(texts):
        try:
            try:
                objects.append(decode(text))
            except DECODE_ERRORS:
                whole = whole_surrogates(text)
                if whole is None:
                    raise
                objects.append(decode(whole))
                texts[index] = whole
            kept.append(index)
        except DECODE_ERRORS as error:
            broken.append(Broken(int(block.rows[index]), why(error), int(offsets[index])))
    broken.sort(key=lambda part: part.row)
    places = np.array(kept, dtype=np.int64)
    return Piece(objects, [texts[index] for index in kept], block.rows[places], offsets[places], broken)


def whole_surrogates(text: bytes) -> bytes | None:
    """JSON in which every half surrogate pair (`"\\ud800"`) has become `?`, as `content_hash` reads it.

    Half a pair is no Unicode, but the services' own parsers take it: a caller must not be able to keep his
    requests out of a scan with one. None where there is none, or the JSON is broken besides.
    """
    if b"\\ud" not in text and b"\\uD" not in text:
        return None
    try:
        return json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace")
    except (ValueError, RecursionError):
        return None


def decode_part(raw: bytes | msgspec.Raw) -> Any:
    """A member that was left undecoded when its row was read. Raises one of `DECODE_ERRORS`."""
    try:
        return _decode(raw)
    except DECODE_ERRORS:
        whole = whole_surrogates(bytes(raw))
        if whole is None:
            raise
        return _decode(whole)


def why(error: Exception) -> str:
    """A reason without any of the row's own bytes."""
    if isinstance(error, UnicodeDecodeError):
        return "invalid UTF-8"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, msgspec.ValidationError):
        # Of these messages only the expected and found JSON types are ours to repeat; the path may hold keys.
        text = str(error).split(" - at ")[0]
        return (
            f"not the JSON expected here: {text}" if text.startswith("Expected") else "a value out of range"
        )
    text = str(error)
    return (
        f"malformed JSON ({text.removeprefix('JSON is malformed: ')})"
        if "malformed" in text
        else "truncated JSON"
    )


def first_objects(head: bytes, limit: int = 16) -> tuple[dict[str, Any], ...]:
    """The complete JSON objects at the beginning of a head, of lines or of an array."""
    found: list[dict[str, Any]] = []
    for blocks in (line_blocks, json_blocks):
        for block in blocks(_Bytes(head)):
            for text in block.slices()[:256]:
                try:
                    value = msgspec.json.decode(text)
                except DECODE_ERRORS:
                    continue
                if isinstance(value, dict):
                    found.append(value)
                if len(found) == limit:
                    return tuple(found)
        if found:
            break
    return tuple(found)


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, n: int) -> bytes:
        out, self._data = self._data[:n], self._data[n:]
        return out

    def close(self) -> None:
        self._data = b""
