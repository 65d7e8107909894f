"""The text-free form: no text in it, and the same findings from it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.ingest import open_log, write_canonical
from stillwatch.ingest.textfree import text_free
from stillwatch.sketch import from_binary, sketch_text, to_binary
from tests.ingest.conftest import Write, exchange, jsonl, read_all

SECRET = "the purple elephant walks slowly over the frozen lake"


def test_no_text_and_no_unknown_column_is_written(write: Write, tmp_path: Path) -> None:
    rows = [exchange(n, prompt=SECRET, system=SECRET, response=SECRET, notes=SECRET) for n in range(5)]
    with open_log([write("a.jsonl", jsonl(rows))], extras=True) as log:
        assert write_canonical(log, tmp_path / "out", sketched=True) == 5
    assert SECRET.encode() not in (tmp_path / "out" / "exchanges.parquet").read_bytes()
    table = pq.read_table(tmp_path / "out" / "exchanges.parquet")
    assert table.column("content_state").to_pylist() == ["sketch"] * 5
    for part in ("system", "prompt", "response"):
        assert table.column(part).null_count == 5
        made = from_binary(table.column(f"{part}_sketch"))
        assert made.exact.tolist() == sketch_text(pa.array([SECRET] * 5)).exact.tolist()
    assert "notes" not in table.column_names


def test_rows_without_text_keep_their_state_and_sketches_stay(write: Write) -> None:
    given = to_binary(sketch_text(pa.array([SECRET])))[0]
    rows = [
        exchange(0, prompt=None, content_state="absent"),
        exchange(1, prompt="???", content_state="full"),
        exchange(2, prompt="some words of a person", content_state="full"),
    ]
    table, _ = read_all(write("a.jsonl", jsonl(rows)))
    batch = table.to_batches()[0]
    column = pa.array([given.as_py(), None, None], pa.binary())
    batch = batch.set_column(batch.schema.get_field_index("prompt_sketch"), "prompt_sketch", column)
    (out,) = text_free(batch)
    assert out.column("content_state").to_pylist() == ["sketch", "sketch", "sketch"]
    assert out.column("prompt_sketch")[0] == given
    # A text without letters is a text all the same: the share of filled rows must not change.
    assert out.column("prompt_sketch").to_pylist()[1] == b""
    (bare,) = text_free(table.to_batches()[0])
    assert bare.column("content_state").to_pylist()[0] == "absent"


def test_a_large_batch_comes_in_pieces(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    table, _ = read_all(write("a.jsonl", jsonl([exchange(n) for n in range(40)])))
    batch = table.to_batches()[0]
    whole = pa.Table.from_batches(text_free(batch))
    monkeypatch.setattr("stillwatch.ingest.textfree._SLICE_BYTES", 200)
    pieces = list(text_free(batch))
    assert len(pieces) > 4
    assert pa.Table.from_batches(pieces).equals(whole)


def test_a_damaged_sketch_costs_its_row(write: Write) -> None:
    good = to_binary(sketch_text(pa.array([SECRET])))[0].as_py()
    other = bytes([9]) + good[1:]
    sketches = [good, good[:-3], good[:-8], other, b"", None]
    rows = {
        name: [exchange(n)[name] for n in range(6)] for name in ("exchange_id", "ts", "account_id", "model")
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(rows | {"prompt_sketch": pa.array(sketches, pa.binary())}), sink)
    table, log = read_all(write("a.parquet", sink.getvalue().to_pybytes()))
    assert table.column("exchange_id").to_pylist() == ["x0", "x4", "x5"]
    assert [(r.row, r.column) for r in log.refusals] == [
        (2, "prompt_sketch"),
        (3, "prompt_sketch"),
        (4, "prompt_sketch"),
    ]
    assert "truncated" in log.refusals[0].reason
    assert "header" in log.refusals[1].reason
    assert "version" in log.refusals[2].reason
    assert json.dumps([r.reason for r in log.refusals]).isascii()
