"""What a client writes about himself: no gateway believes it, and none hands it on."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from stillwatch.guard.config import Setup
from tests.servers.conftest import BLOCKED, CHAT, FREE, Asked, Live
from tests.servers.guarded import front
from tests.servers.programs import missing

pytestmark = pytest.mark.server

PROXIES = ("nginx", "caddy", "envoy", "ext_proc")
ENVOYS = ("envoy", "ext_proc")


@pytest.mark.parametrize("name", PROXIES)
def test_what_a_client_writes_about_himself_reaches_nobody(
    name: str, live: Live, tmp_path: Path, listener: tuple[int, Asked]
) -> None:
    port, heard = listener
    options = ("--identity-header", "x-plan")
    names = Setup(account_header="x-mine", identity=("x-plan",)).removed()
    forged = dict.fromkeys(names, "forged-by-the-client") | {
        "x-forwarded-for": "6.6.6.6",
        # To a proxy that heeds it this says: and do not hand these on.
        "connection": "x-ja4, x-stillwatch-action",
    }
    hiding = {"connection": "x-forwarded-for"}
    with front(name, tmp_path, live.path, *options, hops=0, guard=port, account="x-mine") as door:
        assert door.ask(FREE, CHAT, headers=forged)[0] == 200
        assert door.seen[-1]["x-stillwatch-action"] == "allow"
        for headers in (door.seen[-1], {n.decode().lower(): v.decode() for n, v in heard.headers}):
            assert not [n for n, v in headers.items() if "forged-by-the-client" in v]
            assert "6.6.6.6" not in headers["x-forwarded-for"]
            assert headers["authorization"] == f"Bearer {FREE}"
        # Envoy answers such a request itself; at the others the header is what the proxy wrote all the same.
        assert door.ask(FREE, CHAT, headers=hiding)[0] == (400 if name in ENVOYS else 200)
        assert "127.0.0.1" in door.seen[-1]["x-forwarded-for"] or name in ENVOYS


@pytest.mark.parametrize("name", PROXIES)
def test_a_forged_identity_changes_no_decision(name: str, live: Live, tmp_path: Path) -> None:
    with front(name, tmp_path, live.path, hops=0, account="x-mine") as door:
        for header in Setup(account_header="x-mine").removed():
            forged = {header: live.accounts[BLOCKED]}
            assert door.ask(FREE, CHAT, headers=forged)[0] == 200
            forged = {header: FREE if header == "x-api-key" else live.accounts[FREE]}
            assert door.ask(BLOCKED, CHAT, headers=forged)[0] == 403
        assert door.counted() == 0


@pytest.mark.parametrize("name", PROXIES)
def test_over_tls_the_fingerprint_is_the_one_that_was_measured(
    name: str, live: Live, tmp_path: Path, listener: tuple[int, Asked]
) -> None:
    if shutil.which("openssl") is None:
        missing("openssl is not installed: no certificate for the TLS listener")
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem",
    ]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    forged = "t13d1516h2_8daaf6152771_b186095e22b6"
    port, heard = listener
    with front(name, tmp_path, live.path, hops=0, guard=port, certificate=tmp_path) as door:
        for headers in ({}, {"x-ja4": forged}, {"X-JA4": forged, "x-ja3": forged}):
            assert door.ask(FREE, CHAT, headers=headers)[0] == 200
            told = door.seen[-1].get("x-ja4"), heard.first("x-ja4")
            if name in ENVOYS:
                assert re.fullmatch(r"t1[23][di]\d{4}\w\w_[0-9a-f]{12}_[0-9a-f]{12}", str(told[0]))
                assert told[0] != forged
                assert told[1] == told[0]
            else:
                assert told == (None, None)
