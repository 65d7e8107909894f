"""What the guard adds to LiteLLM: `make bench-litellm`. LiteLLM alone, with the guard in its process, and with the
guard as an HTTP service beside it; one worker each, before a model on loopback that answers at once.

All run for the whole time and are asked in turn, so that what else the machine does falls on all of them alike.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from scripts import bench_guard
from tests.servers import guarded
from tests.servers.programs import free_port, running
from tests.servers.upstream import model

ACCOUNTS = 100_000
KEY, ACCOUNT = "sk-bench", "account-17"
ROUNDS, ALONE, CLIENTS, SECONDS = 12, 400, 8, 1.5
BODY = json.dumps(
    {"model": "m-large", "messages": [{"role": "user", "content": "tell me about the sea " * 90}]}
).encode()
"""Of 2 KB."""
NOTHING = "guardrails: []\n"


@contextmanager
def litellm(folder: Path, upstream: int, text: str) -> Iterator[int]:
    """LiteLLM with the printed configuration; gives its port."""
    folder.mkdir()
    port = free_port()
    command, env = guarded._litellm(folder, text, port, upstream)
    env["STILLWATCH_KEYS"] = json.dumps({KEY: {"user_id": ACCOUNT}})
    ready = f"http://127.0.0.1:{port}/health/liveliness"
    with running(command, ready, folder=folder, env=env, timeout_s=180):
        yield port


def ask(connection: http.client.HTTPConnection) -> None:
    """One request, answered to the end."""
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    try:
        connection.request("POST", "/v1/chat/completions", BODY, headers)
        answer = connection.getresponse()
    except (ConnectionError, http.client.RemoteDisconnected):
        # It was idle for longer than the server keeps it open.
        connection.close()
        connection.request("POST", "/v1/chat/completions", BODY, headers)
        answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise RuntimeError(f"it answered {answer.status}")


def one_by_one(ports: Mapping[str, int], count: int) -> dict[str, float]:
    """Median milliseconds of a request, by name: one to each in turn, beginning with another one each time."""
    connections = {n: http.client.HTTPConnection("127.0.0.1", port, timeout=60) for n, port in ports.items()}
    took: dict[str, list[float]] = {name: [] for name in ports}
    names = list(ports)
    for turn in range(count):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begin = time.perf_counter()
            ask(connections[name])
            took[name].append(time.perf_counter() - begin)
    for connection in connections.values():
        connection.close()
    return {name: statistics.median(values) * 1e3 for name, values in took.items()}


def together(port: int, clients: int, seconds: float) -> float:
    """Requests per second of so many clients."""
    end = time.perf_counter() + seconds
    counts = [0] * clients

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.perf_counter() < end:
            ask(connection)
            counts[number] += 1
        connection.close()

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begin)


def main() -> None:
    """Print the table; `--json` prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench_guard.SECRET = guarded.SECRET.encode()
        snapshot = folder / "snapshot"
        bench_guard.make(snapshot, ACCOUNTS)
        upstream = stack.enter_context(model())
        (folder / "guard").mkdir()
        service = guarded.GuardService(snapshot, folder / "guard", 0, None, None)
        stack.callback(service.close)
        service.start()
        inside = ("--in-process", "--snapshot", str(snapshot), "--events", str(folder / "events"))
        texts = {
            "alone": NOTHING,
            "in process": guarded.printed("litellm", *inside[:3]),
            "in process, with its log": guarded.printed("litellm", *inside),
            "over HTTP": guarded.printed("litellm", "--guard", f"http://127.0.0.1:{service.port}"),
        }
        ports = {
            name: stack.enter_context(litellm(folder / name, upstream, text)) for name, text in texts.items()
        }
        one_by_one(ports, 20)
        found = measured(ports, options.rounds)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'LiteLLM':<26}{'c=1 p50, ms':>14}{'added':>10}{f'c={CLIENTS}, requests/s':>20}{'of alone':>10}")
    base = found["alone"]
    for name, row in found.items():
        added, share = row["p50_ms"] - base["p50_ms"], row["rps"] / base["rps"]
        print(f"{name:<26}{row['p50_ms']:>14.2f}{added:>+10.2f}{row['rps']:>20.1f}{share:>10.2f}")


def measured(ports: Mapping[str, int], rounds: int) -> dict[str, dict[str, float]]:
    """Medians by name; the rates are over the rounds, each of which asks all of them."""
    single = one_by_one(ports, ALONE)
    rates: dict[str, list[float]] = {name: [] for name in ports}
    names = list(ports)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            rates[name].append(together(ports[name], CLIENTS, SECONDS))
    return {name: {"p50_ms": single[name], "rps": statistics.median(rates[name])} for name in names}


if __name__ == "__main__":
    main()
