"""Every format recognises its own logs and leaves the others alone, even where the head shows one long row only."""

from __future__ import annotations

from typing import Any

import pytest

from stillwatch.ingest import load_importers, open_log
from tests.ingest.conftest import Write, envelope, event, exchange, jsonl, record
from tests.ingest.spans import access, current, request

BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
SAMPLES: dict[str, Any] = {
    "canonical": exchange(1),
    "litellm": event(1),
    "bodies": envelope(1, BODY, {"choices": []}),
    "bedrock": record(1, BODY, {}),
    "otlp": request(current(1)),
    "envoy": access(1),
}
LONG: dict[str, Any] = {
    "otlp": request(*[current(n) for n in range(60)]),
    "canonical": exchange(1, prompt="x" * 90_000),
    "litellm": event(1, messages=[{"role": "user", "content": "x" * 90_000}]),
}


def test_every_json_format_has_a_sample() -> None:
    assert set(SAMPLES) == set(load_importers()) - {"mapping"}


@pytest.mark.parametrize("name", SAMPLES)
def test_short_rows(write: Write, name: str) -> None:
    assert open_log([write("a.jsonl", jsonl([SAMPLES[name]] * 3))]).format == name


@pytest.mark.parametrize("name", LONG)
def test_a_row_longer_than_the_head(write: Write, name: str) -> None:
    assert open_log([write("a.jsonl", jsonl([LONG[name]]))]).format == name
