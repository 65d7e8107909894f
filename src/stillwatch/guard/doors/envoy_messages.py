"""The parts of Envoy's gRPC interfaces that the guard reads and writes, as protobuf messages.

Field numbers of `envoy/service/ext_proc/v3/external_processor.proto`, `envoy/service/accesslog/v3/als.proto` and
`envoy/data/accesslog/v3/accesslog.proto` (Envoy 1.40); what is not named here is skipped when a message is read. On
the wire only numbers count, so the messages have names of their own, in a pool of their own: whatever else in the
process brings Envoy's stubs along is not in the way. The published stubs, 1,800 modules, overwrite files that belong
to other packages (`opentelemetry.proto`), which nobody wants in a gateway's environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stillwatch.schema.errors import MissingExtraError

try:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
except ImportError as error:
    raise MissingExtraError("protobuf", "envoy", needed_for="Envoy over gRPC") from error

_KINDS: Final = {
    "double": 1,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "bool": 8,
    "string": 9,
    "bytes": 12,
    "uint32": 13,
}
"""Scalar types by their number in a descriptor."""

MESSAGES: Final[Mapping[str, Mapping[str, tuple[int, str]]]] = {
    "Timestamp": {"seconds": (1, "int64"), "nanos": (2, "int32")},
    "Duration": {"seconds": (1, "int64"), "nanos": (2, "int32")},
    "Number": {"value": (1, "uint32")},
    "Code": {"code": (1, "int32")},
    "HeaderValue": {"key": (1, "string"), "value": (2, "string"), "raw_value": (3, "bytes")},
    "HeaderMap": {"headers": (1, "*HeaderValue")},
    "HttpHeaders": {"headers": (1, "HeaderMap"), "end_of_stream": (3, "bool")},
    "HttpBody": {"body": (1, "bytes"), "end_of_stream": (2, "bool")},
    "ProcessingRequest": {
        "request_headers": (2, "HttpHeaders"), "response_headers": (3, "HttpHeaders"),
        "request_body": (4, "HttpBody"), "response_body": (5, "HttpBody"),
    },
    "HeaderValueOption": {"header": (1, "HeaderValue"), "append_action": (3, "int32")},
    "HeaderMutation": {"set_headers": (1, "*HeaderValueOption"), "remove_headers": (2, "*string")},
    "BodyMutation": {"body": (1, "bytes"), "clear_body": (2, "bool")},
    "CommonResponse": {"header_mutation": (2, "HeaderMutation"), "body_mutation": (3, "BodyMutation")},
    "PartResponse": {"response": (1, "CommonResponse")},
    "ImmediateResponse": {
        "status": (1, "Code"), "headers": (2, "HeaderMutation"), "body": (3, "bytes"), "details": (5, "string"),
    },
    "ProcessingMode": {
        "request_header_mode": (1, "int32"), "response_header_mode": (2, "int32"), "request_body_mode": (3, "int32"),
        "response_body_mode": (4, "int32"), "request_trailer_mode": (5, "int32"),
        "response_trailer_mode": (6, "int32"),
    },
    "ProcessingResponse": {
        "request_headers": (1, "PartResponse"), "response_headers": (2, "PartResponse"),
        "request_body": (3, "PartResponse"), "response_body": (4, "PartResponse"),
        "immediate_response": (7, "ImmediateResponse"), "mode_override": (9, "ProcessingMode"),
    },
    "SocketAddress": {"address": (2, "string"), "port_value": (3, "uint32")},
    "Address": {"socket_address": (1, "SocketAddress")},
    "Common": {
        "downstream_remote_address": (2, "Address"), "start_time": (5, "Timestamp"),
        "time_to_last_downstream_tx_byte": (12, "Duration"), "duration": (23, "Duration"),
    },
    "Pair": {"key": (1, "string"), "value": (2, "string")},
    "RequestProperties": {
        "request_method": (1, "int32"), "path": (5, "string"), "user_agent": (6, "string"),
        "forwarded_for": (8, "string"), "request_id": (9, "string"), "original_path": (10, "string"),
        "request_headers": (13, "*Pair"),
    },
    "ResponseProperties": {"response_code": (1, "Number"), "response_code_details": (6, "string")},
    "HTTPAccessLogEntry": {
        "common_properties": (1, "Common"), "request": (3, "RequestProperties"),
        "response": (4, "ResponseProperties"),
    },
    "HTTPAccessLogEntries": {"log_entry": (1, "*HTTPAccessLogEntry")},
    "StreamAccessLogsMessage": {"http_logs": (2, "HTTPAccessLogEntries")},
    "StreamAccessLogsResponse": {},
}  # fmt: skip
"""(number, type) by message and field; `*` before a type: repeated. A map on the wire is repeated pairs."""


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="stillwatch/envoy.proto", package="stillwatch.envoy", syntax="proto3"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            plain = kind.lstrip("*")
            added = message.field.add(name=field, number=number, label=3 if kind[0] == "*" else 1)
            if plain in _KINDS:
                added.type = _KINDS[plain]
            else:
                added.type, added.type_name = 11, f".stillwatch.envoy.{plain}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"stillwatch.envoy.{name}"))
        for name in MESSAGES
    }


_CLASSES = _classes()
ProcessingRequest: Any = _CLASSES["ProcessingRequest"]
ProcessingResponse: Any = _CLASSES["ProcessingResponse"]
StreamAccessLogsMessage: Any = _CLASSES["StreamAccessLogsMessage"]
StreamAccessLogsResponse: Any = _CLASSES["StreamAccessLogsResponse"]

EXT_PROC: Final = "envoy.service.ext_proc.v3.ExternalProcessor"
ACCESS_LOG: Final = "envoy.service.accesslog.v3.AccessLogService"
OVERWRITE: Final = 2
"""`append_action`: replace the header, or add it."""
SEND, SKIP = 1, 2
"""Of headers and trailers, in a processing mode."""
NONE, STREAMED, BUFFERED, BUFFERED_PARTIAL = 0, 1, 2, 3
"""Of bodies."""
