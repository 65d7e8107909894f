"""The canonical tables and results, their checks, the error tree, the `Journal` protocol."""

from stillwatch.schema.checks import Checked, DuplicateIds, TimeUnit, check_exchanges, check_side
from stillwatch.schema.errors import (
    ColumnError,
    DecisionError,
    EmptyLogError,
    FormatError,
    InputError,
    JournalError,
    MissingExtraError,
    OutputError,
    PolicyError,
    ResultError,
    RowError,
    SnapshotError,
    StillwatchError,
    UsageError,
    Where,
)
from stillwatch.schema.journal import Journal
from stillwatch.schema.refusals import Refusal
from stillwatch.schema.tables import (
    ACCOUNTS,
    EXCHANGES,
    REFERENCES,
    RELEASES,
    SANCTIONS,
    SIDE_TABLES,
    required,
)

__all__ = [
    "ACCOUNTS",
    "EXCHANGES",
    "REFERENCES",
    "RELEASES",
    "SANCTIONS",
    "SIDE_TABLES",
    "Checked",
    "ColumnError",
    "DecisionError",
    "DuplicateIds",
    "EmptyLogError",
    "FormatError",
    "InputError",
    "Journal",
    "JournalError",
    "MissingExtraError",
    "OutputError",
    "PolicyError",
    "Refusal",
    "ResultError",
    "RowError",
    "SnapshotError",
    "StillwatchError",
    "TimeUnit",
    "UsageError",
    "Where",
    "check_exchanges",
    "check_side",
    "required",
]
