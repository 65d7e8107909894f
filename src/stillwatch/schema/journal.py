"""What happened, for the transparency log: a protocol that `evidence` implements and everything else may call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


class Journal(Protocol):
    """Append-only record of events."""

    def append(self, kind: str, payload: Mapping[str, Json]) -> None:
        """Record one event. The payload carries digests and counts, never text, addresses or account ids."""
        ...


@runtime_checkable
class BatchJournal(Protocol):
    """A journal that records many events for the price of one."""

    def append_all(self, events: Sequence[tuple[str, Mapping[str, Json]]]) -> int:
        """Record events, each a kind and a payload, in their order, all or none; how many were new."""
        ...


def tell_all(journal: Journal, events: Sequence[tuple[str, Mapping[str, Json]]]) -> None:
    """Record events in their order, at once where the journal can."""
    if isinstance(journal, BatchJournal):
        journal.append_all(events)
        return
    for kind, payload in events:
        journal.append(kind, payload)
