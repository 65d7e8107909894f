"""What the bits of a scan's campaigns were measured by: counts, from which every probability follows exactly.

A results folder holds these tables beside those for people, so that the guard can go on measuring where the scan
stopped. They are empty where a scan names no campaign. A *place* is the number of a row of another of the tables.
"""

from __future__ import annotations

import pyarrow as pa

SCORING: dict[str, pa.Schema] = {
    # Keys that weigh anything, by view and then by key: the background.
    "scoring_keys": pa.schema(
        [
            pa.field("view", pa.string(), nullable=False),
            pa.field("key", pa.uint64(), nullable=False),
            pa.field("key_kind", pa.string(), nullable=False),
            pa.field("holders", pa.int64(), nullable=False),
        ]
    ),
    # How many (account, key) rows there are: of everybody (no campaign, `honest` -1), of each campaign by fold, of
    # each honest group by its number. All keys count here, whether they weigh anything or not. Without folds: -1.
    "scoring_rows": pa.schema(
        [
            pa.field("campaign_id", pa.string(), nullable=False),
            pa.field("honest", pa.int32(), nullable=False),
            pa.field("view", pa.string(), nullable=False),
            pa.field("fold", pa.int8(), nullable=False),
            pa.field("rows", pa.int64(), nullable=False),
        ]
    ),
    # Members of each fold of a campaign that hold a key.
    "scoring_profiles": pa.schema(
        [
            pa.field("campaign_id", pa.string(), nullable=False),
            pa.field("place", pa.int32(), nullable=False),
            pa.field("fold", pa.int8(), nullable=False),
            pa.field("members", pa.int64(), nullable=False),
        ]
    ),
    # Members of each honest group that hold a key; keys of one member are left out.
    "scoring_honest": pa.schema(
        [
            pa.field("honest", pa.int32(), nullable=False),
            pa.field("place", pa.int32(), nullable=False),
            pa.field("members", pa.int64(), nullable=False),
        ]
    ),
    # The shingles that prompt and system families consist of, and the family's key.
    "scoring_postings": pa.schema(
        [
            pa.field("part", pa.string(), nullable=False),
            pa.field("posting", pa.uint64(), nullable=False),
            pa.field("place", pa.int32(), nullable=False),
        ]
    ),
    # Every account of the log, by id; behind a gateway, every verified end user. `excused`: the operator's word
    # stands for it (verified owner, listed reference, contract, registered gateway): it never joins a campaign.
    "scoring_accounts": pa.schema(
        [
            pa.field("account_id", pa.string(), nullable=False),
            pa.field("exchanges", pa.int64(), nullable=False),
            pa.field("excused", pa.bool_(), nullable=False),
        ]
    ),
    # Who holds which key. `given`: by the accounts table alone, no exchange shows it.
    "scoring_held": pa.schema(
        [
            pa.field("account", pa.int32(), nullable=False),
            pa.field("place", pa.int32(), nullable=False),
            pa.field("count", pa.int32(), nullable=False),
            pa.field("given", pa.bool_(), nullable=False),
        ]
    ),
    # Accounts measured against a campaign: their fold if they made its profile, else -1; bits in TIME; whether the
    # campaign names them.
    "scoring_measured": pa.schema(
        [
            pa.field("campaign_id", pa.string(), nullable=False),
            pa.field("account", pa.int32(), nullable=False),
            pa.field("fold", pa.int8(), nullable=False),
            pa.field("bits_time", pa.float64(), nullable=False),
            pa.field("named", pa.bool_(), nullable=False),
        ]
    ),
    # IPv4 ranges that strangers come out of, as numbers: their blocks tie nobody.
    "scoring_exits": pa.schema(
        [pa.field("first", pa.int64(), nullable=False), pa.field("last", pa.int64(), nullable=False)]
    ),
}


def nothing_scored() -> dict[str, pa.Table]:
    """The tables of a scan that names no campaign."""
    return {name: schema.empty_table() for name, schema in SCORING.items()}
