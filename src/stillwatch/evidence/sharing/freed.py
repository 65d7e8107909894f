"""The accounts that an appeal freed, which no export may count or name."""

from __future__ import annotations

from pathlib import Path

from stillwatch.schema.errors import FormatError, InputError, Where
from stillwatch.store.appeals import freed

MOST_BYTES = 64 << 20


def read_freed(path: Path) -> frozenset[str]:
    """The accounts that a file of appeals frees, or that a list names: ids, one a line, UTF-8, empty lines left out.

    A file that begins with `{` is one of appeals. InputError where the file cannot be used, DecisionError where the
    appeals were altered or are not rightly signed.
    """
    where = Where(path.name)
    try:
        with path.open("rb") as handle:
            data = handle.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"the list of accounts cannot be read: {error.strerror}", where=where) from error
    if data.startswith(b"{"):
        return frozenset(freed(path))
    if len(data) > MOST_BYTES:
        raise FormatError("the list of accounts is larger than 64 MiB", where=where)
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise FormatError("the list of accounts is not UTF-8", where=where) from error
    return frozenset(line for line in (line.removesuffix("\r") for line in lines) if line)
