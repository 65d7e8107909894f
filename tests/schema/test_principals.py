"""Principals: users stand for themselves only where a registered gateway vouches for them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from stillwatch.schema.principals import principal_ids

ROWS = {
    "account_id": ["a"] * 5,
    "gateway_id": ["g", "g", "g", None, "g"],
    "end_user_trust": ["verified", "declared", None, "verified", "verified"],
    "end_user_id": ["u", "u", "u", "u", None],
}


def test_only_a_verified_user_behind_a_gateway_is_a_principal() -> None:
    assert principal_ids(pa.RecordBatch.from_pydict(ROWS)).to_pylist() == ["a\x1fu", "a", "a", "a", "a"]


@pytest.mark.parametrize("name", ["gateway_id", "end_user_trust", "end_user_id"])
@pytest.mark.parametrize("how", ["missing", "null", "all null"])
def test_what_a_log_does_not_say_splits_nobody(name: str, how: str) -> None:
    rows = pa.RecordBatch.from_pydict(ROWS)
    kind = pa.null() if how == "null" else pa.string()
    at = rows.schema.get_field_index(name)
    rows = rows.remove_column(at) if how == "missing" else rows.set_column(at, name, pa.nulls(5, kind))
    assert principal_ids(rows).to_pylist() == ["a"] * 5
