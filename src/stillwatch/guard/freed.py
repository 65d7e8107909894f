"""Whom an appeal freed: neither what the scan named nor what an account shows inline is held against it any more."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import numpy as np
import pyarrow as pa

from stillwatch.guard.carry import Made, with_accounts
from stillwatch.guard.secret import Secret


def with_freed(scoring: dict[str, pa.Table], freed: AbstractSet[str]) -> dict[str, pa.Table]:
    """The scoring tables in which freed accounts are excused, as those are for whom the operator's word stood before
    the scan.
    """
    if not freed:
        return scoring
    table = scoring["scoring_accounts"]
    excused = [
        name in freed or before
        for name, before in zip(
            table.column("account_id").to_pylist(), table.column("excused").to_pylist(), strict=True
        )
    ]
    place = table.column_names.index("excused")
    return scoring | {
        "scoring_accounts": table.set_column(place, table.schema.field(place), pa.array(excused, pa.bool_()))
    }


def unseen_freed(made: Made, freed: AbstractSet[str], secret: Secret) -> Made:
    """The arrays with a row for freed accounts that the scan did not see: a stranger could be found inline."""
    if not freed:
        return made
    hashes = np.array(sorted(secret.account(name) for name in freed), np.uint64)
    out = with_accounts(made, hashes)
    out["account_excused"] = out["account_excused"] | np.isin(out["account_hash"], hashes).astype(np.uint8)
    return out
