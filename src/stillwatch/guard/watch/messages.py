"""Messages of a queue -> rows: joined for speed, taken apart where one of them spoils the others."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from stillwatch.guard.watch.intake import Intake, Piece, Taken
from stillwatch.schema.refusals import Refusal

MOST_MESSAGE = 64 << 20
"""Bytes; a larger message is refused."""


@dataclass(frozen=True, slots=True)
class Message:
    """One or several whole rows, as they came."""

    place: str
    """Where it is in its queue; what refusals call it."""
    data: bytes

    @property
    def alone(self) -> bool:
        """Whether it is read by itself: an array, a table, something packed. It costs milliseconds."""
        return self.data[:1] != b"{" and not self.data.lstrip().startswith(b"{")


def read_messages(intake: Intake, messages: Sequence[Message]) -> Taken:
    """Rows of all messages, without text; refusals name the message, and the line and byte in it.

    Never raises for what a message holds. UsageError where the intake's format, mapping or overrides are wrong.
    """
    whole = Taken()
    run: list[Message] = []
    for message in messages:
        if len(message.data) > MOST_MESSAGE:
            reason = f"a message of more than {MOST_MESSAGE >> 20} MiB"
            whole.refusals.append(Refusal(message.place, 1, None, None, reason))
        elif not message.alone:
            run.append(message)
        elif message.data.strip():
            whole.add(_joined(intake, run))
            run = []
            whole.add(_joined(intake, [message]))
    whole.add(_joined(intake, run))
    return whole


def _joined(intake: Intake, messages: Sequence[Message]) -> Taken:
    """All in one piece. Where that cannot be read to its end, each half by itself, down to the message at fault."""
    if not messages:
        return Taken()
    parts: list[bytes] = []
    bytes_at, lines_at = [], []
    size = lines = 0
    for message in messages:
        bytes_at.append(size)
        lines_at.append(lines)
        data = message.data
        if len(messages) > 1 and not data.endswith(b"\n"):
            data += b"\n"
        parts.append(data)
        size += len(data)
        lines += data.count(b"\n")
    taken = intake.read([Piece("", b"".join(parts))])
    if taken.broken and len(messages) > 1:
        half = len(messages) // 2
        taken = _joined(intake, messages[:half])
        taken.add(_joined(intake, messages[half:]))
        return taken
    taken.refusals = [_placed(refusal, messages, bytes_at, lines_at) for refusal in taken.refusals]
    return taken


def _placed(
    refusal: Refusal, messages: Sequence[Message], bytes_at: list[int], lines_at: list[int]
) -> Refusal:
    """The refusal with its place in the message, not in the piece."""
    if len(messages) == 1:
        return msgspec.structs.replace(refusal, file=messages[0].place)
    if refusal.offset is not None:
        index = bisect_right(bytes_at, refusal.offset) - 1
    else:
        index = bisect_right(lines_at, refusal.row - 1) - 1
    return msgspec.structs.replace(
        refusal,
        file=messages[index].place,
        row=max(1, refusal.row - lines_at[index]),
        offset=None if refusal.offset is None else refusal.offset - bytes_at[index],
    )
