"""Input that is damaged, absurd or malicious: a clear error or a refused row, never silence."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.ingest import open_log
from stillwatch.schema.errors import (
    ColumnError,
    EmptyLogError,
    FormatError,
    InputError,
    RowError,
    UsageError,
)
from stillwatch.schema.tables import EXCHANGES
from tests.ingest.conftest import Write, envelope, event, exchange, jsonl, read_all, record

GOOD = jsonl([exchange(number) for number in range(200)])


def _parquet_bytes() -> bytes:
    rows = [exchange(number) for number in range(200)]
    table = pa.table(
        {name: [row[name] for row in rows] for name in ("exchange_id", "ts", "account_id", "model")}
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="none")
    return buffer.getvalue()


def test_truncated_files_are_named(write: Write) -> None:
    noisy = b"".join(bytes([n % 251]) * (n % 7) for n in range(20_000))
    cases = {
        "cut.parquet": _parquet_bytes()[:-100],
        "cut.jsonl.gz": gzip.compress(GOOD)[:-20],
        "cut.jsonl.zst": pa.compress(GOOD, codec="zstd", asbytes=True)[:-5],
        "noise.bin": b"\x00\x01\x02" + noisy,
    }
    for name, data in cases.items():
        path = write(name, data)
        with pytest.raises(FormatError, match=name):
            list(open_log([path]).batches())


def test_corrupt_parquet_page_never_passes_silently(write: Write) -> None:
    data = bytearray(_parquet_bytes())
    data[4:40] = b"\xff" * 36
    with pytest.raises(FormatError, match=r"bad\.parquet"):
        list(open_log([write("bad.parquet", bytes(data))]).batches())


def test_wrong_names_do_not_matter(write: Write) -> None:
    table, _ = read_all(write("log.parquet", GOOD))
    assert table.num_rows == 200


def test_mixed_formats_are_named(write: Write) -> None:
    first, second = write("a.jsonl", GOOD), write("b.jsonl", jsonl([event(1)]))
    with pytest.raises(FormatError, match="mixed formats") as caught:
        open_log([first, second])
    assert "a.jsonl" in str(caught.value)
    assert "b.jsonl" in str(caught.value)


def test_unknown_format_lists_the_known(write: Write) -> None:
    with pytest.raises(UsageError, match="bedrock, bodies, canonical, envoy, litellm, mapping, otlp"):
        open_log([write("a.jsonl", GOOD)], format="nonsense")


def test_nothing_there(write: Write, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_log([str(tmp_path / "missing.jsonl")])
    with pytest.raises(InputError, match="matches no file"):
        open_log([str(tmp_path / "*.nothing")])
    with pytest.raises(InputError, match="no log found"):
        open_log([str(tmp_path)])
    with pytest.raises(EmptyLogError):
        open_log([write("empty.jsonl", b"")])
    with pytest.raises(UsageError):
        open_log([])


def test_one_empty_file_among_others_is_fine(write: Write) -> None:
    table, log = read_all(write("a.jsonl", GOOD), write("b.jsonl", b"\n"))
    assert table.num_rows == 200
    assert log.inputs[1].format == "canonical/empty"


def test_invalid_utf8_costs_one_row(write: Write) -> None:
    bad = json.dumps(exchange(900)).encode().replace(b"question", b"\xff\xfe\xff")
    cases: dict[str, list[Any]] = {"a.jsonl": [bad], "b.jsonl": [bad, exchange(901)]}
    for name, lines in cases.items():
        table, log = read_all(write(name, GOOD + jsonl(lines)))
        assert table.num_rows == 199 + len(lines)
        assert [(part.row, part.reason) for part in log.refusals] == [(201, "invalid UTF-8")]


def test_invalid_utf8_in_parquet_costs_one_row(write: Write) -> None:
    data = _parquet_bytes().replace(b"x150", b"\xff\xfe50")
    table, log = read_all(write("a.parquet", data))
    assert table.num_rows == 199
    assert [(part.row, part.column) for part in log.refusals] == [(151, "exchange_id")]


def test_invalid_utf8_and_short_records_in_csv(write: Write) -> None:
    good = b"x1,2026-03-01T12:00:00Z,a,m,hello\n"
    lines = [good, good.replace(b"x1", b"\xff"), b"x3,2026\n", good.replace(b"x1", b"x4")]
    path = write("a.csv", b"exchange_id,ts,account_id,model,prompt\n" + b"".join(lines))
    table, log = read_all(path)
    assert table["exchange_id"].to_pylist() == ["x1", "x4"]
    assert [part.row for part in log.refusals] == [2, 3]
    assert "fields" in log.refusals[1].reason


@pytest.mark.parametrize("ts", [1_772_366, "1970-01-01T00:00:01Z", "2200-06-01T00:00:00Z", "yesterday", None])
def test_absurd_times_are_refused_rows(write: Write, ts: object) -> None:
    table, log = read_all(write("a.jsonl", GOOD + jsonl([exchange(900, ts=ts)])))
    assert table.num_rows == 200
    assert [(part.row, part.column) for part in log.refusals] == [(201, "ts")]


def test_seconds_read_as_microseconds(write: Write, tmp_path: Path) -> None:
    stamps = pa.array([1_772_366_400 + n for n in range(5)], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    names = [f"x{n}" for n in range(5)]
    table = pa.table({"exchange_id": names, "ts": stamps, "account_id": names, "model": names})
    pq.write_table(table, tmp_path / "a.parquet")
    accepted, log = read_all(str(tmp_path / "a.parquet"))
    assert accepted.num_rows == 0
    assert len(log.refusals) == 5
    assert "seconds read as microseconds" in log.refusals[0].reason


def test_duplicates_are_refused_across_files(write: Write) -> None:
    table, log = read_all(write("a.jsonl", GOOD), write("b.jsonl", jsonl([exchange(3), exchange(901)])))
    assert table.num_rows == 201
    assert [(Path(part.file).name, part.row, part.column) for part in log.refusals] == [
        ("b.jsonl", 1, "exchange_id")
    ]


def test_strict_stops_at_the_first(write: Write) -> None:
    log = open_log([write("a.jsonl", jsonl([exchange(0), b"{", b"[]"]))], strict=True)
    with pytest.raises(RowError, match="row 2"):
        list(log.batches())


def test_missing_required_column(write: Write) -> None:
    rows = [{k: v for k, v in exchange(n).items() if k != "account_id"} for n in range(3)]
    with pytest.raises(ColumnError, match="account_id"):
        read_all(write("a.jsonl", jsonl(rows)))


def test_a_required_column_may_start_late(write: Write) -> None:
    table, log = read_all(write("a.jsonl", jsonl([exchange(0, model=None), exchange(1)])))
    assert (table.num_rows, [part.row for part in log.refusals]) == (1, [1])


def test_a_five_megabyte_prompt(write: Write) -> None:
    long = "é" * 2_500_000
    table, log = read_all(write("a.jsonl", jsonl([exchange(0), exchange(1, prompt=long), exchange(2)])))
    assert log.refusals == []
    assert table["prompt"].to_pylist()[1] == long
    alone, _ = read_all(write("b.jsonl", jsonl([exchange(1, prompt=long)])))
    assert alone["prompt"].to_pylist() == [long]


def test_a_format_that_cannot_be(write: Write) -> None:
    with pytest.raises(FormatError, match="LiteLLM events are JSON"):
        read_all(write("a.parquet", _parquet_bytes()), format="litellm")


def test_a_thousand_columns_of_junk(write: Write, tmp_path: Path) -> None:
    junk = {f"junk{n}": n for n in range(1000)}
    table, _ = read_all(write("a.jsonl", jsonl([exchange(n) | junk for n in range(20)])))
    assert table.num_rows == 20
    rows = [exchange(n) for n in range(20)]
    wide = {name: [row[name] for row in rows] for name in ("ts", "account_id", "model")}
    pq.write_table(pa.table(wide | {name: [0] * 20 for name in junk}), tmp_path / "w.parquet")
    table, _ = read_all(str(tmp_path / "w.parquet"))
    assert table.num_rows == 20


def test_values_that_do_not_fit(write: Write) -> None:
    rows = [
        exchange(0, output_tokens=1.5),
        exchange(1, prompt={"not": "text"}),
        exchange(2, prefix_hash="zz"),
        exchange(3, output_tokens=2**40),
        exchange(4, output_tokens=7.0),
    ]
    table, log = read_all(write("a.jsonl", jsonl(rows)))
    assert table["output_tokens"].to_pylist() == [7]
    assert [part.column for part in log.refusals] == [
        "output_tokens",
        "prompt",
        "prefix_hash",
        "output_tokens",
    ]


def test_refusals_never_quote_the_row(write: Write) -> None:
    secret = "tell-nobody"
    lines = [exchange(0), exchange(1, output_tokens=secret), b'{"prompt": "' + secret.encode() + b'", x}']
    _, log = read_all(write("a.jsonl", jsonl(lines)))
    assert len(log.refusals) == 2
    assert all(secret not in part.reason for part in log.refusals)


def test_deep_nesting_and_unclosed_objects(write: Write) -> None:
    deep = b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    table, log = read_all(write("a.jsonl", GOOD + jsonl([deep])))
    assert table.num_rows == 200
    assert [part.row for part in log.refusals] == [201]
    table, log = read_all(write("b.json", b"[" + b",".join(GOOD.splitlines()) + b', {"open": 1'))
    assert table.num_rows == 200
    assert [part.row for part in log.refusals] == [201]


WRONG: list[Any] = [None, True, 7, -1, 1.5, 10**30, "", "text", "{", [], [1], [[]], {}, {"a": {"b": [1]}}]
BODY = {"model": "m", "messages": [{"role": "user", "content": "tell-nobody"}]}
REPLY = {"choices": [{"finish_reason": "stop", "message": {"content": "tell-nobody"}}], "usage": {}}


def _bodies(**changes: Any) -> dict[str, Any]:
    return envelope(900, BODY, REPLY, headers={"user-agent": "u"}, path="/v1/x") | changes


def _bedrock(**changes: Any) -> dict[str, Any]:
    return record(900, BODY, REPLY, requestMetadata={"tenant": "t"}) | changes


RAW = {"bodies": _bodies, "bedrock": _bedrock}


@pytest.mark.parametrize("format", RAW)
def test_wrong_types_in_every_field_of_raw_bodies(write: Write, format: str) -> None:
    make = RAW[format]
    names = sorted({*make(), *(n for n in EXCHANGES.names if format == "bodies" and n not in ("response",))})
    rows = [make()]
    for name in names:
        for value in WRONG:
            row = make(**{name: value})
            row.setdefault("exchange_id" if format == "bodies" else "requestId", f"x{len(rows)}")
            if format == "bedrock" and name != "requestId":
                row["requestId"] = f"x{len(rows)}"
            rows.append(row)
    table, log = read_all(write("a.jsonl", jsonl(rows)), format=format)
    assert table.num_rows + len(log.refusals) == len(rows) == log.rows_read
    assert table.num_rows > len(rows) // 4
    for refusal in log.refusals:
        assert refusal.column is not None, refusal
        assert "tell-nobody" not in refusal.reason
        assert "account-" not in refusal.reason
        assert "203.0.113" not in refusal.reason


@pytest.mark.parametrize("format", RAW)
def test_damaged_raw_bodies(write: Write, format: str) -> None:
    good = [RAW[format]() | {"requestId": f"r{n}", "exchange_id": f"r{n}"} for n in range(3)]
    data = jsonl(good)
    with pytest.raises(FormatError, match="cut"):
        read_all(write("cut.jsonl.gz", gzip.compress(data * 500)[:-30]), format=format)
    with pytest.raises(EmptyLogError):
        read_all(write("empty.jsonl", b""), format=format)
    table, log = read_all(write("tail.jsonl", data + data[:80]), format=format)
    assert (table.num_rows, [part.row for part in log.refusals]) == (3, [4])
    spoilt = data.replace(b"tell-nobody", b"\xff\xfe", 1)
    table, log = read_all(write("utf.jsonl", spoilt), format=format)
    assert [(part.row, part.reason) for part in log.refusals] == [(1, "invalid UTF-8")]
    assert log.refusals[0].column is not None
    table, log = read_all(write("dup.jsonl", data + jsonl(good[:1])), format=format)
    assert [(part.row, part.column) for part in log.refusals] == [(4, "exchange_id")]
    junk = {f"junk{n}": {"a": [n]} for n in range(1000)}
    table, log = read_all(write("wide.jsonl", jsonl([row | junk for row in good])), format=format)
    assert (table.num_rows, log.refusals) == (3, [])


@pytest.mark.parametrize("format", RAW)
@pytest.mark.parametrize("ts", [1_772_366, "1970-01-01T00:00:01Z", "2200-06-01T00:00:00Z", "yesterday", {}])
def test_absurd_times_of_raw_bodies(write: Write, format: str, ts: Any) -> None:
    name = "timestamp" if format == "bedrock" else "ts"
    good = [RAW[format]() | {"requestId": f"r{n}", "exchange_id": f"r{n}"} for n in range(3)]
    good[1][name] = ts
    table, log = read_all(write("a.jsonl", jsonl(good)), format=format)
    assert table.num_rows == 2
    assert [(part.row, part.column) for part in log.refusals] == [(2, "ts")]


@pytest.mark.parametrize("format", RAW)
def test_deep_and_long_raw_bodies(write: Write, format: str) -> None:
    line = json.dumps(RAW[format]()).encode()
    deep = line.replace(b'"tell-nobody"', b"[" * 100_000 + b"]" * 100_000, 1)
    inside = line.replace(b'"tell-nobody"', b"[" * 900 + b"]" * 900, 1)
    text = "é" * 2_500_000
    long = line.replace(b"tell-nobody", text.encode(), 1).replace(b"r900", b"r901").replace(b"-900", b"-901")
    table, log = read_all(write("a.jsonl", jsonl([line, deep, long])), format=format)
    assert table["prompt"].to_pylist() == ["tell-nobody", text]
    assert [(part.row, part.reason) for part in log.refusals] == [(2, "nested too deeply")]
    table, log = read_all(write("b.jsonl", jsonl([inside])), format=format)
    assert table.num_rows + len(log.refusals) == 1


def test_raw_bodies_that_cannot_be(write: Write) -> None:
    with pytest.raises(FormatError, match="envelopes of API bodies are JSON"):
        read_all(write("a.parquet", _parquet_bytes()), format="bodies")
    with pytest.raises(FormatError, match="mixed formats"):
        open_log([write("a.jsonl", jsonl([_bodies()])), write("b.jsonl", jsonl([_bedrock()]))])


def test_formats_do_not_take_each_others_logs(write: Write) -> None:
    rows = {
        "canonical": exchange(1, request="GET /", response="text"),
        "litellm": event(1),
        "bodies": _bodies(model="m", exchange_id="x"),
        "bedrock": _bedrock(),
    }
    for name, row in rows.items():
        assert open_log([write(f"{name}.jsonl", jsonl([row]))]).format == name
        pretty = json.dumps(row, indent=1).encode()
        assert open_log([write(f"{name}.json", pretty)]).format == name


def test_utf16_and_prose(write: Write) -> None:
    with pytest.raises(FormatError, match="UTF-16"):
        open_log([write("a.csv", "a,b\n1,2\n".encode("utf-16"))])
    with pytest.raises(FormatError, match="neither JSON nor CSV"):
        open_log([write("a.txt", b"dear reader\nhow are you\n")])
    with pytest.raises(FormatError, match="no importer recognises"):
        open_log([write("a.csv", b"colour,shape\nred,round\n")])
