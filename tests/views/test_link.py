import pyarrow as pa
import pytest

from stillwatch.views.link import AddressBlock, SignupBatch, address_block


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("203.0.113.77", "203.0.113.0"),
        ("2001:db8:1:2::5", "2001:db8:1::"),
        ("::ffff:203.0.113.9", "203.0.113.0"),
        ("10.0.0.1", None),
        ("127.0.0.1", None),
        ("not an address", None),
        ("", None),
        (None, None),
    ],
)
def test_address_block(address: str | None, block: str | None) -> None:
    assert address_block(address) == block


def test_neighbours_in_a_block_share_a_key_and_nulls_have_none() -> None:
    batch = pa.record_batch({"ip": ["203.0.113.1", "203.0.113.2", "198.51.100.1", None]})
    a, b, c, d = AddressBlock().keys(batch)
    assert a == b != c
    assert d == 0


def test_a_table_without_the_column_has_no_keys() -> None:
    assert SignupBatch().keys(pa.table({"account_id": ["a", "b"]})).tolist() == [0, 0]
