"""Bytes of refused rows: never unless asked for, and then those of the row and no others."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.ingest import open_log, refused, write_canonical
from stillwatch.scan import scan
from stillwatch.store.results import Results, read_results, write_results
from tests.ingest.conftest import Write, exchange, jsonl, read_all

GOOD = jsonl([exchange(n) for n in range(50)])


def _raw(path: str) -> list[tuple[int, bytes | None]]:
    with open_log([path]) as log:
        for _ in log.batches():
            pass
        assert all(refusal.raw is None for refusal in log.refusals)
        return [(refusal.row, refusal.raw) for refusal in log.refusals_with_bytes()]


def test_lines_come_back_as_they_stand(write: Write) -> None:
    odd = [b'{"exchange_id": "\xff"}', b"[1, 2]", json.dumps(exchange(3)).encode(), b'{"ts": ']
    data = GOOD + b"\n".join(odd) + b"\n"
    wanted = list(zip(range(51, 55), odd, strict=True))
    assert _raw(write("a.jsonl", data)) == wanted
    assert _raw(write("b.jsonl.gz", gzip.compress(data))) == wanted


def test_an_object_that_never_closes_comes_to_the_end_of_its_line(write: Write) -> None:
    data = b"[" + b",".join(GOOD.splitlines()) + b',\n{"open": 1,\n{"exchange_id": "never"'
    found = _raw(write("a.json", data))
    assert found[0] == (51, b'{"open": 1,')


def test_csv_records_come_back_with_their_quotes(write: Write) -> None:
    rows = [b'x1,2026-03-01T12:00:00Z,a,m,"he said ""hi"",\nand left"', b'x2,never,a,m,"p, q"', b"x3,2026"]
    path = write("a.csv", b"exchange_id,ts,account_id,model,prompt\n" + b"\n".join(rows) + b"\n")
    assert _raw(path) == [(2, rows[1]), (3, rows[2])]


def test_rows_of_tables_come_back_as_json(tmp_path: Path) -> None:
    names = [f"x{n}" for n in range(5)]
    times = ["2026-03-01T12:00:00Z"] * 3 + ["1970-01-01T00:00:00Z", "yesterday"]
    table = pa.table(
        {"exchange_id": names, "ts": times, "account_id": names, "model": names, "blob": [b"\x00"] * 5}
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    with pa.OSFile(str(tmp_path / "b.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, 2)
    for name in ("a.parquet", "b.arrow"):
        found = _raw(str(tmp_path / name))
        assert [row for row, _ in found] == [4, 5]
        assert json.loads(found[0][1] or b"") == {**table.slice(3, 1).to_pylist()[0], "blob": "AA=="}


def test_text_that_is_not_utf8_is_escaped(tmp_path: Path) -> None:
    names = [f"x{n}" for n in range(5)]
    table = pa.table(
        {"exchange_id": names, "ts": ["2026-03-01T12:00:00Z"] * 5, "account_id": names, "model": names}
    )
    pq.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False)
    data = (tmp_path / "a.parquet").read_bytes().replace(b"\x02\x00\x00\x00x3", b"\x02\x00\x00\x00\xffy", 1)
    (tmp_path / "a.parquet").write_bytes(data)
    ((row, raw),) = _raw(str(tmp_path / "a.parquet"))
    assert row == 4
    assert json.loads(raw or b"")["exchange_id"] == "\\xffy"


def test_long_rows_and_many_rows_are_cut(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    long = exchange(0, ts="never", prompt="a" * 100_000)
    ((_, raw),) = _raw(write("a.jsonl", jsonl([exchange(1), long])))
    assert len(raw or b"") == refused.MOST_ROW_BYTES
    monkeypatch.setattr(refused, "MOST_BYTES", 10)
    found = _raw(write("b.jsonl", GOOD + b"broken one\nbroken two\nbroken three\n"))
    assert [raw is None for _, raw in found] == [False, True, True]


def test_results_hold_bytes_only_where_asked(write: Write, tmp_path: Path) -> None:
    secret = b'{"prompt": "tell nobody'
    path = write("log/a.jsonl", GOOD + secret + b"\n")
    for keep in (False, True):
        s = scan([path], keep_refused=keep)
        out = tmp_path / f"results-{keep}"
        tables = (s.accounts, s.streams, s.families, s.profiles, s.waterfall)
        write_results(out, Results(s.findings, *tables, s.refusals, s.run_info))
        assert [r.raw for r in read_results(out).refusals] == [secret if keep else None]
        assert (b"raw" in (out / "refused.jsonl").read_bytes()) == keep
        with open_log([path]) as log:
            write_canonical(log, tmp_path / f"canonical-{keep}", keep_refused=keep)
        lines = (tmp_path / f"canonical-{keep}" / "refused.jsonl").read_bytes().splitlines()
        assert [b"raw" in line for line in lines] == [keep]
        # What lies beside the tables is no log.
        assert read_all(str(tmp_path / f"canonical-{keep}"))[0].num_rows == 50
