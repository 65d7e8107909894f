"""One answer under `strip`, part by part, whatever carries it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from stillwatch.guard.doors.metrics import Tally
from stillwatch.guard.doors.strip import StripStream, strip_answer_bytes
from stillwatch.guard.sight import MOST_BODY

LOSES = frozenset({b"content-length", b"content-digest", b"repr-digest", b"digest", b"content-md5", b"etag"})
"""Headers that are no longer true when something was taken out."""


@dataclass(slots=True)
class Answers:
    """Counts answers under `strip`."""

    changed: int = 0
    """Something was taken out."""
    unread: int = 0
    """Passed on as they were: compressed all the same, too large, or in a form that is not known."""

    def tally(self) -> Tally:
        """For metrics."""
        return Tally("stripped", "Answers under `strip`.", "state", lambda: asdict(self))


class StrippedAnswer:
    """An answer in JSON is kept back until it is whole, up to `most` bytes; of a stream of events one event."""

    def __init__(self, answers: Answers, most: int = MOST_BODY) -> None:
        self._answers, self._most = answers, most
        self._stream: StripStream | None = None
        self._kept: list[bytes] | None = None
        self._size = 0

    def begin(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether an answer with these headers is read; else it goes on as it is, and nothing more is to be told."""
        found = {name.lower(): value.lower() for name, value in headers}
        media = found.get(b"content-type", b"").partition(b";")[0].strip()
        if media not in (b"text/event-stream", b"application/json"):
            return False
        if found.get(b"content-encoding", b"identity") != b"identity":
            self._answers.unread += 1
            return False
        if media == b"text/event-stream":
            self._stream = StripStream()
        else:
            self._kept = []
        return True

    @property
    def streaming(self) -> bool:
        """Whether it is a stream of events."""
        return self._stream is not None

    def feed(self, part: bytes, end: bool) -> bytes:
        """What may go on by now. `end`: it was the last part."""
        if self._stream is not None:
            return self._event(self._stream, part, end)
        if self._kept is None:
            return part
        self._kept.append(part)
        self._size += len(part)
        if self._size > self._most:
            self._answers.unread += 1
        elif not end:
            return b""
        whole, self._kept = b"".join(self._kept), None
        if self._size > self._most:
            return whole
        body, found = strip_answer_bytes(whole)
        self._answers.changed += found == "changed"
        self._answers.unread += found == "unknown"
        return body

    def give_up(self) -> bytes:
        """What is kept back, as it came."""
        kept, self._kept = self._kept or [], None
        return b"".join(kept)

    def _event(self, stream: StripStream, part: bytes, end: bool) -> bytes:
        out = stream.feed(part)
        if end:
            out += stream.close()
            self._answers.changed += stream.changed > 0
            self._answers.unread += stream.unknown > 0
            self._stream = None
        return out
