"""Rows of the log by account, by family and by item, for the few groups that get as far as the direct tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stillwatch.detect.explain import distinct
from stillwatch.engine.holders import grouped
from stillwatch.scan.collect import Reduced
from stillwatch.views.base import I64

Bool = npt.NDArray[np.bool_]


class GroupRows:
    """Rows of the log by account, by family and by item, for the few groups that get this far."""

    def __init__(self, reduced: Reduced, honest_group: I64) -> None:
        self._reduced = reduced
        rows = reduced.rows
        self._order, self._offsets = grouped(rows.account, reduced.accounts)
        families = reduced.prompt_families
        by_family, self._family_offsets = grouped(families.family, len(families))
        # Family after family: large ones are asked for again and again.
        self._family_row = families.row[by_family]
        self._family_account = rows.account[self._family_row]
        self._by_key, self._key_offsets = grouped(families.key_family, len(families))
        systems = reduced.systems
        self._by_system, self._system_offsets = grouped(systems.of_row, len(systems.account))
        by_family, self._system_family_offsets = grouped(systems.families.family, len(systems.families))
        self._system_family_row = systems.families.row[by_family]
        self.item, items = _dense(rows.item)
        """Dense code of each row's item."""
        self._unit = np.where(honest_group >= 0, reduced.accounts + honest_group, np.arange(reduced.accounts))
        self._units = np.bincount(distinct(self.item, self._unit[rows.account])[0], minlength=items)

    def rows_per_family(self) -> I64:
        """Rows of each prompt family."""
        return np.diff(self._family_offsets)

    def postings_of(self, family: int) -> npt.NDArray[np.uint64]:
        """Postings of one prompt family, sorted."""
        chosen = self._by_key[self._key_offsets[family] : self._key_offsets[family + 1]]
        return np.sort(self._reduced.prompt_families.key[chosen])

    def outsiders(self, rows: I64) -> tuple[I64, I64]:
        """(item of each row as a dense code, unrelated units outside `rows` that have each of these items)."""
        names, code = np.unique(self.item[rows], return_inverse=True)
        inside, _ = distinct(code, self._unit[self._reduced.rows.account[rows]])
        return code, self._units[names] - np.bincount(inside, minlength=len(names))

    def of(self, members: I64) -> I64:
        """All rows of the members."""
        return np.concatenate([self._order[self._offsets[m] : self._offsets[m + 1]] for m in members])

    def of_family(self, family: int, member: Bool) -> I64:
        """Rows of one family whose account is a member."""
        part = slice(self._family_offsets[family], self._family_offsets[family + 1])
        return self._family_row[part][member[self._family_account[part]]]

    def of_system(self, family: int, member: Bool) -> I64:
        """Rows that came with a system prompt of one family, by members."""
        offsets = self._system_family_offsets
        held = self._system_family_row[offsets[family] : offsets[family + 1]]
        held = held[member[self._reduced.systems.account[held]]]
        parts = [self._by_system[self._system_offsets[h] : self._system_offsets[h + 1]] for h in held]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def own(self, families: I64, systems: I64, member: Bool) -> dict[tuple[str, int], I64]:
        """Rows of members in a group's own prompt and system families, by (part, family)."""
        found = {("prompt", f): self.of_family(f, member) for f in families.tolist()}
        return found | {("system", f): self.of_system(f, member) for f in systems.tolist()}


def _dense(values: npt.NDArray[np.uint64]) -> tuple[I64, int]:
    """(code of each value in the order of values, how many there are)."""
    order = np.argsort(values)
    ranked = values[order]
    fresh = np.append(False, ranked[1:] != ranked[:-1]) if len(ranked) else np.zeros(0, bool)
    code = np.empty(len(values), np.int64)
    code[order] = np.cumsum(fresh)
    return code, int(fresh.sum()) + (len(ranked) > 0)
