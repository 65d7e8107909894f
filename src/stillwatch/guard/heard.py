"""When a log last heard of each account, and whom it says that Stillwatch refused."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.guard.carry import Heard
from stillwatch.guard.secret import Secret
from stillwatch.schema.tables import OWN_REFUSAL, SEPARATOR

COLUMNS = ("ts", "account_id", "end_user_id", "end_user_trust", "gateway_id", "blocked_by")
"""What is read of `exchanges`."""


def heard(batches: Iterable[pa.RecordBatch], secret: Secret) -> Heard:
    """Over all rows, answered or refused; users whom a gateway vouches for stand for themselves, as in a scan."""
    last: dict[str, int] = {}
    refused: set[str] = set()
    for batch in batches:
        own = pc.fill_null(pc.starts_with(batch.column("blocked_by").cast(pa.string()), OWN_REFUSAL), False)
        table = pa.table(
            {
                "name": _principals(batch),
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


def _principals(batch: pa.RecordBatch) -> pa.Array:
    account, user = batch.column("account_id"), batch.column("end_user_id").cast(pa.string())
    trust = batch.column("end_user_trust").cast(pa.string())
    split = pc.and_(
        pc.is_valid(batch.column("gateway_id")), pc.and_(pc.equal(trust, "verified"), pc.is_valid(user))
    )
    return pc.if_else(
        pc.fill_null(split, False), pc.binary_join_element_wise(account, user, SEPARATOR), account
    )
