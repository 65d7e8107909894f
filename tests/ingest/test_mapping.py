"""The mapping file: paths, constants, times, bodies, and errors that name its lines."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.schema.errors import InputError, UsageError
from tests.ingest.conftest import Write, jsonl, read_all

ROW = {
    "auth": {"customer": "c1", "odd.name": "k1"},
    "time": "01/Mar/2026:12:00:00 +0100",
    "request": {
        "model": "m1",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "p"}]},
        ],
    },
    "reply": {
        "choices": [{"message": {"content": "r"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3},
    },
    "hops": ["198.51.100.7", "10.0.0.1"],
}
MAPPING = b"""# who asked
account_id = "$.auth.customer"
key_id = '$.auth["odd.name"]'
ts = "$.time"
provider = "=acme"
request = "$.request"
reply = "$.reply"
ip = "$.hops[0]"

[formats]
ts = "%d/%b/%Y:%H:%M:%S %z"
"""


def test_a_foreign_log(write: Write) -> None:
    mapping = Path(write("m.toml", MAPPING))
    table, log = read_all(write("a.jsonl", jsonl([ROW, ROW | {"time": "never"}])), mapping=mapping)
    row = table.to_pylist()[0]
    assert row["ts"].isoformat() == "2026-03-01T11:00:00+00:00"
    assert (row["account_id"], row["key_id"], row["provider"], row["ip"]) == (
        "c1",
        "k1",
        "acme",
        "198.51.100.7",
    )
    assert (row["model"], row["prompt"], row["system"], row["response"]) == ("m1", "p", "s", "r")
    assert row["input_tokens"] == 3
    assert [(part.row, part.column) for part in log.refusals] == [(2, "ts")]


def test_columns_of_a_table_are_renamed(write: Write, tmp_path: Path) -> None:
    table = pa.table({"who": ["a", "b"], "when": [1_772_366_400, 1_772_366_401], "what": ["m", "m"]})
    pq.write_table(table, tmp_path / "a.parquet")
    rules = b'account_id = "$.who"\nts = "$.when"\nmodel = "$.what"\nstatus = "=200"\n'
    found, log = read_all(str(tmp_path / "a.parquet"), mapping=Path(write("m.toml", rules)))
    assert log.refusals == []
    assert found["account_id"].to_pylist() == ["a", "b"]
    assert found["status"].to_pylist() == [200, 200]
    csv = write("a.csv", b"who,when,what\na,1772366400,m\nb,1772366401,m\n")
    again, _ = read_all(csv, mapping=Path(write("m.toml", rules)))
    assert again.equals(found)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b'account_id = "$.a"\nfriend = "$.b"\n', 2),
        (b'\n\nts = "when"\n', 3),
        (b'ts = "$.a..b"\n', 1),
        (b'ts = "$.a"\naccount_id = 7\n', 2),
        (b'ts = "$.a"\n[formats]\nts = "sundial"\n', 3),
        (b'ts = "$.a"\nbroken line\n', 2),
    ],
)
def test_errors_name_the_line(write: Write, text: bytes, line: int) -> None:
    mapping = write("m.toml", text)
    with pytest.raises(InputError) as caught:
        read_all(write("a.jsonl", jsonl([ROW])), mapping=Path(mapping))
    assert caught.value.where is not None
    assert (caught.value.where.file, caught.value.where.row) == (mapping, line)


def test_contradictions_are_usage_errors(write: Write) -> None:
    path = write("a.jsonl", jsonl([ROW]))
    with pytest.raises(UsageError, match="exclude"):
        read_all(path, format="litellm", mapping=Path(write("m.toml", MAPPING)))
    with pytest.raises(UsageError, match="mapping file"):
        read_all(path, format="mapping")
    with pytest.raises(UsageError, match="canonical column"):
        read_all(path, format="mapping", overrides={"friend": "$.a"})
