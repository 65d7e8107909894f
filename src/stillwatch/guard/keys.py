"""The table of API keys that a snapshot takes in: whose key is whose. Kept as keyed hashes only."""

from __future__ import annotations

import csv
import hashlib
import re
from pathlib import Path

from stillwatch.schema.errors import ColumnError, FormatError, InputError, Where

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def read_api_keys(path: Path) -> list[tuple[str, str]]:
    """(account id, SHA-256 of the key in hex) of a CSV file with `account_id` and either `key` or `key_sha256`.

    InputError's kinds name the line. Keys are hashed as they are read and never shown.
    """
    found: list[tuple[str, str]] = []
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            rows = csv.DictReader(handle, strict=True)
            columns = set(rows.fieldnames or ())
            named = columns & {"key", "key_sha256"}
            if "account_id" not in columns or len(named) != 1:
                raise ColumnError(
                    "the table of API keys needs the columns account_id and key, or account_id and key_sha256",
                    where=Where(path.name, line=1),
                )
            for row in rows:
                where = Where(path.name, line=rows.line_num)
                account, key = row["account_id"], row[named.copy().pop()]
                if not account or not key:
                    raise FormatError("a row without account_id or key", where=where)
                if "key" in named:
                    key = hashlib.sha256(key.encode()).hexdigest()
                elif not _SHA256.fullmatch(key):
                    raise FormatError("key_sha256 is not 64 hex digits", where=where)
                found.append((account, key.lower()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise FormatError("the table of API keys is no UTF-8 CSV", where=Where(path.name)) from error
    except OSError as error:
        reason = error.strerror or "it cannot be opened"
        raise InputError(f"the table of API keys cannot be read: {reason}", where=Where(path.name)) from error
    return found
