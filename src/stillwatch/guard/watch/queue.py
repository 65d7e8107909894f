"""Which queue is read: `NAME=kafka://HOST:PORT/TOPIC`, `NAME=nats://HOST:PORT/STREAM`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from stillwatch.guard.watch.intake import Intake
from stillwatch.schema.errors import UsageError
from stillwatch.store.partitions import NAME

LOOPBACK = ("127.0.0.1:", "localhost:", "[::1]:")
"""How servers begin to which secrets may go in the clear."""
_URL = re.compile(
    r"(?P<scheme>kafkas?|nats|tls)://(?P<servers>[^/@\s?#]+:\d{1,5}(,[^/@\s?#,]+:\d{1,5})*)/(?P<topic>[A-Za-z0-9._-]{1,249})"
)


@dataclass(frozen=True, slots=True)
class Queue:
    """A Kafka topic or a NATS stream to read from."""

    name: str
    scheme: str
    """`kafka` or `kafkas` (TLS), `nats` or `tls` (TLS)."""
    servers: tuple[str, ...]
    """HOST:PORT each."""
    topic: str
    intake: Intake = field(default_factory=Intake)

    @property
    def secure(self) -> bool:
        return self.scheme in ("kafkas", "tls")

    @property
    def of(self) -> str:
        """What a stored place belongs to. Brokers may move to other addresses."""
        kind = "Kafka topic" if self.scheme.startswith("kafka") else "NATS stream"
        return f"{kind} {self.topic}"


def queue(text: str, intake: Intake) -> Queue:
    """`NAME=kafka://HOST:PORT/TOPIC` or `NAME=nats://HOST:PORT/STREAM`. UsageError where it is neither."""
    name, _, url = text.partition("=")
    found = _URL.fullmatch(url)
    if not NAME.fullmatch(name) or name.startswith("http-") or found is None:
        # The text is not repeated: somebody may have put a password into it.
        raise UsageError(
            "--consume needs NAME=kafka://HOST:PORT/TOPIC or NAME=nats://HOST:PORT/STREAM",
            hint="kafkas:// and tls:// for TLS; small letters, digits, - and _ in the name; credentials come from "
            "the environment only",
        )
    servers = tuple(found["servers"].split(","))
    if any(int(server.rpartition(":")[2]) not in range(1, 65_536) for server in servers):
        raise UsageError("--consume: a port is 1 to 65535")
    return Queue(name, found["scheme"], servers, found["topic"], intake)
