"""What members share, kind by kind, and what the bits of one account are made of, as records and table."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from stillwatch.scan.assign import Assignment, typical_keys
from stillwatch.scan.context import Context, Finding
from stillwatch.schema.results import WATERFALL_ROWS, SharedKind
from stillwatch.schema.tables import SEPARATOR

RARE = 0.01
"""Keys of at most this share of the other accounts count: many common ones together would cover anybody."""


def shared_kinds(context: Context, finding: Finding) -> list[SharedKind]:
    """For each kind of key: members and others that hold at least one rare key that is typical of the members."""
    members, reduced = finding.members, context.reduced
    views = (("FORM", context.template(finding), reduced.form), ("LINK", context.identity, reduced.link))
    inside = np.zeros(context.reduced.accounts, bool)
    inside[members] = True
    out: list[SharedKind] = []
    for view, index, table in views:
        keys = typical_keys(index, members)
        others = index.accounts - len(members)
        keys = keys[index.df_of(keys) - index.counts_of(members, keys) <= RARE * others]
        for kind in np.unique(table.key_kind[keys]).tolist():
            mine = keys[table.key_kind[keys] == kind]
            held = np.unique(np.concatenate([index.held_by(key) for key in mine.tolist()]))
            count = int(inside[held].sum())
            out.append(
                SharedKind(
                    view=view,
                    key_kind=table.kinds[kind],
                    keys=len(mine),
                    group_count=count,
                    group_total=len(members),
                    background_count=len(held) - count,
                    background_total=others,
                )
            )
    return sorted(out, key=lambda s: (-s.group_count, s.background_count, s.key_kind))


def account_steps(context: Context, assignment: Assignment, name: str) -> pa.Table:
    """The waterfall of each account of a group: keys by view, and the closing step, summing to `e_bits`."""
    if not assignment.steps:
        return WATERFALL_ROWS.empty_table()
    ids = [context.reduced.principals[a].partition(SEPARATOR)[0] for a in assignment.accounts.tolist()]
    who: list[str] = []
    view_of: list[str] = []
    kind_of: list[str] = []
    key_of: list[str | None] = []
    bits_of: list[float] = []
    total = np.zeros(len(ids))
    for view, table in (("FORM", context.reduced.form), ("LINK", context.reduced.link)):
        steps = assignment.steps[view]
        total += np.bincount(steps.account, steps.bits, len(ids))
        for account, key, bits in zip(
            steps.account.tolist(), steps.key.tolist(), steps.bits.tolist(), strict=True
        ):
            who.append(ids[account])
            view_of.append(view)
            kind_of.append("other_keys" if key < 0 else table.kinds[int(table.key_kind[key])])
            key_of.append(None if key < 0 else f"{int(table.key_hash[key]):016x}")
            bits_of.append(bits)
    total += assignment.bits["TIME"]
    closing = (assignment.e_bits - total).tolist()
    for view, kind, values in (
        ("TIME", "co_activity", assignment.bits["TIME"].tolist()),
        ("ALL", "closing", closing),
    ):
        who += ids
        view_of += [view] * len(ids)
        kind_of += [kind] * len(ids)
        key_of += [None] * len(ids)
        bits_of += values
    group = [name] * len(who)
    columns = [who, group, view_of, kind_of, key_of, bits_of]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, WATERFALL_ROWS, strict=True)]
    return pa.table(arrays, schema=WATERFALL_ROWS)
