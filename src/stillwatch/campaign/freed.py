"""The operator's word on single accounts: whom a person freed after an appeal."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Freed:
    """Accounts that a scan names in no campaign and no lead."""

    digest: str
    """Hash of the last row of the file of appeals, hex."""
    accounts: frozenset[str]
    """Ids as in `exchanges`; with a user's after `schema.tables.SEPARATOR` for one behind a gateway."""
