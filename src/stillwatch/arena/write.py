"""From a composed world to its files: the log, the side tables and the truth."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.arena.compose import Composed, account_codes
from stillwatch.arena.timing import DAY_US
from stillwatch.arena.world import World
from stillwatch.schema.tables import ACCOUNTS, RELEASES, SANCTIONS

ROW_GROUP = 65_536


@dataclass(frozen=True)
class MakeSummary:
    """What was written. Counts are rows, `kinds` and `operations` count accounts.

    `duplicate_share` is the share of individuals' exchanges whose exact prompt another account sent too.
    """

    scenario: str
    seed: int
    accounts: int
    exchanges: int
    attackers: int
    harvest: int
    kinds: dict[str, int]
    operations: dict[str, int]
    duplicate_share: float


def tables(world: World, composed: Composed) -> dict[str, pa.Table]:
    """Every table by the path of its file without the ending; those of the truth lie in `truth/`."""
    codes = account_codes(world)
    by_code = sorted(range(len(codes)), key=codes.__getitem__)
    prefix = world.network.prefix

    def address(place: tuple[int, int] | None) -> str | None:
        return None if place is None else f"{prefix[place[0]]}{place[1]}"

    plan = [(codes[i], world.accounts[i]) for i in by_code]
    rows = [
        {
            "account_id": code, "entity_id": a.entity_id, "verified": a.verified, "created_at": a.created_us,
            "tier": a.tier, "program": a.program, "payment_fp": a.payment_fp, "payment_kind": a.payment_kind,
            "email_domain": a.email_domain, "signup_ip": address(a.signup_place), "device_fp": a.device_fp,
            "referral": a.referral, "contract": a.contract,
        }
        for code, a in plan
    ]  # fmt: skip
    sanctions = [
        {"ts": t, "account_id": codes[a], "kind": k, "reason": r} for t, a, k, r in composed.sanctions
    ]
    releases = [
        {"ts": world.start_us - 90 * DAY_US, "model": world.models[1], "origin": "own"},
        {"ts": world.release_us, "model": world.models[-1], "origin": "own"},
        {"ts": world.release_us + 2 * DAY_US, "model": "zephyr-9", "origin": "external"},
    ]
    first = world.first_group
    accounts = {
        "account_id": [code for code, _ in plan],
        "group_id": [None if a.group < 0 else f"g{first + a.group:05d}" for _, a in plan],
        "kind": [a.kind for _, a in plan],
        "operation": [a.operation for _, a in plan],
    }
    groups = {
        "group_id": [f"g{first + i:05d}" for i in range(len(world.groups))],
        "kind": [g["kind"] for g in world.groups],
        "operation": [g["operation"] for g in world.groups],
        "parameters": [json.dumps(g["parameters"], sort_keys=True) for g in world.groups],
    }
    text = pa.string()
    return {
        "exchanges": composed.table,
        "accounts": pa.Table.from_pylist(rows, schema=ACCOUNTS),
        "sanctions": pa.Table.from_pylist(sanctions, schema=SANCTIONS),
        "releases": pa.Table.from_pylist(releases, schema=RELEASES),
        "truth/accounts": pa.table(accounts, schema=pa.schema([(name, text) for name in accounts])),
        "truth/exchanges": pa.table(
            {"exchange_id": composed.table["exchange_id"], "harvest": pa.array(composed.harvest)}
        ),
        "truth/groups": pa.table(groups, schema=pa.schema([(name, text) for name in groups])),
    }


def write_exchanges(table: pa.Table, path: Path) -> None:
    """One file of exchanges."""
    pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP)


def write_whole(world: World, composed: Composed, folder: Path) -> None:
    """A log of one piece."""
    (folder / "truth").mkdir(mode=0o700)
    for name, table in tables(world, composed).items():
        if name == "exchanges":
            write_exchanges(table, folder / "exchanges.parquet")
        else:
            pq.write_table(table, folder / f"{name}.parquet", compression="zstd")


def summary(world: World, composed: Composed) -> MakeSummary:
    """What was composed, in numbers."""
    kinds = Counter(a.kind for a in world.accounts)
    operations = Counter(a.operation for a in world.accounts if a.operation is not None)
    return MakeSummary(
        scenario=world.scenario,
        seed=world.seed,
        accounts=len(world.accounts),
        exchanges=composed.table.num_rows,
        attackers=kinds.get("attack", 0),
        harvest=int(composed.harvest.sum()),
        kinds=dict(sorted(kinds.items())),
        operations=dict(sorted(operations.items())),
        duplicate_share=duplicate_share(world, composed),
    )


def duplicate_share(world: World, composed: Composed) -> float:
    """Share of the exchanges of individuals whose exact prompt some other account sent too."""
    own = np.array([a.kind == "individual" for a in world.accounts])[composed.account]
    codes = composed.table["prompt"].combine_chunks().dictionary_encode().indices.to_numpy()
    pairs = np.unique(np.stack((codes, composed.account)), axis=1)
    holders = np.bincount(pairs[0], minlength=int(codes.max()) + 1)
    return float((holders[codes[own]] > 1).mean()) if own.any() else 0.0
