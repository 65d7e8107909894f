"""Exchange ids for logs that have none: a stable hash of the row, and an ordinal among identical rows.

The id depends on the row's content and on how often it occurred before, never on the file's name or on the
row's number: the same rows cut into other files, in the same order, get the same ids.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

UInts = npt.NDArray[np.uint64]

IDENTITY = ("ts", "account_id", "model", "end_user_id", "prompt", "ip", "output_tokens", "latency_ms")
"""Columns that a derived id covers, as far as the log has them. Null and missing count alike."""

_SEED = np.uint64(0x9E3779B97F4A7C15)


@numba.njit(cache=True)
def _mix(value: np.uint64) -> np.uint64:
    # The finaliser of splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators".
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@numba.njit(cache=True)
def _add_text(
    acc: UInts,
    valid: npt.NDArray[np.bool_],
    offsets: npt.NDArray[np.int64],
    data: npt.NDArray[np.uint8],
    salt: np.uint64,
) -> None:
    for row in range(len(acc)):
        if not valid[row]:
            continue
        # FNV-1a, 64 bit.
        value = np.uint64(0xCBF29CE484222325)
        for at in range(offsets[row], offsets[row + 1]):
            value = (value ^ np.uint64(data[at])) * np.uint64(0x100000001B3)
        acc[row] = _mix(acc[row] + _mix(value ^ salt))


@numba.njit(cache=True)
def _add_numbers(acc: UInts, valid: npt.NDArray[np.bool_], values: UInts, salt: np.uint64) -> None:
    for row in range(len(acc)):
        if valid[row]:
            acc[row] = _mix(acc[row] + _mix(values[row] ^ salt))


@numba.njit(cache=True)
def _count(keys: UInts, counts: npt.NDArray[np.int64], hashes: UInts, out: npt.NDArray[np.int64]) -> int:
    """Enter `hashes` into the table; `out` takes how often each was there before. Returns new keys."""
    mask = np.uint64(len(keys) - 1)
    fresh = 0
    for row in range(len(hashes)):
        key = hashes[row]
        slot = _mix(key) & mask
        while keys[slot] != 0 and keys[slot] != key:
            slot = (slot + np.uint64(1)) & mask
        if keys[slot] == 0:
            keys[slot] = key
            fresh += 1
        out[row] = counts[slot]
        counts[slot] += 1
    return fresh


@numba.njit(cache=True)
def _move(
    keys: UInts, counts: npt.NDArray[np.int64], new_keys: UInts, new_counts: npt.NDArray[np.int64]
) -> None:
    mask = np.uint64(len(new_keys) - 1)
    for old in range(len(keys)):
        if keys[old] == 0:
            continue
        slot = _mix(keys[old]) & mask
        while new_keys[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        new_keys[slot] = keys[old]
        new_counts[slot] = counts[old]


class Ordinals:
    """How often each row hash has occurred so far; 16 bytes a slot, at most two thirds full."""

    def __init__(self) -> None:
        self._keys: UInts = np.zeros(1 << 12, dtype=np.uint64)
        self._counts = np.zeros(1 << 12, dtype=np.int64)
        self._used = 0

    def next(self, hashes: UInts) -> npt.NDArray[np.int64]:
        """For each of `hashes` (uint64[n]) how many equal ones came before it, in order."""
        while (self._used + len(hashes)) * 3 > len(self._keys) * 2:
            keys = np.zeros(2 * len(self._keys), dtype=np.uint64)
            counts = np.zeros(2 * len(self._keys), dtype=np.int64)
            _move(self._keys, self._counts, keys, counts)
            self._keys, self._counts = keys, counts
        out = np.zeros(len(hashes), dtype=np.int64)
        # Zero marks an empty slot.
        self._used += _count(self._keys, self._counts, np.maximum(hashes, np.uint64(1)), out)
        return out


def row_hashes(batch: pa.RecordBatch) -> UInts:
    """uint64[rows]: a hash over the `IDENTITY` columns of a canonical batch."""
    acc = np.full(batch.num_rows, _SEED, dtype=np.uint64)
    for number, name in enumerate(IDENTITY):
        if name not in batch.schema.names:
            continue
        column = batch.column(name)
        if column.null_count == len(column):
            continue
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        salt = np.uint64((number + 1) * 0xD1B54A32D192ED03 & (2**64 - 1))
        if pa.types.is_string(column.type):
            _add_text(acc, valid, *_bytes_of(column), salt)
        elif pa.types.is_floating(column.type):
            floats = column.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
            _add_numbers(acc, valid, np.ascontiguousarray(floats).view(np.uint64), salt)
        else:
            numbers = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
            _add_numbers(acc, valid, np.ascontiguousarray(numbers).view(np.uint64), salt)
    return acc


def _bytes_of(column: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Offsets int64[rows + 1] and the bytes they point into."""
    wide = pc.cast(column, pa.large_binary())
    _, offsets, data = wide.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[wide.offset : wide.offset + len(wide) + 1]
    raw = np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, np.uint8)
    return bounds, raw


def derived_ids(hashes: UInts, ordinals: npt.NDArray[np.int64]) -> pa.Array:
    """Ids as text: sixteen hex digits, and `-<ordinal>` for every repetition."""
    count = len(hashes)
    digits = hashes.astype(">u8").tobytes().hex().encode()
    offsets = np.arange(count + 1, dtype=np.int32) * 16
    plain = pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(digits))
    if not ordinals.any():
        return plain
    numbered = pc.binary_join_element_wise(plain, pa.array(ordinals).cast(pa.string()), "-")
    return pc.if_else(pa.array(ordinals == 0), plain, numbered)
