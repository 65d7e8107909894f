"""What LiteLLM logs, as canonical rows without text, in files of this process alone.

The hook only copies an event; a thread reads it as the `litellm` importer would, replaces texts by sketches, and
appends a line. What `stillwatch scan` reads is then what it would have read from LiteLLM's own log.
"""

from __future__ import annotations

import atexit
import base64
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from stillwatch.guard.lean import load_numba
from stillwatch.ingest.bodies import Columns
from stillwatch.ingest.litellm import FIELDS, METADATA_FIELDS, event_columns
from stillwatch.ingest.textfree import PARTS
from stillwatch.sketch import sketch_text, to_binary

LOG = logging.getLogger("stillwatch.guard")
MOST_WAITING = 64 << 20
"""Bytes of events that may wait for the disk. Beyond that they are dropped, and counted."""
MOST_FILE = 256 << 20
"""Bytes of a file, after which the next one begins."""
_BATCH = 512
_WAIT_S = 0.5
_encode = msgspec.json.Encoder(enc_hook=str).encode


class EventLog:
    """Appends one line per event to a file in `folder`. `note` never waits and never raises."""

    def __init__(self, folder: Path, *, most_waiting: int = MOST_WAITING, most_file: int = MOST_FILE) -> None:
        """Makes the folder (mode 0700). Raises OSError where it cannot be written to."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder, self._most_waiting, self._most_file = folder, most_waiting, most_file
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._stop = threading.Event()
        self._number = 0
        self._began = time.time_ns() // 1_000_000
        self._file = -1
        self.written = 0
        self.dropped = 0
        """Events that found no room to wait, or that were still waiting when the process ended."""
        self.broken = 0
        """Events that could not be read."""
        self._open()
        load_numba(for_compiling=True)
        lines([_encode({"messages": [{"role": "user", "content": "warm"}]})])
        self._thread = threading.Thread(target=self._run, name="stillwatch-events", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def note(self, event: Any, ip: str | None) -> None:
        """Take one event (a StandardLoggingPayload), and the address that may be believed."""
        try:
            data = _copied(event, ip)
        except Exception:
            self.broken += 1
            return
        with self._lock:
            if self._bytes + len(data) > self._most_waiting:
                self.dropped += 1
                return
            self._waiting.append(data)
            self._bytes += len(data)
        self._woken.set()

    def close(self, wait_s: float = 10.0) -> None:
        """Write what is waiting, and stop. What the disk does not take within `wait_s` is dropped, and counted."""
        self._stop.set()
        self._woken.set()
        self._thread.join(wait_s)
        with self._lock:
            if self._waiting:
                LOG.error("%d events were not written", len(self._waiting))
            self.dropped += len(self._waiting)
            self._waiting.clear()
            self._bytes = 0
        atexit.unregister(self.close)

    def _run(self) -> None:
        while True:
            self._woken.wait(_WAIT_S)
            self._woken.clear()
            stopping = self._stop.is_set()
            try:
                while self._write():
                    pass
            except OSError as error:
                LOG.error("the log of events cannot be written: %s", error.strerror or "unknown")
                if stopping:
                    break
                self._stop.wait(_WAIT_S)
                continue
            if stopping and not self._waiting:
                break
        if self._file >= 0:
            os.close(self._file)

    def _write(self) -> bool:
        """One batch, whole or not at all; whether there was any. It waits on until the disk has it."""
        with self._lock:
            batch = [self._waiting[i] for i in range(min(_BATCH, len(self._waiting)))]
        if not batch:
            return False
        out, broken = lines(batch)
        data = b"".join(out)
        at = os.fstat(self._file).st_size
        if at and at + len(data) > self._most_file:
            os.close(self._file)
            self._open()
            at = 0
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            os.ftruncate(self._file, at)
            raise
        with self._lock:
            for done in batch:
                self._waiting.popleft()
                self._bytes -= len(done)
        self.written += len(out)
        self.broken += broken
        return True

    def _open(self) -> None:
        name = f"litellm-{self._began}-{os.getpid()}-{self._number}.jsonl"
        self._number += 1
        self._file = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _copied(event: Any, ip: str | None) -> bytes:
    """The fields that are read, as JSON: LiteLLM may change the event afterwards."""
    kept = {name: event[name] for name in FIELDS if name in event}
    metadata = kept.get("metadata")
    if isinstance(metadata, dict):
        kept["metadata"] = {name: metadata[name] for name in METADATA_FIELDS if name in metadata}
        kept["metadata"]["requester_ip_address"] = None
    # LiteLLM writes what stands in x-forwarded-for, the client's own inventions too.
    kept["requester_ip_address"] = ip
    try:
        return _encode(kept)
    except (TypeError, ValueError, RecursionError):
        # Half surrogates, keys of other types.
        return json.dumps(kept, default=str, skipkeys=True).encode()


def lines(events: list[bytes]) -> tuple[list[bytes], int]:
    """Canonical rows as lines of JSON, texts replaced by sketches; and how many events could not be read."""
    rows: list[Columns] = []
    broken = 0
    for data in events:
        try:
            rows.append(event_columns(data))
        except (msgspec.DecodeError, ValueError, RecursionError):
            broken += 1
    for part in PARTS:
        texts = [row.pop(part, None) for row in rows]
        held = [i for i, text in enumerate(texts) if isinstance(text, str)]
        if not held:
            continue
        clean = [texts[i].encode("utf-8", "replace").decode() for i in held]
        sketches = to_binary(sketch_text(pa.array(clean, pa.large_string()))).to_pylist()
        for i, sketch in zip(held, sketches, strict=True):
            rows[i][f"{part}_sketch"] = base64.b64encode(sketch or b"").decode()
            rows[i]["content_state"] = "sketch"
    return [_line(row) for row in rows], broken


def _line(row: Mapping[str, Any]) -> bytes:
    found = {name: value for name, value in row.items() if value is not None}
    try:
        return _encode(found) + b"\n"
    except (TypeError, ValueError):
        return json.dumps(found, default=str, skipkeys=True).encode() + b"\n"
