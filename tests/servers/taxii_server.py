"""The TAXII 2.1 server medallion on loopback: one API root, a collection for reading and writing, one for reading."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.programs import clean_environment, free_port, program

COLLECTION, SHUT = "365fed99-08fa-4fdc-a1b3-fb247eb41d01", "9cfa669c-ee94-4ece-afd2-f8edac37d8fd"
USER, PASSWORD = "anna", "a b:c"
WAIT_S = 30.0


@dataclass(frozen=True)
class Taxii:
    """A server that runs."""

    root: str
    """URL of its API root."""
    auth: Path
    """File that opens it."""


def _collection(name: str, writable: bool) -> dict[str, object]:
    return {
        "id": name, "title": "Shared", "can_read": True, "can_write": writable,
        "media_types": ["application/stix+json;version=2.1"], "manifest": [], "objects": [],
    }  # fmt: skip


@contextmanager
def medallion(folder: Path, page: int = 20) -> Iterator[Taxii]:
    """The server with pages of `page` objects, for as long as the block runs."""
    path = program("medallion", "MEDALLION")
    data = {
        "/discovery": {"title": "Test", "default": "/api1/", "api_roots": ["/api1/"]},
        "api1": {
            "information": {
                "title": "One", "versions": ["application/taxii+json;version=2.1"],
                "max_content_length": 9_765_625,
            },
            "status": [],
            "collections": [_collection(COLLECTION, True), _collection(SHUT, False)],
        },
    }  # fmt: skip
    (folder / "data.json").write_text(json.dumps(data))
    settings = {
        "backend": {
            "module": "medallion.backends.memory_backend",
            "module_class": "MemoryBackend",
            "filename": str(folder / "data.json"),
        },
        "users": {USER: PASSWORD},
        "taxii": {"max_page_size": page},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "auth").write_text(f"basic {USER}:{PASSWORD}\n")
    port = free_port()
    command = [str(path), "--port", str(port), str(folder / "settings.json")]
    with (folder / "output.txt").open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        _until_open(process, port, folder / "output.txt")
        yield Taxii(f"http://127.0.0.1:{port}/api1/", folder / "auth")
    finally:
        process.kill()
        process.wait(10)


def _until_open(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    end = time.monotonic() + WAIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(output.read_text()[-3000:]) from None
            time.sleep(0.05)
