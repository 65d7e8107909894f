"""A NATS JetStream stream, read from a sequence that the partitions keep.

The consumer is ordered, as NATS calls it: of this connection only, without acknowledgements, beginning at a sequence;
whatever seems odd (a gap in its own count, silence) ends the connection, and another begins after the last message
that was handed over. It asks for messages by bytes, so that memory is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import Mapping
from typing import Any

import msgspec

from stillwatch.guard.watch.consume import Handover
from stillwatch.guard.watch.messages import Message
from stillwatch.guard.watch.queue import LOOPBACK, Queue
from stillwatch.schema.errors import MissingExtraError, UsageError

PULL_S = 2.0
"""Waiting for a message ends after so long, and begins again."""
_MANY: dict[str, Any] = {"batch": 500, "max_bytes": 4 << 20, "no_wait": True}
_ENDED = ("MaxBytes", "Batch Completed")
"""What the broker says at the end of a pull, among other things of the same number."""
_ONE: dict[str, Any] = {"batch": 1, "expires": int(PULL_S * 1e9)}
SILENCE_S = 5.0
"""Beyond that; then the broker is taken to be away."""
INACTIVE_S = 60.0
"""After that the broker forgets a consumer that nobody asks."""


class NatsReader:
    """The client of one stream."""

    def __init__(self, queue: Queue, environment: Mapping[str, str] = os.environ) -> None:
        """UsageError where the environment's credentials cannot be used; MissingExtraError without nats-py."""
        try:
            import nats.aio.client
            import nats.js.api
        except ImportError as error:
            raise MissingExtraError("nats-py", "nats", needed_for="reading from NATS") from error
        self._library: Any = nats
        self._stream = queue.topic
        self._options = _options(queue, environment)
        logging.getLogger("nats").addHandler(logging.NullHandler())

    async def read(self, hand: Handover) -> None:
        """See `consume.Reader`."""
        client = self._library.aio.client.Client()
        try:
            arrived: asyncio.Queue[Any] = asyncio.Queue()

            async def closed() -> None:
                arrived.put_nowait(None)

            await client.connect(**self._options, closed_cb=closed)
            await self._read(client, arrived, hand)
        finally:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.close(), SILENCE_S)

    async def _read(self, client: Any, arrived: asyncio.Queue[Any], hand: Handover) -> None:
        js, api = client.jetstream(), self._library.js.api
        info = await js.stream_info(self._stream)
        at, lost = _start(hand, info)
        if lost or at != hand.at:
            await hand.put([], at, lost)
        goal: int = info.state.last_seq
        consumer = await js.add_consumer(
            self._stream,
            api.ConsumerConfig(
                deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=at["next"],
                ack_policy=api.AckPolicy.NONE,
                inactive_threshold=INACTIVE_S,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        inbox = client.new_inbox()

        async def arrive(message: Any) -> None:
            arrived.put_nowait(message)

        await client.subscribe(f"{inbox}.*", cb=arrive)
        asked = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{consumer.name}"
        hand.connected()
        hand.reached |= at["next"] > goal
        pulls = count = 0
        one = False
        while True:
            # Whatever is there, by bytes; where there is nothing, or one too large for that, the next one.
            pull = _ONE if one else _MANY
            pulls += 1
            mine = f"{inbox}.{pulls}"
            await client.publish(asked, msgspec.json.encode(pull), mine)
            messages = await _answer(arrived, pull["batch"], mine)
            # The last ones before the goal may have been deleted one by one.
            done = (one and not messages) or any(m.metadata.num_pending == 0 for m in messages[-1:])
            one = not messages
            lost = 0
            handed: list[Message] = []
            for message in messages:
                seen = message.metadata.sequence
                count += 1
                if seen.consumer != count:
                    raise ConnectionError("messages went missing on the way")
                if seen.stream > at["next"]:
                    # Deleted one by one, or by retention that was faster than we are.
                    first = (await js.stream_info(self._stream)).state.first_seq
                    gone = max(0, min(first, seen.stream) - at["next"])
                    lost += gone
                    if gone:
                        hand.say(f"{gone:,} messages were deleted before they were read")
                at["next"] = seen.stream + 1
                handed.append(Message(f"{self._stream}@{seen.stream}", message.data))
            await hand.put(handed, at, lost)
            hand.reached |= done or at["next"] > goal


async def _answer(arrived: asyncio.Queue[Any], most: int, mine: str) -> list[Any]:
    """Messages that came for the pull `mine`. Raises whatever says that the consumer or the broker is gone."""
    out: list[Any] = []
    while len(out) < most:
        if arrived.empty():
            message = await asyncio.wait_for(arrived.get(), PULL_S + SILENCE_S)
        else:
            message = arrived.get_nowait()
        if message is None:
            raise ConnectionError("the connection is closed")
        if message.reply:
            out.append(message)
            continue
        headers = message.headers or {}
        status, words = headers.get("Status"), headers.get("Description", "")
        if status == "409" and not any(ended in words for ended in _ENDED):
            raise ConnectionError(f"the consumer is gone: {words}")
        if status not in ("100", "404", "408", "409"):
            raise ConnectionError(f"the consumer is gone ({status})")
        # The word that an earlier pull is over may come late.
        if status != "100" and message.subject == mine:
            break
    return out


def _start(hand: Handover, info: Any) -> tuple[dict[str, Any], int]:
    """Where reading begins: {next sequence, when the stream was made}; and how many messages are gone before it."""
    state = info.state
    made = None if info.created is None else info.created.isoformat()
    at = hand.at
    oldest = max(1, state.first_seq)
    if not at:
        return {"next": oldest, "made": made}, 0
    following: int = at["next"]
    if at["made"] != made or following > state.last_seq + 1:
        hand.say("the stream was made anew, it is read from its beginning")
        return {"next": oldest, "made": made}, 0
    lost = max(0, oldest - following)
    if lost:
        hand.say(f"{lost:,} messages were deleted before they were read")
    return {"next": following + lost, "made": made}, lost


def _options(queue: Queue, environment: Mapping[str, str]) -> dict[str, Any]:
    """What the client is made with."""

    async def quiet(error: Exception) -> None:
        """What matters is raised where it is waited for."""

    options: dict[str, Any] = {
        "servers": [f"{queue.scheme}://{server}" for server in queue.servers],
        "allow_reconnect": False,
        # Without these a first connection is tried for minutes, and nobody is told.
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": 0.1,
        "connect_timeout": 5,
        "max_outstanding_pings": 2,
        "ping_interval": 10,
        "error_cb": quiet,
        "name": "stillwatch",
    }
    if queue.secure:
        options["tls"] = ssl.create_default_context()
    credentials = environment.get("STILLWATCH_NATS_CREDS")
    token = environment.get("STILLWATCH_NATS_TOKEN")
    if credentials and token:
        raise UsageError("STILLWATCH_NATS_CREDS and STILLWATCH_NATS_TOKEN exclude each other")
    if credentials:
        if not os.access(credentials, os.R_OK):
            raise UsageError("STILLWATCH_NATS_CREDS names no file that can be read")
        try:
            import nkeys  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("nkeys", "nats", needed_for="a file of credentials for NATS") from error
        options["user_credentials"] = credentials
    if token:
        if not queue.secure and not all(server.startswith(LOOPBACK) for server in queue.servers):
            raise UsageError(
                "the token for NATS would go over the network in the clear", hint="tls:// for TLS"
            )
        options["token"] = token
    return options
