"""What the bits of the campaigns were measured by, as tables of counts (`schema.scoring`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from stillwatch.detect.keys import KeyIndex
from stillwatch.scan.assign import Yardstick, folds
from stillwatch.scan.context import Context
from stillwatch.schema.scoring import SCORING
from stillwatch.views.base import I64, KeyTable
from stillwatch.views.families import Families


def scoring_tables(
    context: Context, measured: Sequence[tuple[str, Yardstick, I64]], honest: Sequence[I64]
) -> dict[str, pa.Table]:
    """The tables for campaigns: name, what they were measured by, whom they name.

    `honest`: members of the groups that an innocent account may come from.
    """
    reduced = context.reduced
    views: list[tuple[str, KeyIndex, KeyTable]] = [
        ("FORM", context.form_once, reduced.form),
        ("LINK", context.identity, reduced.link),
    ]
    found: dict[str, list[pa.Table]] = {name: [] for name in SCORING}

    def add(name: str, *columns: Any) -> None:
        rows = max((len(c) for c in columns if not isinstance(c, str | int)), default=1)
        arrays = [
            pa.array([c] * rows if isinstance(c, str | int) else c, field.type)
            for c, field in zip(columns, SCORING[name], strict=True)
        ]
        found[name].append(pa.table(arrays, schema=SCORING[name]))

    fold = folds(context)
    first = 0
    for view, index, table in views:
        part = index.telling
        place = np.full(index.n_keys, -1, np.int32)
        place[part.key] = np.arange(first, first + len(part.key), dtype=np.int32)
        first += len(part.key)
        kinds = pa.array(table.kinds).take(pa.array(table.key_kind[part.key]))
        add("scoring_keys", view, table.key_hash[part.key], kinds, index.df()[part.key])
        add("scoring_rows", "", -1, view, -1, [int(index.df().sum())])
        for name, yardstick, _ in measured:
            for number in np.unique(fold[yardstick.members]).tolist():
                key, counts = index.held(yardstick.members[fold[yardstick.members] == number])
                add("scoring_rows", name, -1, view, number, [int(counts.sum())])
                telling = place[key] >= 0
                add("scoring_profiles", name, place[key[telling]], number, counts[telling])
        for number, members in enumerate(honest):
            key, counts = index.held(members)
            add("scoring_rows", "", number, view, -1, [int(counts.sum())])
            telling = (place[key] >= 0) & (counts >= 2)
            add("scoring_honest", number, place[key[telling]], counts[telling])
        kept = place[table.key] >= 0
        given = (table.first[kept] == 0) if view == "LINK" else np.zeros(int(kept.sum()), bool)
        add("scoring_held", table.account[kept], place[table.key[kept]], table.count[kept], given)
        if view == "FORM":
            for text, families, held in (
                ("prompt", reduced.prompt_families, context.family_key),
                ("system", reduced.systems.families, context.system_key),
            ):
                add("scoring_postings", text, *_postings(families, held, place))
    for name, yardstick, accounts in measured:
        inside = np.isin(yardstick.accounts, yardstick.members)
        named = np.isin(yardstick.accounts, accounts)
        told = np.flatnonzero(inside | named | (yardstick.time != 0))
        number_of = np.where(inside[told], fold[yardstick.accounts[told]], -1)
        add("scoring_measured", name, yardstick.accounts[told], number_of, yardstick.time[told], named[told])
    add("scoring_accounts", reduced.principals, reduced.volume, context.units.excused)
    add("scoring_exits", reduced.exits[:, 0], reduced.exits[:, 1])
    return {name: pa.concat_tables([SCORING[name].empty_table(), *parts]) for name, parts in found.items()}


def _postings(families: Families, held: I64, place: Any) -> tuple[Any, Any]:
    """(posting, place of its family's key) of the families whose key weighs anything."""
    of_family = np.where(held >= 0, place[np.maximum(held, 0)], -1) if len(held) else np.zeros(0, np.int32)
    at = of_family[families.key_family]
    return families.key[at >= 0], at[at >= 0]
