"""Rings of shared infrastructure, as fraud teams draw them."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

from stillwatch.arena.baselines.log import components, query, write_groups

ABOUT = (
    "accounts that share a payment instrument or a device, or both a sign-up address and an address block (2 to 30 "
    "holders each), connected components of 5 or more"
)
HOLDERS = 30
"""Holders beyond which an instrument or a block is a crowd's: a carrier, a campus, a webmail."""
LEAST = 5
STRONG = (
    "select payment_fp as key, account_id from $a where payment_fp is not null",
    "select device_fp as key, account_id from $a where device_fp is not null",
)
WEAK = (
    "select signup_ip as key, account_id from $a where signup_ip is not null",
    "select regexp_extract(ip, '(.*)\\.', 1) as key, account_id from $e where ip is not null",
)
"""Kinds that tie two accounts only together."""


def _pairs(log: Path, sql: str) -> set[tuple[str, str]]:
    rows = query(log, f"select list_sort(list(distinct account_id)) from ({sql}) group by key").fetchall()
    return {pair for (names,) in rows if 2 <= len(names) <= HOLDERS for pair in combinations(names, 2)}


def run(log: Path, out: Path) -> None:
    """See `ABOUT`."""
    first, second = (_pairs(log, sql) for sql in WEAK)
    edges = first & second
    for sql in STRONG:
        edges |= _pairs(log, sql)
    write_groups(log, out, components(sorted(edges), LEAST))
