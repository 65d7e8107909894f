"""The service as a process: its log under hostile input, and callers with and without a certificate."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.guard.conftest import Scanned
from tests.guard.test_decide import _strong
from tests.servers.programs import ROOT, free_port
from tests.servers.today import alive

SECRETS = ("sk-live-0123", "203.0.113.77", "grandmother", "acct-secret")


def _certificates(folder: Path) -> None:
    """An authority, and a certificate for each side signed by it."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(*new, "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2"),
            *("-CAcreateserial", "-extfile", "names", "-out", f"{name}.pem"),
        )


def _service(demo: Scanned, port: int, log: Path, *options: str) -> subprocess.Popen[bytes]:
    env = os.environ | {
        "STILLWATCH_GUARD_SECRET": "a secret of the tests, no other", "PYTHONPATH": str(ROOT / "src"),
    }  # fmt: skip
    env.pop("STILLWATCH_GUARD_TOKEN", None)
    command = [sys.executable, "-m", "stillwatch", "guard", "serve", "--snapshot", str(demo.path)]
    command += ["--port", str(port), "--account-header", "x-account", "--proxies", "1", *options]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        except OSError:
            time.sleep(0.05)
    process.kill()
    process.wait()
    raise RuntimeError(log.read_text()[-2000:])


@pytest.mark.server
def test_the_log_holds_nothing_that_callers_sent_and_needs_a_certificate(
    demo: Scanned, tmp_path: Path
) -> None:
    _certificates(tmp_path)
    # The service goes by the clock.
    demo = replace(demo, path=tmp_path / "snapshot")
    alive(demo, {})
    port, log = free_port(), tmp_path / "log"
    files = [str(tmp_path / name) for name in ("server.pem", "server.key", "ca.pem")]
    # Any address: client certificates stand for the token.
    process = _service(
        demo, port, log, "--host", "0.0.0.0", "--tls-cert", files[0], "--tls-key", files[1], "--client-ca", files[2]
    )  # fmt: skip
    trust = ssl.create_default_context(cafile=files[2])
    try:
        stranger = http.client.HTTPSConnection("127.0.0.1", port, context=trust, timeout=10)
        with pytest.raises(OSError):  # noqa: PT012  (TLS 1.3 tells it when the answer is read)
            stranger.request("GET", "/healthz")
            stranger.getresponse()
        stranger.close()
        trust.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
        caller = http.client.HTTPSConnection("127.0.0.1", port, context=trust, timeout=10)
        headers = {
            "x-account": _strong(demo)[0]["account_id"], "authorization": "Bearer sk-live-0123",
            "x-forwarded-for": "203.0.113.77",
        }  # fmt: skip
        for body in (
            b'{"messages": [{"role": "user", "content": "my grandmother"}]}',
            b"{grandmother",
            b"\xff",
        ):
            caller.request("POST", "/v1/check", body, headers)
            answer = caller.getresponse()
            answer.read()
            assert answer.status == 200
        caller.request("POST", "/v1/check", b"{}", {"x-account": "acct-secret"})
        caller.getresponse().read()
        caller.request("GET", "/metrics")
        assert b"stillwatch_decisions_total{" in caller.getresponse().read()
        caller.close()
        for rubbish in (
            b"GET /grandmother\x00 HTTP/9\r\n\r\n",
            b"POST /sk-live-0123 HTTP/1.1\r\nacct-secret\r\n\r\n",
        ):
            with trust.wrap_socket(
                socket.create_connection(("127.0.0.1", port), 5), server_hostname="127.0.0.1"
            ) as raw:
                raw.sendall(rubbish)
                raw.recv(1000)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    text = log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    events = [line["event"] for line in lines]
    assert {"time", "level", "logger", "event"} <= set.intersection(*(set(line) for line in lines))
    assert (events.count("started"), events.count("stopped")) == (1, 1)
    assert events.count("decision") == 3
    assert not [word for word in (*SECRETS, _strong(demo)[0]["account_id"], "127.0.0.1") if word in text]
