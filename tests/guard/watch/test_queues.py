"""What is to be consumed, and what messages hold: options, credentials, hostile bytes."""

from __future__ import annotations

import asyncio
import builtins
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from stillwatch.cli import main
from stillwatch.guard.watch import messages as messages_module
from stillwatch.guard.watch.consume import MOST_ALONE, MOST_WAITING, Feed, Handover
from stillwatch.guard.watch.intake import Intake
from stillwatch.guard.watch.kafka import KafkaReader
from stillwatch.guard.watch.messages import Message, read_messages
from stillwatch.guard.watch.nats import NatsReader
from stillwatch.guard.watch.queue import queue
from stillwatch.schema.errors import MissingExtraError, UsageError


def row(name: str) -> bytes:
    found = {"exchange_id": name, "ts": "2026-09-21T10:00:00Z", "account_id": "a", "model": "m"}
    return json.dumps(found).encode()


def test_a_queue_is_named() -> None:
    found = queue("edge=kafka://one:9092,two:9093/rows.of-all", Intake())
    assert (found.name, found.servers, found.topic) == ("edge", ("one:9092", "two:9093"), "rows.of-all")
    assert (found.secure, found.of) == (False, "Kafka topic rows.of-all")
    assert queue("edge=tls://[::1]:4222/ROWS", Intake()).secure
    assert queue("edge=nats://host:4222/ROWS", Intake()).of == "NATS stream ROWS"


@pytest.mark.parametrize(
    "text",
    [
        "kafka://h:1/t", "edge=", "Edge=kafka://h:1/t", "http-x=kafka://h:1/t", "edge=kafka://h/t", "edge=kafka://h:1/",
        "edge=kafka://h:1/a/b", "edge=kafka://user:hunter2@h:1/t", "edge=redis://h:1/t", "edge=kafka://h:1/t?x=hunter2",
        "edge=kafka://h:70000/t", "edge=kafka://h:0/t", "edge=nats://h:1/a b", "edge=kafka://h:1,/t", "edge=kafka://:1/t",
    ],
)  # fmt: skip
def test_what_names_no_queue_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(UsageError) as error:
        queue(text, Intake())
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--consume", "edge"], "--consume needs NAME="),
        (["--consume", "a=nats://h:1/S", "--consume", "a=nats://h:1/T"], "another input 'a'"),
        (["--consume", "a=nats://h:1/S", "--follow", "a=x"], "another input 'a'"),
    ],
)
def test_wrong_calls_say_what_is_wrong(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    words: str,
) -> None:
    monkeypatch.setenv("STILLWATCH_GUARD_SECRET", "a secret of the tests, no other")
    with pytest.raises(SystemExit) as stop:
        main(["watch", str(tmp_path / "service"), "--snapshot", str(tmp_path / "snapshot"), *args])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "environment", "words"),
    [
        ("kafka://h:1/t", {"STILLWATCH_KAFKA_USERNAME": "u"}, "go together"),
        ("kafka://h:1/t", {"STILLWATCH_KAFKA_USERNAME": "u", "STILLWATCH_KAFKA_PASSWORD": "hunter2"}, "in the clear"),
        (
            "kafkas://h:1/t",
            {
                "STILLWATCH_KAFKA_USERNAME": "u", "STILLWATCH_KAFKA_PASSWORD": "hunter2",
                "STILLWATCH_KAFKA_MECHANISM": "GSSAPI",
            },
            "must be one of PLAIN",
        ),
        ("nats://h:1/t", {"STILLWATCH_NATS_TOKEN": "hunter2"}, "in the clear"),
        ("tls://h:1/t", {"STILLWATCH_NATS_TOKEN": "hunter2", "STILLWATCH_NATS_CREDS": "/x"}, "exclude each other"),
        ("tls://h:1/t", {"STILLWATCH_NATS_CREDS": "/nowhere/hunter2"}, "names no file"),
    ],
)  # fmt: skip
def test_credentials_that_cannot_be_used(url: str, environment: dict[str, str], words: str) -> None:
    reader: Any = KafkaReader if url.startswith("kafka") else NatsReader
    with pytest.raises(UsageError, match=words) as error:
        reader(queue(f"edge={url}", Intake()), environment)
    assert "hunter2" not in str(error.value)


def test_credentials_reach_the_client(tmp_path: Path) -> None:
    given = {"STILLWATCH_KAFKA_USERNAME": "u", "STILLWATCH_KAFKA_PASSWORD": "p"}
    options = KafkaReader(queue("edge=kafkas://h:1/t", Intake()), given)._options
    assert (options["security_protocol"], options["sasl_mechanism"]) == ("SASL_SSL", "PLAIN")
    scram = KafkaReader(
        queue("edge=kafka://h:1/t", Intake()), {**given, "STILLWATCH_KAFKA_MECHANISM": "SCRAM-SHA-512"}
    )._options
    assert (scram["security_protocol"], scram["sasl_plain_password"]) == ("SASL_PLAINTEXT", "p")
    assert KafkaReader(queue("edge=kafka://h:1/t", Intake()), {})._options["security_protocol"] == "PLAINTEXT"
    (tmp_path / "creds").touch()
    creds = {"STILLWATCH_NATS_CREDS": str(tmp_path / "creds")}
    nats = NatsReader(queue("edge=tls://h:1/t", Intake()), creds)._options
    assert nats["user_credentials"] == creds["STILLWATCH_NATS_CREDS"]
    assert nats["tls"] is not None


@pytest.mark.parametrize(("url", "extra"), [("kafka://h:1/t", "kafka"), ("nats://h:1/S", "nats")])
def test_a_client_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, url: str, extra: str
) -> None:
    plain = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.split(".")[0] in ("aiokafka", "nats"):
            raise ImportError(name)
        return plain(name, *args)

    for name in list(sys.modules):
        if name.split(".")[0] in ("aiokafka", "nats"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match="reading from") as error:
        Feed(queue(f"edge={url}", Intake()), None)
    assert f"stillwatch[{extra}]" in str(error.value)


@pytest.mark.parametrize(
    "state", [{"files": {}, "format": None}, {"of": "Kafka topic other", "at": {}, "format": None}]
)
def test_a_place_in_something_else_is_not_used(state: Any) -> None:
    with pytest.raises(UsageError, match="has been read from"):
        Feed(queue("edge=kafka://127.0.0.1:1/t", Intake()), state)


HOSTILE = [
    b"", b"\n", b"\0", b"\xff" * 9, b"[", b"]", b"{", b"}", b'"', b"{}", b"[]", b"null", b"NaN", b"1e999",
    b"[" * 9999,
    b'{"a":' * 9999, b'{"a":"\xed\xa0\x80"}', b'{"exchange_id":1}', b"\x1f\x8b\x08", b"PAR1PAR1", b"ARROW1\0\0",
    b"\x28\xb5\x2f\xfd\0", b"a,b\n1,2\n", b"\xef\xbb\xbf{}", b'{"exchange_id":"x"}\r\n{"exchange_id":', b"{\0}",
    b'{"exchange_id":"x","ts":99999999999999999999999,"account_id":"a","model":"m"}',
]  # fmt: skip


@pytest.mark.parametrize("format", [None, "canonical"])
@pytest.mark.parametrize("first", [False, True])
def test_no_message_spoils_another(format: str | None, first: bool) -> None:
    mixed: list[Message] = []
    wanted = []
    for number, hostile in enumerate(HOSTILE):
        pair = [Message(f"t/0@{number}", hostile), Message(f"t/1@{number}", row(f"good-{number}"))]
        mixed += pair if first else pair[::-1]
        wanted.append(f"good-{number}")
    taken = read_messages(Intake(format), mixed)
    got = [name for batch in taken.batches for name in batch.column("exchange_id").to_pylist()]
    assert got == wanted
    # Each is refused where it stands, or was no exchange to begin with.
    assert {refusal.file for refusal in taken.refusals} <= {f"t/0@{n}" for n in range(len(HOSTILE))}
    assert len(taken.refusals) >= len(HOSTILE) - 6


def test_refusals_say_the_line_of_the_message() -> None:
    found = [
        Message("a@1", row("x")),
        Message("a@2", row("y") + b"\n{nothing}\n" + row("z") + b"\n"),
        Message("a@3", b"{"),
    ]
    taken = read_messages(Intake("canonical"), found)
    assert taken.rows == 3
    assert [(r.file, r.row, r.offset) for r in taken.refusals] == [
        ("a@2", 2, len(row("y")) + 1),
        ("a@3", 1, 0),
    ]


def test_a_message_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages_module, "MOST_MESSAGE", 1 << 20)
    taken = read_messages(Intake(), [Message("a@1", b"{" * ((1 << 20) + 1)), Message("a@2", row("x"))])
    assert (taken.rows, [(r.file, r.reason) for r in taken.refusals]) == (
        1,
        [("a@1", "a message of more than 1 MiB")],
    )


def test_what_waits_is_bounded() -> None:
    hand = Handover("edge", {})

    async def fill() -> int:
        count = 0
        large = [Message("a@1", b"{" * (1 << 20))]
        while True:
            try:
                await asyncio.wait_for(hand.put(large, {"0": count}), 0.2)
            except TimeoutError:
                return count
            count += 1

    assert asyncio.run(fill()) == MOST_WAITING >> 20
    # A commit's worth at a time, and the place after just these.
    taken = hand.waiting(False)
    assert (len(taken), taken[-1].at) == (4, {"0": 3})
    hand.kept(len(taken))
    assert hand.waiting(True)[-1].at == {"0": 7}
    odd = Handover("edge", {})
    for number in range(50):
        asyncio.run(odd.put([Message("a@1", b"[]")] * 10, {"0": number}))
    assert len(odd.waiting(True)) == MOST_ALONE // 10
