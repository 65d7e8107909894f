"""What a request asks for and of whom, read off its own columns: nothing new, declined, which model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.views.base import column

Bools = npt.NDArray[np.bool_]


def asks_nothing(batch: pa.RecordBatch) -> Bools:
    """Requests that ask for nothing new.

    Those that got an error: whoever asks again, under this account or another, does not ask for two things. And the
    steps of an agent: each carries the same question on, with a tool's answer.
    """
    nothing = np.zeros(batch.num_rows, bool)
    status, role = column(batch, "status"), column(batch, "newest_role")
    if not pa.types.is_null(status.type):
        nothing |= pc.fill_null(pc.greater_equal(status, 400), False).to_numpy(zero_copy_only=False)
    if not pa.types.is_null(role.type):
        nothing |= pc.fill_null(pc.equal(role, "tool"), False).to_numpy(zero_copy_only=False)
    return nothing


def declined(batch: pa.RecordBatch) -> Bools:
    """Requests that the model declined."""
    refused = column(batch, "refused")
    if pa.types.is_null(refused.type):
        return np.zeros(batch.num_rows, bool)
    return np.asarray(pc.fill_null(refused, False).to_numpy(zero_copy_only=False), bool)


class Models:
    """Codes of the models that are asked, in the order of their names once all are known."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def encode(self, batch: pa.RecordBatch) -> npt.NDArray[np.int32]:
        """The code of each request's model as it was first seen."""
        encoded = column(batch, "model").dictionary_encode()
        table = np.fromiter(
            (self._codes.setdefault(name or "", len(self._codes)) for name in encoded.dictionary.to_pylist()),
            np.int32,
            len(encoded.dictionary),
        )
        out: npt.NDArray[np.int32] = table[encoded.indices.to_numpy(zero_copy_only=False)]
        return out

    def finish(self) -> tuple[list[str], npt.NDArray[np.int32]]:
        """(names in order, final code of each code that `encode` gave)."""
        names = sorted(self._codes)
        rank = np.empty(len(names), np.int32)
        rank[[self._codes[name] for name in names]] = np.arange(len(names), dtype=np.int32)
        return names, rank
