"""A snapshot of the demo's scan that counts today: services go by the clock, and its log is of another time."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pyarrow.parquet as pq

from stillwatch.guard import parse_policy
from stillwatch.guard.build import Beside, build
from stillwatch.guard.policy import SHADOW
from stillwatch.guard.snapshot import save
from stillwatch.store.decisions import Standing
from tests.guard.conftest import SECRET, Scanned

HOUR_US = 3_600_000_000


def alive(
    demo: Scanned, keys: Mapping[str, str], policy: str = SHADOW, decisions: Sequence[Standing] = ()
) -> Path:
    """Written to `demo.path`. `keys`: account by API key. The scan is said to be an hour old."""
    beside = Beside(
        accounts=pq.read_table(demo.log / "accounts.parquet"), decisions=decisions,
        api_keys=[(account, hashlib.sha256(key.encode()).hexdigest()) for key, account in keys.items()],
    )  # fmt: skip
    meta, arrays = build(demo.results, parse_policy(policy), SECRET, beside)
    shift = time.time_ns() // 1000 - HOUR_US - meta.last_us
    groups, campaigns = (
        tuple(msgspec.structs.replace(group, last_us=group.last_us + shift) for group in listed)
        for listed in (meta.groups, meta.campaigns)
    )
    meta = msgspec.structs.replace(
        meta, first_us=meta.first_us + shift, last_us=meta.last_us + shift, expires_us=meta.expires_us + shift,
        groups=groups, campaigns=campaigns,
    )  # fmt: skip
    save(demo.path, meta, arrays, SECRET)
    return demo.path
