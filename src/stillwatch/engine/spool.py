"""Arrays of variable-length rows, written once to a temporary file and read again in blocks.

Postings of a large log do not fit in memory; the page cache makes the second reading cheap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stillwatch.schema.errors import OutputError


@dataclass(frozen=True, slots=True)
class SpoolBlock:
    """Consecutive rows: `first_row`, `offsets` int64 (rows+1, from 0) and `values` uint64."""

    first_row: int
    offsets: npt.NDArray[np.int64]
    values: npt.NDArray[np.uint64]


class Spool:
    """Append-only file of uint64 rows. Offsets stay in memory (8 bytes a row), values go to disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = path.open("wb")
        self._blocks: list[tuple[int, npt.NDArray[np.int64], int]] = []
        self.rows = 0
        self.values = 0

    def append(self, offsets: npt.NDArray[np.int64], values: npt.NDArray[np.uint64]) -> None:
        """Append rows; `offsets` has one element more than there are rows."""
        local = offsets - offsets[0]
        try:
            values[offsets[0] : offsets[-1]].tofile(self._file)
        except OSError as error:
            raise OutputError(
                "the temporary folder is full or cannot be written while postings were spooled",
                hint="set TMPDIR to a folder with more free space (about 0.5 GB for each million exchanges)",
            ) from error
        self._blocks.append((self.rows, local.astype(np.int64), self.values))
        self.rows += len(offsets) - 1
        self.values += int(local[-1])

    def blocks(self) -> Iterator[SpoolBlock]:
        """Read the rows again, in the blocks in which they were written."""
        self._file.flush()
        with self._path.open("rb") as handle:
            for first_row, offsets, start in self._blocks:
                handle.seek(start * 8)
                values = np.fromfile(handle, np.uint64, int(offsets[-1]))
                yield SpoolBlock(first_row, offsets, values)

    def close(self) -> None:
        """Close and delete the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)
