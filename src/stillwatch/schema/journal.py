"""What happened, for the transparency log: a protocol that `evidence` implements and everything else may call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


class Journal(Protocol):
    """Append-only record of events."""

    def append(self, kind: str, payload: Mapping[str, Json]) -> None:
        """Record one event. The payload carries digests and counts, never text, addresses or account ids."""
        ...


class NullJournal:
    """Keeps nothing: for callers without a transparency log."""

    def append(self, kind: str, payload: Mapping[str, Json]) -> None:
        """Forget the event."""
