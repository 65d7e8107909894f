"""`--previous`: the records and tables of a scan under the ids that its groups had before."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pyarrow as pa

from stillwatch.campaign.lineage import Earlier, trace
from stillwatch.campaign.record import ranked
from stillwatch.scan.findings import Tables


def inherited(tables: Tables, earlier: Earlier) -> Tables:
    """The same findings with ids kept by member overlap, `merged_from` and `split_from` filled."""
    rows = tables.accounts.select(["campaign_id", "account_id"]).to_pydict()
    now: dict[str, set[str]] = {group.id: set() for group in tables.groups}
    for group, account in zip(rows["campaign_id"], rows["account_id"], strict=True):
        now[group].add(account)
    found = trace(now, earlier.groups)
    groups = [
        msgspec.structs.replace(
            group,
            id=found[group.id].id,
            merged_from=list(found[group.id].merged_from),
            split_from=list(found[group.id].split_from),
        )
        for group in tables.groups
    ]

    def renamed(table: pa.Table) -> pa.Table:
        place = table.column_names.index("campaign_id")
        # Rows of everybody have no group.
        old = table.column(place).to_pylist()
        names = pa.array([found[name].id if name else name for name in old], pa.string())
        return table.set_column(place, table.schema.field(place), names)

    def of_groups(table: pa.Table) -> pa.Table:
        return renamed(table) if "campaign_id" in table.column_names else table

    return replace(
        tables,
        groups=ranked(groups),
        accounts=renamed(tables.accounts),
        streams=renamed(tables.streams),
        profiles=renamed(tables.profiles),
        waterfall=renamed(tables.waterfall),
        scoring={name: of_groups(table) for name, table in tables.scoring.items()},
        proof={name: of_groups(table) for name, table in tables.proof.items()},
    )
