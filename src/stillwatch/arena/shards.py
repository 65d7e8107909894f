"""Logs of up to a million accounts, composed and written shard by shard, so that memory does not grow with them.

Every shard is a population of its own with the same network, client software, release and outage; what is popular in
the first shard is used in all of them. Operations and honest groups lie inside one shard. In `rare` only the middle
shard holds an operation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from stillwatch.arena.compose import compose
from stillwatch.arena.population import populate
from stillwatch.arena.sessions import draw_sessions
from stillwatch.arena.timing import DAY_US
from stillwatch.arena.world import Stream, World
from stillwatch.arena.write import MakeSummary, summary, tables, write_exchanges

SHARD = 20_000
"""Accounts of one shard: the size at which the scenarios are at home."""
RARE_SIZE = 100
RARE_OPERATION = "hydra"


def write_shards(
    whole: World, folder: Path, operation: str | None, settings: Mapping[str, str] | None
) -> MakeSummary:
    """Compose `whole` (a world without accounts) in shards and write it below `folder`."""
    count = max(1, round(whole.requested_accounts / SHARD))
    rare = whole.scenario == "rare"
    outage = (
        whole.start_us + int(whole.rng.uniform(1, 13) * DAY_US),
        int(whole.rng.uniform(15, 90) * 60e6),
    )
    edges = np.linspace(0, whole.requested_accounts, count + 1).astype(int)
    popular: list[Stream] = []
    parts: list[MakeSummary] = []
    made = groups = 0
    (folder / "truth").mkdir(mode=0o700)
    writers: dict[str, pq.ParquetWriter] = {}
    try:
        for number in range(count):
            accounts = int(edges[number + 1] - edges[number])
            world = whole.blank(
                rng=np.random.default_rng([whole.seed, 1_000, number]),
                requested_accounts=accounts,
                requested_exchanges=round(whole.requested_exchanges * accounts / whole.requested_accounts),
                first_account=made,
                first_group=groups,
                outage=outage,
            )
            world.public_streams.extend(world.stream(stream) for stream in popular)
            if rare and number == count // 2:
                populate(world, operation or RARE_OPERATION, {"size": str(RARE_SIZE), **(settings or {})})
            elif rare:
                populate(world)
            else:
                populate(world, operation, settings)
            composed = compose(world, draw_sessions(world))
            for name, table in tables(world, composed).items():
                if name == "exchanges":
                    write_exchanges(table, folder / f"exchanges-{number:03d}.parquet")
                elif name != "releases" or number == 0:
                    if name not in writers:
                        writers[name] = pq.ParquetWriter(
                            folder / f"{name}.parquet", table.schema, compression="zstd"
                        )
                    writers[name].write_table(table)
            if number == 0:
                popular = [world.streams[ident] for ident in world.public_streams]
            made += len(world.accounts)
            groups += len(world.groups)
            parts.append(summary(world, composed))
    finally:
        for writer in writers.values():
            writer.close()
    return _together(whole, parts)


def _together(whole: World, parts: list[MakeSummary]) -> MakeSummary:
    kinds: Counter[str] = Counter()
    operations: Counter[str] = Counter()
    for part in parts:
        kinds.update(part.kinds)
        operations.update(part.operations)
    rows = sum(part.exchanges for part in parts)
    return MakeSummary(
        scenario=whole.scenario,
        seed=whole.seed,
        accounts=sum(part.accounts for part in parts),
        exchanges=rows,
        attackers=sum(part.attackers for part in parts),
        harvest=sum(part.harvest for part in parts),
        kinds=dict(sorted(kinds.items())),
        operations=dict(sorted(operations.items())),
        duplicate_share=sum(part.duplicate_share * part.exchanges for part in parts) / max(1, rows),
    )
