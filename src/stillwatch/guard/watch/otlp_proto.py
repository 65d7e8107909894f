"""OTLP's binary form -> its JSON form, which the importer reads. Needs the extra `otlp`."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from stillwatch.schema.errors import FormatError, MissingExtraError

_IDS = ("traceId", "spanId", "parentSpanId")
"""Hexadecimal in OTLP's JSON, base64 in that of protobuf
(https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding)."""


def as_json(body: bytes) -> bytes:
    """An `ExportTraceServiceRequest` as OTLP/JSON. FormatError where it is none."""
    try:
        from google.protobuf.json_format import MessageToDict
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    except ImportError as error:
        raise MissingExtraError("opentelemetry-proto", "otlp", needed_for="OTLP in protobuf") from error
    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(body)
        found: dict[str, Any] = MessageToDict(request)
    except (DecodeError, ValueError, RecursionError) as error:
        raise FormatError("no ExportTraceServiceRequest in protobuf") from error
    for resource in found.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                for part in (span, *span.get("links", ())):
                    for name in _IDS:
                        if name in part:
                            part[name] = base64.b64decode(part[name]).hex()
    return msgspec.json.encode(found)
