"""Amazon Bedrock's model invocation log, version 1.0, as it lies in S3 or comes out of CloudWatch.

Source: Amazon Bedrock user guide, "Monitor model invocation using CloudWatch Logs and Amazon S3". What has to
be known of it:
- the account is `identity.arn`. Of an assumed role the ARN ends in the name of the session, and the session
  is who called; the AWS account is the entity;
- `inputTokenCount` leaves cached tokens out;
- a failed call has an `errorCode`, and no bodies and no counts;
- bodies beyond 100 KB lie in files of their own (`inputBodyS3Path`) and are not fetched;
- it has no address, no user agent, and no column for the region.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from stillwatch.ingest.bodies import CONTENT_COLUMNS, Columns, request_columns
from stillwatch.ingest.converse import is_converse, messages_reply, messages_request
from stillwatch.ingest.endpoints import endpoint_by_shape
from stillwatch.ingest.objects import DECODE_ERRORS, Piece, decode_part, read_objects, why
from stillwatch.ingest.registry import Broken, Owner, Probe, RawBatch, ReadOptions
from stillwatch.ingest.replies import answered, response_columns, usage_columns
from stillwatch.ingest.rows import Unfit, batches
from stillwatch.ingest.source import Source
from stillwatch.ingest.streams import reply_body
from stillwatch.schema.errors import FormatError, Where

_NOTHING = msgspec.Raw(b"null")


class _Input(msgspec.Struct, gc=False):
    inputBodyJson: msgspec.Raw = _NOTHING
    inputBodyS3Path: Any = None
    inputTokenCount: Any = None
    cacheReadInputTokenCount: Any = None
    cacheWriteInputTokenCount: Any = None


class _Output(msgspec.Struct, gc=False):
    outputBodyJson: msgspec.Raw = _NOTHING
    outputBodyS3Path: Any = None
    outputTokenCount: Any = None


class _Record(msgspec.Struct, gc=False):
    """The fields of a record that are read. All are optional and of any JSON type."""

    timestamp: Any = None
    accountId: Any = None
    identity: Any = None
    requestId: Any = None
    operation: Any = None
    modelId: Any = None
    errorCode: Any = None
    requestMetadata: Any = None
    input: msgspec.Raw = _NOTHING
    output: msgspec.Raw = _NOTHING
    message: Any = None
    """CloudWatch: the record as text inside an event."""
    logEvents: Any = None
    events: Any = None
    """CloudWatch: many such events in one object."""


_MARKS = frozenset({"timestamp", "accountId", "requestId", "operation", "modelId"})
_STREAMS = frozenset({"InvokeModelWithResponseStream", "ConverseStream"})
_STATUS = {
    "ValidationException": 400,
    "ServiceQuotaExceededException": 400,
    "AccessDeniedException": 403,
    "UnrecognizedClientException": 403,
    "ExpiredTokenException": 403,
    "ResourceNotFoundException": 404,
    "ModelTimeoutException": 408,
    "ConflictException": 409,
    "ModelErrorException": 424,
    "ModelStreamErrorException": 424,
    "ThrottlingException": 429,
    "ModelNotReadyException": 429,
    "InternalServerException": 500,
    "InternalFailure": 500,
    "ServiceUnavailableException": 503,
}
"""HTTP status of the errors of the runtime API (its reference, and the common errors)."""

_CONVERSATION = ("conversationid", "sessionid", "conversation", "session", "threadid")
_TENANT = ("enduserid", "userid", "tenantid", "customerid", "enduser", "user", "tenant", "customer")


class BedrockImporter:
    """Reads model invocation logs."""

    name = "bedrock"

    def sniff(self, probe: Probe) -> float:
        """High for JSON objects with the marks of a record, or of events that carry records."""
        if probe.container not in ("json", "jsonl"):
            return 0.0
        for found in probe.objects:
            if found.get("schemaType") == "ModelInvocationLog" or set(found) >= _MARKS:
                return 0.95
        if b"ModelInvocationLog" in probe.head and not probe.objects:
            return 0.94
        if any(_carries_records(found) for found in probe.objects):
            return 0.95
        # A long record names its type behind its bodies: its first keys are all there is to see.
        # Inside an event of CloudWatch their quotes are escaped.
        seen = sum(
            f'{mark}"'.encode() in probe.head or f'{mark}\\"'.encode() in probe.head for mark in _MARKS
        )
        return 0.94 if not probe.objects and seen == len(_MARKS) else 0.0

    def read(self, source: Source, options: ReadOptions) -> Iterator[RawBatch]:
        """Batches with canonical names; see `Importer.read`."""
        if source.container not in ("json", "jsonl"):
            raise FormatError(
                f"model invocation logs are JSON, this is {source.container}",
                where=Where(source.path),
                hint="leave out --format, or describe the columns in a mapping file",
            )
        with_content = options.columns is None or bool(CONTENT_COLUMNS & options.columns)
        pieces = read_objects(source, msgspec.json.Decoder(_Record))
        yield from batches(
            map(_unpacked, pieces), options, lambda record: _columns(record, with_content), _owner
        )


def _carries_records(found: Any) -> bool:
    texts = [found.get("message")]
    for key in ("logEvents", "events"):
        listed = found.get(key)
        texts.extend(item.get("message") for item in listed if isinstance(item, dict)) if isinstance(
            listed, list
        ) else None
    return any(isinstance(text, str) and '"ModelInvocationLog"' in text for text in texts)


def _unpacked(piece: Piece[_Record]) -> Piece[_Record]:
    """Records out of the events that CloudWatch wraps around them; they keep the row of their object."""
    if not any(
        record.message is not None or record.logEvents is not None or record.events is not None
        for record in piece.objects
    ):
        return piece
    objects: list[_Record] = []
    texts: list[bytes] = []
    places: list[int] = []
    broken = list(piece.broken)
    for place, record in enumerate(piece.objects):
        listed = record.logEvents if isinstance(record.logEvents, list) else record.events
        if isinstance(listed, list):
            messages = [item.get("message") if isinstance(item, dict) else None for item in listed]
        elif record.message is not None and record.requestId is None:
            messages = [record.message]
        else:
            objects.append(record)
            texts.append(piece.texts[place])
            places.append(place)
            continue
        for message in messages:
            try:
                text = _message(message)
                objects.append(msgspec.json.decode(text, type=_Record))
            except DECODE_ERRORS as error:
                row, offset = int(piece.rows[place]), int(piece.offsets[place])
                broken.append(Broken(row, why(error), offset, "message"))
            else:
                texts.append(text)
                places.append(place)
    return Piece(objects, texts, piece.rows[places], piece.offsets[places], broken)


def _message(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    # The export of a query has the record already decoded.
    return msgspec.json.encode(value)


def _owner(record: _Record) -> Owner | None:
    account = _arn(record)
    return Owner(account, _text(record.accountId)) if account is not None else None


def _columns(record: _Record, with_content: bool) -> Columns:
    given = _member("input", record.input, _Input)
    made = _member("output", record.output, _Output)
    asked, cut = _request(given.inputBodyJson)
    out: Columns = request_columns(asked, with_content=with_content)
    if "n_messages" not in out:
        out.setdefault("content_state", "truncated" if cut else "absent")
    reply = _reply(made.outputBodyJson)
    out.update(response_columns(reply))
    metrics = reply.get("amazon-bedrock-invocationMetrics") if isinstance(reply, dict) else None
    if isinstance(reply, dict):
        latency = metrics.get("invocationLatency") if isinstance(metrics, dict) else reply.get("latency_ms")
        if isinstance(latency, int | float) and not isinstance(latency, bool) and 0 <= latency < 1e12:
            out["latency_ms"] = latency
        if reply.get("amazon-bedrock-guardrailAction") == "INTERVENED":
            out["blocked_by"], out["refused"] = "bedrock-guardrail", True
        elif reply.get("stop_reason") == "guardrail_intervened":
            out["blocked_by"] = "bedrock-guardrail"
    if reply is None and made.outputBodyS3Path is not None and "content_state" not in out:
        out["content_state"] = "truncated"
    out.update(_counts(given, made))
    failure = record.errorCode
    if failure is not None:
        out["status"] = _status(failure)
    elif record.output != _NOTHING:
        out["status"] = 200
    operation = _text(record.operation)
    if operation is not None:
        out["stream"] = operation in _STREAMS
    out.update(_tags(record.requestMetadata))
    if "end_user_id" in out:
        out["end_user_trust"] = "asserted"
    out.update(
        exchange_id=record.requestId,
        ts=record.timestamp,
        account_id=_arn(record),
        entity_id=record.accountId,
        provider="bedrock",
        model=_model(record.modelId),
        endpoint="messages"
        if operation in ("Converse", "ConverseStream")
        else endpoint_by_shape(asked, reply),
    )
    return out


def _member(name: str, raw: msgspec.Raw, kind: type[Any]) -> Any:
    if raw == _NOTHING:
        return kind()
    try:
        return msgspec.json.decode(raw, type=kind)
    except DECODE_ERRORS as error:
        raise Unfit(name, why(error)) from None


def _decoded(name: str, raw: msgspec.Raw) -> Any:
    """A body; as text where it is JSON that does not decode."""
    try:
        value = decode_part(raw)
    except DECODE_ERRORS as error:
        raise Unfit(name, why(error)) from None
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            return decode_part(value.encode("utf-8", "replace"))
        except DECODE_ERRORS:
            pass
    return value


def _request(raw: msgspec.Raw) -> tuple[dict[str, Any] | None, bool]:
    """(body, was it cut). A body that is no JSON object (an image, an audio) has nothing to read."""
    value = _decoded("input", raw)
    if not isinstance(value, dict):
        return None, isinstance(value, str)
    if is_converse(value):
        return messages_request(value), False
    for key in ("inputText", "message"):
        # Titan and Cohere have names of their own for the prompt.
        if isinstance(value.get(key), str) and "messages" not in value:
            return {**value, "prompt": value[key]}, False
    return value, False


def _reply(raw: msgspec.Raw) -> dict[str, Any] | None:
    value = _decoded("output", raw)
    if isinstance(value, list):
        value = [part["chunk"] if isinstance(part, dict) and "chunk" in part else part for part in value]
    value = messages_reply(value)
    if isinstance(value, list):
        value = reply_body(value) or _plain(value)
    if isinstance(value, dict) and not answered(value):
        return {**value, **_plain([value])}
    return value if isinstance(value, dict) else None


def _plain(parts: list[Any]) -> dict[str, Any]:
    """Answers and streams of models that write text alone (Llama, Titan, Mistral, Cohere), as a message."""
    texts: list[str] = []
    stop: Any = None
    for part in parts:
        if not isinstance(part, dict):
            continue
        listed = next((part[key] for key in ("results", "outputs", "generations") if key in part), None)
        for item in listed if isinstance(listed, list) else [part]:
            if isinstance(item, dict):
                found = [item.get(key) for key in ("generation", "outputText", "text")]
                texts.extend(text for text in found if isinstance(text, str))
                reasons = [item.get(key) for key in ("stop_reason", "completionReason", "finish_reason")]
                stop = next((reason for reason in reasons if reason is not None), stop)
    return {"content": [{"type": "text", "text": "".join(texts)}], "stop_reason": stop} if texts else {}


def _counts(given: _Input, made: _Output) -> Columns:
    """Token counts that the record states, in the conventions of the messages API."""
    found = usage_columns(
        {
            "input_tokens": given.inputTokenCount,
            "cache_read_input_tokens": given.cacheReadInputTokenCount,
            "cache_creation_input_tokens": given.cacheWriteInputTokenCount,
            "output_tokens": made.outputTokenCount,
        }
    )
    return {name: count for name, count in found.items() if count is not None}


def _status(code: Any) -> int | None:
    if isinstance(code, int) and not isinstance(code, bool):
        return code if 100 <= code <= 599 else None
    if not isinstance(code, str):
        return None
    name = code.rsplit("#", 1)[-1].split(":", 1)[0]
    if len(name) == 3 and name.isascii() and name.isdigit():
        return _status(int(name))
    return _STATUS.get(name) or _STATUS.get(f"{name}Exception")


def _tags(metadata: Any) -> Columns:
    """Conversation and tenant out of the key-value pairs that the caller may attach to a request."""
    if not isinstance(metadata, dict):
        return {}
    plain = {
        key.lower().replace("-", "").replace("_", ""): value
        for key, value in metadata.items()
        if isinstance(value, str) and value
    }
    out: Columns = {}
    for column, names in (("conversation_id", _CONVERSATION), ("end_user_id", _TENANT)):
        found = next((plain[name] for name in names if name in plain), None)
        if found is not None:
            out[column] = found
    return out


def _arn(record: _Record) -> str | None:
    return _text(record.identity.get("arn")) if isinstance(record.identity, dict) else None


def _model(model: Any) -> Any:
    """The model's name out of an ARN; an application's own profile keeps its ARN, for it names no model."""
    if isinstance(model, str) and model.startswith("arn:"):
        for kind in (":foundation-model/", ":inference-profile/"):
            if kind in model:
                return model.split(kind, 1)[1]
    return model


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


IMPORTER = BedrockImporter()
