"""A real Envoy: its access log arrives as the rows that it should, with the caller's address and fingerprint."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.conftest import read_all
from tests.servers.envoy_gateway import envoy_log
from tests.servers.programs import missing

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    path: Path = envoy_log(tmp_path_factory.mktemp("envoy"))
    table, log = read_all(str(path))
    assert (log.format, log.refusals) == ("envoy", [])
    assert log.rows_passed >= 1
    return {row["account_id"]: row for row in table.to_pylist()}


def test_requests_and_their_callers(rows: dict[str, dict[str, Any]]) -> None:
    row = rows["u-1"]
    assert (row["model"], row["endpoint"], row["status"]) == ("m-large", "chat.completions", 200)
    assert (row["ip"], row["user_agent"], row["ja4"]) == ("203.0.113.9", "some-sdk/1.0", None)
    assert (row["input_tokens"], row["output_tokens"]) == (21, 10)
    assert (row["content_state"], row["prompt"]) == ("absent", None)
    assert 0 <= row["latency_ms"] < 60_000
    assert len(row["exchange_id"]) == 36
    # What a caller writes into the header himself does not become his address.
    assert rows["u-2"]["ip"] == "198.51.100.7"
    assert (rows["u-4"]["status"], rows["u-4"]["endpoint"]) == (403, "messages")


def test_tls_fingerprint(rows: dict[str, dict[str, Any]]) -> None:
    if shutil.which("openssl") is None:
        missing("openssl is not installed: no certificate for the TLS listener")
    assert re.fullmatch(r"t1[23][di]\d{4}\w\w_[0-9a-f]{12}_[0-9a-f]{12}", rows["u-3"]["ja4"])
    assert rows["u-3"]["ip"] == "203.0.113.4"
