"""Checks of the canonical tables: types, required columns, plausible times, unique ids.

A table comes out with canonical types; a row that cannot be kept is refused with its place and reason. Unknown
extra columns are carried along untouched.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.schema.errors import ColumnError, FormatError, Where
from stillwatch.schema.refusals import Bools, Ints, Refusal, RefusalLedger, raise_first
from stillwatch.schema.tables import EXCHANGES, REDACTION_MARKERS, SANCTION_KINDS, SIDE_TABLES
from stillwatch.schema.times import (
    CLOCK_SKEW_US,
    EARLIEST_ACCOUNT_US,
    EARLIEST_LOG_US,
    implausible,
    read_times,
    readable_as_time,
)

_NOT_NEGATIVE = (
    "n_messages", "prefix_bytes", "max_tokens", "input_tokens", "output_tokens", "reasoning_tokens", "latency_ms",
)  # fmt: skip
_LONG_ID = 4096


@dataclass(frozen=True, slots=True)
class Checked:
    """A checked batch: canonical types, refused rows taken out, and `rows` int64: where each kept row stood."""

    batch: pa.RecordBatch
    refusals: list[Refusal]
    rows: Ints
    kept: Bools
    """bool over the rows that came in."""


@dataclass(slots=True)
class TimeUnit:
    """Remembers the epoch unit recognised in a file's first batch, for the batches that follow."""

    unit: str | None = None


def check_exchanges(
    table: pa.Table | pa.RecordBatch,
    *,
    file: str,
    rows: Ints | None = None,
    first_row: int = 1,
    offsets: Ints | None = None,
    strict: bool = False,
    now_us: int | None = None,
    unit: TimeUnit | None = None,
) -> Checked:
    """Check a batch of `exchanges`. `rows` int64: the number of each row in its file (default: from `first_row`).

    Raises ColumnError for a missing required column or a type that cannot be read, and RowError for the first
    refused row under `strict`. `now_us` is the clock against which future times are judged.
    """
    return _check(
        table, EXCHANGES, "exchanges", file, rows, first_row, offsets, strict, now_us, unit or TimeUnit()
    )


def check_side(
    name: str, table: pa.Table, file: str, *, strict: bool = False, now_us: int | None = None
) -> tuple[pa.Table, list[Refusal]]:
    """Check a side table (`accounts`, `sanctions`, `releases`, `references`): (table, refused rows).

    FormatError where an account occurs twice in `accounts` or stands in two reference groups.
    """
    checked = _check(table, SIDE_TABLES[name], name, file, None, 1, None, strict, now_us, TimeUnit())
    batch = checked.batch
    if name in ("accounts", "references"):
        ids = batch.column("account_id")
        codes = ids.dictionary_encode().indices.to_numpy(zero_copy_only=False)
        seen = np.zeros(len(codes), bool)
        seen[np.unique(codes, return_index=True)[1]] = True
        if not seen.all():
            row = int(checked.rows[np.flatnonzero(~seen)[0]])
            raise FormatError(
                "an account occurs twice",
                where=Where(file, row, "account_id"),
                hint="keep one row for each account",
            )
    return pa.Table.from_batches([batch]), checked.refusals


def _check(
    table: pa.Table | pa.RecordBatch,
    schema: pa.Schema,
    name: str,
    file: str,
    rows: Ints | None,
    first_row: int,
    offsets: Ints | None,
    strict: bool,
    now_us: int | None,
    unit: TimeUnit,
) -> Checked:
    n = table.num_rows
    numbers = np.arange(first_row, first_row + n, dtype=np.int64) if rows is None else rows
    now = time.time_ns() // 1000 if now_us is None else now_us
    ledger = RefusalLedger(n)
    columns: dict[str, pa.Array] = {}
    for field in schema:
        index = table.schema.get_field_index(field.name)
        if index < 0:
            if not field.nullable:
                raise ColumnError(
                    f"the required column {field.name!r} of {name} is missing",
                    where=Where(file, column=field.name),
                    hint=f"name it with --map {field.name}=$.path, or describe the log in a mapping file",
                )
            continue
        array = _plain(table.column(index))
        if pa.types.is_timestamp(field.type):
            earliest = EARLIEST_ACCOUNT_US if field.name == "created_at" else EARLIEST_LOG_US
            array = _times(array, field.name, file, earliest, now, ledger, unit)
        elif array.type != field.type:
            array = _coerced(array, field, file, ledger)
        if not field.nullable:
            null = array.is_null().to_numpy(zero_copy_only=False)
            if field.type == pa.string():
                null = null | pc.equal(array, "").fill_null(False).to_numpy(zero_copy_only=False)
            ledger.refuse(null, field.name, f"{field.name} is empty")
        columns[field.name] = array
    _rules(columns, name, ledger)
    kept = ledger.kept
    refusals = ledger.refusals(file, numbers, offsets)
    if strict:
        raise_first(refusals)
    extra = [c for c in table.schema.names if c not in schema.names and c]
    arrays = [*columns.values(), *(_plain(table.column(table.schema.get_field_index(c))) for c in extra)]
    batch = pa.RecordBatch.from_arrays(arrays, names=[*columns, *extra])
    if not kept.all():
        batch = batch.filter(pa.array(kept))
    return Checked(batch, refusals, numbers[kept], kept)


def _plain(column: Any) -> pa.Array:
    array = column
    if isinstance(array, pa.ChunkedArray):
        # Combining copies, a single chunk too: the text of a whole batch.
        array = array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_large_string(array.type) or array.type == pa.string_view():
        array = array.cast(pa.string())
    return array


def _times(
    array: pa.Array, name: str, file: str, earliest: int, now: int, ledger: RefusalLedger, unit: TimeUnit
) -> pa.Array:
    if not readable_as_time(array.type):
        raise ColumnError(
            f"{name} has the type {array.type}, which is no time",
            where=Where(file, column=name),
            hint="write ISO 8601 text or a count of seconds, milliseconds or microseconds since 1970",
        )
    times = read_times(array, earliest_us=earliest, unit=unit.unit if name == "ts" else None)
    if name == "ts":
        unit.unit = times.unit
    for rows, reason in times.troubles:
        ledger.refuse(rows, name, reason)
    doubtful = times.null.copy()
    for rows, _ in times.troubles:
        doubtful |= rows
    for rows, reason in implausible(
        times.us, ~doubtful, name, earliest_us=earliest, latest_us=now + CLOCK_SKEW_US
    ):
        ledger.refuse(rows, name, reason)
    return pa.array(times.us, pa.int64(), mask=times.null).cast(pa.timestamp("us", tz="UTC"))


def _coerced(array: pa.Array, field: pa.Field, file: str, ledger: RefusalLedger) -> pa.Array:
    """A column of another type, where nothing is lost by reading it as the canonical one."""
    kind = field.type
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), kind)
    if kind == pa.uint64() and pa.types.is_string(array.type):
        return _hex(array, field.name, ledger)
    hashes = pa.types.is_list(kind) and kind.value_type == pa.uint64() and pa.types.is_list(array.type)
    if hashes and pa.types.is_string(array.type.value_type):
        return _hex_lists(array, field.name, ledger)
    if pa.types.is_string(kind) and not (
        pa.types.is_string(array.type) or pa.types.is_integer(array.type) or pa.types.is_binary(array.type)
    ):
        raise _wrong_type(array, field, file)
    try:
        return array.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass
    if pa.types.is_nested(kind) or pa.types.is_nested(array.type):
        raise _wrong_type(array, field, file)
    return _one_by_one(array, field, file, ledger)


def _wrong_type(array: pa.Array, field: pa.Field, file: str) -> ColumnError:
    return ColumnError(
        f"{field.name} has the type {array.type}, expected {field.type}",
        where=Where(file, column=field.name),
        hint="convert the column, or leave it out: only exchange_id, ts, account_id and model are required",
    )


def _one_by_one(array: pa.Array, field: pa.Field, file: str, ledger: RefusalLedger) -> pa.Array:
    """The slow path: some value does not fit; that row is refused, the others are kept."""
    if pa.types.is_floating(array.type) and pa.types.is_integer(field.type):
        numbers = array.fill_null(0).to_numpy(zero_copy_only=False)
        limits = np.iinfo(field.type.to_pandas_dtype())
        whole = np.isfinite(numbers) & (numbers == np.floor(numbers))
        fits = whole & (numbers >= limits.min) & (numbers <= limits.max)
        ledger.refuse(~fits, field.name, f"{field.name} is no whole number in its range")
        safe = pa.array(np.where(fits, numbers, 0).astype(np.int64), mask=_nulls(array))
        return safe.cast(field.type)
    if not (pa.types.is_string(array.type) or pa.types.is_primitive(array.type)):
        raise _wrong_type(array, field, file)
    bad = np.zeros(len(array), bool)
    values: list[Any] = []
    for i, value in enumerate(array.to_pylist()):
        try:
            values.append(None if value is None else pa.scalar(value).cast(field.type).as_py())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            values.append(None)
            bad[i] = True
    if bad.all():
        raise _wrong_type(array, field, file)
    ledger.refuse(bad, field.name, f"{field.name} does not fit the type {field.type}")
    return pa.array(values, field.type)


def _nulls(array: pa.Array) -> Bools:
    nulls: Bools = array.is_null().to_numpy(zero_copy_only=False)
    return nulls


def _hex(array: pa.Array, name: str, ledger: RefusalLedger) -> pa.Array:
    """Hashes as text: up to 16 hex digits."""
    good = pc.match_substring_regex(array, "^[0-9a-fA-F]{1,16}$").fill_null(True)
    ledger.refuse(~good.to_numpy(zero_copy_only=False), name, f"{name} is no hash (16 hex digits)")
    safe = pc.if_else(good, array, "0")
    values = [None if v is None else int(v, 16) for v in safe.to_pylist()]
    return pa.array(values, pa.uint64())


def _hex_lists(array: pa.ListArray, name: str, ledger: RefusalLedger) -> pa.Array:
    inner = RefusalLedger(len(array.flatten()))
    flat = _hex(array.flatten(), name, inner)
    parents = pc.list_parent_indices(array).to_numpy(zero_copy_only=False)
    bad = np.zeros(len(array), bool)
    bad[parents[~inner.kept]] = True
    ledger.refuse(bad, name, f"{name} holds something that is no hash (16 hex digits)")
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), flat, mask=array.is_null())


def _rules(columns: dict[str, pa.Array], name: str, ledger: RefusalLedger) -> None:
    """What must hold beyond types."""
    for column in _NOT_NEGATIVE:
        if column in columns:
            negative = pc.less(columns[column], 0).fill_null(False).to_numpy(zero_copy_only=False)
            ledger.refuse(negative, column, f"{column} is negative")
    for column in ("exchange_id", "account_id"):
        if column in columns:
            long = pc.greater(pc.binary_length(columns[column]), _LONG_ID).fill_null(False)
            ledger.refuse(
                long.to_numpy(zero_copy_only=False), column, f"{column} is longer than {_LONG_ID} bytes"
            )
    if "sample_rate" in columns:
        rate = columns["sample_rate"]
        odd = pc.or_(pc.less_equal(rate, 0), pc.greater(rate, 1)).fill_null(False)
        ledger.refuse(odd.to_numpy(zero_copy_only=False), "sample_rate", "sample_rate lies outside (0, 1]")
    if name == "sanctions" and "kind" in columns:
        known = pc.is_in(columns["kind"], pa.array(SANCTION_KINDS)).to_numpy(zero_copy_only=False)
        ledger.refuse(~known, "kind", f"kind is none of {', '.join(SANCTION_KINDS)}")
    if name == "exchanges":
        _redact(columns)


def _redact(columns: dict[str, pa.Array]) -> None:
    """A redaction marker is null text, and the row says so."""
    hidden: Any = None
    lengths = pa.array({len(marker.encode()) for marker in REDACTION_MARKERS}, pa.int32())
    for column in ("system", "prompt", "response"):
        # Text is compared only where some has the length of a marker: that is cheap to see.
        if column not in columns or not pc.any(pc.is_in(pc.binary_length(columns[column]), lengths)).as_py():
            continue
        marked = pc.is_in(columns[column], pa.array(REDACTION_MARKERS))
        if pc.any(marked).as_py():
            columns[column] = pc.if_else(marked, pa.scalar(None, pa.string()), columns[column])
            hidden = marked if hidden is None else pc.or_(hidden, marked)
    if hidden is not None:
        state = columns.get("content_state", pa.nulls(len(hidden), pa.string()))
        columns["content_state"] = pc.if_else(hidden, "redacted", state)


@nb.njit(nogil=True, cache=True)
def _hash_ids(data: Any, offsets: Any) -> Any:
    """FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv/) with MurmurHash3's finaliser; never 0."""
    out = np.empty(len(offsets) - 1, np.uint64)
    for i in range(len(out)):
        h = np.uint64(0xCBF29CE484222325)
        for j in range(offsets[i], offsets[i + 1]):
            h = (h ^ np.uint64(data[j])) * np.uint64(0x100000001B3)
        h ^= h >> np.uint64(33)
        h *= np.uint64(0xFF51AFD7ED558CCD)
        h ^= h >> np.uint64(33)
        out[i] = h if h != np.uint64(0) else np.uint64(1)
    return out


@nb.njit(nogil=True, cache=True)
def _insert_ids(hashes: Any, table: Any, used: int) -> Any:
    mask = np.uint64(len(table) - 1)
    seen = np.zeros(len(hashes), np.bool_)
    for i in range(len(hashes)):
        h = hashes[i]
        s = (h * np.uint64(0x9E3779B97F4A7C15)) & mask
        while table[s] != np.uint64(0) and table[s] != h:
            s = (s + np.uint64(1)) & mask
        if table[s] == h:
            seen[i] = True
        else:
            table[s] = h
            used += 1
    return seen, used


class DuplicateIds:
    """Tells which exchange ids came before, in 64-bit hashes: 16 to 32 bytes of memory for each exchange.

    Two different ids collide with probability below 1e-5 in ten million exchanges.
    """

    def __init__(self) -> None:
        self._table = np.zeros(1 << 16, np.uint64)
        self._used = 0

    def add(self, ids: pa.Array) -> Bools:
        """bool[rows]: True where the id (a string column without nulls) came before, here or in an earlier batch."""
        text = _plain(ids).cast(pa.large_string())
        _, offsets, data = text.buffers()
        if len(text) == 0:
            return np.zeros(0, bool)
        places = np.frombuffer(offsets, np.int64)[text.offset : text.offset + len(text) + 1]
        return self.repeated(
            _hash_ids(np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8), places)
        )

    def repeated(self, hashes: npt.NDArray[np.uint64]) -> Bools:
        """The same from 64-bit hashes of the ids (never 0)."""
        while (self._used + len(hashes)) * 2 > len(self._table):
            old = self._table[self._table != 0]
            self._table = np.zeros(len(self._table) * 2, np.uint64)
            _insert_ids(old, self._table, 0)
        seen: Bools
        seen, self._used = _insert_ids(hashes, self._table, self._used)
        return seen
