"""Logs that wait in a queue: a client in a thread of its own hands messages over, `Feed.step` keeps them.

Rows and the place after them are committed together, and nothing is ever told to the broker: whoever starts again
goes on from the committed place. What was handed over and not kept is read again then.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from stillwatch.guard.watch.intake import Taken
from stillwatch.guard.watch.messages import Message, read_messages
from stillwatch.guard.watch.queue import Queue
from stillwatch.schema.errors import InputError, UsageError

MOST_WAITING = 8 << 20
"""Bytes that may be handed over and not kept; beyond it the client waits."""
COMMIT_S = 2.0
"""Messages wait so long for others, unless there are many."""
COMMIT_BYTES = 4 << 20
MOST_ALONE = 200
"""Messages that are read by themselves, at a time: the service has other inputs too."""
FIRST_WAIT_S, MOST_WAIT_S = 0.25, 10.0
"""Between two tries to reach a broker."""
Keep = Callable[[str, Taken, object], None]


class Reader(Protocol):
    """A client of one broker."""

    async def read(self, hand: Handover) -> None:
        """Hand messages over from `hand.at` on, until it is cancelled. Raises whatever goes wrong."""
        ...


@dataclass(frozen=True, slots=True)
class _Put:
    """What was handed over at once."""

    messages: tuple[Message, ...]
    at: dict[str, Any]
    """Place after them."""
    lost: int

    @property
    def size(self) -> int:
        return sum(len(message.data) for message in self.messages)


class Handover:
    """Between the client's thread and the service's."""

    def __init__(self, name: str, at: Mapping[str, Any]) -> None:
        self.name = name
        self.at = dict(at)
        """Place after the last message that was handed over, as the client's kind needs it; {}: the beginning."""
        self.reached = False
        """What was there when reading began has been handed over."""
        self.trouble: str | None = None
        """What kept the client from the broker, by its kind only; None while it reads."""
        self.away = 0
        """Tries that failed."""
        self._lines: deque[str] = deque(maxlen=1000)
        self._waiting: deque[_Put] = deque()
        self._bytes = 0
        self._since = 0.0
        self._lock = threading.Lock()

    # For the client

    async def put(self, messages: Sequence[Message], at: Mapping[str, Any], lost: int = 0) -> None:
        """Hand over, once there is room. `lost`: messages before these that the broker had no more."""
        while self._bytes >= MOST_WAITING:
            await asyncio.sleep(0.01)
        self.at = dict(at)
        if not messages and not lost:
            return
        one = _Put(tuple(messages), self.at, lost)
        with self._lock:
            if not self._waiting:
                self._since = time.monotonic()
            self._waiting.append(one)
            self._bytes += one.size

    def connected(self) -> None:
        """The broker answers."""
        if self.trouble is not None:
            self.say("is read again")
        self.trouble = None

    def failed(self, error: BaseException) -> None:
        """The broker does not; told once. Only the kind of the error: its text may hold what nobody should read."""
        if self.trouble is None:
            self.say(f"cannot be read ({type(error).__name__}), it is tried again")
        self.trouble = type(error).__name__
        self.away += 1

    def say(self, line: str) -> None:
        self._lines.append(f"{self.name}: {line}")

    # For the service

    def waiting(self, at_once: bool) -> list[_Put]:
        """The oldest of what was handed over, where it is to be kept now."""
        with self._lock:
            late = time.monotonic() - self._since >= COMMIT_S
            if not (at_once or late or self._bytes >= COMMIT_BYTES):
                return []
            out: list[_Put] = []
            size = alone = 0
            for one in self._waiting:
                if size >= COMMIT_BYTES or alone >= MOST_ALONE:
                    break
                out.append(one)
                size += one.size
                alone += sum(message.alone for message in one.messages)
            return out

    def kept(self, count: int) -> None:
        """The oldest `count` of it are kept."""
        with self._lock:
            for _ in range(count):
                self._bytes -= self._waiting.popleft().size

    def lines(self) -> list[str]:
        """What is to be told."""
        return [self._lines.popleft() for _ in range(len(self._lines))]


class Feed:
    """One queue. Not for several threads."""

    def __init__(self, queue: Queue, state: Any, *, live: bool = True) -> None:
        """`state`: what was committed last. `live` False: only what is there.

        UsageError where the state belongs to something else, or credentials are unusable; MissingExtraError.
        """
        if state is not None and state.get("of") != queue.of:
            raise UsageError(
                f"{queue.name} has been read from {state.get('of', 'files')} so far, not from {queue.of}",
                hint="give it another name, so that its rows and its place are its own",
            )
        state = state or {"at": {}, "format": None}
        self._queue, self._live = queue, live
        self._intake = replace(queue.intake, format=queue.intake.format or state["format"])
        self.hand = Handover(queue.name, state["at"])
        self._reader = _reader(queue)
        self._told = self._lost = 0
        self._stop = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main()), name=f"stillwatch-{queue.name}", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Let go of the broker."""
        self._stop = True
        if self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)

    def step(self, keep: Keep) -> bool:
        """Keep what was handed over; whether there was anything. Raises what `keep` raises: then it is tried again.

        InputError where only what is there is to be read, and the broker does not answer.
        """
        found = self.hand.waiting(not self._live)
        while not found and not self._live:
            reached = self.hand.reached
            found = self.hand.waiting(True)
            if found or reached:
                break
            if self.hand.trouble is not None:
                raise InputError(
                    f"{self.hand.name} cannot be read ({self.hand.trouble})", hint="is the broker there?"
                )
            time.sleep(0.01)
        if not found:
            return False
        messages = [message for one in found for message in one.messages]
        taken = read_messages(self._intake, messages)
        if self._intake.format is None and taken.rows:
            self._intake = replace(self._intake, format=taken.format)
        keep(self.hand.name, taken, {"of": self._queue.of, "at": found[-1].at, "format": self._intake.format})
        self.hand.kept(len(found))
        self._lost += sum(one.lost for one in found)
        return True

    def tell(self, say: Callable[[str], None], events: Counter[tuple[str, str]]) -> None:
        """What happened since the last time, in words and numbers."""
        for line in self.hand.lines():
            say(line)
        away = self.hand.away
        for state, count in (("away", away - self._told), ("lost", self._lost)):
            if count:
                events[self.hand.name, state] += count
        self._told, self._lost = away, 0

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        wait = FIRST_WAIT_S
        while not self._stop:
            try:
                await self._reader.read(self.hand)
            except (Exception, asyncio.CancelledError) as error:
                # Whatever a client raises, or cancels: the service goes on with its other inputs.
                if self._stop:
                    return
                wait = min(2 * wait, MOST_WAIT_S) if self.hand.trouble is not None else FIRST_WAIT_S
                self.hand.failed(error)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))


def _reader(queue: Queue) -> Reader:
    """Only here: each needs an extra."""
    if queue.scheme.startswith("kafka"):
        from stillwatch.guard.watch.kafka import KafkaReader

        return KafkaReader(queue)
    from stillwatch.guard.watch.nats import NatsReader

    return NatsReader(queue)
