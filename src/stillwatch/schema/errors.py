"""Every error that Stillwatch raises.

    StillwatchError
    +-- UsageError            exit 2   the call itself is wrong
    +-- InputError            exit 3   a log or side table cannot be used
    |   +-- FormatError                unknown, mixed, truncated or corrupt
    |   +-- ColumnError                a required column is missing or of the wrong type
    |   +-- RowError                   a single row is refused (only raised under --strict)
    |   +-- EmptyLogError              nothing to read
    |   +-- PolicyError                a guard's policy cannot be used
    +-- OutputError           exit 4   results cannot be written (exists, full disk, no permission)
    +-- ResultError           exit 5   a results folder is missing, damaged or of another version
    |   +-- SnapshotError              a guard's snapshot is damaged, or of another version or secret
    |   +-- DecisionError              a file of decisions was altered, or a decision lacks what it needs
    |   +-- JournalError               the transparency log was altered, is damaged, or is another one
    |   +-- BundleError                a bundle of evidence does not hold
    +-- MissingExtraError     exit 6   an optional dependency is not installed
    +-- ReplayError           exit 7   a scan of the same inputs gives other numbers than were recorded

An error says what happened, where (file, row, column) and what to do. It never carries prompt text,
addresses or account ids.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Where:
    """A place in an input. Rows count from 1, as a person counts them; None means "not known"."""

    file: str | None = None
    row: int | None = None
    column: str | None = None
    line: int | None = None
    """For files that people write: policies, tables of keys."""

    def __str__(self) -> str:
        parts = []
        if self.file is not None:
            parts.append(self.file)
        if self.line is not None:
            parts.append(f"line {self.line}")
        if self.row is not None:
            parts.append(f"row {self.row}")
        if self.column is not None:
            parts.append(f"column {self.column!r}")
        return ", ".join(parts)


class StillwatchError(Exception):
    """Root of the tree. `str(error)` is the whole text for a person, on one to three lines."""

    exit_code = 1

    def __init__(self, what: str, *, where: Where | None = None, hint: str | None = None) -> None:
        self.what = what
        self.where = where
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        text = self.what
        if self.where is not None and str(self.where):
            text = f"{self.where}: {text}"
        if self.hint:
            text = f"{text}\n  {self.hint}"
        return text


class UsageError(StillwatchError):
    """The call itself is wrong: an unknown option value, a contradiction between options."""

    exit_code = 2


class InputError(StillwatchError):
    """A log or side table cannot be used."""

    exit_code = 3


class FormatError(InputError):
    """The file is of no known format, mixes formats, is truncated or is corrupt."""


class ColumnError(InputError):
    """A required column is missing, or a column has a type that cannot be read."""


class RowError(InputError):
    """A single row is refused. Raised only under `--strict`; otherwise the row is counted and listed."""


class EmptyLogError(InputError):
    """There is nothing to read."""


class PolicyError(InputError):
    """A guard's policy cannot be read, or asks for what is never allowed. `where` names the line."""


class OutputError(StillwatchError):
    """Results cannot be written."""

    exit_code = 4


def unwritable(error: OSError, place: str, what: str = "the results") -> OutputError:
    """The OutputError for what the system said while `what` was written to `place`.

    Arrow puts the system's number into the text of its errors only.
    """
    where = Where(place)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT) or f"[errno {errno.ENOSPC}]" in str(error)
    if full:
        return OutputError(
            "the disk is full; nothing was kept",
            where=where,
            hint="free some space or name a folder on another disk",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(
            f"{what} cannot be written here: {error.strerror}",
            where=where,
            hint="check the permissions of the folder above it, or name another folder",
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return OutputError(
            f"{what} cannot be written: part of this path is a file", where=where, hint="name another folder"
        )
    return OutputError(
        f"{what} cannot be written: {error.strerror or 'I/O error'}", where=where, hint="name another folder"
    )


def no_room(error: OSError, doing: str) -> OutputError:
    """The OutputError for a temporary folder that is full or cannot be used."""
    return OutputError(
        f"the temporary folder is full or cannot be written {doing}"
        + (f" ({error.strerror})" if error.strerror else ""),
        hint="set TMPDIR to a folder with more free space",
    )


class ResultError(StillwatchError):
    """A results folder is missing, damaged, or was written by an incompatible version."""

    exit_code = 5


class SnapshotError(ResultError):
    """A guard's snapshot is damaged, truncated, of another version, or made with another secret."""


class DecisionError(ResultError):
    """A file of decisions was altered, or a decision lacks a signature, an approver or time."""


class JournalError(ResultError):
    """The transparency log was altered, is damaged, of another version, or not the one that was noted."""


class BundleError(ResultError):
    """A bundle of evidence does not hold: something in it was altered, or does not follow."""


class MissingExtraError(StillwatchError):
    """An optional dependency is not installed; the hint names the install line."""

    exit_code = 6

    def __init__(self, package: str, extra: str, *, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the package {package!r}, which is not installed",
            hint=f"pip install 'stillwatch[{extra}]'",
        )


class ReplayError(StillwatchError):
    """A scan of the inputs that were recorded gives other numbers than were recorded."""

    exit_code = 7
