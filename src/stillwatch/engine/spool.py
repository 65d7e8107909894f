"""Arrays of variable-length rows, written once to a temporary file and read again through a memory map.

Postings of a large log need not fit in memory; the page cache makes the second reading cheap.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stillwatch.schema.errors import no_room


class Spool:
    """Append-only file of uint64 rows. Offsets stay in memory (8 bytes a row), values go to disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = path.open("wb")
        self._offsets: list[npt.NDArray[np.int64]] = [np.zeros(1, np.int64)]
        self.rows = 0
        self.values = 0

    def append(self, offsets: npt.NDArray[np.int64], values: npt.NDArray[np.uint64]) -> None:
        """Append rows; `offsets` has one element more than there are rows. OutputError on a full disk."""
        try:
            values[offsets[0] : offsets[-1]].tofile(self._file)
        except OSError as error:
            raise no_room(
                error, "while postings were spooled; a million exchanges need about 0.5 GB"
            ) from error
        self._offsets.append(offsets[1:] - offsets[0] + self.values)
        self.rows += len(offsets) - 1
        self.values += int(offsets[-1] - offsets[0])

    def read(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        """All rows: (offsets int64 [rows + 1], values uint64, mapped from the file)."""
        self._file.flush()
        offsets = np.concatenate(self._offsets)
        if self.values == 0:
            return offsets, np.zeros(0, np.uint64)
        return offsets, np.memmap(self._path, np.uint64, mode="r", shape=(self.values,))

    def close(self) -> None:
        """Close and delete the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)
