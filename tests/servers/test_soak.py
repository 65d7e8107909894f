"""Half of the load that nginx, Envoy and the guard bear on this machine, for half an hour: memory stays flat.

STILLWATCH_SOAK_MINUTES sets another time. Measured are the guard's resident and anonymous memory, every second; the
first third is for warming up. It fails if the median of the last third is more than 8 MiB above that of the second,
if any answer is not the one that is due, if one does not come, or if a gateway went on without the guard's answer.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import shutil
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.servers.conftest import BLOCKED, BODIES, CHAT, FREE, THROTTLED, Live
from tests.servers.guarded import Front, GuardService, front

pytestmark = [pytest.mark.server, pytest.mark.slow]

MOST_GROWTH = 8 << 20
CLIENTS = 8
PLAIN = json.dumps(CHAT).encode()
ODD = (
    b'{"temperature": NaN, ' + PLAIN[1:],
    b'{"n": ' + b"9" * 4_000 + b", " + PLAIN[1:],
    b'{"a": ' + b"[" * 500 + b"]" * 500 + b", " + PLAIN[1:],
    json.dumps({"messages": [{}] * 25_000}).encode(),
    json.dumps({"messages": [{"role": "user", "content": "a b c " * 50_000}]}).encode(),
    b"{}",
)


class _Load:
    """Clients that keep their connections, each sending what is next in a fixed mixture."""

    def __init__(self, doors: list[Front]) -> None:
        self.doors = doors
        self.sent: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._lock = threading.Lock()

    def run(self, seconds: float, rate: float | None) -> float:
        """Requests a second that were answered; `rate` None: as many as there can be."""
        before, begin = sum(self.sent.values()), time.monotonic()
        threads = [
            threading.Thread(target=self._client, args=(number, begin + seconds, rate))
            for number in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (sum(self.sent.values()) - before) / (time.monotonic() - begin)

    def _client(self, number: int, until: float, rate: float | None) -> None:
        door = self.doors[number % len(self.doors)]
        connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=30)
        due = time.monotonic()
        turn = number
        while time.monotonic() < until:
            key, body, path, coding, status = _next(turn)
            turn += CLIENTS
            headers = {"authorization": f"Bearer {key}", "content-type": "application/json", **coding}
            try:
                connection.request("POST", path, body, headers)
                answer = connection.getresponse()
                answer.read()
                said = answer.status
            except (OSError, http.client.HTTPException) as error:
                said = type(error).__name__  # type: ignore[assignment]
                connection.close()
            with self._lock:
                self.sent[str(said)] += 1
                if said != status:
                    self.wrong.append(f"{door.name}: {said} instead of {status}")
            if rate is not None:
                due += CLIENTS / rate
                time.sleep(max(0.0, due - time.monotonic()))
        connection.close()


def _next(turn: int) -> tuple[str, bytes, str, dict[str, str], int]:
    """(key, body, path, headers, status that is due) of one request."""
    paths = list(BODIES)
    path = paths[turn % 3]
    body = json.dumps({"model": "m", **BODIES[path], "stream": turn % 4 == 0}).encode()
    match turn % 10:
        case 0:
            return BLOCKED, body, path, {}, 403
        case 1:
            return THROTTLED, body, path, {}, 429
        case 2 | 3 | 4:
            return f"sk-stranger-{turn}", body, path, {}, 200
        case 5:
            return FREE, ODD[turn // 10 % len(ODD)], path, {}, 200
        case 6:
            return FREE, gzip.compress(body), path, {"content-encoding": "gzip"}, 200
        case _:
            return FREE, body, path, {}, 200


def _memory(pid: int) -> tuple[int, int]:
    """(resident, anonymous) bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    resident, anonymous = (
        int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) << 10  # type: ignore[index]
        for name in ("VmRSS", "RssAnon")
    )
    return resident, anonymous


@pytest.fixture
def service(live: Live, tmp_path: Path) -> Iterator[tuple[GuardService, Path]]:
    """A guard of its own snapshot file."""
    path = tmp_path / "snapshot"
    shutil.copy(live.path, path)
    (tmp_path / "guard").mkdir()
    found = GuardService(path, tmp_path / "guard", 1, None, None)
    try:
        found.start()
        yield found, path
    finally:
        found.close()


def test_memory_is_flat_and_nothing_is_lost(
    live: Live, service: tuple[GuardService, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guard, path = service
    assert guard._process is not None
    pid = guard._process.pid
    seconds = 60 * float(os.environ.get("STILLWATCH_SOAK_MINUTES", "30"))
    with ExitStack() as stack:
        doors = []
        for name in ("nginx", "envoy"):
            (tmp_path / name).mkdir()
            doors.append(
                stack.enter_context(front(name, tmp_path / name, live.path, hops=0, guard=guard.port))
            )
        load = _Load(doors)
        most = load.run(min(10.0, seconds / 10), None)
        samples: list[tuple[int, int]] = []
        stop = threading.Event()

        def watch() -> None:
            second = 0
            while not stop.wait(1):
                samples.append(_memory(pid))
                second += 1
                if second % max(5, min(60, int(seconds / 5))) == 0:
                    shutil.copy(live.path, tmp_path / "next")
                    (tmp_path / "next").replace(path)
                for door in doors:
                    door.seen.clear()

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            held = load.run(seconds, most / 2)
        finally:
            stop.set()
            watching.join()
        unjudged = sum(door.counted() for door in doors)
        told = guard.told()
    third = len(samples) // 3
    growth = [
        statistics.median(s[kind] for s in samples[2 * third :])
        - statistics.median(s[kind] for s in samples[third : 2 * third])
        for kind in (0, 1)
    ]
    with capsys.disabled():
        print(
            f"\nsoak: {seconds / 60:g} min at {held:.0f} requests/s of {most:.0f}; answers {dict(load.sent)}; "
            f"{told['swaps']} swaps; resident {samples[-1][0] >> 20} MiB, growth {growth[0] / 2**20:+.1f}; "
            f"anonymous {samples[-1][1] >> 20} MiB, growth {growth[1] / 2**20:+.1f}"
        )
    assert load.wrong == []
    assert unjudged == 0
    assert told["swaps"] >= 3
    assert (told["failed"], told["faults"]) == (0, 0)
    assert max(growth) <= MOST_GROWTH
