"""What a log says about who holds its accounts, gathered while it streams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa

from stillwatch.ingest.registry import Owner
from stillwatch.schema.tables import ACCOUNTS


class Owners:
    """Counts the declarations per account; where they contradict each other, the commonest wins.

    A person who moves from one team to another makes an honest contradiction, so there is no error in it;
    of equally common ones the alphabetically first is taken, which keeps the result free of row order.
    """

    def __init__(self) -> None:
        self._entities: dict[str, Counter[str]] = {}
        self._domains: dict[str, Counter[str]] = {}

    def add(self, owners: Iterable[Owner]) -> None:
        """Enter declarations, one for each row that makes one."""
        for owner in owners:
            entities = self._entities.setdefault(owner.account_id, Counter())
            if owner.entity_id is not None:
                entities[owner.entity_id] += 1
            if owner.email_domain is not None:
                self._domains.setdefault(owner.account_id, Counter())[owner.email_domain] += 1

    def __len__(self) -> int:
        return len(self._entities)

    def counts(self) -> dict[tuple[str, str | None, str | None], int]:
        """How often each (account, entity, mail domain) was declared; entities and domains apart from each other."""
        out: dict[tuple[str, str | None, str | None], int] = {}
        for name, entities in self._entities.items():
            domains = self._domains.get(name, Counter())
            for entity, count in entities.items():
                out[name, entity, None] = count
            for domain, count in domains.items():
                out[name, None, domain] = count
            if not entities and not domains:
                out[name, None, None] = 1
        return out

    def table(self) -> pa.Table:
        """An accounts table: one row per account, by account id; `verified` stays null."""
        names = sorted(self._entities)
        columns = {
            "account_id": pa.array(names, pa.string()),
            "entity_id": pa.array([_commonest(self._entities[name]) for name in names], pa.string()),
            "email_domain": pa.array(
                [_commonest(self._domains.get(name, Counter())) for name in names], pa.string()
            ),
        }
        arrays = [columns.get(field.name, pa.nulls(len(names), field.type)) for field in ACCOUNTS]
        return pa.Table.from_arrays(arrays, schema=ACCOUNTS)


def _commonest(counts: Counter[str]) -> str | None:
    return min(counts, key=lambda name: (-counts[name], name)) if counts else None
