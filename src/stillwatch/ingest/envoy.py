"""Envoy's JSON access logs: one object per request, without text. Envoy AI Gateway writes the same with
`gen_ai.*` members.

The operator chooses the members' names, so each column has several names that are tried in order: those of
Envoy's own JSON example, of Istio's default, and of Envoy AI Gateway. Anything else is reached with
`--map column=$.member`, which sees the log line as it stands.

- The account is the authenticated subject, if the log names one: `account_id`, `authenticated_user`, the `sub`
  of a JWT, `x-account-id`. A header that the gateway does not set itself, a caller can forge.
- The id is Envoy's request id. At the edge Envoy makes it itself; with `preserve_external_request_id` a caller
  could repeat one, and rows with a repeated id are refused.
- The address is the newest hop of `x-forwarded-for` that is no proxy of the operator's own, else the peer.
- The model is the one that was asked for, by its public name. A request that failed before it had a model
  (a refused key) is kept under the model `none`; a request that was served and names no model is refused.
- A path that belongs to no model (a health check) is passed over, unless the line names a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import msgspec

from stillwatch.ingest.addresses import client_address
from stillwatch.ingest.bodies import CONTENT_COLUMNS, Columns
from stillwatch.ingest.endpoints import endpoint_of
from stillwatch.ingest.objects import read_objects
from stillwatch.ingest.registry import Owner, Probe, RawBatch, ReadOptions
from stillwatch.ingest.rows import Unfit, batches
from stillwatch.ingest.source import Source
from stillwatch.schema.errors import FormatError, Where
from stillwatch.schema.tables import OWN_REFUSAL

NO_MODEL = "none"
"""Stands for the model of a request that failed before it reached one."""

_TIME = ("start_time", "ts", "timestamp", "time", "@timestamp", "startTime")
_TEXTS = {
    "exchange_id": ("request_id", "x-request-id", "x_request_id", "rid", "requestId"),
    "account_id": ("account_id", "authenticated_user", "authenticated_subject", "jwt.sub", "jwt_sub", "sub",
                   "x-account-id", "x_account_id"),
    "entity_id": ("entity_id", "org_id", "organization", "tenant_id"),
    "key_id": ("key_id", "api_key_id"),
    "provider": ("gen_ai.provider.name", "gen_ai.system"),
    "model": ("gen_ai.request.model", "gen_ai.response.model", "model", "request_model", "x-ai-eg-model"),
    "conversation_id": ("gen_ai.conversation.id", "session.id"),
    "user_agent": ("user-agent", "user_agent", "userAgent", "ua"),
    "ja4": ("ja4", "tls_ja4", "x-ja4", "x_ja4", "tls_ja4_fingerprint", "downstream_tls_ja4", "ja4_fingerprint"),
}  # fmt: skip
_COUNTS = {
    "input_tokens": ("gen_ai.usage.input_tokens", "input_tokens", "llm_input_token"),
    "output_tokens": ("gen_ai.usage.output_tokens", "output_tokens", "llm_output_token"),
    "reasoning_tokens": ("gen_ai.usage.reasoning_tokens", "gen_ai.usage.reasoning.output_tokens"),
}
_HOPS = ("x-forwarded-for", "x_forwarded_for", "xff")
_PEER = ("downstream_remote_address", "downstream_direct_remote_address", "remote_address", "client_ip", "ip")
_PATH = ("x-envoy-origin-path", "x-envoy-original-path", "path", ":path", "uri")
_STATUS = ("response_code", "status", "code", "responseCode")
_DURATION = ("duration", "duration_ms", "dur_ms", "request_duration_ms")
_DETAILS = ("response_code_details", "details", "responseCodeDetails")
_CASE = ("x-stillwatch-case", "stillwatch_case")
_BLOCKERS = (("ext_authz", "ext_authz"), ("rbac_access_denied", "rbac"), ("jwt_authn", "jwt_authn"))

_ALL = {
    name
    for names in (
        _TIME,
        *_TEXTS.values(),
        *_COUNTS.values(),
        _HOPS,
        _PEER,
        _PATH,
        _STATUS,
        _DURATION,
        _DETAILS,
        _CASE,
    )
    for name in names
}
_Line: Any = TypedDict("_Line", dict.fromkeys(_ALL, Any), total=False)  # type: ignore[misc]
_Row = dict[str, Any]

_MARKS = frozenset(
    {
        "start_time", "response_code", "response_code_details", "response_flags", "duration", "bytes_received",
        "bytes_sent", "upstream_host", "upstream_cluster", "downstream_remote_address", "downstream_local_address",
        "x-forwarded-for", "x_forwarded_for", "x-request-id", "user-agent", ":authority", "x-envoy-origin-path",
        "connection_termination_details", "upstream_transport_failure_reason", "route_name", "gen_ai.request.model",
        "gen_ai.usage.input_tokens", "rid", "xff", "dur_ms", "details", "bytes_in", "bytes_out", "ja4",
    }
)  # fmt: skip
_NO_ACCOUNT = (
    "no authenticated subject in the line: log one (a JWT's subject, a header that the gateway sets) and name it "
    "with --map account_id=$.field"
)
_NO_MODEL = (
    "a served request without a model: log gen_ai.request.model, name another field with --map model=$.field, "
    "or one model for all rows with --map model==NAME"
)


class EnvoyImporter:
    """Reads JSON access logs."""

    name = "envoy"

    def sniff(self, probe: Probe) -> float:
        """High for objects with several of the members that only such logs have."""
        best = max((len(_MARKS & set(found)) for found in probe.objects), default=0)
        return 0.92 if best >= 5 else 0.5 if best == 4 else 0.0

    def read(self, source: Source, options: ReadOptions) -> Iterator[RawBatch]:
        """Batches with canonical names; see `Importer.read`."""
        if source.container not in ("json", "jsonl"):
            raise FormatError(
                f"Envoy's access log is read as JSON, this is {source.container}",
                where=Where(source.path),
                hint="set json_format in the access log, or describe the columns in a mapping file",
            )
        wanted = options.columns
        with_content = wanted is None or bool(CONTENT_COLUMNS & wanted)
        ruled = frozenset(options.overrides)
        decoder: msgspec.json.Decoder[_Row] = msgspec.json.Decoder(_Line)
        yield from batches(
            read_objects(source, decoder), options, lambda row: _columns(row, ruled, with_content), _owner
        )


def _columns(row: _Row, ruled: frozenset[str], with_content: bool) -> Columns | None:
    out: Columns = {name: _text(row, names) for name, names in _TEXTS.items()}
    path = _text(row, _PATH)
    endpoint = endpoint_of(path)
    if path is not None and endpoint is None and out["model"] is None:
        return None
    out["endpoint"] = endpoint
    status = _count(row, _STATUS)
    # Envoy writes 0 for a caller who hung up before there was an answer.
    out["status"] = status if status is not None and 100 <= status <= 599 else None
    time = next((row[name] for name in _TIME if row.get(name) not in (None, "", "-")), None)
    if time is None and "ts" not in ruled:
        raise Unfit("ts", "no start_time in the line: name the field with --map ts=$.field")
    out["ts"] = time
    if out["account_id"] is None and "account_id" not in ruled:
        raise Unfit("account_id", _NO_ACCOUNT)
    if out["model"] is None and "model" not in ruled:
        if status is not None and 0 < status < 400:
            raise Unfit("model", _NO_MODEL)
        out["model"] = NO_MODEL
    out["ip"] = client_address(_text(row, _HOPS), _text(row, _PEER))
    for name, names in _COUNTS.items():
        out[name] = _count(row, names)
    # No request is empty: a gateway that writes zero has not counted.
    if out["input_tokens"] == 0:
        out["input_tokens"], out["output_tokens"] = None, out["output_tokens"] or None
    out["latency_ms"] = _duration(row)
    out["blocked_by"] = _blocker(row)
    if with_content:
        out["content_state"] = "absent"
    return out


def _blocker(row: _Row) -> str | None:
    case = _text(row, _CASE)
    if case is not None:
        return f"{OWN_REFUSAL}{case}"
    details = _text(row, _DETAILS)
    if details is None:
        return None
    if details.startswith("stillwatch_"):
        # The guard's own words, over ext_proc: the action, a colon, the exchange.
        return f"{OWN_REFUSAL}{details.removeprefix('stillwatch_').partition(':')[0]}"
    return next((name for start, name in _BLOCKERS if details.startswith(start)), None)


def _duration(row: _Row) -> float | None:
    value = next((row[name] for name in _DURATION if name in row), None)
    if type(value) is float and 0 <= value < 1e12:
        return value
    return _count(row, _DURATION)


def _owner(row: _Row) -> Owner | None:
    account, entity = _text(row, _TEXTS["account_id"]), _text(row, _TEXTS["entity_id"])
    return Owner(account, entity) if account is not None and entity is not None else None


def _text(row: _Row, names: Sequence[str]) -> str | None:
    """The first that is there; Envoy writes `-` for what it does not know."""
    for name in names:
        if name in row:
            value = row[name]
            if type(value) is str:
                if value and value != "-":
                    return value
            elif type(value) is int:
                return str(value)
    return None


def _count(row: _Row, names: Sequence[str]) -> int | None:
    """A whole number, as JSON has it or in quotes; anything else counts as not stated."""
    for name in names:
        if name in row:
            value = row[name]
            if type(value) is str and 0 < len(value) <= 10 and value.isascii() and value.isdigit():
                value = int(value)
            if type(value) is float and value.is_integer():
                value = int(value)
            if type(value) is int and 0 <= value < 2**31:
                return value
    return None


IMPORTER = EnvoyImporter()
