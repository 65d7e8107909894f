"""Logs recorded from real programs (`fixtures/README.md`) give exactly the rows that were reviewed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stillwatch.ingest import open_log
from tests.ingest.conftest import read_all
from tests.servers.record import FIXTURES, rows_of

NAMES = {"litellm-events": "litellm", "litellm-traces": "otlp", "envoy-access": "envoy"}


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_those_that_were_reviewed(name: str) -> None:
    path = FIXTURES / f"{name}.jsonl"
    assert open_log([str(path)]).format == NAMES[name]
    assert rows_of(path) == json.loads((FIXTURES / f"{name}.rows.json").read_text())


def test_events_and_traces_of_one_run_agree() -> None:
    events, _ = read_all(str(FIXTURES / "litellm-events.jsonl"))
    traces, log = read_all(str(FIXTURES / "litellm-traces.jsonl"))
    columns = (
        "account_id",
        "entity_id",
        "key_id",
        "model",
        "endpoint",
        "prompt",
        "response",
        "status",
        "end_user_id",
    )
    columns += ("turn_hashes", "input_tokens", "output_tokens")
    found = [
        {
            row["prompt"]: {name: row[name] for name in columns}
            for row in table.to_pylist()
            if row["status"] != 401
        }
        for table in (events, traces)
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 11
    assert log.rows_passed > 0


def test_fixtures_name_no_place_outside() -> None:
    for path in FIXTURES.iterdir():
        text = Path(path).read_text()
        assert not any(mark in text for mark in ("site-packages", "Traceback", "/home/", "/root/")), path.name
