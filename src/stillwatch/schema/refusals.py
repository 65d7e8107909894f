"""Rows that are refused: counted, listed with their place and reason, never silently dropped."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from stillwatch.schema.errors import RowError, Where

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


class Refusal(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One refused row. It names the place and the reason, and the row's content only where that was asked for."""

    file: str
    row: int
    """Counted from 1, as a person counts: the line of a text log, the record of a table."""
    offset: int | None
    """Byte offset of the row in the decompressed file, where the reader knows it."""
    column: str | None
    reason: str
    raw: bytes | None = None
    """The row as it stands in the log, under `--keep-refused` only; base64 in JSON."""


class RefusalLedger:
    """Collects reasons for the rows of one batch. The first reason given for a row is the one it keeps."""

    def __init__(self, rows: int) -> None:
        self._code = np.full(rows, -1, dtype=np.int32)
        self._reasons: list[tuple[str | None, str]] = []

    @property
    def kept(self) -> Bools:
        """bool[rows]: True where nothing speaks against the row."""
        return self._code < 0

    def refuse(self, bad: Bools, column: str | None, reason: str) -> None:
        """Refuse the rows where `bad` (bool[rows]) is True."""
        if not bad.any():
            return
        self._code[bad & (self._code < 0)] = len(self._reasons)
        self._reasons.append((column, reason))

    def refusals(self, file: str, numbers: Ints, offsets: Ints | None) -> list[Refusal]:
        """The refused rows in row order; `numbers` and `offsets` are int64[rows]."""
        found = np.flatnonzero(self._code >= 0)
        listed = []
        for index in found.tolist():
            column, reason = self._reasons[int(self._code[index])]
            offset = None if offsets is None else int(offsets[index])
            listed.append(Refusal(file, int(numbers[index]), offset, column, reason))
        return listed


def raise_first(refusals: list[Refusal]) -> None:
    """Under `--strict`: raise `RowError` for the first refused row, if there is one."""
    if not refusals:
        return
    first = min(refusals, key=lambda refusal: refusal.row)
    raise RowError(
        f"row refused: {first.reason}",
        where=Where(first.file, first.row, first.column),
        hint="repair the row, or scan without --strict: refused rows are then counted and listed",
    )
