"""Raw API bodies in an envelope: {ts, account_id, ip?, headers?, request, response} and any canonical column.

`request` and `response` are bodies of OpenAI chat completions, OpenAI responses or Anthropic messages (and of
servers that speak the same), as objects or as JSON text; a streamed response is a list of chunks or the text
of the event stream. What the envelope states itself wins over what follows from the bodies. `model` is the
one that answered; where nothing answered, the one that was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypedDict

import msgspec

from stillwatch.ingest.bodies import CONTENT_COLUMNS, Columns, request_columns
from stillwatch.ingest.endpoints import endpoint_by_shape, endpoint_of
from stillwatch.ingest.failures import error_columns
from stillwatch.ingest.headers import header_columns
from stillwatch.ingest.objects import DECODE_ERRORS, Piece, decode_part, read_objects, why
from stillwatch.ingest.registry import Owner, Probe, RawBatch, ReadOptions
from stillwatch.ingest.replies import answered, response_columns
from stillwatch.ingest.rows import Unfit, batches
from stillwatch.ingest.source import Source
from stillwatch.ingest.streams import reply_body
from stillwatch.schema.errors import FormatError, Where
from stillwatch.schema.tables import EXCHANGES, REDACTION_MARKERS

STATED = frozenset(EXCHANGES.names) - {"response", "raw_ref"}
"""Canonical columns that an envelope may carry beside the bodies."""

_Row = dict[str, Any]
_MEMBERS: dict[str, Any] = dict.fromkeys(STATED, Any) | {
    "headers": msgspec.Raw,
    "request": msgspec.Raw,
    "response": msgspec.Raw,
    "path": Any,
}
# Of a typed dictionary only the members that a row has are there at all: most envelopes have few of them.
_Envelope: Any = TypedDict("_Envelope", _MEMBERS, total=False)  # type: ignore[misc]

_MARKS = frozenset({"messages", "input", "prompt", "model"})
_BODY = re.compile(rb'"request"\s*:\s*(?:\{|"\{|"\\n)')


class EnvelopeImporter:
    """Reads request and response bodies in envelopes."""

    name = "bodies"

    def sniff(self, probe: Probe) -> float:
        """High for JSON objects with a request body and a second member of an envelope."""
        if probe.container not in ("json", "jsonl"):
            return 0.0
        if any(_is_envelope(found) for found in probe.objects):
            return 0.95
        if not probe.objects and _BODY.search(probe.head):
            # The first row is longer than the head: its first keys are all there is to see.
            inside = any(f'"{mark}'.encode() in probe.head for mark in ("messages", "input", "prompt"))
            around = any(f'"{mark}"'.encode() in probe.head for mark in ("ts", "account_id"))
            return (0.92 if around else 0.5) if inside else 0.0
        return 0.0

    def read(self, source: Source, options: ReadOptions) -> Iterator[RawBatch]:
        """Batches with canonical names; see `Importer.read`. FormatError where no row names its account."""
        if source.container not in ("json", "jsonl"):
            raise FormatError(
                f"envelopes of API bodies are JSON, this is {source.container}",
                where=Where(source.path),
                hint='describe the columns in a mapping file, with request = "$.column" and reply = "$.column"',
            )
        with_content = options.columns is None or bool(CONTENT_COLUMNS & options.columns)
        decoder: msgspec.json.Decoder[_Row] = msgspec.json.Decoder(_Envelope)
        pieces = read_objects(source, decoder)
        if "account_id" not in options.overrides:
            pieces = _with_accounts(pieces, source.path)
        yield from batches(pieces, options, lambda row: _columns(row, with_content), _owner)


def _is_envelope(found: Any) -> bool:
    request = found.get("request")
    if isinstance(request, dict):
        fits = bool(_MARKS & set(request))
    else:
        fits = isinstance(request, str) and request.lstrip().startswith("{")
    return fits and any(key in found for key in ("response", "ts", "account_id", "headers"))


def _with_accounts(pieces: Iterator[Piece[Any]], path: str) -> Iterator[Piece[Any]]:
    """The pieces as they are; FormatError at the first with rows, if none of its rows names an account."""
    named = False
    for piece in pieces:
        named = named or any(row.get("account_id") is not None for row in piece.objects)
        if piece.objects and not named:
            raise FormatError(
                "the envelopes name no account",
                where=Where(path, column="account_id"),
                hint="say where the account stands with --map account_id=$.path",
            )
        yield piece


def _owner(row: _Row) -> Owner | None:
    account, entity = row.get("account_id"), row.get("entity_id")
    if isinstance(account, str) and account and isinstance(entity, str) and entity:
        return Owner(account, entity)
    return None


def _columns(row: _Row, with_content: bool) -> Columns:
    request, state = _request(row.get("request"))
    reply, streamed, cut = _reply(row.get("response"))
    out: Columns = request_columns(request, with_content=with_content)
    if "n_messages" not in out:
        out.setdefault("content_state", state or "absent")
    if isinstance(reply, str):
        out["response"] = reply
    elif reply is not None:
        out.update(response_columns(reply))
        if answered(reply):
            out["status"] = 200
        else:
            out.update(error_columns(reply))
    if streamed and "stream" not in out:
        out["stream"] = True
    if cut and "content_state" not in out:
        out["content_state"] = "truncated"
    if "headers" in row:
        out.update(_headers(row["headers"]))
    for name, value in row.items():
        if value is not None and name in STATED:
            out[name] = value
    if "endpoint" not in out:
        path = row.get("path")
        out["endpoint"] = endpoint_of(path if isinstance(path, str) else None) or endpoint_by_shape(
            request, reply
        )
    if "end_user_id" in out and "end_user_trust" not in out:
        out["end_user_trust"] = "asserted"
    return out


def _request(raw: msgspec.Raw | None) -> tuple[_Row | None, str | None]:
    """(body, content state): a body that is not there, or that a logger has cut, has a state instead."""
    body = _decoded("request", raw)
    if isinstance(body, str):
        text = body.strip()
        if not text or text in REDACTION_MARKERS:
            return None, "redacted" if text else "absent"
        if not text.startswith("{"):
            raise Unfit("request", "a request body expected, found text")
        try:
            body = decode_part(text.encode("utf-8", "replace"))
        except DECODE_ERRORS:
            return None, "truncated"
    if body is None:
        return None, "absent"
    if not isinstance(body, dict):
        raise Unfit("request", "a request body expected, found something else")
    return body, None


def _reply(raw: msgspec.Raw | None) -> tuple[_Row | str | None, bool, bool]:
    """(body or plain text, was it a stream, was it cut)."""
    value = _decoded("response", raw)
    if value is None or value == "":
        return None, False, False
    if not isinstance(value, dict | list | str):
        raise Unfit("response", "a response body expected, found something else")
    body = reply_body(value)
    if not isinstance(value, str):
        return body, isinstance(value, list), False
    if isinstance(body, dict) and not (answered(body) or body.get("error")):
        # JSON, but no body: it is what the assistant wrote.
        return value, False, False
    return body, isinstance(body, dict) and not value.lstrip().startswith("{"), body is None


def _headers(raw: msgspec.Raw) -> Columns:
    headers = _decoded("headers", raw)
    if isinstance(headers, str) and headers.lstrip().startswith(("{", "[")):
        try:
            headers = decode_part(headers.encode("utf-8", "replace"))
        except DECODE_ERRORS:
            headers = None
    if headers is None:
        return {}
    found = header_columns(headers)
    if found is None:
        raise Unfit("headers", "headers are an object, or a list of names and values")
    return found


def _decoded(name: str, raw: msgspec.Raw | None) -> Any:
    try:
        return None if raw is None else decode_part(raw)
    except DECODE_ERRORS as error:
        raise Unfit(name, why(error)) from None


IMPORTER = EnvelopeImporter()
