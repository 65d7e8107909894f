"""The service's log: one JSON object a line. What a caller sent is in none of them.

Our own lines name an event and give fields. Lines of libraries keep their wording without what would be put into it,
and exceptions keep their type and the places they came through, not their message: either may hold what was sent.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from datetime import UTC, datetime
from typing import Any

import msgspec

LOG = logging.getLogger("stillwatch.guard")
EVERY_S = 10.0
"""An event that callers can cause is told once in so many seconds; the next line says how often it came meanwhile."""
_QUIET = ("uvicorn", "uvicorn.error", "uvicorn.access")


class JsonLines(logging.Formatter):
    """One line: time, level, logger, event, and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Never raises for what a record holds; see the module for what is left out."""
        fields: Any = getattr(record, "fields", None)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "event", "library"),
        }
        if isinstance(fields, dict):
            line |= {name: value for name, value in fields.items() if name not in line}
        elif record.name.partition(".")[0] == "uvicorn" and isinstance(record.msg, str):
            # The wording alone: `args` and whatever was formatted before may hold addresses and paths.
            line["message"] = record.msg if record.args else record.msg.split("\n", 1)[0][:100]
        if record.exc_info and record.exc_info[0] is not None:
            line["error_type"] = record.exc_info[0].__name__
            line["at"] = [
                f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
                for frame in traceback.extract_tb(record.exc_info[2])[-8:]
            ]
        return msgspec.json.encode(line, enc_hook=repr).decode()


class _Often:
    """When each event was last told, and how often it came since."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._since: dict[str, int] = {}

    def due(self, event: str) -> int:
        """0: not now. Otherwise how often the event came since it was last told, this time included."""
        now = time.monotonic()
        with self._lock:
            count = self._since.get(event, 0) + 1
            if now - self._last.get(event, -EVERY_S) < EVERY_S:
                self._since[event] = count
                return 0
            self._last[event], self._since[event] = now, 0
            return count


_often = _Often()


def told(event: str, *, often: bool = False, level: int = logging.WARNING, **fields: Any) -> None:
    """Log an event. `often`: callers can cause it at will. `fields` hold nothing that a caller sent."""
    if often:
        times = _often.due(event)
        if not times:
            return
        fields["times"] = times
    # An application that hosts a door has a log of its own form: there the fields are in the message.
    text = msgspec.json.encode(fields, enc_hook=repr).decode()
    LOG.log(level, "%s %s", event, text, extra={"event": event, "fields": fields})


def begin(level: int = logging.INFO) -> None:
    """Every line of this process goes to standard error as JSON from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    LOG.setLevel(level)
    for name in _QUIET:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
