"""Where each counted row of a scan stands in the inputs, so that a few rows can be read again.

Rows come in long stretches of one input, so stretches are kept, not rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]


class Places:
    """Row number in reading order -> (input, raw row)."""

    def __init__(self) -> None:
        self._starts: list[I64] = []
        self._inputs: list[I64] = []
        self._rows: list[I64] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, inputs: I64, rows: I64) -> None:
        """Append rows, both int64 (rows,). An input of -1 means "not known"."""
        if len(rows) == 0:
            return
        fresh = np.append(True, (np.diff(rows) != 1) | (np.diff(inputs) != 0))
        at = np.flatnonzero(fresh)
        self._starts.append(at + self._count)
        self._inputs.append(inputs[at])
        self._rows.append(rows[at])
        self._count += len(rows)

    def of(self, index: I64) -> tuple[I64, I64]:
        """(input, raw row) of the rows at `index`, int64 (n,)."""
        if self._count == 0:
            return np.full(len(index), -1), np.zeros(len(index), np.int64)
        for parts in (self._starts, self._inputs, self._rows):
            parts[:] = [np.concatenate(parts)]
        at = np.searchsorted(self._starts[0], index, side="right") - 1
        return self._inputs[0][at], self._rows[0][at] + (index - self._starts[0][at])
