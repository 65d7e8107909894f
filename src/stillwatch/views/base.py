"""What the views have in common: keys, and the small classes ("signals") that produce them.

A *key* is anything two accounts can share: an address block, a payment instrument, a prompt family. A key is
a uint64 in which the kind is mixed in, so that equal values of different kinds never meet. Zero means "none".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class KeyTable:
    """One view after the reduction: which account holds which key, how often and when.

    Rows are sorted by (account, key) and unique. `account` and `key` are dense indices: accounts in order of
    their id, keys in order of their hash. `first`/`last` are microseconds since 1970 (0 for keys that come
    from the accounts table and have no time).
    """

    account: I32
    key: I32
    count: I32
    first: I64
    last: I64
    key_hash: U64
    key_kind: npt.NDArray[np.uint8]
    kinds: tuple[str, ...]
    accounts: int

    def holders(self) -> I64:
        """Number of accounts that hold each key, shape (keys,)."""
        return np.bincount(self.key, minlength=len(self.key_hash)).astype(np.int64)


class BatchSignal(Protocol):
    """A signal that reads its key from the columns of `exchanges`, a batch at a time."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]

    def keys(self, batch: pa.RecordBatch) -> U64:
        """Return one key per row, 0 where the row has none."""
        ...


class AccountSignal(Protocol):
    """A signal that reads its key from the `accounts` table."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]

    def keys(self, accounts: pa.Table) -> U64:
        """Return one key per account row, 0 where the account has none."""
        ...


def kind_seed(kind: str) -> np.uint64:
    """A fixed odd 64-bit constant for a kind of key."""
    return np.uint64(xxhash.xxh3_64_intdigest(f"kind:{kind}".encode()) | 1)


def mix(values: U64, kind: str) -> U64:
    """Mix a kind into raw 64-bit values (xxHash's avalanche); zero stays zero, nothing else becomes zero."""
    with np.errstate(over="ignore"):
        h = (values ^ kind_seed(kind)) * np.uint64(0x9E3779B97F4A7C15)
        h ^= h >> np.uint64(32)
        h *= np.uint64(0xD6E8FEB86659FD93)
        h ^= h >> np.uint64(29)
    h[h == 0] = 1
    h[values == 0] = 0
    return h


_WORD = (1 << 64) - 1
_SEEDS: dict[str, int] = {}


def mix_one(value: int, kind: str) -> int:
    """`mix` of one value. Plain integers: an array of one element takes ten times as long."""
    if value == 0:
        return 0
    seed = _SEEDS.get(kind)
    if seed is None:
        seed = _SEEDS[kind] = int(kind_seed(kind))
    h = ((value ^ seed) * 0x9E3779B97F4A7C15) & _WORD
    h ^= h >> 32
    h = (h * 0xD6E8FEB86659FD93) & _WORD
    return (h ^ (h >> 29)) or 1


def hash_one(text: str | None, kind: str) -> int:
    """`hash_strings` of one text."""
    return mix_one(xxhash.xxh3_64_intdigest(text.encode("utf-8", "replace")), kind) if text else 0


def hash_strings(column: pa.Array | pa.ChunkedArray, kind: str) -> U64:
    """Hash a string column, distinct values once. Null and empty strings give 0. Shape (rows,)."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_null(column.type):
        return np.zeros(len(column), np.uint64)
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    words = encoded.dictionary.to_pylist()
    table = np.fromiter(
        (xxhash.xxh3_64_intdigest(w.encode("utf-8", "replace")) if w else 0 for w in words),
        np.uint64,
        len(words),
    )
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    out = np.append(table, np.uint64(0))[codes]
    return mix(out.astype(np.uint64), kind)


def hash_numbers(column: pa.Array | pa.ChunkedArray, kind: str) -> U64:
    """Turn an integer (hash) column into keys. Null and 0 give 0. Shape (rows,)."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_null(column.type):
        return np.zeros(len(column), np.uint64)
    values = pc.fill_null(column, 0).to_numpy(zero_copy_only=False).astype(np.uint64)
    return mix(values, kind)


def column(batch: pa.RecordBatch | pa.Table, name: str) -> pa.Array | pa.ChunkedArray:
    """The named column, or nulls of the same length where the table lacks it."""
    index = batch.schema.get_field_index(name)
    return pa.nulls(batch.num_rows) if index < 0 else batch.column(index)
