"""Rows read a second time, by their place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.ingest import open_log

ROWS = [
    {
        "exchange_id": f"e{i}",
        "ts": "2026-03-01T00:00:00Z",
        "account_id": "a",
        "model": "m",
        "prompt": f"text {i}",
    }
    for i in range(100)
]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_single_rows_come_back_with_their_text(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"log.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=9)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        names = list(ROWS[0])
        lines = [names, *([row[name] for name in names] for row in ROWS)]
        path.write_text("".join(",".join(line) + "\n" for line in lines))
    with open_log([str(path)]) as log:
        place = {}
        for batch in log.batches():
            for ref, prompt in zip(
                batch.column("raw_ref").to_pylist(), batch.column("prompt").to_pylist(), strict=True
            ):
                place[prompt] = ref["row"]
        wanted = ["text 3", "text 40", "text 41", "text 77"]
        rows = {0: np.array([place[text] for text in wanted])}
        found = []
        for number, at, table in log.again(rows, ("prompt",)):
            assert number == 0
            assert set(at.tolist()) <= set(rows[0].tolist())
            found += table.column("prompt").to_pylist()
        assert found == wanted
        assert list(log.again({}, ("prompt",))) == []
