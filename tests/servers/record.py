"""Records the fixtures of `tests/ingest/fixtures` anew: `python -m tests.servers.record`, after `make servers`.

Runs the same servers and the same traffic as the tests beside it, cuts the logs down to what the importers
read (and to what shows that they leave the rest alone), and writes the rows that the importers make of them.
Review the difference: a changed row is a changed meaning.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from stillwatch.ingest import open_log
from tests.servers.envoy_gateway import envoy_log
from tests.servers.litellm_gateway import litellm_logs

FIXTURES = Path(__file__).resolve().parents[1] / "ingest" / "fixtures"

_EVENT = (
    "id", "trace_id", "session_id", "litellm_call_id", "call_type", "stream", "status", "status_fields",
    "custom_llm_provider", "prompt_tokens", "completion_tokens", "total_tokens", "startTime", "endTime",
    "response_time", "model", "model_group", "end_user", "requester_ip_address", "user_agent", "messages",
    "response", "model_parameters", "error_str", "error_information", "hidden_params", "metadata",
)  # fmt: skip
_METADATA = (
    "user_api_key_hash", "user_api_key_user_id", "user_api_key_user_email", "user_api_key_team_id",
    "user_api_key_org_id", "user_api_key_end_user_id", "user_api_key_request_route", "requester_ip_address",
    "user_agent", "requester_custom_headers", "usage_object",
)  # fmt: skip
_LEFT_OUT = (
    "code.",
    "exception.stacktrace",
    "litellm.provider.error.stack",
    "litellm.cost.",
    "server.",
    "telemetry.",
    "service.instance",
)
_ERROR_LEFT_OUT = frozenset({"traceback"})


def main() -> None:
    """Write all fixtures."""
    FIXTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        events, traces = litellm_logs(Path(folder), company=4)
        _write("litellm-events", [_event(line) for line in _lines(events)])
        _write("litellm-traces", _exports(_lines(traces)))
    with tempfile.TemporaryDirectory() as folder:
        _write("envoy-access", _lines(envoy_log(Path(folder))))


def rows_of(path: Path) -> list[dict[str, Any]]:
    """What the importers make of a fixture, without what is null."""
    with open_log([str(path)]) as log:
        found = [row for batch in log.batches() for row in batch.to_pylist()]
        if log.refusals:
            raise RuntimeError(f"{path.name}: {log.refusals[0]}")
    kept = [
        {key: value for key, value in row.items() if value is not None and key != "raw_ref"} for row in found
    ]
    plain: list[dict[str, Any]] = json.loads(json.dumps(kept, default=lambda moment: moment.isoformat()))
    return plain


def _write(name: str, lines: list[Any]) -> None:
    path = FIXTURES / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    (FIXTURES / f"{name}.rows.json").write_text(json.dumps(rows_of(path), indent=1) + "\n")


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _event(event: dict[str, Any]) -> dict[str, Any]:
    out = {name: event[name] for name in _EVENT if name in event}
    out["metadata"] = {name: event["metadata"].get(name) for name in _METADATA}
    out["hidden_params"] = {}
    info = out.get("error_information")
    if isinstance(info, dict):
        out["error_information"] = {key: value for key, value in info.items() if key not in _ERROR_LEFT_OUT}
    return out


def _exports(exports: list[Any]) -> list[Any]:
    """Every export with its calls of models and one span of every other name."""
    seen: set[str] = set()
    kept = []
    for export in exports:
        for group in export["resourceSpans"]:
            _cut(group["resource"])
            for scope in group["scopeSpans"]:
                spans = [
                    span for span in scope["spans"] if span["name"].startswith("chat ") or _fresh(seen, span)
                ]
                for span in spans:
                    _cut(span)
                    for event in span.get("events", []):
                        _cut(event)
                scope["spans"] = spans
            group["scopeSpans"] = [scope for scope in group["scopeSpans"] if scope["spans"]]
        if any(group["scopeSpans"] for group in export["resourceSpans"]):
            kept.append(export)
    return kept


def _fresh(seen: set[str], span: dict[str, Any]) -> bool:
    fresh = span["name"] not in seen
    seen.add(span["name"])
    return fresh


def _cut(holder: dict[str, Any]) -> None:
    holder["attributes"] = [
        pair for pair in holder.get("attributes", []) if not pair["key"].startswith(_LEFT_OUT)
    ]


if __name__ == "__main__":
    main()
