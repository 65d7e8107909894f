"""A Kafka topic, read from places that the partitions keep: no consumer group, nothing is committed at the broker.

The place is {partition: offset of the next message}. Every few seconds it is held against what the broker has: new
partitions are taken up, and where retention was faster, reading goes on at the oldest message.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Mapping
from typing import Any

from stillwatch.guard.watch.consume import Handover
from stillwatch.guard.watch.messages import Message
from stillwatch.guard.watch.queue import LOOPBACK, Queue
from stillwatch.schema.errors import MissingExtraError, UsageError

FETCH_BYTES = 8 << 20
"""Of one answer of a broker, packed; a single larger batch comes whole."""
MOST_MESSAGES = 200  # that are unpacked at a time
CHECK_S, ANSWER_S, AGAIN_S = 5.0, 10.0, 1.0
"""Between two looks at what the broker has; for one of them; after a place that is out of range."""
METADATA_S = 15
"""New partitions are known after so long."""
TIMEOUT_S = 20
"""For one answer of a broker."""
CORRUPT = 3  # times that a batch is fetched before its first message is given up
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class KafkaReader:
    """The client of one topic."""

    def __init__(self, queue: Queue, environment: Mapping[str, str] = os.environ) -> None:
        """UsageError where the environment's credentials cannot be used; MissingExtraError without aiokafka."""
        try:
            import aiokafka
        except ImportError as error:
            raise MissingExtraError("aiokafka", "kafka", needed_for="reading from Kafka") from error
        self._library = aiokafka
        self._topic = queue.topic
        self._options = _options(queue, environment)
        # It repeats its trouble; ours is told once.
        logging.getLogger("aiokafka").addHandler(logging.NullHandler())

    async def read(self, hand: Handover) -> None:
        """See `consume.Reader`."""
        consumer = self._library.AIOKafkaConsumer(**self._options)
        try:
            await consumer.start()
            await _Reading(self._library, consumer, self._topic, hand).forever()
        finally:
            await consumer.stop()


class _Reading:
    """One connection."""

    def __init__(self, library: Any, consumer: Any, topic: str, hand: Handover) -> None:
        self._consumer, self._topic, self._hand = consumer, topic, hand
        self._at: dict[str, int] = dict(hand.at)
        self._partition, self._errors = library.TopicPartition, library.errors
        self._assigned: list[Any] = []
        self._goal: dict[str, int] = {}
        """Where each partition ended when reading began."""
        self._pending: set[Any] = set()
        """Partitions of which no answer told yet where they end."""
        self._out = False
        """A place is out of range, the broker says."""
        self._beyond: dict[str, int] = {}
        """Partitions that ended before our place when it was last held against them."""
        self._corrupt: tuple[Any, int, int] | None = None

    async def forever(self) -> None:
        await self._metadata()
        checked = 0.0
        while True:
            if time.monotonic() - checked >= CHECK_S:
                await self._check()
                checked = time.monotonic()
                self._hand.connected()
            try:
                found = await self._consumer.getmany(timeout_ms=250, max_records=MOST_MESSAGES)
            except self._errors.OffsetOutOfRangeError:
                await asyncio.sleep(AGAIN_S)
                checked, self._out = 0.0, True
                # The others' messages that came with it are fetched again.
                self._seek()
                continue
            except self._errors.CorruptRecordException:
                await self._corrupted()
                continue
            await self._take(found)

    async def _metadata(self) -> None:
        """The client learns of a topic's partitions only when it has one."""
        first = self._partition(self._topic, 0)
        self._consumer.assign([first])
        self._consumer.seek(first, 0)
        self._consumer.pause(first)
        end = time.monotonic() + TIMEOUT_S
        while not self._consumer.partitions_for_topic(self._topic):
            if time.monotonic() > end:
                raise LookupError("no such topic")
            await asyncio.sleep(0.05)

    async def _check(self) -> None:
        """Hold the place against what the broker has."""
        numbers = sorted(self._consumer.partitions_for_topic(self._topic) or ())
        if not numbers:
            raise LookupError("no such topic")
        known = [self._partition(self._topic, number) for number in numbers]
        # The client would try for longer, and tell nobody.
        async with asyncio.timeout(ANSWER_S):
            first = await self._consumer.beginning_offsets(known)
            end = await self._consumer.end_offsets(known)
        lost, moved = 0, known != self._assigned
        beyond: dict[str, int] = {}
        for one in known:
            key = str(one.partition)
            at = self._at.get(key)
            if at is None:
                self._at[key] = first[one]
            elif at < first[one]:
                lost += first[one] - at
                self._at[key] = first[one]
                words = f"messages of partition {key} were deleted before they were read"
                self._hand.say(f"{first[one] - at:,} {words}")
            elif at > self._end(one, end[one]):
                # A replica that just took over may seem to end too early: only the second time is believed.
                if self._beyond.get(key) == at:
                    self._at[key] = first[one]
                    self._hand.say(f"partition {key} was made anew, it is read from its beginning")
                else:
                    beyond[key] = at
            else:
                continue
            moved = True
        self._beyond, self._out = beyond, False
        if not self._assigned:
            self._goal = {str(one.partition): end[one] for one in known}
            self._pending = set(known)
        if known != self._assigned:
            self._consumer.assign(known)
            self._assigned = known
        if moved:
            self._seek()
        if lost:
            await self._hand.put([], self._at, lost)
        self._reached()

    def _end(self, one: Any, listed: int) -> int:
        """Where a partition ends: as its broker says when it is read, because some list less than there is."""
        seen = self._consumer.highwater(one) if one in self._assigned else None
        return listed if seen is None or self._out else seen

    def _seek(self) -> None:
        for one in self._assigned:
            self._consumer.seek(one, self._at[str(one.partition)])

    async def _take(self, found: Mapping[Any, Any]) -> None:
        messages = [
            Message(f"{self._topic}/{one.partition}@{record.offset}", record.value)
            for one, records in found.items()
            for record in records
            # A deletion mark of a compacted topic is no message.
            if record.value is not None
        ]
        # Not the last message's: transactions leave marks behind it that are no messages.
        for one in self._assigned:
            self._at[str(one.partition)] = await self._consumer.position(one)
        if messages:
            await self._hand.put(messages, self._at)
        self._reached()

    def _reached(self) -> None:
        for one in list(self._pending):
            seen = self._consumer.last_stable_offset(one)
            if seen is not None:
                key = str(one.partition)
                self._goal[key] = max(self._goal[key], seen)
                self._pending.remove(one)
        if not self._pending and all(self._at.get(key, 0) >= end for key, end in self._goal.items()):
            self._hand.reached = True

    async def _corrupted(self) -> None:
        """A batch whose checksum is wrong: what stands before it is read, then it is passed over and counted."""
        self._seek()
        for one in self._assigned:
            key = str(one.partition)
            try:
                for _ in range(MOST_MESSAGES):
                    found = await self._consumer.getmany(one, timeout_ms=500, max_records=1)
                    if not found:
                        break
                    await self._take(found)
            except self._errors.CorruptRecordException:
                at = self._at[key]
                times = 1 if self._corrupt is None or self._corrupt[:2] != (one, at) else self._corrupt[2] + 1
                self._corrupt = (one, at, times)
                if times >= CORRUPT:
                    self._at[key] = at + 1
                    self._hand.say(f"a message of partition {key} is corrupt and passed over")
                    await self._hand.put([], self._at, 1)
                break
        self._seek()


def _options(queue: Queue, environment: Mapping[str, str]) -> dict[str, Any]:
    """What the client is made with."""
    options: dict[str, Any] = {
        "bootstrap_servers": list(queue.servers),
        "group_id": None,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        # Rows of a transaction that was taken back are no rows.
        "isolation_level": "read_committed",
        "fetch_max_bytes": FETCH_BYTES,
        "max_partition_fetch_bytes": FETCH_BYTES // 4,
        "metadata_max_age_ms": METADATA_S * 1000,
        "request_timeout_ms": TIMEOUT_S * 1000,
    }
    if queue.secure:
        options["ssl_context"] = ssl.create_default_context()
    user = environment.get("STILLWATCH_KAFKA_USERNAME")
    word = environment.get("STILLWATCH_KAFKA_PASSWORD")
    mechanism = environment.get("STILLWATCH_KAFKA_MECHANISM", "PLAIN")
    if (user is None) != (word is None):
        raise UsageError("STILLWATCH_KAFKA_USERNAME and STILLWATCH_KAFKA_PASSWORD go together")
    if user is not None:
        if mechanism not in MECHANISMS:
            raise UsageError(f"STILLWATCH_KAFKA_MECHANISM must be one of {', '.join(MECHANISMS)}")
        if (
            mechanism == "PLAIN"
            and not queue.secure
            and not all(s.startswith(LOOPBACK) for s in queue.servers)
        ):
            raise UsageError(
                "the password for Kafka would go over the network in the clear",
                hint="kafkas:// for TLS, or STILLWATCH_KAFKA_MECHANISM=SCRAM-SHA-512",
            )
        options |= {"sasl_mechanism": mechanism, "sasl_plain_username": user, "sasl_plain_password": word}
    kind = "SSL" if queue.secure else "PLAINTEXT"
    options["security_protocol"] = kind if user is None else f"SASL_{kind}"
    return options
