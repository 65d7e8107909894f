"""What a log may look like, and what is said when it does not."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import stillwatch.schema as schema
from stillwatch.schema import ColumnError, FormatError, RowError, check_exchanges, check_side
from stillwatch.schema.checks import DuplicateIds

NOW_US = 1_790_000_000_000_000
GOOD = 1_780_000_000


def _table(**columns: object) -> pa.Table:
    base: dict[str, object] = {
        "exchange_id": ["a", "b", "c"],
        "ts": [GOOD, GOOD + 1, GOOD + 2],
        "account_id": ["x", "y", "x"],
        "model": ["m", "m", "m"],
    }
    base.update(columns)
    return pa.table(base)


def _check(table: pa.Table, **options: object) -> schema.Checked:
    return check_exchanges(table, file="log.jsonl", now_us=NOW_US, **options)  # type: ignore[arg-type]


def test_public_names_exist_and_are_sorted() -> None:
    assert all(hasattr(schema, name) for name in schema.__all__)
    assert len(set(schema.__all__)) == len(schema.__all__)


def test_seconds_become_microseconds() -> None:
    checked = _check(_table())
    assert checked.batch.column("ts").cast(pa.int64()).to_pylist()[0] == GOOD * 1_000_000
    assert checked.refusals == []


@pytest.mark.parametrize("ts", ["2026-05-28T20:26:40Z", "2026-05-28 22:26:40+02:00"])
def test_iso_text_is_read_with_its_zone(ts: str) -> None:
    checked = _check(_table(ts=[ts] * 3))
    assert checked.batch.column("ts").cast(pa.int64()).to_pylist() == [GOOD * 1_000_000] * 3


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ("1970-01-21T14:26:40Z", "seconds read as microseconds"),
        ("2200-01-01T00:00:00Z", "future"),
        ("1970-01-01T00:00:00Z", "before 2015"),
        ("yesterday", "not a time"),
        ("", "empty"),
    ],
)
def test_absurd_times_cost_their_row_and_say_why(bad: str, word: str) -> None:
    good = "2026-05-28T20:26:40Z"
    checked = _check(_table(ts=[good, bad, good]))
    assert checked.batch.num_rows == 2
    [refusal] = checked.refusals
    assert (refusal.file, refusal.row, refusal.column) == ("log.jsonl", 2, "ts")
    assert word in refusal.reason


def test_a_missing_required_column_is_named_with_the_way_out() -> None:
    with pytest.raises(ColumnError, match=r"log\.jsonl, column 'model'") as caught:
        _check(_table().drop_columns(["model"]))
    assert "--map model=$.path" in str(caught.value)


def test_strict_stops_at_the_first_refused_row() -> None:
    with pytest.raises(RowError, match="row 3"):
        _check(_table(account_id=["x", "y", None]), strict=True)


def test_hashes_may_come_as_hex_and_a_wrong_one_costs_its_row() -> None:
    checked = _check(_table(system_hash=["00000000000000ff", None, "zz"]))
    assert checked.batch.column("system_hash").to_pylist() == [255, None]
    assert [r.column for r in checked.refusals] == ["system_hash"]


def test_hash_lists_may_come_as_hex() -> None:
    checked = _check(_table(turn_hashes=[["ff", "10"], None, []]))
    assert checked.batch.column("turn_hashes").to_pylist() == [[255, 16], None, []]


def test_redaction_markers_are_no_text() -> None:
    checked = _check(_table(prompt=["redacted-by-litellm", "hello", "[REDACTED]"]))
    assert checked.batch.column("prompt").to_pylist() == [None, "hello", None]
    assert checked.batch.column("content_state").to_pylist() == ["redacted", None, "redacted"]


def test_negative_and_fractional_counts_are_refused() -> None:
    checked = _check(_table(input_tokens=[1.0, -4.0, 2.5]))
    assert checked.batch.column("input_tokens").to_pylist() == [1]
    assert [r.row for r in checked.refusals] == [2, 3]


def test_wrong_type_of_a_whole_column_is_one_error() -> None:
    with pytest.raises(ColumnError, match="max_tokens"):
        _check(_table(max_tokens=["a", "b", "c"]))


def test_extra_columns_are_carried_along() -> None:
    assert _check(_table(region=["eu", "us", "eu"])).batch.column("region").to_pylist() == ["eu", "us", "eu"]


def test_refusals_never_carry_the_value() -> None:
    checked = _check(_table(system_hash=["secret text", None, None]))
    assert "secret" not in repr(checked.refusals)


def test_duplicate_ids_are_seen_across_batches() -> None:
    seen = DuplicateIds()
    ids = np.random.default_rng(0).integers(1, 2**63, 100_000).astype(np.uint64)
    assert not seen.repeated(ids[:60_000]).any()
    assert not seen.repeated(ids[60_000:]).any()
    assert seen.repeated(ids[::-1]).all()
    assert seen.repeated(np.array([5, 5], np.uint64)).tolist() == [False, True]


def test_an_account_that_occurs_twice_is_an_error_with_its_row() -> None:
    with pytest.raises(FormatError, match="row 3"):
        check_side("accounts", pa.table({"account_id": ["a", "b", "a"]}), "accounts.csv")


def test_unknown_sanctions_are_refused() -> None:
    table = pa.table({"ts": [GOOD, GOOD], "account_id": ["a", "b"], "kind": ["ban", "frown"]})
    kept, refused = check_side("sanctions", table, "sanctions.csv", now_us=NOW_US)
    assert kept.num_rows == 1
    assert refused[0].reason.startswith("kind is none of")
