"""The canonical tables in every container and compression."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from stillwatch.ingest import coverage, open_log, read_side, write_canonical
from stillwatch.schema.errors import FormatError, InputError, OutputError, RowError, UsageError
from stillwatch.schema.tables import EXCHANGES
from tests.ingest.conftest import Write, exchange, jsonl, read_all

ROWS = [exchange(number) for number in range(50)]


def _parquet(path: Path) -> str:
    table, _ = read_all(_jsonl(path.parent))
    pq.write_table(table, path, row_group_size=20)
    return str(path)


def _jsonl(folder: Path) -> str:
    target = folder / "source.jsonl"
    target.write_bytes(jsonl(ROWS))
    return str(target)


def test_all_containers_give_the_same_rows(tmp_path: Path, write: Write) -> None:
    expected, _ = read_all(_jsonl(tmp_path))
    expected = expected.drop_columns(["raw_ref"])
    parquet = _parquet(tmp_path / "a.parquet")
    arrow = tmp_path / "a.arrow"
    with pa.ipc.new_file(arrow, pq.read_schema(parquet)) as writer:
        writer.write_table(pq.read_table(parquet))
    flat = pa.table(
        {
            name: [json.dumps(row[name]) if isinstance(row[name], list) else row[name] for row in ROWS]
            for name in ROWS[0]
        }
    )
    csv.write_csv(flat, tmp_path / "a.csv")
    others = [
        parquet,
        str(arrow),
        str(tmp_path / "a.csv"),
        write("a.json", json.dumps(ROWS).encode()),
        write("b.json", json.dumps(ROWS[:20], indent=1).encode() + b"\n" + json.dumps(ROWS[20:]).encode()),
        write("a.jsonl.gz", gzip.compress(jsonl(ROWS))),
        write("a.parquet.gz", gzip.compress(Path(parquet).read_bytes())),
        write("a.jsonl.zst", pa.compress(jsonl(ROWS), codec="zstd", asbytes=True)),
        write("bom.jsonl", b"\xef\xbb\xbf" + jsonl(ROWS)),
        write("crlf.jsonl", jsonl(ROWS).replace(b"\n", b"\r\n")),
    ]
    for path in others:
        table, log = read_all(path)
        assert log.refusals == [], path
        assert table.drop_columns(["raw_ref"]).equals(expected), path


def test_raw_ref_names_input_and_row(write: Write) -> None:
    first = write("1.jsonl", jsonl([exchange(0), b"{broken", exchange(1)]))
    second = write("2.jsonl", b"\n" + jsonl([exchange(2)]))
    table, log = read_all(first, second)
    assert table["raw_ref"].to_pylist() == [
        {"input": 0, "row": 1},
        {"input": 0, "row": 3},
        {"input": 1, "row": 2},
    ]
    assert [(part.file, part.row) for part in log.refusals] == [(first, 2)]
    assert log.refusals[0].offset == len(jsonl([exchange(0)]))
    assert [info.number for info in log.inputs] == [0, 1]


def test_batches_start_over(write: Write) -> None:
    log = open_log([write("a.jsonl", jsonl([*ROWS, ROWS[0]]))], batch_rows=8)
    first = list(log.batches())
    assert max(batch.num_rows for batch in first) <= 8
    assert [part.reason for part in log.refusals] != []
    second = list(log.batches())
    assert first == second
    assert log.rows_read == 51
    assert len(log.refusals) == 1


def test_columns_restrict_what_comes_out(tmp_path: Path) -> None:
    table, _ = read_all(_parquet(tmp_path / "a.parquet"), columns=["prompt"])
    assert set(table.column_names) == {"exchange_id", "ts", "account_id", "model", "prompt", "raw_ref"}


def test_derived_ids_depend_on_rows_only(write: Write) -> None:
    rows = [{k: v for k, v in exchange(n).items() if k != "exchange_id"} for n in (1, 2, 1, 3)]
    whole, log = read_all(write("whole.jsonl", jsonl(rows)))
    ids = whole["exchange_id"].to_pylist()
    assert log.refusals == []
    assert len(set(ids)) == 4
    assert ids[2] == f"{ids[0]}-1"
    halves, _ = read_all(write("h1.jsonl", jsonl(rows[:2])), write("h2.jsonl", jsonl(rows[2:])))
    assert halves["exchange_id"].to_pylist() == ids
    narrow, _ = read_all(write("again.jsonl", jsonl(rows)), columns=["n"])
    assert narrow["exchange_id"].to_pylist() == ids
    # A golden value: ids must survive releases.
    assert ids[0] == "20952e33ed32a96b"


def test_a_row_without_an_id_gets_one_beside_rows_with_theirs(write: Write) -> None:
    rows = [exchange(0), exchange(1, exchange_id=None), exchange(2)]
    table, log = read_all(write("a.jsonl", jsonl(rows)))
    ids = table["exchange_id"].to_pylist()
    assert (ids[0], ids[2], log.refusals) == ("x0", "x2", [])
    assert len(ids[1]) == 16


def test_directory_takes_side_tables_and_leaves_truth(write: Write, tmp_path: Path) -> None:
    write("logs/exchanges.jsonl", jsonl(ROWS))
    write("logs/accounts.csv", b"account_id,entity_id,verified\naccount-1,e1,true\naccount-2,e2,false\n")
    write("logs/sanctions.jsonl", jsonl([{"ts": "2026-03-01T13:00:00Z", "account_id": "a", "kind": "ban"}]))
    write("logs/truth/accounts.jsonl", b"not even json")
    write("logs/.hidden.jsonl", b"nor this")
    write("logs/notes.txt", b"nor this")
    log = open_log([str(tmp_path / "logs")])
    assert sorted(log.side) == ["accounts", "sanctions"]
    assert log.side["accounts"]["verified"].to_pylist() == [True, False]
    assert sum(batch.num_rows for batch in log.batches()) == 50
    assert [Path(path).name for path in log.skipped] == ["notes.txt"]
    with pytest.raises(InputError, match="truth"):
        open_log([str(tmp_path / "logs" / "truth")])


def test_a_broken_side_table_is_refused_whole(write: Write) -> None:
    path = write(
        "sanctions.jsonl", jsonl([{"ts": "2026-03-01T13:00:00Z", "account_id": "a", "kind": "ban"}, b"{"])
    )
    with pytest.raises(FormatError, match="row 2"):
        read_side("sanctions", path)
    with pytest.raises(UsageError, match="unknown side table"):
        read_side("friends", path)


def test_unknown_columns_are_carried_along_on_request(write: Write, tmp_path: Path) -> None:
    path = write("a.jsonl", jsonl([exchange(0, region="eu", depth=3), exchange(1)]))
    plain, _ = read_all(path)
    assert plain.column_names == EXCHANGES.names
    log = open_log([path], extras=True)
    carried = pa.Table.from_batches(log.batches())
    assert carried["extras"].to_pylist() == [[("depth", "3"), ("region", "eu")], None]


def test_written_log_reads_back_the_same(write: Write, tmp_path: Path) -> None:
    log = open_log(
        [write("a.jsonl", jsonl(ROWS)), write("accounts.csv", b"account_id,entity_id\naccount-1,e\n")]
    )
    out = tmp_path / "out"
    assert write_canonical(log, out) == 50
    assert sorted(path.name for path in out.iterdir()) == ["accounts.parquet", "exchanges.parquet"]
    assert out.stat().st_mode & 0o777 == 0o700
    again, _ = read_all(str(out))
    before = pa.Table.from_batches(log.batches())
    assert again.drop_columns(["raw_ref"]).equals(before.drop_columns(["raw_ref"]))
    with pytest.raises(OutputError, match="exists"):
        write_canonical(log, out)


def test_failed_write_leaves_nothing(write: Write, tmp_path: Path) -> None:
    log = open_log([write("a.jsonl", jsonl([exchange(0), b"{"]))], strict=True)
    with pytest.raises(RowError):
        write_canonical(log, tmp_path / "new" / "out")
    assert list((tmp_path / "new").iterdir()) == []


def test_standard_input_is_read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(gzip.compress(jsonl(ROWS))))
    monkeypatch.setattr("sys.stdin", stdin)
    with open_log(["-"]) as log:
        assert [sum(batch.num_rows for batch in log.batches()) for _ in range(2)] == [50, 50]
        assert (log.inputs[0].path, log.inputs[0].format) == ("-", "canonical/jsonl+gzip")


def test_coverage_counts(write: Write) -> None:
    found = coverage(open_log([write("a.jsonl", jsonl([exchange(0), exchange(1, prompt=None), b"{"]))]))
    assert (found.rows, found.refused) == (2, 1)
    assert found.percent("prompt") == 50.0
    assert found.percent("ja4") == 0.0
    assert found.last_us is not None
    assert found.first_us is not None
    assert found.last_us - found.first_us == 1_000_000


def test_overrides_win_in_the_canonical_format(write: Write) -> None:
    path = write("a.jsonl", jsonl([exchange(0, who={"id": "inner"})]))
    table, _ = read_all(path, overrides={"account_id": "$.who.id", "provider": "=acme"})
    assert table["account_id"].to_pylist() == ["inner"]
    assert table["provider"].to_pylist() == ["acme"]
    assert table["prompt"].to_pylist() == [exchange(0)["prompt"]]
