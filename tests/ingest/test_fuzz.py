"""Nothing but StillwatchError comes out of a reader, and every row is delivered or refused."""

from __future__ import annotations

import csv as stdcsv
import io
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillwatch.ingest import open_log
from stillwatch.schema.errors import StillwatchError
from tests.ingest.conftest import envelope, event, exchange, jsonl, record

FUZZ = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def _survives(data: bytes, format: str | None = None) -> int | None:
    """Accepted rows plus refused ones are all that was read; None after a proper error."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.write_bytes(data)
        try:
            with open_log([str(path)], format=format) as log:
                accepted = sum(batch.num_rows for batch in log.batches())
        except StillwatchError:
            return None
        assert accepted + len(log.refusals) == log.rows_read
        return log.rows_read


@FUZZ
@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"{", b"[", b"PAR1", b"ARROW1\0\0", b"\x1f\x8b", b"ts,model\n"]),
)
def test_random_bytes(data: bytes, head: bytes) -> None:
    _survives(head + data)


@FUZZ
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 255)), max_size=6), st.integers(0, 400))
def test_mutated_json_lines(changes: list[tuple[int, int]], where: int) -> None:
    lines = [bytearray(line) for line in jsonl([exchange(n) for n in range(6)]).splitlines()]
    for index, byte in changes:
        if byte not in (10, 13):
            lines[index][where % len(lines[index])] = byte
    data = b"\n".join(map(bytes, lines)) + b"\n"
    assert _survives(data, "canonical") in (6, None)


@FUZZ
@given(st.sampled_from(sorted(exchange(0))), JSON)
def test_any_value_in_any_column(column: str, value: object) -> None:
    row = exchange(1)
    row[column] = value
    assert _survives(json.dumps(exchange(0)).encode() + b"\n" + json.dumps(row).encode() + b"\n") == 2


@FUZZ
@given(st.sampled_from(sorted(event(0))), JSON)
def test_any_value_in_any_field_of_an_event(name: str, value: object) -> None:
    broken = event(1)
    broken[name] = value
    data = json.dumps(event(0)).encode() + b"\n" + json.dumps(broken).encode() + b"\n"
    assert _survives(data, "litellm") == 2


@FUZZ
@given(
    st.sampled_from(["messages", "response", "metadata", "model_parameters", "error_information"]), st.data()
)
def test_odd_insides_of_an_event(name: str, data: st.DataObject) -> None:
    keys = st.sampled_from(
        ["role", "content", "type", "text", "choices", "message", "usage", "prompt_tokens", "tools",
         "reasoning", "user_api_key_hash", "output", "summary", "thinking", "format", "metadata",
         "error_message"]
    )  # fmt: skip
    leaf = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.sampled_from(["user", "text", "tool_result", "\ud800", "x"])
    )
    tree = st.recursive(
        leaf,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    )
    broken = event(1)
    broken[name] = data.draw(tree)
    text = json.dumps(event(0)).encode() + b"\n" + json.dumps(broken).encode() + b"\n"
    assert _survives(text, "litellm") == 2


CHAT = {"model": "m", "messages": [{"role": "user", "content": "u"}], "tools": [], "stream": True}
PLAIN = {"choices": [{"finish_reason": "stop", "message": {"content": "a"}}], "usage": {"prompt_tokens": 3}}


@FUZZ
@given(st.sampled_from([*envelope(0, 0, 0), "headers", "path", "status", "model", "scores"]), JSON)
def test_any_value_in_any_field_of_an_envelope(name: str, value: object) -> None:
    rows = [envelope(0, CHAT, PLAIN), envelope(1, CHAT, PLAIN) | {name: value}]
    assert _survives(_lines(rows), "bodies") == 2


@FUZZ
@given(st.sampled_from([*record(0, 0, 0), "requestMetadata", "errorCode", "message", "logEvents"]), JSON)
def test_any_value_in_any_field_of_a_record(name: str, value: object) -> None:
    # An object of events may hold any number of records.
    assert (
        _survives(_lines([record(0, CHAT, PLAIN), record(1, CHAT, PLAIN) | {name: value}]), "bedrock") or 0
    ) >= 1


def _lines(rows: list[dict[str, object]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


_KEYS = st.sampled_from(
    ["role", "content", "type", "text", "choices", "message", "usage", "prompt_tokens", "tools", "reasoning",
     "output", "summary", "thinking", "format", "metadata", "delta", "index", "content_block", "response", "item",
     "output_index", "error", "code", "model", "messages", "input", "system", "chunk", "contentBlockDelta",
     "contentBlockStart", "messageStop", "toolUse", "toolResult", "reasoningContent", "reasoningText", "toolConfig",
     "toolSpec", "inferenceConfig", "stopReason", "amazon-bedrock-invocationMetrics", "results", "conversation",
     "schema", "json_schema", "response_format", "max_tokens", "temperature", "status", "incomplete_details"]
)  # fmt: skip
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(
        [
            "user",
            "text",
            "tool_result",
            "\ud800",
            "x",
            "response.completed",
            "message_start",
            "content_block_delta",
            "response.output_text.delta",
            "reasoning",
            "function_call",
            "data: {",
            "{",
            "json_schema",
            "error",
        ]
    )
)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5),
    max_leaves=16,
)


@FUZZ
@given(_TREES, _TREES, st.booleans())
def test_odd_insides_of_bodies(request: object, response: object, text: bool) -> None:
    if text:
        request, response = json.dumps(request), json.dumps(response)
    rows = [envelope(0, CHAT, PLAIN, model="m"), envelope(1, request, response, model="m")]
    assert _survives(_lines(rows), "bodies") == 2
    assert _survives(_lines([record(0, CHAT, PLAIN), record(1, request, response)]), "bedrock") == 2


@FUZZ
@given(st.lists(st.dictionaries(_KEYS, _TREES, max_size=5) | _LEAVES, max_size=5), st.booleans())
def test_odd_streams(chunks: list[object], as_events: bool) -> None:
    response: object = chunks
    if as_events:
        response = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    rows = [envelope(0, CHAT, PLAIN), envelope(1, CHAT, response)]
    assert _survives(_lines(rows), "bodies") == 2
    assert _survives(_lines([record(0, CHAT, PLAIN), record(1, CHAT, response)]), "bedrock") == 2


@FUZZ
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 255)), max_size=6), st.integers(0, 400))
def test_mutated_raw_bodies(changes: list[tuple[int, int]], where: int) -> None:
    makers = {
        "bodies": [envelope(n, CHAT, PLAIN) for n in range(6)],
        "bedrock": [record(n, CHAT, PLAIN) for n in range(6)],
    }
    for format, rows in makers.items():
        lines = [bytearray(line) for line in jsonl(list(rows)).splitlines()]
        for index, byte in changes:
            if byte not in (10, 13):
                lines[index][where % len(lines[index])] = byte
        assert _survives(b"\n".join(map(bytes, lines)) + b"\n", format) in (6, None)


@FUZZ
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), min_size=1, max_size=6))
def test_any_text_in_csv_survives(prompts: list[str]) -> None:
    out = io.StringIO(newline="")
    writer = stdcsv.writer(out, quoting=stdcsv.QUOTE_ALL)
    writer.writerow(["exchange_id", "ts", "account_id", "model", "prompt"])
    for number, prompt in enumerate(prompts):
        writer.writerow([f"x{number}", "2026-03-01T12:00:00Z", "a", "m", prompt])
    assert _survives(out.getvalue().encode(), "canonical") == len(prompts)


@FUZZ
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=5))
def test_mutated_csv(changes: list[tuple[int, int]]) -> None:
    head = b"exchange_id,ts,account_id,model\n"
    body = bytearray(b"".join(b"x%d,2026-03-01T12:00:00Z,a,m\n" % n for n in range(5)))
    for at, byte in changes:
        body[at % len(body)] = byte
    _survives(head + bytes(body), "canonical")


@FUZZ
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_mutated_parquet(changes: list[tuple[int, int]]) -> None:
    rows = [exchange(n) for n in range(20)]
    names = ("exchange_id", "ts", "account_id", "model", "prompt", "output_tokens")
    buffer = io.BytesIO()
    pq.write_table(pa.table({name: [row[name] for row in rows] for name in names}), buffer)
    data = bytearray(buffer.getvalue())
    # The footer stays: bytes that describe other lengths make the format's own library ask for any memory.
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for at, byte in changes:
        data[4 + at % (end - 4)] = byte
    _survives(bytes(data))


@FUZZ
@given(
    st.lists(st.tuples(st.text(max_size=6) | st.sampled_from(["User-Agent", "a\nuser-agent", "x-ja4"]), JSON))
)
def test_any_headers(pairs: list[tuple[str, object]]) -> None:
    listed = [list(pair) for pair in pairs]
    for headers in (dict(pairs), listed, [{"name": name, "value": value} for name, value in pairs]):
        rows = [envelope(0, CHAT, PLAIN), envelope(1, CHAT, PLAIN, headers=headers)]
        assert _survives(_lines(rows), "bodies") == 2
