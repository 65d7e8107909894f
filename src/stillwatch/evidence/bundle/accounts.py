"""`accounts.json`: the accounts that a campaign names, under pseudonyms, with the bits that the results give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stillwatch.evidence.bundle.counts import Measured
from stillwatch.schema.tables import SEPARATOR
from stillwatch.store.pseudonyms import Pseudonyms
from stillwatch.store.results import Results

BITS = ("form", "link", "time")


def named_accounts(
    results: Results, campaign: str, measured: Sequence[Measured]
) -> list[tuple[str, dict[str, Any]]]:
    """(principal, row of accounts.parquet) of each named account.

    The results name a gateway's account for each of its verified end users; which user a row is about, the scoring
    tables tell. Users of one gateway are told apart by their bits in TIME, which both have.
    """
    mine = [row for row in results.accounts.to_pylist() if row["campaign_id"] == campaign]
    users: dict[str, list[Measured]] = {}
    for account in measured:
        users.setdefault(account.principal.partition(SEPARATOR)[0], []).append(account)
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in mine:
        rows.setdefault(row["account_id"], []).append(row)
    out = []
    for account_id, same in rows.items():
        behind = users.get(account_id, [])
        if len(same) == 1 == len(behind) or not behind:
            names = [behind[0].principal] if behind else [account_id] * len(same)
            out += list(zip(names, same, strict=True))
            continue
        for who, row in zip(
            sorted(behind, key=lambda m: m.time), sorted(same, key=lambda r: r["bits_time"]), strict=True
        ):
            out.append((who.principal, row))
    return out


def accounts(
    named: Sequence[tuple[str, dict[str, Any]]], measured: Sequence[Measured], names: Pseudonyms
) -> dict[str, Any]:
    """The file's content. Times to the second; bits in TIME are those that the counts go with, to the last digit."""
    time = {account.principal: account.time for account in measured}
    rows = [
        {
            "account": names.of("account", principal),
            "role": row["role"],
            "e_bits": row["e_bits"],
            **{view: row[f"bits_{view}"] for view in BITS},
            **({"time": time[principal]} if principal in time else {}),
            "exchanges": row["exchanges"],
            "harvest_exchanges": row["harvest_exchanges"],
            "first": None if row["first_ts"] is None else row["first_ts"].strftime("%Y-%m-%dT%H:%M:%SZ"),
            "last": None if row["last_ts"] is None else row["last_ts"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        for principal, row in named
    ]
    return {"members": sorted(rows, key=lambda row: row["account"])}
