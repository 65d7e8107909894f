"""`vectors.json`: what p and q of one campaign follow from (`schema.proof`); lists of p are of the whole run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def vectors(proof: Mapping[str, pa.Table] | None, campaign: str) -> dict[str, Any]:
    """The file's content; `tables` is None where the results were made without them."""
    if proof is None:
        return {"tables": None}
    tables = {}
    for name, table in proof.items():
        if "campaign_id" in table.column_names:
            of = table.column("campaign_id")
            # References have no campaign.
            table = table.filter(pc.or_(pc.is_null(of), pc.fill_null(pc.equal(of, campaign), False)))
            table = table.drop_columns(["campaign_id"])
        rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
        tables[name] = {"columns": table.column_names, "rows": [list(row) for row in rows]}
    return {"tables": tables}
