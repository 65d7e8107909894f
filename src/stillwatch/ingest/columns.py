"""Values of any shape -> canonical Arrow columns, naming each value that does not fit.

A value is coerced only where nothing is lost: `7.0` is 7, `"7"` is 7, 7 is `"7"` in a text column; a
fraction in an integer column, a number beyond the column's range or an object in a text column is refused.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.schema.tables import EXCHANGES

Bad = dict[int, tuple[str, str]]
"""Row index -> (column, reason) of the first value in the row that does not fit."""

_ABSENT = frozenset({type(None)})
_MAX_INTEGER_FLOAT = float(2**53)


class Unreadable:
    """The type of `UNREADABLE`: no value of a log, so that it can never be taken for one."""


UNREADABLE = Unreadable()
"""Stands for a time that is not in the format its mapping states: the row is refused."""


class Misfit(ValueError):
    """A single value that cannot be coerced; the message says why and never quotes the value."""


def build(values: Mapping[str, Sequence[Any]], count: int, bad: Bad) -> pa.Table:
    """A table of `count` rows with a column for every entry of `values` that holds anything.

    Names outside the canonical table are left out. Misfits become null and are entered in `bad`.
    `raw_ref` is never taken from an input: it would point into somebody else's files.
    """
    names: list[str] = []
    arrays: list[pa.Array] = []
    for schema_field in EXCHANGES:
        column = values.get(schema_field.name)
        if column is None or schema_field.name == "raw_ref" or _ABSENT.issuperset(map(type, column)):
            continue
        names.append(schema_field.name)
        arrays.append(to_column(schema_field.name, schema_field.type, column, bad))
    if not arrays:
        return pa.table({"exchange_id": pa.nulls(count, pa.string())})
    return pa.Table.from_arrays(arrays, names=names)


def to_column(name: str, kind: pa.DataType, values: Sequence[Any], bad: Bad) -> pa.Array:
    """One column. Timestamps keep their raw form (text, integer or double): units are judged per column."""
    if pa.types.is_timestamp(kind):
        return _times(name, values, bad)
    types = set(map(type, values))
    fast = _fast(kind, types, values)
    if fast is not None:
        return fast
    convert = _converter(kind)
    out: list[Any] = []
    for index, value in enumerate(values):
        if value is None:
            out.append(None)
            continue
        try:
            out.append(convert(value))
        except Misfit as misfit:
            bad.setdefault(index, (name, str(misfit)))
            out.append(None)
    return pa.array(out, kind)


def _fast(kind: pa.DataType, types: set[type], values: Sequence[Any]) -> pa.Array | None:
    """The whole column in one call where its Python types already fit; None sends it down the slow road."""
    rest = types - _ABSENT
    try:
        if kind == pa.string() and rest <= {str}:
            return pa.array(values, pa.string())
        if pa.types.is_integer(kind) and rest <= {int}:
            return pa.array(values, pa.int64()).cast(kind) if kind != pa.uint64() else pa.array(values, kind)
        if pa.types.is_floating(kind) and rest <= {int, float}:
            return pa.array(values, pa.float64()).cast(kind, safe=False)
        if pa.types.is_boolean(kind) and rest <= {bool}:
            return pa.array(values, kind)
        if kind == pa.uint64() and rest == {str}:
            return _hex(values)
        if pa.types.is_list(kind) and rest == {list}:
            return _hex_lists(values, kind)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError, ValueError, TypeError):
        pass
    return None


def _hex(values: Sequence[str | None]) -> pa.Array:
    """Sixteen hex digits each, all in one decode."""
    texts = [value or "0" * 16 for value in values]
    if set(map(len, texts)) != {16}:
        raise ValueError("not all of 16 digits")
    numbers = np.frombuffer(bytes.fromhex("".join(texts)), dtype=">u8").astype(np.uint64)
    if len(numbers) != len(texts):
        raise ValueError("blanks among the digits")
    return pa.array(numbers, mask=np.array([not value for value in values], dtype=bool))


def _hex_lists(values: Sequence[list[Any] | None], kind: pa.DataType) -> pa.Array:
    flat = [item for value in values if value is not None for item in value]
    if not flat:
        items = pa.array([], pa.uint64())
    elif set(map(type, flat)) == {int}:
        items = pa.array(flat, pa.uint64())
    elif "" in flat or None in flat:
        raise ValueError("a hash that is empty")
    else:
        items = _hex(flat)
    lengths = np.array([0 if value is None else len(value) for value in values], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    missing = np.array([value is None for value in values], dtype=bool)
    return pa.ListArray.from_arrays(pa.array(offsets), items, type=kind, mask=pa.array(missing))


def _times(name: str, values: Sequence[Any], bad: Bad) -> pa.Array:
    """Text or numbers, whichever the column has more of; the others are misfits.

    Fractional numbers are epoch seconds (or milliseconds, by their median) and come out as microseconds.
    """
    texts = sum(isinstance(value, str) for value in values)
    numbers = sum(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    kinds: tuple[type, ...] = (str,) if texts >= numbers else (int, float)
    kept: list[Any] = []
    for index, value in enumerate(values):
        fits = isinstance(value, kinds) and not isinstance(value, bool)
        if fits and isinstance(value, str):
            fits = _encodable(value)
        elif fits:
            fits = abs(value) < 2**63
        if value is not None and not fits:
            if value is UNREADABLE:
                reason = "the time is not in the format that the mapping states"
            else:
                reason = "the time is written differently from the rest of the column"
            bad.setdefault(index, (name, reason))
        kept.append(value if fits else None)
    if kinds == (str,):
        return text_times(pa.array(kept, pa.string()))
    return number_times(pa.array([None if v is None else float(v) for v in kept]), kept)


def number_times(floats: pa.Array, exact: Sequence[int | float | None]) -> pa.Array:
    """Epoch numbers as int64 in their own unit if all are whole, else in microseconds."""
    if all(value is None or isinstance(value, int) for value in exact):
        return pa.array(exact, pa.int64())
    whole = pc.all(pc.equal(floats, pc.floor(floats))).as_py()
    scale = 1.0
    if not whole:
        middle = float(np.nanmedian(np.abs(floats.to_numpy(zero_copy_only=False))))
        # Seconds have ten digits before the point until 2286, milliseconds thirteen.
        scale = 1e6 if middle < 1e11 else 1e3 if middle < 1e14 else 1.0
    scaled = np.rint(floats.fill_null(0.0).to_numpy(zero_copy_only=False) * scale)
    inside = np.abs(scaled) < 9.2e18
    stamps = np.where(inside, scaled, 0).astype(np.int64)
    return pa.array(stamps, mask=floats.is_null().to_numpy(zero_copy_only=False))


def text_times(column: pa.Array) -> pa.Array:
    """A text column of times; numbers in quotes become epoch numbers if the whole column is so."""
    if column.null_count == len(column):
        return column
    if pc.all(pc.match_substring_regex(column, r"^\s*-?\d{1,18}\s*$")).as_py():
        return pc.cast(pc.utf8_trim_whitespace(column), pa.int64())
    if pc.all(pc.match_substring_regex(column, r"^\s*-?\d{1,18}(\.\d*)?([eE][+]?\d{1,2})?\s*$")).as_py():
        floats = pc.cast(pc.utf8_trim_whitespace(column), pa.float64())
        return number_times(floats, floats.to_pylist())
    return column


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _converter(kind: pa.DataType) -> Callable[[Any], Any]:
    if kind == pa.string():
        return to_text
    if kind == pa.uint64():
        return _to_hash
    if pa.types.is_integer(kind):
        return _integer_converter(kind)
    if pa.types.is_floating(kind):
        return _to_float
    if pa.types.is_boolean(kind):
        return _to_bool
    if pa.types.is_list(kind):
        return _to_hashes
    if pa.types.is_map(kind):
        return _to_scores
    return _to_bytes


def to_text(value: Any) -> str:
    """Text of a string or number; Misfit for anything else."""
    if isinstance(value, str):
        if not _encodable(value):
            raise Misfit("the text holds half a surrogate pair, which is not valid Unicode")
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise Misfit(f"text expected, found {_what(value)}")


def _to_hash(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64:
        return value
    if isinstance(value, str) and 0 < len(value) <= 16:
        try:
            if value.isalnum():
                return int(value, 16)
        except ValueError:
            pass
    raise Misfit("a hash is 16 hex digits or an unsigned 64-bit number")


def _to_hashes(value: Any) -> list[int]:
    if isinstance(value, str):
        value = _parsed(value)
    if not isinstance(value, list):
        raise Misfit(f"a list of hashes expected, found {_what(value)}")
    return [_to_hash(item) for item in value]


def _parsed(text: str) -> Any:
    """A list or object written as JSON inside a cell."""
    import msgspec

    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Misfit("the cell is not valid JSON") from None


def _integer_converter(kind: pa.DataType) -> Callable[[Any], int]:
    low, high = -(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1

    def convert(value: Any) -> int:
        number = value
        if isinstance(value, str):
            try:
                number = float(value)
                number = int(value) if len(value) < 20 and value.strip().lstrip("+-").isdigit() else number
            except ValueError:
                raise Misfit("a whole number expected, found text") from None
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise Misfit(f"a whole number expected, found {_what(value)}")
        if isinstance(number, float):
            if not abs(number) <= _MAX_INTEGER_FLOAT or number != int(number):
                raise Misfit("a whole number expected, found a fraction")
            number = int(number)
        if not low <= number <= high:
            raise Misfit("the number is beyond the range of the column")
        return int(number)

    return convert


def _to_float(value: Any) -> float:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise Misfit(f"a number expected, found {_what(value)}")


def _to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in ("true", "false", "1", "0"):
        return value.strip().lower() in ("true", "1")
    raise Misfit(f"true or false expected, found {_what(value)}")


def _to_scores(value: Any) -> list[tuple[str, float]]:
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):
        pairs = [(pair[0], pair[1]) for pair in value]
    else:
        raise Misfit(f"an object of scores expected, found {_what(value)}")
    return sorted((to_text(key), _to_float(score)) for key, score in pairs)


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise Misfit("a sketch in base64 expected")


def _what(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list | tuple) else "an object"
