"""How fast the doors answer over HTTP: `make bench-doors`. Prints each figure beside its goal, with versions.

The server runs on one core, the load generator (`h2load`, a compiled client; Debian: nghttp2-client) on another.
Every way of serving is measured in turn, round after round within one run, over connections that are kept open as
proxies keep them. The snapshot is that of `bench_guard`: 1 M accounts, 100 campaigns; all requests are one account's,
with the same 2 KB. What other accounts cost is `bench_guard`'s to say. The 99th percentile is taken at half of the
rate that the same way of serving reached in that round.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from bench_guard import ACCOUNTS, BYTES, SECRET, make  # noqa: E402

CONNECTIONS = 16
CHECKS_GOAL, P99_GOAL_MS, ASGI_GOAL_SHARE, ASGI_GOAL_MS = 5000.0, 10.0, 0.05, 1.0
SERVERS = {
    "uvicorn h11 asyncio": "uvicorn --http h11 --loop asyncio",
    "uvicorn httptools asyncio": "uvicorn --http httptools --loop asyncio",
    "uvicorn httptools uvloop": "uvicorn --http httptools --loop uvloop",
    "granian asgi": "granian --interface asginl --workers 1 --runtime-threads 1 --runtime-mode st --no-ws",
}
Figures = dict[str, list[float]]


# What is served: `app` below, by the environment.


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and answers nothing."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def answers(scope: Any, receive: Any, send: Any) -> None:
    """Reads JSON and answers 1 KB of it, as the least that an API does."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    asked = json.loads(b"".join(parts))
    body = json.dumps({"model": asked["model"], "text": asked["messages"][0]["content"][:1000]}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def streams(scope: Any, receive: Any, send: Any) -> None:
    """Answers with 20 server-sent events."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    while (await receive()).get("more_body", False):
        pass
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    event = (
        b"data: " + json.dumps({"choices": [{"delta": {"content": "twenty words " * 3}}]}).encode() + b"\n\n"
    )
    for _ in range(20):
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


APPS = {"nothing": nothing, "answers": answers, "streams": streams}


def app() -> Any:
    """What STILLWATCH_BENCH names: `check`, one of `APPS`, or `guarded:` and one of them."""
    name = os.environ["STILLWATCH_BENCH"]
    if name in APPS:
        return APPS[name]
    from stillwatch.guard import Secret
    from stillwatch.guard.doors.asgi import StillwatchMiddleware
    from stillwatch.guard.doors.check import CheckService
    from stillwatch.guard.doors.http import Identity
    from stillwatch.guard.doors.watched import Watched

    watched = Watched(Path(os.environ["STILLWATCH_BENCH_SNAPSHOT"]), Secret(SECRET))
    # The snapshot's time is long over: time stands where it was made.
    until = watched.guard.snapshot.meta.last_us
    watched.guard._clock = lambda: until
    who = Identity("x-account", 1)
    return (
        CheckService(watched, who) if name == "check" else StillwatchMiddleware(APPS[name[8:]], watched, who)
    )


# Who asks.


@contextmanager
def serving(server: str, name: str, snapshot: Path, core: int | None) -> Iterator[int]:
    """The port of a server that runs `name`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program, *options = SERVERS[server].split()
    command = [
        sys.executable,
        "-m",
        program,
        *options,
        "--factory",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--log-level", "warning", "bench_doors:app"]
    if program == "uvicorn":
        command[3:3] = ["--no-access-log", "--no-server-header", "--no-date-header"]
    env = os.environ | {
        "STILLWATCH_BENCH": name, "STILLWATCH_BENCH_SNAPSHOT": str(snapshot),
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    process = subprocess.Popen(_on(core) + command, env=env, cwd=HERE)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                body = b'{"model": "m", "messages": [{"role": "user", "content": "warm"}]}'
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/check", data=body, timeout=5).close()
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{server} does not serve {name}: {error}") from error
                time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _on(core: int | None) -> list[str]:
    return [] if core is None else ["taskset", "-c", str(core)]


def load(
    port: int, body: Path | None, seconds: float, core: int | None, rate: float | None = None
) -> tuple[float, float, float]:
    """(requests a second, median, 99th percentile in ms), at full load, or at `rate`."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [*_on(core), "h2load", "--h1", "-t1", f"-c{CONNECTIONS}", "-m1", f"--log-file={log}"]
        if rate is None:
            command += [f"-D{seconds:g}", "--warm-up-time=1"]
        else:
            each = max(1, int(rate / CONNECTIONS))
            command += [f"--rps={each}", f"-n{int(each * CONNECTIONS * seconds)}"]
        if body is not None:
            command += ["-d", str(body), "-H", "content-type: application/json"]
        command += ["-H", "x-account: account-31337", "-H", "x-forwarded-for: 21.7.9.4"]
        command += ["-H", "user-agent: openai/1.60", "-H", "accept: */*"]
        command += [f"http://127.0.0.1:{port}/v1/check"]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        took = time.perf_counter() - began
        rows = [line.split("\t") for line in log.read_text().splitlines()] if log.exists() else []
    bad = sum(row[1] != "200" for row in rows)
    if not rows or bad > len(rows) // 100:
        raise SystemExit(f"h2load: {bad} of {len(rows)} answers were not 200\n{done.stdout}{done.stderr}")
    ms = sorted(int(row[2]) / 1000 for row in rows)
    per_second = len(ms) / (seconds if rate is None else took)
    return per_second, ms[len(ms) // 2], ms[min(len(ms) - 1, len(ms) * 99 // 100)]


def measure(path: Path, servers: list[str], rounds: int, seconds: float, cores: int) -> dict[str, Figures]:
    """All figures by what was measured; one value for each round."""
    mine, theirs = (0, 1) if cores > 1 else (None, None)
    found: dict[str, Figures] = {}
    body = path.parent / "body.json"
    asked = {"model": "m", "messages": [{"role": "user", "content": "word " * (BYTES // 5)}]}
    body.write_text(json.dumps(asked))
    best = "uvicorn httptools uvloop"
    tries = [(server, "check", form) for server in servers for form in ("body", "no body")]
    tries += [(server, "nothing", "body") for server in servers]
    tries += [(best, f"{kind}{name}", "body") for name in APPS for kind in ("", "guarded:")]
    for _ in range(rounds):
        for server, name, form in dict.fromkeys(tries):
            sent = body if form == "body" else None
            with serving(server, name, path, mine) as port:
                load(port, sent, 1, theirs)
                full = load(port, sent, seconds, theirs)
                half = load(port, sent, seconds, theirs, full[0] / 2)
            figures = found.setdefault(f"{name}, {form}, {server}", {"rps": [], "p50": [], "p99": []})
            for key, value in (("rps", full[0]), ("p50", half[1]), ("p99", half[2])):
                figures[key].append(value)
            print(
                f"{name}, {form}, {server}: {full[0]:.0f}/s, p99 {half[2]:.2f} ms",
                file=sys.stderr,
                flush=True,
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=ACCOUNTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument(
        "--server", action="append", choices=list(SERVERS), help="only these; all if not given"
    )
    parser.add_argument("--keep", type=Path, help="folder for the snapshot; used again if it is there")
    asked = parser.parse_args()
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is not installed: sudo apt-get install nghttp2-client")
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        path = (asked.keep or Path(folder)) / "snapshot"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            make(path, asked.accounts)
        before = os.getloadavg()[0]
        found = measure(path, asked.server or list(SERVERS), asked.rounds, asked.seconds, cores)
    versions = []
    for package in ("uvicorn", "h11", "httptools", "uvloop", "granian"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} absent")
    print(f"{cores} cores, load {before:.1f} before; Python {sys.version.split()[0]}; {', '.join(versions)}")
    print(
        f"{asked.rounds} rounds of {asked.seconds:g} s, {CONNECTIONS} connections kept open; median (least, most)"
    )
    middle: dict[str, tuple[float, float]] = {}
    for what, figures in found.items():
        rps, p99 = statistics.median(figures["rps"]), statistics.median(figures["p99"])
        middle[what] = rps, p99
        goal = f"   goal {CHECKS_GOAL:g}/s, {P99_GOAL_MS:g} ms" if what.startswith("check") else ""
        print(
            f"{what:48} {rps:7.0f}/s ({min(figures['rps']):.0f}, {max(figures['rps']):.0f})   at half load: "
            f"p50 {statistics.median(figures['p50']):.2f} ms, p99 {p99:.2f} ms{goal}"
        )
    for name in APPS:
        bare = middle[f"{name}, body, uvicorn httptools uvloop"]
        guarded = middle[f"guarded:{name}, body, uvicorn httptools uvloop"]
        print(
            f"ASGI door before {name!r}: {1 - guarded[0] / bare[0]:.1%} fewer requests/s (goal "
            f"{ASGI_GOAL_SHARE:.0%}), {1e6 / guarded[0] - 1e6 / bare[0]:.0f} us a request, p99 "
            f"{guarded[1] - bare[1]:+.2f} ms (goal {ASGI_GOAL_MS:+g} ms)"
        )


if __name__ == "__main__":
    main()
