"""Who is judged: an account, or one user behind a gateway that vouches for its users."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.schema.tables import SEPARATOR


def principal_ids(batch: pa.RecordBatch) -> pa.Array:
    """The principal of each row of `exchanges`: the account's id, with SEPARATOR and a verified end user's after it
    where the call came through a registered gateway."""
    account = batch.column("account_id")
    found = [batch.schema.get_field_index(name) for name in ("gateway_id", "end_user_trust", "end_user_id")]
    if any(index < 0 or batch.column(index).null_count == batch.num_rows for index in found):
        return account
    gateway, trust, user = (batch.column(index).cast(pa.string()) for index in found)
    split = pc.and_(pc.is_valid(gateway), pc.and_(pc.equal(trust, "verified"), pc.is_valid(user)))
    joined = pc.binary_join_element_wise(account, user, SEPARATOR)
    return pc.if_else(pc.fill_null(split, False), joined, account)
