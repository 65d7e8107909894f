"""Envoy's external processing over gRPC (ext_proc v3): request headers and body in, one decision out.

Envoy sends the headers, and keeps the request back. If a body follows that can be read, they are answered with
nothing, and the body's message with the decision; else the decision is the answer to the headers. A body is read
up to `sight.MOST_BODY`. One that says that it is longer is not sent (`mode_override`). One that does not say is kept
back whole (`BUFFERED`): Envoy answers 413 where it cannot keep it. In part (`BUFFERED_PARTIAL`) would be kinder, but
Envoy 1.40 loses the end of a body that comes while the part is being answered, and the client waits for ever. What is
longer than is read goes on unread, and the decision lacks `body`.

Answers come by here only where the policy has `strip` carried out: their headers, and the body (`STREAMED`) of those
that are to be stripped. Without it a stream costs nothing.

A refusal is Envoy's own answer (`ImmediateResponse`), its status, headers and body those of the other doors; the
details of its access log begin with `stillwatch_` and the action.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from stillwatch.guard.doors import envoy_messages as pb
from stillwatch.guard.doors.http import Identity, refusal, subject_of
from stillwatch.guard.doors.serving import UNREAD
from stillwatch.guard.doors.strip import strip_asked_bytes
from stillwatch.guard.doors.stripped import LOSES, Answers, StrippedAnswer
from stillwatch.guard.sight import MOST_BODY
from stillwatch.guard.subject import Decision, Subject

EXCHANGE = "x-stillwatch-exchange"
"""Header that names the exchange: what the request showed and what the access log says of it belong together."""
REFUSED = "stillwatch_"
"""How the details of a refused request begin in Envoy's access log; then the action, a colon, the exchange."""
MOST_KEPT = 1 << 10
"""Answers that are kept written."""

Pairs = Sequence[tuple[bytes, bytes]]
Note = Callable[[str, Pairs, bytes | None], None]
"""Told of each request: its exchange, headers and body (unpacked; None if it has none)."""


class ExternalProcessor:
    """The service. `decide` counts and logs; `strips` says whether the policy in force may have anything stripped."""

    def __init__(
        self,
        decide: Callable[[Subject], Decision],
        who: Identity,
        note: Note | None = None,
        strips: Callable[[], bool] = lambda: False,
    ) -> None:
        self._decide, self._who, self._note, self._strips = decide, who, note, strips
        self.answers = Answers()
        self._prefix, self._count = secrets.token_hex(6), 0
        self._kept: dict[tuple[str, str, tuple[str, ...], bool, bool], bytes] = {}

    async def process(self, messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """One request: Envoy's messages, each with its answer. (A generator costs less than reads and writes.)"""
        headers: Pairs = ()
        action = ""
        stripped: StrippedAnswer | None = None
        async for data in messages:
            message = pb.ProcessingRequest.FromString(data)
            if message.HasField("request_headers"):
                told = message.request_headers
                headers = _pairs(told)
                if told.end_of_stream or long(headers):
                    body = None if told.end_of_stream else UNREAD
                    answer, action = self.answer(headers, body, body_phase=False)
                    yield answer
                else:
                    yield _wait(headers, self._strips())
            elif message.HasField("request_body"):
                part = message.request_body
                whole = part.end_of_stream and len(part.body) <= MOST_BODY
                answer, action = self.answer(headers, part.body if whole else UNREAD, body_phase=True)
                yield answer
            elif message.HasField("response_headers") and action == "strip":
                told = message.response_headers
                found = StrippedAnswer(self.answers)
                stripped = found if not told.end_of_stream and found.begin(_pairs(told)) else None
                yield _plain(message) if stripped is None else _strip()
            elif message.HasField("response_body") and stripped is not None:
                part = message.response_body
                yield _part(part.body, stripped.feed(part.body, part.end_of_stream))
            else:
                # Nothing else is asked for; an Envoy that was told otherwise goes on with what it has.
                yield _plain(message)

    def answer(self, headers: Pairs, body: bytes | None, *, body_phase: bool) -> tuple[bytes, str]:
        """The decision about a request, as Envoy's message, and its action.

        `body` None: it has none; `UNREAD`: it cannot be read.
        """
        subject = subject_of(headers, None, body, self._who)
        body = subject.body if isinstance(subject.body, bytes) else None
        decision = self._decide(subject)
        self._count += 1
        exchange = f"{self._prefix}{self._count:012x}"
        if self._note is not None:
            self._note(exchange, headers, body)
        refused = refusal(decision)
        if refused is not None:
            return _refusal(*refused, f"{REFUSED}{decision.action}:{exchange}"), decision.action
        mended = None
        if decision.action == "strip" and body and body_phase:
            mended = strip_asked_bytes(body)
            mended = None if mended == body else mended
        key = (decision.action, decision.reason, decision.lacked, body_phase, body is not None)
        answer = self._kept.get(key)
        if answer is None:
            answer = _go_on(decision, body_phase, body is not None)
            if len(self._kept) < MOST_KEPT:
                self._kept[key] = answer
        length = _length(headers)
        if body_phase and length is not None:
            # It was told again with the headers; Envoy takes no other body than one of this length.
            length = None if mended is None else str(len(mended))
        if self._note is None and length is None and mended is None:
            return answer, decision.action
        out = pb.ProcessingResponse()
        out.ParseFromString(answer)
        response = (out.request_body if body_phase else out.request_headers).response
        if self._note is not None:
            _set(response.header_mutation, EXCHANGE, exchange)
        if length is not None:
            _set(response.header_mutation, "content-length", length)
        if mended is not None:
            response.body_mutation.body = mended
            response.header_mutation.remove_headers.append("content-encoding")
        return bytes(out.SerializeToString()), decision.action


def long(headers: Pairs) -> bool:
    """Whether the body says that it is longer than what is read: it need not be sent."""
    return any(
        name == b"content-length" and value.isdigit() and (len(value) > 12 or int(value) > MOST_BODY)
        for name, value in headers
    )


def _set(mutation: Any, name: str, value: str) -> None:
    option = mutation.set_headers.add()
    option.header.key, option.header.raw_value = name, value.encode()
    option.append_action = pb.OVERWRITE


def _go_on(decision: Decision, body_phase: bool, has_body: bool) -> bytes:
    """The message that lets a request go on."""
    out = pb.ProcessingResponse()
    mutation = (out.request_body if body_phase else out.request_headers).response.header_mutation
    _set(mutation, "x-stillwatch-action", decision.action)
    _set(mutation, "x-stillwatch-reason", decision.reason)
    _set(mutation, "x-stillwatch-lacked", ",".join(decision.lacked))
    strip = decision.action == "strip"
    if strip:
        # What is compressed cannot be read.
        _set(mutation, "accept-encoding", "identity")
    if not body_phase and (has_body or strip):
        _override(out, pb.NONE, pb.SEND if strip else pb.SKIP)
    return bytes(out.SerializeToString())


def _refusal(status: int, headers: Pairs, body: bytes, details: str) -> bytes:
    out = pb.ProcessingResponse()
    answer = out.immediate_response
    answer.status.code, answer.body, answer.details = status, body, details
    for name, value in headers:
        if name != b"content-length":
            _set(answer.headers, name.decode(), value.decode("latin-1"))
    return bytes(out.SerializeToString())


def _plain(message: Any) -> bytes:
    out = pb.ProcessingResponse()
    part = "response_headers" if message.HasField("response_headers") else "response_body"
    getattr(out, part).response.SetInParent()
    return bytes(out.SerializeToString())


def _strip() -> bytes:
    """The answer to the headers of an answer that is to be stripped: its body comes by here."""
    out = pb.ProcessingResponse()
    mutation = out.response_headers.response.header_mutation
    mutation.remove_headers.extend(sorted(name.decode() for name in LOSES))
    _override(out, pb.NONE, pb.SEND, pb.STREAMED)
    return bytes(out.SerializeToString())


def _part(came: bytes, goes: bytes) -> bytes:
    """The answer to a part of such a body."""
    out = pb.ProcessingResponse()
    response = out.response_body.response
    response.SetInParent()
    if not goes and came:
        response.body_mutation.clear_body = True
    elif goes != came:
        response.body_mutation.body = goes
    return bytes(out.SerializeToString())


def _pairs(told: Any) -> Pairs:
    return [(h.key.encode(), h.raw_value or h.value.encode()) for h in told.headers.headers]


def _override(out: Any, body: int, answer_headers: int, answer_body: int = pb.NONE) -> None:
    mode = out.mode_override
    mode.request_header_mode, mode.request_body_mode = pb.SEND, body
    mode.response_header_mode, mode.response_body_mode = answer_headers, answer_body
    mode.request_trailer_mode = mode.response_trailer_mode = pb.SKIP


def _length(headers: Pairs) -> str | None:
    """The request's content-length: Envoy takes it away, for the body could be changed, unless it is told again."""
    found = next((value for name, value in headers if name == b"content-length"), None)
    return None if found is None else found.decode("latin-1")


def _wait(headers: Pairs, strips: bool) -> bytes:
    """The answer to headers whose body is still to come. `strips`: Envoy shows the headers of the model's answer."""
    out = pb.ProcessingResponse()
    response = out.request_headers.response
    response.SetInParent()
    length = _length(headers)
    if length is not None:
        _set(response.header_mutation, "content-length", length)
    _override(out, pb.BUFFERED, pb.SEND if strips else pb.SKIP)
    return bytes(out.SerializeToString())
