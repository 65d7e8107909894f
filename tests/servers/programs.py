"""Server programs: where they are, how they start on loopback, and that they stop."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]


def program(name: str, variable: str) -> Path:
    """The program in its own environment (`make servers`), or where `variable` says it is.

    Where it is missing, the test is skipped by name; under STILLWATCH_REQUIRE_SERVERS=1 it fails.
    """
    named = os.environ.get(variable)
    path = Path(named) if named else ROOT / f".venv-{name}" / "bin" / name
    if path.exists():
        return path
    missing(f"{name} is not installed: run `make servers`, or name the program in {variable}")


def installed(name: str, variable: str, line: str) -> Path:
    """A program of the system's, or where `variable` says it is; `line` installs it. Missing as for `program`."""
    named = os.environ.get(variable)
    # Debian keeps servers where only root looks for programs.
    path = named or shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path and Path(path).exists():
        return Path(path)
    missing(f"{name} is not installed: `{line}`, or name the program in {variable}")


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it where servers are required."""
    if os.environ.get("STILLWATCH_REQUIRE_SERVERS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


_GIVEN: set[int] = set()


def free_port() -> int:
    """A port of loopback that was free a moment ago, another one at each call.

    Ask for it last: a server that binds to any free port may get the very one that was just given back.
    """
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _GIVEN:
            _GIVEN.add(port)
            return port


@contextmanager
def running(
    command: Sequence[str],
    ready: str,
    *,
    folder: Path,
    env: Mapping[str, str],
    timeout_s: float,
    trust: ssl.SSLContext | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that answers 200 at the address `ready`, for as long as the block runs.

    Raises RuntimeError with the end of its output where it stops or does not answer in time.
    """
    output = folder / "output.txt"
    with output.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            _wait(process, ready, output, timeout_s, trust)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(15)


def _wait(
    process: subprocess.Popen[bytes], ready: str, output: Path, timeout_s: float, trust: ssl.SSLContext | None
) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"it stopped with {process.returncode}: {_end(output)}")
        try:
            with urllib.request.urlopen(ready, timeout=5, context=trust) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.1)
    raise RuntimeError(f"no answer within {timeout_s} s: {_end(output)}")


def _end(output: Path) -> str:
    return output.read_bytes()[-3000:].decode("utf-8", "replace")


def clean_environment(**more: str) -> dict[str, str]:
    """Nothing of ours and nothing that leads out of the machine: no proxies, no credentials."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {"NO_PROXY": "127.0.0.1,localhost"} | more


def wait_for_lines(path: Path, count: int, timeout_s: float) -> None:
    """Until the file has `count` lines; RuntimeError where it does not get them."""
    deadline = time.monotonic() + timeout_s
    found = 0
    while time.monotonic() < deadline:
        found = path.read_bytes().count(b"\n") if path.exists() else 0
        if found >= count:
            return
        time.sleep(0.1)
    raise RuntimeError(f"{found} lines after {timeout_s} s, expected {count}")
