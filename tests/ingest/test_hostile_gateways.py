"""Damaged, absurd and random traces and access logs: every span and line is delivered, refused or passed over."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwatch.ingest import open_log
from stillwatch.schema.errors import EmptyLogError, FormatError, StillwatchError
from tests.ingest.conftest import Write, jsonl, read_all
from tests.ingest.spans import access, current, legacy, openinference, request, span, traceloop
from tests.ingest.test_fuzz import FUZZ, JSON

MAKERS = [current, legacy, traceloop, openinference]
SECRETS = ("tell-nobody", "203.0.113.77", "account-of-somebody")
ODD: list[Any] = [None, True, -1, 0, 1.5, 2**70, "", "x", "\ud800", [], [1], {}, {"a": {"b": []}}, "9" * 5000]


def _counts(data: bytes, format: str) -> tuple[int, int, int] | None:
    """(delivered, refused, passed over); None after a proper error."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        path.write_bytes(data)
        try:
            with open_log([str(path)], format=format) as log:
                rows = sum(batch.num_rows for batch in log.batches())
        except StillwatchError:
            return None
        assert rows + len(log.refusals) == log.rows_read
        assert all(part.row >= 1 and part.reason for part in log.refusals)
        return rows, len(log.refusals), log.rows_passed


def _spans(*spans: Any, format: str = "otlp") -> int:
    """How many spans are accounted for in a file of one good span and these, one a line."""
    found = _counts(jsonl([request(current(0)), *[request(each) for each in spans]]), format)
    assert found is not None
    return sum(found)


def test_truncated_files(write: Write) -> None:
    whole = jsonl([request(current(n), current(n + 50)) for n in range(50)])
    table, log = read_all(write("a.jsonl", whole[:-700]))
    assert table.num_rows == 98
    assert [(part.row, part.offset) for part in log.refusals] == [(99, whole.rstrip(b"\n").rfind(b"\n") + 1)]
    for data in (whole, jsonl([access(n) for n in range(500)])):
        path = write("cut.jsonl.gz", gzip.compress(data)[:-20])
        with pytest.raises(FormatError, match=r"cut\.jsonl\.gz"):
            list(open_log([path]).batches())


def test_nothing_in_it(write: Write) -> None:
    with pytest.raises(EmptyLogError):
        open_log([write("a.jsonl", b"")])
    for line in (
        b"{}",
        b'{"resourceSpans": []}',
        b'{"resourceSpans": [{}]}',
        b'{"resourceSpans": [{"scopeSpans": [{}]}]}',
    ):
        table, log = read_all(write("a.jsonl", line + b"\n"), format="otlp")
        assert (table.num_rows, log.rows_read, log.refusals) == (0, 0, [])
    table, log = read_all(write("b.jsonl", b'{"spans": []}\n' + jsonl([request(current(1))])))
    assert (table.num_rows, [part.row for part in log.refusals]) == (1, [1])
    assert "ExportTraceServiceRequest" in log.refusals[0].reason


def test_invalid_utf8_costs_one_span(write: Write) -> None:
    data = jsonl([request(current(1), current(2, prompt="tell-nobody"), current(3))])
    table, log = read_all(write("a.jsonl", data.replace(b"tell-nobody", b"\xff\xfe")))
    assert (table.num_rows, [part.row for part in log.refusals]) == (2, [2])
    assert log.refusals[0].reason == "a span that cannot be read: invalid UTF-8"
    lines = jsonl([access(1), access(2, **{"user-agent": "tell-nobody"})]).replace(b"tell-nobody", b"\xff")
    table, log = read_all(write("b.jsonl", lines))
    assert (table.num_rows, [(part.row, part.reason) for part in log.refusals]) == (1, [(2, "invalid UTF-8")])


def test_half_a_surrogate_pair_keeps_no_caller_out(write: Write) -> None:
    table, log = read_all(write("a.jsonl", jsonl([request(current(1, prompt="half \ud800"), current(2))])))
    assert (table["prompt"].to_pylist(), log.refusals) == (["half ?", "hello"], [])
    flat = traceloop(3, **{"gen_ai.prompt.1.content": "half \ud800"})
    table, log = read_all(write("b.jsonl", jsonl([request(flat)])))
    assert (table["prompt"].to_pylist(), log.refusals) == (["half ?"], [])


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_odd_values_everywhere(odd: Any) -> None:
    changed: list[Any] = []
    for number, make in enumerate(MAKERS):
        good = make(number + 1)
        changed += [make(number + 1) | {"spanId": f"{number}-{name}", name: odd} for name in good]
        for place, pair in enumerate(good["attributes"]):
            for tag in ("stringValue", "intValue", "doubleValue", "boolValue", "arrayValue", "kvlistValue"):
                twisted = make(1, **{}) | {"spanId": f"{number}-{place}-{tag}"}
                twisted["attributes"] = [*good["attributes"]]
                twisted["attributes"][place] = {"key": pair["key"], "value": {tag: odd}}
                changed.append(twisted)
    assert _spans(*changed) == len(changed) + 1
    lines = [access(1, **{"x-request-id": f"r-{name}", name: odd}) for name in access(1)]
    found = _counts(jsonl([access(0), *lines]), "envoy")
    assert found is not None
    assert sum(found) == len(lines) + 1


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_odd_values_around_the_spans(odd: Any) -> None:
    good = request(current(0))
    group = good["resourceSpans"][0]
    lines = [
        {"resourceSpans": odd},
        {"resourceSpans": [odd]},
        {"resourceSpans": [{**group, "resource": odd}]},
        {"resourceSpans": [{**group, "resource": {"attributes": odd}}]},
        {"resourceSpans": [{**group, "scopeSpans": odd}]},
        {"resourceSpans": [{**group, "scopeSpans": [odd]}]},
        {"resourceSpans": [{**group, "scopeSpans": [{"spans": odd}]}]},
        {"resourceSpans": [{**group, "scopeSpans": [{"spans": [odd]}]}]},
    ]
    found = _counts(jsonl([good, *lines]), "otlp")
    assert found is not None
    assert found[0] >= 1


@pytest.mark.parametrize(
    "time",
    [None, "", "0", 0, -1, "1", "17723664", "99999999999999999999", "yesterday", 1.5, "7958118400000000000"],
)
def test_absurd_times_are_refused_spans(write: Write, time: Any) -> None:
    spans = [current(1), current(2) | {"startTimeUnixNano": time}]
    table, log = read_all(write("a.jsonl", jsonl([request(*spans)])))
    assert (table.num_rows, [(part.row, part.column) for part in log.refusals]) == (1, [(2, "ts")])
    late = current(3) | {"endTimeUnixNano": "1"}
    table, log = read_all(write("b.jsonl", jsonl([request(late)])))
    assert (table["latency_ms"].to_pylist(), log.refusals) == ([None], [])


@pytest.mark.parametrize("time", ["yesterday", "1970-01-01T00:00:01Z", "2200-06-01T00:00:00Z", None, {}])
def test_absurd_times_in_an_access_log(write: Write, time: Any) -> None:
    table, log = read_all(write("a.jsonl", jsonl([access(1), access(2), access(3, start_time=time)])))
    assert (table.num_rows, [(part.row, part.column) for part in log.refusals]) == (2, [(3, "ts")])


def test_duplicates_are_refused(write: Write) -> None:
    lines = jsonl([request(current(1), current(2)), request(current(1))])
    table, log = read_all(write("a.jsonl", lines))
    assert (table.num_rows, [(part.row, part.column) for part in log.refusals]) == (2, [(3, "exchange_id")])
    table, log = read_all(write("b.jsonl", jsonl([access(1), access(1)])))
    assert (table.num_rows, [(part.row, part.column) for part in log.refusals]) == (1, [(2, "exchange_id")])


def test_deep_nesting(write: Write) -> None:
    nested = json.dumps(request(current(1))).encode()
    message = b'{"key": "gen_ai.input.messages", "value": '
    levels = (
        *(b'{"arrayValue":{"values":[' * depth + b"]}}" * depth for depth in (20, 200, 450, 20_000)),
        b"[" * 100_000,
    )
    for inner in levels:
        line = nested.replace(
            b'"attributes": [{"key": "gen_ai.op',
            b'"attributes": [' + message + inner + b'}, {"key": "gen_ai.op',
        )
        assert line != nested
        found = _counts(line + b"\n" + jsonl([request(current(2))]), "otlp")
        assert found is not None
        assert sum(found) == 2
    text = current(
        1, **{"gen_ai.input.messages": "[" * 100_000, "gen_ai.output.messages": "[" * 900 + "]" * 900}
    )
    assert _spans(text) == 2
    found = _counts(jsonl([access(1), access(2, junk=json.loads("[" * 500 + "]" * 500))]), "envoy")
    assert found == (2, 0, 0)


def test_errors_never_carry_what_was_said_or_who_said_it(write: Write) -> None:
    prompt, address, account = SECRETS
    bad = [
        current(1, prompt=prompt, **{"user.id": None, "client.address": address}),
        current(
            2,
            prompt=prompt,
            **{"user.id": account, "gen_ai.request.model": None, "gen_ai.response.model": 7.5},
        ),
        current(3, prompt=prompt, **{"user.id": account}) | {"startTimeUnixNano": prompt},
        current(4, prompt=prompt) | {"events": prompt},
        current(5, prompt=prompt) | {"attributes": [{"key": 7, "value": {"stringValue": prompt}}]},
    ]
    _, log = read_all(
        write("a.jsonl", jsonl([request(*bad), b'{"resourceSpans": "' + prompt.encode() + b'"}']))
    )
    assert len(log.refusals) == 5 + 1 - log.rows_passed
    lines = [
        access(1, account_id=None, **{"x-forwarded-for": address, "user-agent": prompt}),
        access(2, account_id=account, start_time=prompt),
        access(3, account_id=account, **{"gen_ai.request.model": None, "gen_ai.response.model": None}),
    ]
    _, other = read_all(write("b.jsonl", jsonl([access(0), *lines])))
    assert len(other.refusals) == 3
    for refusal in (*log.refusals, *other.refusals):
        assert not any(secret in refusal.reason for secret in SECRETS)


def test_ten_thousand_spans_in_a_line(write: Write) -> None:
    spans = [
        span(n, {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "user.id": "a"})
        for n in range(10_000)
    ]
    table, log = read_all(write("a.jsonl", json.dumps(request(*spans)).encode()), batch_rows=512)
    assert (table.num_rows, log.refusals) == (10_000, [])


@FUZZ
@given(st.sampled_from(MAKERS), st.sampled_from(sorted(current(0))), JSON)
def test_any_value_in_any_field_of_a_span(make: Any, name: str, value: Any) -> None:
    assert _spans(make(1) | {name: value}) == 2


@FUZZ
@given(st.sampled_from(MAKERS), st.integers(0, 30), JSON)
def test_any_value_in_any_attribute(make: Any, place: int, value: Any) -> None:
    broken = make(1)
    pair = broken["attributes"][place % len(broken["attributes"])]
    pair["value"] = value
    assert _spans(broken) == 2


KEYS = st.sampled_from(
    ["role", "content", "parts", "type", "text", "name", "arguments", "response", "finish_reason", "message",
     "tool_calls", "messages", "thinking", "function", "parameters", "reasoning"]
)  # fmt: skip
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["user", "text", "tool_call", "reasoning", "x"])
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@FUZZ
@given(
    st.sampled_from(
        ["gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.definitions",
         "llm.invocation_parameters", "input.value"]
    ),
    TREES,
    st.booleans(),
)  # fmt: skip
def test_odd_insides_of_messages(name: str, tree: Any, text: bool) -> None:
    gone = {"gen_ai.input.messages": None} if name == "input.value" else {}
    extra = {"input.mime_type": "application/json"}
    value = json.dumps(tree) if text or tree is None else tree
    assert (
        _spans(current(1, **gone, **extra) if value is None else current(1, **(gone | extra | {name: value})))
        == 2
    )


@FUZZ
@given(
    st.sampled_from(["gen_ai.user.message", "gen_ai.choice", "gen_ai.content.prompt", "exception"]),
    TREES,
    TREES,
)
def test_odd_events(name: str, first: Any, second: Any) -> None:
    keys = (
        "content",
        "role",
        "message",
        "tool_calls",
        "gen_ai.event.content",
        "gen_ai.prompt",
        "exception.message",
    )
    own = {key: value for key in keys for value in (json.dumps(first), second) if value is not None}
    broken = legacy(1)
    broken["events"] = span(1, {}, [(name, own)])["events"]
    assert _spans(broken) == 2


@FUZZ
@given(st.sampled_from(sorted(access(0))), JSON)
def test_any_value_in_any_field_of_an_access_line(name: str, value: Any) -> None:
    found = _counts(jsonl([access(0), access(1, **{name: value})]), "envoy")
    assert found is not None
    assert sum(found) == 2


@FUZZ
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6),
    st.sampled_from(["otlp", "envoy"]),
)
def test_mutated_lines(changes: list[tuple[int, int]], format: str) -> None:
    rows = [request(current(n), traceloop(n + 9)) if format == "otlp" else access(n) for n in range(4)]
    lines = [bytearray(line) for line in jsonl(rows).splitlines()]
    for at, byte in changes:
        if byte not in (10, 13):
            line = lines[at % len(lines)]
            line[at % len(line)] = byte
    found = _counts(b"\n".join(map(bytes, lines)) + b"\n", format)
    assert found is None or sum(found) >= 4
