"""What asking the guard adds to a request through Envoy: `make bench-envoy`. Prints each figure beside its goal.

One real Envoy with a listener for each way: a filter that does nothing (it sets a header), ext_authz over HTTP, and
ext_proc with request bodies; each as `stillwatch guard config` prints it. Behind them a model that answers at once.
The variants take turns, round by round, so that whatever else runs on the machine meets them alike; added is the
difference of medians within a round, and the median over the rounds is printed. A request holds 2 KB of text.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from scripts.bench_guard import SECRET, make, text, words

ROOT = Path(__file__).resolve().parents[1]
GOALS = {"ext_authz": 0.5, "ext_proc": 0.8}
"""Milliseconds added to the median, one request at a time."""


class Upstream(asyncio.Protocol):
    """Answers 200 to whatever came, as soon as it is whole."""

    ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"

    def connection_made(self, transport: Any) -> None:
        self._transport, self._data = transport, b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._data) < end + 4 + length:
                return
            self._data = self._data[end + 4 + length :]
            self._transport.write(self.ANSWER)


class Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def connection_made(self, transport: Any) -> None:
        self._transport, self._data = transport, b""
        self._waiting: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        # Every answer holds two bytes.
        if self._waiting is not None and 0 <= end <= len(self._data) - 6:
            if not self._data.startswith(b"HTTP/1.1 200"):
                self._waiting.set_exception(RuntimeError(self._data[:200].decode()))
            elif not self._waiting.done():
                self._waiting.set_result(None)
            self._data, self._waiting = b"", None

    async def ask(self, request: bytes) -> float:
        """Seconds that it took."""
        self._waiting = asyncio.get_running_loop().create_future()
        begin = time.perf_counter()
        self._transport.write(request)
        await self._waiting
        return time.perf_counter() - begin


async def load(port: int, requests: list[bytes], connections: int) -> tuple[list[float], float]:
    """(seconds of each request, requests a second)."""
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(Client, "127.0.0.1", port))[1] for _ in range(connections)]
    left = iter(requests)
    took: list[float] = []

    async def work(client: Client) -> None:
        for request in left:
            took.append(await client.ask(request))

    begin = time.perf_counter()
    await asyncio.gather(*(work(client) for client in clients))
    rate = len(requests) / (time.perf_counter() - begin)
    for client in clients:
        client._transport.close()
    return took, rate


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configuration(upstream: int, http: int, grpc: int, folder: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """(Envoy's configuration, port of each variant): what is printed, put together."""
    from stillwatch.guard.config import Setup, render

    ports = {name: free_port() for name in ("nothing", "ext_authz", "ext_proc", "ext_proc, rows")}
    out: dict[str, Any] = {"listeners": [], "clusters": []}
    for name, port in ports.items():
        setup = Setup(
            upstream=f"http://127.0.0.1:{upstream}", guard=f"http://127.0.0.1:{http}", grpc=f"127.0.0.1:{grpc}",
            listen=f"127.0.0.1:{port}", filter="ext_authz" if name in ("nothing", "ext_authz") else "ext_proc",
            exchanges=name.endswith("rows"), log=str(folder / f"{port}.log"), timeout_ms=2000,
        )  # fmt: skip
        printed = yaml.safe_load(render("envoy", setup))["static_resources"]
        (listener,) = printed["listeners"]
        listener["name"] = name
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        manager["stat_prefix"] = f"l{port}"
        if name == "nothing":
            nothing = {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
                "mutations": {
                    "request_mutations": [
                        {"append": {"header": {"key": "x-stillwatch-action", "value": "allow"}}}
                    ]
                },
            }
            manager["http_filters"][0] = {"name": "nothing", "typed_config": nothing}
        for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
            route["route"]["cluster"] = f"model {port}"
        for cluster in printed["clusters"]:
            cluster["name"] = {"stillwatch_model": f"model {port}"}.get(cluster["name"], f"guard {port}")
            cluster["load_assignment"]["cluster_name"] = cluster["name"]
        listener = json.loads(json.dumps(listener).replace('"stillwatch_guard"', f'"guard {port}"'))
        out["listeners"].append(listener)
        out["clusters"] += printed["clusters"]
    return {"static_resources": out}, ports


def started(command: list[str], env: dict[str, str], folder: Path, ready: str) -> subprocess.Popen[bytes]:
    """The process, once it answers."""
    with (folder / f"{Path(command[0]).name}.out").open("wb") as told:
        process = subprocess.Popen(command, env=env, cwd=folder, stdout=told, stderr=told)
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(ready, timeout=5).close()
            return process
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise SystemExit(f"{command[0]} does not answer: see {folder}")


async def rounds(
    ports: dict[str, int], requests: list[bytes], turns: int
) -> dict[str, list[tuple[float, float, float]]]:
    """(p50 ms, p99 ms, requests/s with 16 connections) of each round, by variant."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ports}
    for turn in range(turns + 1):
        names = list(ports)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            took, _ = await load(ports[name], requests, 1)
            _, rate = await load(ports[name], requests, 16)
            # The first round warms up.
            if turn:
                took.sort()
                found[name].append((1e3 * took[len(took) // 2], 1e3 * took[len(took) * 99 // 100], rate))
    return found


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--envoy", default=str(ROOT / ".venv-envoy" / "bin" / "envoy"))
    parser.add_argument("--upstream", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.upstream:
        asyncio.run(serve(options.upstream))
        return
    import numpy as np

    rng = np.random.default_rng(2)
    vocabulary = words(rng)
    requests = []
    for i in range(options.requests):
        asked = {"model": "m", "messages": [{"role": "user", "content": text(rng, vocabulary, 2048)}]}
        body = json.dumps(asked)
        requests.append(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer sk-{i % 100}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
        )
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "snapshot", 100_000)
        upstream, http, grpc = free_port(), free_port(), free_port()
        kept = {n: os.environ[n] for n in ("PATH", "HOME") if n in os.environ}
        env = kept | {
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "STILLWATCH_GUARD_SECRET": SECRET.decode(),
            "NO_PROXY": "127.0.0.1",
        }  # fmt: skip
        config, ports = configuration(upstream, http, grpc, folder)
        (folder / "envoy.json").write_text(json.dumps(config))
        python = sys.executable
        try:
            processes.append(
                started(
                    [python, __file__, "--upstream", str(upstream)],
                    env,
                    folder,
                    f"http://127.0.0.1:{upstream}/",
                )
            )
            guard = [
                *(
                    python,
                    "-m",
                    "stillwatch",
                    "guard",
                    "serve",
                    "--snapshot",
                    "snapshot",
                    "--port",
                    str(http),
                ),
                *("--proxies", "1", "--grpc", f"127.0.0.1:{grpc}", "--exchanges", "exchanges"),
            ]
            processes.append(started(guard, env, folder, f"http://127.0.0.1:{http}/readyz"))
            envoy = [
                options.envoy,
                "-c",
                "envoy.json",
                "--disable-hot-restart",
                "--concurrency",
                "1",
                "-l",
                "error",
            ]
            processes.append(started(envoy, env, folder, f"http://127.0.0.1:{ports['nothing']}/"))
            before = os.getloadavg()[0]
            found = asyncio.run(rounds(ports, requests, options.rounds))
        finally:
            for process in reversed(processes):
                process.send_signal(signal.SIGTERM)
                process.wait(20)
    base = found["nothing"]
    after = os.getloadavg()[0]
    print(f"{options.rounds} rounds of {options.requests}; load before {before:.1f}, after {after:.1f}")
    for name, values in found.items():
        p50, p99, rate = (statistics.median(column) for column in zip(*values, strict=True))
        added = statistics.median(v[0] - b[0] for v, b in zip(values, base, strict=True))
        share = statistics.median(v[2] / b[2] for v, b in zip(values, base, strict=True))
        goal = f" (goal {GOALS[name]} ms)" if name in GOALS else ""
        print(
            f"{name:15} p50 {p50:.2f} ms, p99 {p99:.2f} ms, added p50 {added:.2f} ms{goal}; "
            f"c=16 {rate:,.0f} requests/s, {share:.2f} of nothing"
        )


async def serve(port: int) -> None:
    """The model."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    main()
