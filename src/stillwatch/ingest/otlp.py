"""OpenTelemetry traces as OTLP JSON: spans of model calls become rows, all other spans are passed over.

Read are ExportTraceServiceRequest objects, one a line as the collector's file exporter writes them, or as one
JSON document. Rows are spans, counted from 1 through the file with those that are passed over; a line that
cannot be read counts as one. The offset is that of the span itself.

`--map` rules see one object per span, attributes as plain members:
    {"name", "kind", "traceId", "spanId", "parentSpanId", "traceState", "startTimeUnixNano", "endTimeUnixNano",
     "status", "attributes": {...}, "events": [{"name", "attributes": {...}}], "resource": {"attributes": {...}}}
so a tenant that stands on the span is `$.attributes["tenant.id"]`, on the resource
`$.resource.attributes["tenant.id"]`. Client address and user agent are read from the span of the call; what
stands on its parent alone is not looked up, because the parent may be in another file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from stillwatch.ingest.attributes import Attributes, Pair, flat, plain
from stillwatch.ingest.bodies import CONTENT_COLUMNS, Columns
from stillwatch.ingest.objects import DECODE_ERRORS, Piece, read_objects, whole_surrogates, why
from stillwatch.ingest.registry import Broken, Owner, Probe, RawBatch, ReadOptions
from stillwatch.ingest.rows import Unfit, batches
from stillwatch.ingest.source import Source
from stillwatch.ingest.span_content import Event
from stillwatch.ingest.vocabularies import call_columns, identity_columns, inference
from stillwatch.schema.errors import FormatError, Where


class _Resource(msgspec.Struct, gc=False):
    attributes: list[Pair] | None = None


class _ScopeSpans(msgspec.Struct, gc=False):
    spans: list[msgspec.Raw] | None = None


class _ResourceSpans(msgspec.Struct, gc=False):
    resource: _Resource | None = None
    scopeSpans: list[_ScopeSpans] | None = None
    instrumentationLibrarySpans: list[_ScopeSpans] | None = None


class _Request(msgspec.Struct, gc=False):
    """An ExportTraceServiceRequest; its spans stay undecoded, so that a broken one costs itself alone."""

    resourceSpans: list[_ResourceSpans] | None = None


class _Event(msgspec.Struct, gc=False):
    name: str = ""
    attributes: list[Pair] | None = None


class _Status(msgspec.Struct, gc=False):
    code: Any = None
    message: Any = None


class _Span(msgspec.Struct, gc=False):
    traceId: Any = None
    spanId: Any = None
    parentSpanId: Any = None
    traceState: Any = None
    name: Any = None
    kind: Any = None
    startTimeUnixNano: Any = None
    endTimeUnixNano: Any = None
    attributes: list[Pair] | None = None
    droppedAttributesCount: Any = None
    events: list[_Event] | None = None
    status: _Status | None = None


class _Found:
    """An undecoded span, the attributes of its resource and, once it is read, its owner.

    Spans are decoded one at a time: decoded, a block of them would be many times its size.
    """

    __slots__ = ("owner", "resource", "text")

    def __init__(self, text: bytes, resource: Attributes) -> None:
        self.text = text
        self.resource = resource
        self.owner: Owner | None = None


_decode_span = msgspec.json.Decoder(_Span).decode
_BEGINNING = re.compile(rb"""[\s\[]*\{\s*"resourceSpans"\s*:""")
_REPLY = frozenset({"response", "reasoning_out", "refused", "stop_reason"})
_DETAILS = "gen_ai.client.inference.operation.details"
_FAILED = frozenset({2, "2", "STATUS_CODE_ERROR"})
_NO_ACCOUNT = (
    "no user.id or enduser.id on the span or its resource: say where the account stands with "
    """--map account_id=$.path, such as $.attributes["tenant.id"] or $.resource.attributes["tenant.id"]"""
)
_NO_MODEL = (
    "no gen_ai.response.model, gen_ai.request.model or llm.model_name: say where the model stands with "
    "--map model=$.path, or name one for all rows with --map model==NAME"
)
_NO_TIME = (
    "startTimeUnixNano is missing or no count of nanoseconds: repair the exporter, or pass --map ts=$.path"
)


class OtlpImporter:
    """Reads spans of model calls."""

    name = "otlp"

    def sniff(self, probe: Probe) -> float:
        """High for objects with `resourceSpans`."""
        if probe.container not in ("json", "jsonl"):
            return 0.0
        if any("resourceSpans" in found for found in probe.objects):
            return 0.97
        # A line of many spans is longer than the head: its first key is all there is to see.
        return 0.97 if _BEGINNING.match(probe.head.removeprefix(b"\xef\xbb\xbf")) else 0.0

    def read(self, source: Source, options: ReadOptions) -> Iterator[RawBatch]:
        """Batches with canonical names; see `Importer.read`."""
        if source.container not in ("json", "jsonl"):
            raise FormatError(
                f"OTLP traces are read as JSON, this is {source.container}",
                where=Where(source.path),
                hint="export them with the collector's file exporter in its format json",
            )
        wanted = options.columns
        with_content = wanted is None or bool(CONTENT_COLUMNS & wanted)
        with_reply = wanted is None or bool(_REPLY & wanted)
        ruled = frozenset(options.overrides)

        def columns_of(found: _Found) -> Columns | None:
            try:
                return _columns(found, with_content, with_reply, ruled)
            except RecursionError:
                raise Unfit("attributes", "nested too deeply") from None

        pieces = read_objects(source, msgspec.json.Decoder(_Request))
        spans = _spans(pieces, options.batch_rows, with_rows=bool(ruled))
        yield from batches(spans, options, columns_of, lambda found: found.owner)


def _spans(pieces: Iterator[Piece[_Request]], limit: int, *, with_rows: bool) -> Iterator[Piece[_Found]]:
    """Pieces of at most `limit` spans each. The texts are the objects that rules see, where there are rules."""
    row = 1
    found: list[_Found] = []
    texts: list[bytes] = []
    rows: list[int] = []
    offsets: list[int] = []
    broken: list[Broken] = []

    def piece() -> Piece[_Found]:
        made = Piece(
            list(found),
            list(texts),
            np.array(rows, dtype=np.int64),
            np.array(offsets, dtype=np.int64),
            list(broken),
        )
        for part in (found, texts, rows, offsets, broken):
            part.clear()
        return made

    for lines in pieces:
        waiting = sorted(lines.broken, key=lambda part: part.row)
        for request, text, line, start in zip(
            lines.objects, lines.texts, lines.rows.tolist(), lines.offsets.tolist(), strict=True
        ):
            while waiting and waiting[0].row < line:
                broken.append(_numbered(waiting.pop(0), row))
                row += 1
            if request.resourceSpans is None and text.strip() != b"{}":
                broken.append(Broken(row, _other_signal(text), start))
                row += 1
                continue
            at = 0
            for raw, resource in _raw_spans(request):
                own = bytes(raw)
                # Spans follow each other in the line, so their first bytes find them.
                at = max(text.find(own[:64], at), at)
                found.append(_Found(own, resource))
                texts.append(_row(own, resource) if with_rows else b"")
                rows.append(row)
                offsets.append(start + at)
                row, at = row + 1, at + len(own)
                if len(found) >= limit:
                    yield piece()
        for part in waiting:
            broken.append(_numbered(part, row))
            row += 1
        if found or broken:
            yield piece()


def _numbered(part: Broken, row: int) -> Broken:
    return Broken(row, part.reason, part.offset, part.column)


def _other_signal(text: bytes) -> str:
    for name, what in ((b"resourceLogs", "log records"), (b"resourceMetrics", "metrics")):
        if b'"' + name + b'"' in text[:256]:
            return f"{what}, no spans: only traces are read, so export them to a file of their own"
    return "no resourceSpans: this is no export of traces (ExportTraceServiceRequest)"


def _raw_spans(request: _Request) -> Iterator[tuple[msgspec.Raw, Attributes]]:
    for group in request.resourceSpans or ():
        resource = flat(group.resource.attributes) if group.resource is not None else {}
        for scope in (*(group.scopeSpans or ()), *(group.instrumentationLibrarySpans or ())):
            for raw in scope.spans or ():
                yield raw, resource


def _decoded(text: bytes) -> _Span:
    """Raises one of DECODE_ERRORS."""
    try:
        return _decode_span(text)
    except DECODE_ERRORS:
        whole = whole_surrogates(text)
        if whole is None:
            raise
        return _decode_span(whole)


def _row(text: bytes, resource: Attributes) -> bytes:
    """The object that rules see; an empty one for a span that is going to be refused."""
    try:
        span = _decoded(text)
        out: dict[str, Any] = {name: getattr(span, name) for name in span.__struct_fields__}
        out["attributes"] = {key: plain(value) for key, value in flat(span.attributes).items()}
        out["events"] = [
            {"name": event.name, "attributes": {key: plain(v) for key, v in flat(event.attributes).items()}}
            for event in span.events or ()
        ]
        out["resource"] = {"attributes": {key: plain(value) for key, value in resource.items()}}
        return msgspec.json.encode(out)
    except DECODE_ERRORS:
        return b"{}"


def _columns(found: _Found, with_content: bool, with_reply: bool, ruled: frozenset[str]) -> Columns | None:
    try:
        span = _decoded(found.text)
    except DECODE_ERRORS as error:
        raise Unfit(None, f"a span that cannot be read: {why(error)}") from None
    a = flat(span.attributes)
    endpoint, is_call = inference(a)
    if not is_call:
        return None
    events: list[Event] = [(event.name, flat(event.attributes)) for event in span.events or ()]
    for name, own in events:
        if name == _DETAILS:
            a = own | a
    status = span.status or _Status()
    failed = _hashable(status.code) in _FAILED
    message = status.message if isinstance(status.message, str) else ""
    out = call_columns(
        a, events, with_content=with_content, with_reply=with_reply, failed=failed, message=message
    )
    out.update(identity_columns(a, found.resource))
    if out["endpoint"] is None:
        out["endpoint"] = endpoint
    start, end = _nanos(span.startTimeUnixNano), _nanos(span.endTimeUnixNano)
    if start is not None:
        out["ts"] = start // 1000
        if end is not None and end >= start:
            out["latency_ms"] = (end - start) / 1e6
    elif "ts" not in ruled:
        raise Unfit("ts", _NO_TIME)
    if out["account_id"] is None and "account_id" not in ruled:
        raise Unfit("account_id", _NO_ACCOUNT)
    if out["model"] is None and "model" not in ruled:
        raise Unfit("model", _NO_MODEL)
    if isinstance(span.spanId, str) and span.spanId:
        trace = span.traceId if isinstance(span.traceId, str) else ""
        out["exchange_id"] = f"{trace}-{span.spanId}"
    dropped = span.droppedAttributesCount
    if type(dropped) is int and dropped > 0 and with_content and "content_state" not in out:
        out["content_state"] = "truncated"
    if out["account_id"] is not None and out["entity_id"] is not None:
        found.owner = Owner(out["account_id"], out["entity_id"])
    return out


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int | str) else None


def _nanos(value: Any) -> int | None:
    """A fixed64 as JSON writes it: text or a number. Zero stands for a time that was never set."""
    if type(value) is str and 0 < len(value) <= 20 and value.isascii() and value.isdigit():
        value = int(value)
    return value if type(value) is int and 0 < value < 2**63 else None


IMPORTER = OtlpImporter()
