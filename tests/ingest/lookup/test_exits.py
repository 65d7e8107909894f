"""Ranges that strangers come out of, merged: an address lies in one of them as before."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from stillwatch.ingest.lookup import Lookups


def test_merged_ranges_hold_what_the_single_ones_hold() -> None:
    rng = np.random.default_rng(4)
    start = np.sort(rng.integers(0, 3000, 60))
    end = start + rng.integers(0, 60, 60)
    kind = rng.choice(["vpn", "tor_exit", "open_proxy_http", "cloud"], 60)
    table = pa.table({"start": start, "end": end, "kind": kind})
    found = Lookups({"ip_kinds": table})
    shared = kind != "cloud"
    numbers = np.arange(-1, 3200)
    inside = ((numbers[:, None] >= start[shared]) & (numbers[:, None] <= end[shared])).any(axis=1)
    texts = [None if n < 0 else f"0.0.{n >> 8}.{n & 255}" for n in numbers.tolist()]
    assert found.shared_exits(pa.array(texts)).tolist() == inside.tolist()
    first, last = found.exits.T
    assert (first[1:] > last[:-1]).all()
    assert Lookups().exits.shape == Lookups({"ip_kinds": table.slice(0, 0)}).exits.shape == (0, 2)
