"""Envoy's access logs: names, addresses, what is refused and what is passed over."""

from __future__ import annotations

from typing import Any

import pytest

from stillwatch.ingest.addresses import client_address
from stillwatch.schema.errors import FormatError
from tests.ingest.conftest import Write, jsonl, read_all
from tests.ingest.spans import access

ISTIO = {
    "start_time": "2026-03-01T12:00:01.250Z",
    "method": "POST",
    "path": "/v1/messages?beta=true",
    "response_code": 200,
    "response_code_details": "via_upstream",
    "duration": 7,
    "bytes_sent": 605,
    "upstream_cluster": "up",
    "downstream_remote_address": "198.51.100.7:51324",
    "x_forwarded_for": None,
    "user_agent": "curl/8",
    "request_id": "r-1",
    "authenticated_user": "u-1",
    "model": "m",
}
OWN = {
    "bytes_in": 60, "bytes_out": 605, "code": 403, "details": "ext_authz_denied", "dur_ms": 1, "ip": "127.0.0.1",
    "ja3": None, "ja4": "t13d", "method": "POST", "path": "/v1/chat/completions", "rid": "r-2",
    "ts": "2026-11-23T20:30:25.369Z", "ua": "curl/7", "xff": "192.0.2.2", "sub": "u-2",
}  # fmt: skip


def _one(write: Write, line: dict[str, Any], **options: Any) -> dict[str, Any]:
    table, log = read_all(write("a.jsonl", jsonl([line])), **options)
    assert (log.format, log.refusals) == ("envoy", [])
    row: dict[str, Any] = table.to_pylist()[0]
    return row


def test_a_line_of_the_ai_gateway(write: Write) -> None:
    row = _one(write, access(1))
    found = {
        name: value for name, value in row.items() if value is not None and name not in ("ts", "raw_ref")
    }
    assert row["ts"].isoformat() == "2026-03-01T12:00:01.250000+00:00"
    assert found == {
        "exchange_id": "request-1",
        "account_id": "account-1",
        "conversation_id": "c-1",
        "provider": "openai",
        "model": "m-large",
        "endpoint": "chat.completions",
        "input_tokens": 10,
        "output_tokens": 20,
        "latency_ms": 1500.0,
        "status": 200,
        "ip": "203.0.113.9",
        "ja4": "t13d1812h1_85036bcba153_d41ae481755e",
        "user_agent": "some-sdk/1.0",
        "content_state": "absent",
    }


def test_other_names(write: Write) -> None:
    row = _one(write, ISTIO)
    assert (row["exchange_id"], row["account_id"], row["model"]) == ("r-1", "u-1", "m")
    assert (row["ip"], row["user_agent"], row["latency_ms"]) == ("198.51.100.7", "curl/8", 7.0)
    assert (row["endpoint"], row["status"]) == ("messages", 200)
    row = _one(write, OWN)
    assert (row["exchange_id"], row["account_id"], row["model"]) == ("r-2", "u-2", "none")
    assert (row["ip"], row["ja4"], row["status"], row["blocked_by"]) == (
        "192.0.2.2",
        "t13d",
        403,
        "ext_authz",
    )


def test_numbers_in_quotes_and_what_is_not_known(write: Write) -> None:
    row = _one(
        write,
        access(
            1,
            response_code="429",
            duration="12",
            **{"gen_ai.usage.input_tokens": "7", "user-agent": "-", "ja4": None},
        ),
    )
    assert (row["status"], row["latency_ms"], row["input_tokens"]) == (429, 12.0, 7)
    assert (row["user_agent"], row["ja4"]) == (None, None)
    assert _one(write, access(1, response_code=0))["status"] is None
    row = _one(write, access(1, **{"gen_ai.usage.input_tokens": 0, "gen_ai.usage.output_tokens": 0}))
    assert (row["input_tokens"], row["output_tokens"]) == (None, None)


def test_own_blocks_are_known_by_their_case(write: Write) -> None:
    row = _one(write, access(1, response_code=403, **{"x-stillwatch-case": "SW-2026-1"}))
    assert (row["status"], row["blocked_by"]) == (403, "stillwatch:SW-2026-1")


def test_the_account_is_configurable(write: Write) -> None:
    path = write("a.jsonl", jsonl([access(1, account_id=None, customer="c-9")]))
    table, log = read_all(path)
    assert table.num_rows == 0
    assert [(part.row, part.column) for part in log.refusals] == [(1, "account_id")]
    assert "--map account_id=$.field" in log.refusals[0].reason
    table, log = read_all(path, overrides={"account_id": "$.customer"})
    assert (table["account_id"].to_pylist(), log.refusals) == (["c-9"], [])


def test_a_served_request_without_a_model_is_refused(write: Write) -> None:
    nameless = {"gen_ai.request.model": None, "gen_ai.response.model": None}
    path = write("a.jsonl", jsonl([access(1, **nameless), access(2, response_code=401, **nameless)]))
    table, log = read_all(path)
    assert table["model"].to_pylist() == ["none"]
    assert [(part.row, part.column) for part in log.refusals] == [(1, "model")]
    assert "--map model==NAME" in log.refusals[0].reason
    table, log = read_all(path, overrides={"model": "=m-small"})
    assert (table["model"].to_pylist(), log.refusals) == (["m-small"] * 2, [])


def test_paths_that_are_no_models_are_passed_over(write: Write) -> None:
    health = access(
        2, **{"x-envoy-origin-path": "/healthz", "gen_ai.request.model": None, "gen_ai.response.model": None}
    )
    table, log = read_all(write("a.jsonl", jsonl([access(1), health])))
    assert (table.num_rows, log.rows_read, log.rows_passed, log.refusals) == (1, 1, 1, [])


def test_declared_owners(write: Write) -> None:
    _, log = read_all(write("a.jsonl", jsonl([access(n, org_id="org-1") for n in range(14)])))
    assert log.owners.table()["entity_id"].to_pylist() == ["org-1"] * 7


@pytest.mark.parametrize(
    ("hops", "peer", "expected"),
    [
        ("203.0.113.9", "10.0.0.5:443", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9, 10.0.0.1", None, "203.0.113.9"),
        ("203.0.113.9:51324", None, "203.0.113.9"),
        ("[2001:db8::1]:443", None, "2001:db8::1"),
        ("::ffff:203.0.113.9", None, "203.0.113.9"),
        ("unknown, _hidden", "198.51.100.7:1", "198.51.100.7"),
        ("10.0.0.2, 10.0.0.1", "127.0.0.1:1", "10.0.0.1"),
        ("10.0.0.2", "198.51.100.7:1", "198.51.100.7"),
        (None, "[2001:db8::2]:9", "2001:db8::2"),
        (None, "fe80::1%eth0", "fe80::1"),
        ("", "not an address", None),
        (7, ["x"], None),
    ],
)
def test_client_addresses(hops: Any, peer: Any, expected: str | None) -> None:
    assert client_address(hops, peer) == expected


def test_restricted_columns_agree(write: Write) -> None:
    path = write("a.jsonl", jsonl([access(n) for n in range(3)]))
    whole, _ = read_all(path)
    narrow, _ = read_all(path, columns=["ip"])
    assert narrow.equals(whole.select(narrow.column_names))


def test_a_container_that_cannot_be(write: Write) -> None:
    with pytest.raises(FormatError, match="access log is read as JSON"):
        read_all(write("a.csv", b"start_time,response_code\n1,2\n"), format="envoy")
    with pytest.raises(FormatError, match="OTLP traces are read as JSON"):
        read_all(write("a.csv", b"start_time,response_code\n1,2\n"), format="otlp")
