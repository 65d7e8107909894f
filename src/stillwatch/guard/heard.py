"""When a log last heard of each account, and whom it says that Stillwatch refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stillwatch.guard.carry import Heard
from stillwatch.guard.secret import Secret
from stillwatch.schema.principals import principal_ids
from stillwatch.schema.tables import OWN_REFUSAL

COLUMNS = ("ts", "account_id", "end_user_id", "end_user_trust", "gateway_id", "blocked_by")
"""What is read of `exchanges`."""


def heard_in(paths: Sequence[str], secret: Secret) -> Heard:
    """`heard` of what Parquet files of canonical rows hold."""
    return heard(_batches(paths), secret)


def _batches(paths: Sequence[str]) -> Iterator[pa.RecordBatch]:
    for path in paths:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(columns=list(COLUMNS))


def heard(batches: Iterable[pa.RecordBatch], secret: Secret) -> Heard:
    """Over all rows, answered or refused; users whom a gateway vouches for stand for themselves, as in a scan."""
    last: dict[str, int] = {}
    refused: set[str] = set()
    for batch in batches:
        own = pc.fill_null(pc.starts_with(batch.column("blocked_by").cast(pa.string()), OWN_REFUSAL), False)
        table = pa.table(
            {
                "name": principal_ids(batch),
                "ts": batch.column("ts").cast(pa.int64()),
                "own": own.cast(pa.int8()),
            }
        )
        found = table.group_by("name").aggregate([("ts", "max"), ("own", "max")]).to_pydict()
        for name, at, hit in zip(found["name"], found["ts_max"], found["own_max"], strict=True):
            last[name] = max(at, last.get(name, 0))
            if hit:
                refused.add(name)
    names = list(last)
    hashes = np.fromiter((secret.account(name) for name in names), np.uint64, len(names))
    order = np.argsort(hashes)
    return Heard(
        hashes[order],
        np.fromiter(last.values(), np.int64, len(names))[order],
        np.fromiter((name in refused for name in names), np.bool_, len(names))[order],
    )
