"""Queues behind real brokers: what was written once is kept once, whatever is killed, cut or deleted in between."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stillwatch.guard.watch import consume as consume_module
from stillwatch.guard.watch import kafka as kafka_module
from stillwatch.guard.watch.intake import Intake
from stillwatch.guard.watch.queue import queue
from stillwatch.guard.watch.service import Service, Settings
from stillwatch.schema.errors import InputError, OutputError, UsageError
from stillwatch.store.partitions import Partitions
from tests.servers import brokers
from tests.servers.programs import free_port

pytestmark = pytest.mark.server
SECRET = "PLAINTEXT-OF-A-CUSTOMER"


def rows(prefix: str, count: int, **more: str) -> list[bytes]:
    """Messages of one row each, without an end of line."""
    return [
        json.dumps(
            {
                "exchange_id": f"{prefix}-{n}",
                "ts": "2026-09-21T10:00:00Z",
                "account_id": "a",
                "model": "m",
                **more,
            }
        ).encode()
        for n in range(count)
    ]


def names(messages: list[bytes]) -> set[str]:
    return {json.loads(message)["exchange_id"] for message in messages}


def service(folder: Path, *urls: str, live: bool = False, said: list[str] | None = None) -> Service:
    settings = Settings(
        folder=folder / "service", snapshot=folder / "snapshot", live=live,
        queues=tuple(queue(url, Intake()) for url in urls),
    )  # fmt: skip
    return Service(settings, (said if said is not None else []).append)


def drain(found: Service) -> Counter[tuple[str, str]]:
    """Read what is there, and end."""
    try:
        while found.step():
            pass
        return found.counters.events
    finally:
        found.close()


def until(found: Service, condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        if not found.step():
            time.sleep(0.02)


def kept(folder: Path) -> tuple[Counter[str], dict[str, Any]]:
    """Ids in the partitions, and what the manifest says of each input."""
    found = Service(Settings(folder=folder / "service", snapshot=folder / "snapshot"), print)
    found.partitions.compact()
    files = [found.partitions.folder / part.file for part in found.partitions.manifest.parts]
    ids = Counter(n for f in files for n in pq.ParquetFile(f).read(["exchange_id"]).column(0).to_pylist())
    inputs = found.partitions.manifest.inputs
    found.close()
    return ids, dict(inputs)


def refused(folder: Path) -> list[dict[str, Any]]:
    files = folder.glob("service/partitions/refused/*")
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consume_module, "COMMIT_S", 0.1)
    monkeypatch.setattr(kafka_module, "CHECK_S", 0.3)
    monkeypatch.setattr(kafka_module, "ANSWER_S", 1.0)
    monkeypatch.setattr(kafka_module, "AGAIN_S", 0.3)


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[brokers.Wire]:
    port = free_port()
    found = brokers.Wire(port)
    try:
        with brokers.tansu(tmp_path, port, found.port):
            yield found
    finally:
        found.close()


def _watch(folder: Path, *urls: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "stillwatch",
        "watch",
        folder / "service",
        "--snapshot",
        folder / "snapshot",
    ]
    given = [part for url in urls for part in ("--consume", url)]
    environment = {**os.environ, "STILLWATCH_GUARD_SECRET": "a secret of the tests, no other"}
    with (folder / "said.txt").open("ab") as out:
        return subprocess.Popen(
            [*map(str, command), *given, "--every", "1h"], stdout=out, stderr=out, env=environment
        )


def _commits(folder: Path, name: str) -> int:
    """How many times rows were kept, whether they still wait or are in day files."""
    store = folder / "service" / "partitions"
    waiting = [int(path.stem.rpartition("-")[2]) for path in store.glob(f"segments/{name}-*.parquet")]
    through = json.loads((store / "manifest.json").read_text())["inputs"].get(name, {"segment": -1})
    return max([*waiting, through["segment"]]) + 1


def _wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_process_that_is_killed_keeps_every_message_once(tmp_path: Path) -> None:
    nats, target = free_port(), free_port()
    wire = brokers.Wire(target)
    wire.cut()
    urls = [f"stream=nats://127.0.0.1:{nats}/ROWS", f"topic=kafka://127.0.0.1:{wire.port}/rows"]
    sent: dict[str, list[bytes]] = {"stream": [], "topic": []}
    said = tmp_path / "said.txt"

    def send(text: str) -> None:
        for name, messages in sent.items():
            messages += rows(f"{name}-{text}", 60)
        brokers.send_nats(nats, "ROWS", sent["stream"][-60:])
        brokers.send_kafka(wire.port, "rows", list(sent["topic"][-60:]), 3, compression_type="zstd")

    # No broker is there when the service begins.
    process = _watch(tmp_path, *urls)
    try:
        _wait(lambda: said.read_text().count("cannot be read") == 2)
        with brokers.tansu(tmp_path, target, wire.port):
            wire.mend()
            brokers.make_topic(wire.port, "rows", 3)
            with brokers.nats_server(tmp_path, nats):
                brokers.make_stream(nats, "ROWS")
                send("a")
                _wait(lambda: all(_commits(tmp_path, name) >= 1 for name in sent))
                send("b")
            # Both brokers go while it reads, and come back.
            wire.cut()
            time.sleep(0.3)
            wire.mend()
            with brokers.nats_server(tmp_path, nats):
                send("c")
                time.sleep(random.uniform(0, 1.5))
                process.kill()
                process.wait(10)
                process = _watch(tmp_path, *urls)
                send("d")
                before = {name: _commits(tmp_path, name) for name in sent}
                _wait(lambda: all(_commits(tmp_path, name) > before[name] for name in sent))
                send("e")
                process.terminate()
                assert process.wait(20) == 0
                drain(service(tmp_path, *urls))
    finally:
        process.kill()
        process.wait(10)
        wire.close()
    ids, inputs = kept(tmp_path)
    assert set(ids) == names(sent["stream"]) | names(sent["topic"])
    for name, messages in sent.items():
        assert (inputs[name].rows, inputs[name].doubled, inputs[name].refused) == (len(messages), 0, 0)
    words = said.read_text()
    assert "stream: is read again" in words
    assert "topic: is read again" in words
    assert "Traceback" not in words


class Crash(BaseException):
    """What no handler is for."""


def test_what_breaks_off_before_or_after_a_commit_is_kept_once(
    tmp_path: Path, wire: brokers.Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(7)
    nats = free_port()
    urls = [f"stream=nats://127.0.0.1:{nats}/ROWS", f"topic=kafka://127.0.0.1:{wire.port}/rows"]
    sent: dict[str, list[bytes]] = {"stream": [], "topic": []}
    commit = Partitions.commit
    left = [0]

    def breaking(self: Partitions, *args: Any, **more: Any) -> None:
        left[0] -= 1
        if left[0] == 0 and draw.random() < 0.4:
            raise Crash
        if left[0] == 0 and draw.random() < 0.5:
            raise OutputError("the disk is full; nothing was kept")
        commit(self, *args, **more)
        if left[0] == 0:
            raise Crash

    monkeypatch.setattr(Partitions, "commit", breaking)
    with brokers.nats_server(tmp_path, nats):
        brokers.make_topic(wire.port, "rows", 2)
        brokers.make_stream(nats, "ROWS")
        for life in range(12):
            left[0] = draw.randint(1, 4)
            running = service(tmp_path, *urls, live=True)
            for name, messages in sent.items():
                messages += rows(f"{name}-{life}", 20)
            brokers.send_nats(nats, "ROWS", sent["stream"][-20:])
            brokers.send_kafka(wire.port, "rows", list(sent["topic"][-20:]), 2)
            end = time.monotonic() + draw.uniform(0.1, 0.6)
            with contextlib.suppress(Crash):
                while time.monotonic() < end:
                    running.step()
                    time.sleep(0.01)
            running.close()
        left[0] = -1
        drain(service(tmp_path, *urls))
    ids, inputs = kept(tmp_path)
    assert set(ids) == names(sent["stream"]) | names(sent["topic"])
    for name, messages in sent.items():
        assert (inputs[name].rows, inputs[name].doubled, inputs[name].refused) == (len(messages), 0, 0)


POISON = [
    b"no JSON at all " + SECRET.encode(), b"\xff\x00\xfe" + SECRET.encode(), b"PAR1" + SECRET.encode(), b"{",
    b'{"exchange_id": "' + SECRET.encode(), b"[" * 5000, b"\x1f\x8b" + SECRET.encode(), b"",
    b"\n\n", b'{"ts": "never", "x": "' + SECRET.encode() + b'"}', b'"', b"0" * 100_000, b"}\n{\n]",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["kafka", "nats"])
def test_what_is_no_row_is_listed_and_the_others_are_kept(tmp_path: Path, kind: str) -> None:
    port = free_port()
    good = rows("good", 3 * len(POISON))
    packed = rows("packed", 3)
    mixed: list[bytes] = good[:1]
    for number, poison in enumerate(POISON):
        mixed += [poison, *good[1 + 3 * number : 4 + 3 * number]]
    # Several rows in one message, one that is packed, one that is larger than a pull.
    mixed += [gzip.compress(b"\n".join(packed)), b"\n".join(rows("many", 50)) + b"\n", *good[-2:-1]]
    mixed += (
        rows("large", 1, prompt="x" * (5 << 20))
        if kind == "nats"
        else rows("large", 1, prompt="x" * (9 << 20))
    )
    if kind == "nats":
        (tmp_path / "nats.conf").write_text("max_payload: 8MB\n")
        with brokers.nats_server(tmp_path, port, "-c", str(tmp_path / "nats.conf")):
            brokers.make_stream(port, "ROWS")
            brokers.send_nats(port, "ROWS", mixed)
            events = drain(service(tmp_path, f"edge=nats://127.0.0.1:{port}/ROWS"))
            assert drain(service(tmp_path, f"edge=nats://127.0.0.1:{port}/ROWS"))["edge", "kept"] == 0
    else:
        with brokers.tansu(tmp_path, port):
            brokers.make_topic(port, "rows", 1)
            # A deletion mark has no value.
            brokers.send_kafka(port, "rows", [None, *mixed, None])
            events = drain(service(tmp_path, f"edge=kafka://127.0.0.1:{port}/rows"))
            assert drain(service(tmp_path, f"edge=kafka://127.0.0.1:{port}/rows"))["edge", "kept"] == 0
    ids, _ = kept(tmp_path)
    assert set(ids) == names(good) | names(packed) | {f"many-{n}" for n in range(50)} | {"large-0"}
    listed = refused(tmp_path)
    assert len(listed) == events["edge", "refused"]
    places = {entry["file"] for entry in listed}
    assert len(places) >= len(POISON) - 2
    assert all(place.startswith(("ROWS@", "rows/0@")) for place in places)
    for path in tmp_path.glob("service/**/*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()


def test_a_gap_of_retention_in_nats_is_counted(tmp_path: Path) -> None:
    port = free_port()
    url = f"edge=nats://127.0.0.1:{port}/ROWS"
    said: list[str] = []
    with brokers.nats_server(tmp_path, port):
        brokers.make_stream(port, "ROWS", max_msgs=10)
        brokers.send_nats(port, "ROWS", rows("a", 5))
        drain(service(tmp_path, url))
        brokers.send_nats(port, "ROWS", rows("b", 30))
        events = drain(service(tmp_path, url, said=said))
        assert (events["edge", "kept"], events["edge", "lost"]) == (10, 20)
        assert any("20 messages were deleted before they were read" in line for line in said)
        # Everything is deleted: counted too, and read on.
        brokers.send_nats(port, "ROWS", rows("c", 3))
        brokers.nats_do(port, lambda js: js.purge_stream("ROWS"))
        assert drain(service(tmp_path, url))["edge", "lost"] == 3
        brokers.send_nats(port, "ROWS", rows("d", 3))
        assert drain(service(tmp_path, url))["edge", "kept"] == 3
        # Made anew under the same name: another stream, read from its beginning.
        brokers.nats_do(port, lambda js: js.delete_stream("ROWS"))
        brokers.make_stream(port, "ROWS")
        brokers.send_nats(port, "ROWS", rows("e", 1200))
        events = drain(service(tmp_path, url, said=said))
        assert (events["edge", "kept"], events["edge", "lost"]) == (1200, 0)
        assert any("made anew" in line for line in said)
    ids, _ = kept(tmp_path)
    assert len(ids) == 5 + 10 + 3 + 1200


def test_a_gap_of_retention_in_kafka_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with brokers.librdkafka() as port:
        url = f"edge=kafka://127.0.0.1:{port}/rows"
        brokers.send_kafka(port, "rows", [*rows("a", 4)], 4)
        assert drain(service(tmp_path, url))["edge", "kept"] == 4
        large = rows("b", 12, prompt="x" * 900_000)
        brokers.send_kafka(port, "rows", [*large])
        events = drain(service(tmp_path, url, said=said))
        assert events["edge", "lost"] > 0
        assert events["edge", "kept"] + events["edge", "lost"] == 12
        # Deleted between the look at the topic and the first fetch: the broker says that the place is out of range.
        import aiokafka

        honest = aiokafka.AIOKafkaConsumer.beginning_offsets
        lies = [False] * 1000 + [True]

        async def beginning(self: Any, partitions: Any) -> Any:
            found = await honest(self, partitions)
            return dict.fromkeys(found, 0) if lies.pop() else found

        monkeypatch.setattr(aiokafka.AIOKafkaConsumer, "beginning_offsets", beginning)
        again = drain(service(tmp_path / "again", url, said=said))
        # Of the first four, one stood in the partition that has lost its beginning.
        assert again["edge", "kept"] == events["edge", "kept"] + 3
        assert again["edge", "lost"] == events["edge", "lost"] + 1
        assert again["edge", "away"] == 0
    ids, inputs = kept(tmp_path)
    assert inputs["edge"].rows == len(ids) == 4 + events["edge", "kept"]


def test_a_corrupt_batch_is_passed_over_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aiokafka.producer.message_accumulator import BatchBuilder

    plain = BatchBuilder._build

    def corrupt(self: Any) -> bytearray:
        out = bytearray(plain(self))
        # https://kafka.apache.org/documentation/#recordbatch: the checksum is at byte 17.
        out[17] ^= 0xFF
        self._buffer = out
        return out

    said: list[str] = []
    with brokers.librdkafka() as port:
        url = f"edge=kafka://127.0.0.1:{port}/rows"
        brokers.send_kafka(port, "rows", [*rows("a", 3)])
        with monkeypatch.context() as patch:
            patch.setattr(BatchBuilder, "_build", corrupt)
            brokers.send_kafka(port, "rows", [*rows("b", 2)])
        brokers.send_kafka(port, "rows", [*rows("c", 4)])
        events = drain(service(tmp_path, url, said=said))
        assert (events["edge", "kept"], events["edge", "lost"], events["edge", "away"]) == (7, 2, 0)
    assert sum("corrupt" in line for line in said) == 2
    assert set(kept(tmp_path)[0]) == names(rows("a", 3) + rows("c", 4))


def test_a_topic_that_is_made_anew_and_one_that_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    url = f"edge=kafka://127.0.0.1:{port}/rows"
    said: list[str] = []
    with brokers.tansu(tmp_path, port):
        brokers.make_topic(port, "rows", 2)
        brokers.send_kafka(port, "rows", [*rows("a", 40)], 2)
        import aiokafka

        # This broker's topics cannot grow: the second partition is hidden for a while.
        hidden = [True]
        plain = aiokafka.AIOKafkaConsumer.partitions_for_topic

        def some(self: Any, topic: str) -> Any:
            return {0} if hidden[0] else plain(self, topic)

        with monkeypatch.context() as patch:
            patch.setattr(aiokafka.AIOKafkaConsumer, "partitions_for_topic", some)
            running = service(tmp_path, url, live=True, said=said)
            try:
                until(running, lambda: running.counters.events["edge", "kept"] == 20)
                hidden[0] = False
                until(running, lambda: running.counters.events["edge", "kept"] == 40)
                assert running.counters.events["edge", "lost"] == 0
            finally:
                running.close()
    # On a busy machine this broker may take longer than is waited; nothing else is to be told.
    assert not [line for line in said if "tried again" not in line and "is read again" not in line]
    said.clear()
    with brokers.tansu(tmp_path, port):
        brokers.make_topic(port, "rows", 2)
        brokers.send_kafka(port, "rows", [*rows("b", 6)], 2)
        running = service(tmp_path, url, live=True, said=said)
        try:
            until(running, lambda: running.counters.events["edge", "kept"] == 6)
        finally:
            running.close()
    assert sum("made anew" in line for line in said) == 2
    ids, inputs = kept(tmp_path)
    assert len(ids) == inputs["edge"].rows == 46


def test_a_broker_that_goes_is_told_once_and_read_again(tmp_path: Path, wire: brokers.Wire) -> None:
    said: list[str] = []
    wire.cut()
    url = f"edge=kafka://127.0.0.1:{wire.port}/rows"
    with pytest.raises(InputError, match="edge cannot be read"):
        drain(service(tmp_path, url))
    running = service(tmp_path, url, live=True, said=said)
    try:
        until(running, lambda: running.counters.events["edge", "away"] >= 2)
        wire.mend()
        brokers.make_topic(wire.port, "rows", 1)
        brokers.send_kafka(wire.port, "rows", [*rows("a", 7)])
        until(running, lambda: running.counters.events["edge", "kept"] == 7)
        # It goes while it is read.
        before = running.counters.events["edge", "away"]
        wire.cut()
        until(running, lambda: running.counters.events["edge", "away"] > before)
        wire.mend()
        brokers.send_kafka(wire.port, "rows", [*rows("b", 7)])
        until(running, lambda: running.counters.events["edge", "kept"] == 14)
    finally:
        running.close()
    assert sum("cannot be read" in line for line in said) == 2
    assert sum("is read again" in line for line in said) == 2
    with pytest.raises(UsageError, match="from Kafka topic rows so far, not from Kafka topic other"):
        service(tmp_path, f"edge=kafka://127.0.0.1:{wire.port}/other")
    # Another address of the same topic goes on.
    assert drain(service(tmp_path, f"edge=kafka://localhost:{wire.port}/rows"))["edge", "kept"] == 0


def test_nats_credentials_are_used_and_never_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    said: list[str] = []
    url = f"edge=nats://127.0.0.1:{port}/ROWS"
    with brokers.nats_server(tmp_path, port, "--auth", "the-right-word"):
        brokers.nats_do(
            port, lambda js: js.add_stream(name="ROWS", subjects=["rows"]), token="the-right-word"
        )
        brokers.send_nats(port, "ROWS", rows("a", 3), token="the-right-word")
        monkeypatch.setenv("STILLWATCH_NATS_TOKEN", "the-wrong-word")
        with pytest.raises(InputError) as wrong:
            drain(service(tmp_path, url, said=said))
        assert "word" not in str(wrong.value) + "".join(said)
        monkeypatch.setenv("STILLWATCH_NATS_TOKEN", "the-right-word")
        assert drain(service(tmp_path, url, said=said))["edge", "kept"] == 3
