"""What a scan can see, said before or after it: lookup tables, and what the number of references allows."""

from __future__ import annotations

from stillwatch.ingest.lookup import COSTS, Lookups
from stillwatch.schema.results import Sight

READ_BY_SCAN = ("disposable_email_domains", "public_prompts")
"""Tables on which a finding can depend; the others fill `asn` and tell hosting networks in `stillwatch check`."""


def table_sights(lookups: Lookups) -> list[Sight]:
    """One entry for each lookup table that a scan reads: there, or missing and what that costs."""
    rows = {entry.name: entry.rows for entry in lookups.used}
    out = []
    for name in READ_BY_SCAN:
        if name in lookups:
            out.append(Sight(detector=f"table {name}", state="on", reason=f"entries: {rows.get(name, 0):,}"))
            continue
        fault = "is damaged" if name in lookups.damaged else "is missing"
        out.append(Sight(detector=f"table {name}", state="blind", reason=f"it {fault}: {COSTS[name]}"))
    return out
