"""Whether numbers that were recorded are those that a new scan gives: tables against tables, value by value.

A results folder and a bundle hold the same tables (`schema.proof`); where they come from is no matter here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow as pa

from stillwatch.schema.results import Findings
from stillwatch.store.results import rounded

NEAR = 1e-9
"""Relative difference up to which two numbers differ in their last digits only: other compiled code, other sums."""
KEYS: dict[str, tuple[str, ...]] = {
    "claims": ("campaign_id", "claim"),
    "proof_tests": ("test", "number"),
    "proof_claims": ("campaign_id", "claim"),
    "proof_views": ("campaign_id", "view"),
    "proof_nulls": ("campaign_id", "view", "draw"),
    "proof_direct": ("campaign_id", "test"),
    "proof_scores": ("kind", "campaign_id"),
}
"""Columns that name a row of each table. Rows of one name are told apart by their order."""
CLAIMS = pa.schema(
    [
        pa.field("campaign_id", pa.string()),
        pa.field("claim", pa.string()),
        pa.field("holds", pa.bool_()),
        *(pa.field(name, pa.float64()) for name in ("statistic", "p", "q", "e_bits", "p_min", "references")),
    ]
)

Tables = Mapping[str, pa.Table]
Row = dict[str, Any]
Name = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """One cell that differs, or a row that only one side has."""

    table: str
    row: str
    """The columns that name the row, in words."""
    column: str | None
    """None: the whole row is missing on one side."""
    recorded: Any
    replayed: Any

    def __str__(self) -> str:
        if self.column is None:
            side = "recorded" if self.replayed is None else "replayed"
            return f"{self.table}, {self.row}: only {side}"
        return (
            f"{self.table}, {self.row}, {self.column}: recorded {self.recorded!r}, replayed {self.replayed!r}"
        )


@dataclass(slots=True)
class Compared:
    """One table: values that were compared. A row that one side lacks counts with all its values."""

    equal: int = 0
    near: int = 0
    """Numbers that differ in their last digits only."""
    differ: int = 0

    @property
    def values(self) -> int:
        return self.equal + self.near + self.differ


@dataclass(slots=True)
class Comparison:
    """All tables, in the order of `KEYS`."""

    tables: dict[str, Compared] = field(default_factory=dict)
    first: Difference | None = None
    """The first value that differs by more than its last digits; if there is none, the first that differs."""

    @property
    def total(self) -> Compared:
        """All tables together."""
        parts = self.tables.values()
        return Compared(sum(p.equal for p in parts), sum(p.near for p in parts), sum(p.differ for p in parts))


def claims_table(findings: Findings) -> pa.Table:
    """The numbers that the findings state of each campaign, rounded as they are written, as one more table."""
    rows = [
        {"campaign_id": group.id, "claim": claim.name} | rounded(msgspec.to_builtins(claim))
        for group in findings.groups
        if group.verdict == "campaign"
        for claim in group.claims
    ]
    return pa.Table.from_pylist([{name: row[name] for name in CLAIMS.names} for row in rows], schema=CLAIMS)


def compare(recorded: Tables, replayed: Tables, campaigns: Collection[str] | None = None) -> Comparison:
    """Every value of the tables that were recorded, and of those that a new scan gave.

    `campaigns`: a bundle speaks of these alone; rows of others are left out on both sides. Values count as equal only
    where they are the same to the last bit.
    """
    found = Comparison()
    far: Difference | None = None
    near: Difference | None = None
    for table, key in KEYS.items():
        if table not in recorded:
            continue
        compared = found.tables[table] = Compared()
        old, new = (_named(side[table], key, campaigns) for side in (recorded, replayed))
        for name in [*old, *(name for name in new if name not in old)]:
            row = ", ".join(f"{c} {v}" for c, v in zip(key, name[:-1], strict=True) if v is not None)
            if name not in old or name not in new:
                compared.differ += sum(1 for _ in _values(old.get(name) or new[name], key))
                far = far or Difference(table, row, None, old.get(name), new.get(name))
                continue
            other = dict(_values(new[name], key))
            for column, value in _values(old[name], key):
                again = other.pop(column, None)
                if _equal(value, again):
                    compared.equal += 1
                elif _near(value, again):
                    compared.near += 1
                    near = near or Difference(table, row, column, value, again)
                else:
                    compared.differ += 1
                    far = far or Difference(table, row, column, value, again)
            compared.differ += len(other)
            if other:
                column, again = next(iter(other.items()))
                far = far or Difference(table, row, column, None, again)
    found.first = far or near
    return found


def _named(table: pa.Table, key: tuple[str, ...], campaigns: Collection[str] | None) -> dict[Name, Row]:
    """The rows by the columns that name them, and a number among rows of one name."""
    seen: Counter[Name] = Counter()
    out: dict[Name, Row] = {}
    for row in table.to_pylist():
        whose = row.get("campaign_id")
        if campaigns is not None and whose is not None and whose not in campaigns:
            continue
        name = tuple(row[column] for column in key)
        out[*name, seen[name]] = row
        seen[name] += 1
    return out


def _values(row: Row, key: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """(column, value) of what does not name the row; lists value by value."""
    for column, value in row.items():
        if column in key:
            continue
        if isinstance(value, list):
            yield from ((f"{column}[{place}]", part) for place, part in enumerate(value))
        else:
            yield column, value


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


def _near(one: Any, other: Any) -> bool:
    if not isinstance(one, float) or not isinstance(other, float):
        return False
    return abs(one - other) <= NEAR * max(abs(one), abs(other))


def renamed(replayed: Tables, recorded: Tables) -> dict[str, pa.Table]:
    """The replayed tables with the recorded ids of campaigns.

    Ids that went on from an earlier scan (`--previous`, `watch`) are no function of the inputs. Campaigns are matched
    by what no other one has: the candidate that they grew from, and the counts of their direct tests.
    """
    old, new = _marks(recorded), _marks(replayed)
    known = {mark: name for name, mark in old.items()}
    names = {name: known.get(mark, name) for name, mark in new.items()}
    out = {}
    for table, columns in replayed.items():
        if "campaign_id" in columns.column_names:
            place = columns.column_names.index("campaign_id")
            ids = [names.get(name, name) for name in columns.column(place).to_pylist()]
            columns = columns.set_column(place, columns.schema.field(place), pa.array(ids, pa.string()))
        out[table] = columns
    return out


def _marks(tables: Tables) -> dict[str, Name]:
    """What tells each campaign from the others."""
    marks: dict[str, Name] = {}
    for table, columns in (
        ("proof_views", ("view", "candidate_sha256")),
        ("proof_direct", ("test", "observed")),
        ("proof_scores", ("size", "items")),
    ):
        for row in tables[table].select(["campaign_id", *columns]).to_pylist():
            if row["campaign_id"] is not None:
                mine = tuple(row[column] for column in columns)
                marks[row["campaign_id"]] = (*marks.get(row["campaign_id"], ()), mine)
    return marks
