"""Requests at the edge of HTTP, or over it: nothing that a client writes gets a refused key past the guard."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.servers.conftest import BLOCKED, CHAT, FREE, THROTTLED, Live
from tests.servers.guarded import front

pytestmark = pytest.mark.server

PROXIES = ("nginx", "caddy", "envoy")
BODY = json.dumps(CHAT).encode()
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
TE = b"Transfer-Encoding: chunked\r\n"
BIG = b"a" * 60_000
OK: set[str] = {"200"}
BAD = {"400", "413", "414", "431"}
"""The gateway's own answer to what is no request. It never asks the guard then, nor the model."""

ODD: Mapping[str, tuple[dict[str, Any], set[str]]] = {
    "plain": ({}, OK),
    "10,000 headers": ({"extra": b"".join(b"X-%d: a\r\n" % i for i in range(10_000))}, BAD),
    "60 headers": ({"extra": b"".join(b"X-%d: a\r\n" % i for i in range(60))}, OK),
    "20 KB of headers": ({"extra": b"".join(b"X-%d: %s\r\n" % (i, BIG[:6_800]) for i in range(3))}, OK | BAD),
    "60 KB header": ({"extra": b"X-A: " + BIG + b"\r\n"}, OK | BAD),
    "1 MB of headers": ({"extra": b"".join(b"X-%d: %s\r\n" % (i, BIG) for i in range(16))}, OK | BAD),
    "latin-1": ({"extra": b"X-Name: gr\xfc\xdfe\r\n"}, OK),
    "name in latin-1": ({"extra": b"X-N\xfcme: x\r\n"}, OK | BAD),
    "odd names": ({"extra": b"x_under: a\r\nX!#$%&'*+-.^`|~: b\r\n"}, OK | BAD),
    "no name": ({"extra": b": b\r\n"}, OK | BAD),
    "space before colon": ({"extra": b"X-Name : b\r\n"}, OK | BAD),
    "folded": ({"extra": b"X-Name: a\r\n b\r\n"}, OK | BAD),
    **{
        f"control {c!r}": ({"extra": b"X-Name: a" + c + b"b\r\n"}, OK | BAD)
        for c in (b"\x00", b"\x01", b"\x0b", b"\x0c", b"\x1b", b"\x1f", b"\x7f", b"\x85", b"\xa0")
    },
    "length twice": ({"extra": b"Content-Length: %d\r\n" % len(BODY)}, OK | BAD),
    "two lengths": ({"extra": b"Content-Length: 5\r\n"}, BAD),
    "chunked": ({"extra": TE, "body": CHUNKED, "sized": False}, OK | BAD),
    "chunked and length": ({"extra": TE, "body": CHUNKED}, OK | BAD),
    "chunked twice": ({"extra": TE + TE, "body": CHUNKED, "sized": False}, OK | BAD | {"501"}),
    "xchunked": ({"extra": b"Transfer-Encoding: xchunked\r\n"}, BAD | {"501"}),
    "expect": ({"extra": b"Expect: 100-continue\r\n"}, OK),
    "expect other": ({"extra": b"Expect: other\r\n"}, OK | BAD | {"417"}),
    "h2c": ({"extra": b"Upgrade: h2c\r\nConnection: upgrade\r\nHTTP2-Settings: AAMAAABk\r\n"}, OK | BAD),
    "conditions": ({"extra": b"Range: bytes=0-1\r\nIf-Match: x\r\nIf-None-Match: *\r\n"}, OK),
    "key after tab": ({"auth": b"Authorization: Bearer\tKEY"}, OK),
    "key between spaces": ({"auth": b"aUTHORIZATION:  bEARER   KEY  "}, OK),
    **{
        f"key and {c!r}": ({"auth": b"Authorization: Bearer" + c + b"KEY"}, OK | BAD | {"401"})
        for c in (b"\x01", b"\x0b", b"\x0c", b"\x1f", b"\x7f")
    },
    "path escaped": ({"line": b"POST /v1/%63hat/completions HTTP/1.1"}, OK),
    "path to the guard's": ({"line": b"POST /../../healthz HTTP/1.1"}, OK | BAD),
    "path escaped to the guard's": ({"line": b"POST /%2e%2e/%2e%2e/..%2fhealthz HTTP/1.1"}, OK | BAD),
    "path with question": ({"line": b"POST /v1/chat/completions?only=403 HTTP/1.1"}, OK),
    "path in utf-8": ({"line": "POST /v1/chät HTTP/1.1".encode()}, OK | BAD),
    "path of no bytes": ({"line": b"POST /v1/%zz%ff%00 HTTP/1.1"}, OK | BAD),
    "path with brackets": ({"line": b"POST /v1/<>{}|^\"`[] HTTP/1.1"}, OK | BAD),
    "path of 7 KB": ({"line": b"POST /v1/" + BIG[:7_000] + b" HTTP/1.1"}, OK),
    "path of 60 KB": ({"line": b"POST /v1/" + BIG + b" HTTP/1.1"}, OK | BAD),
    "absolute": ({"line": b"POST http://HOST/v1/chat/completions HTTP/1.1"}, OK),
    "OPTIONS *": ({"line": b"OPTIONS * HTTP/1.1"}, OK | BAD | {"404", "501"}),
    "GET": ({"line": b"GET /v1/models HTTP/1.1", "body": b""}, OK),
    "HTTP/1.0": ({"line": b"POST /v1/chat/completions HTTP/1.0"}, OK | {"426"}),
}  # fmt: skip


def _raw(port: int, key: str, how: Mapping[str, Any]) -> str:
    """Status of the final answer, "" where there is none."""
    host = b"127.0.0.1:%d" % port
    body = how.get("body", BODY)
    head = [
        how.get("line", b"POST /v1/chat/completions HTTP/1.1").replace(b"HOST", host),
        b"Host: " + host, b"Connection: close", b"Content-Type: application/json",
        how.get("auth", b"Authorization: Bearer KEY").replace(b"KEY", key.encode()),
    ]  # fmt: skip
    if how.get("sized", True):
        head.append(b"Content-Length: %d" % len(body))
    out = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            connection.sendall(b"\r\n".join(head) + b"\r\n" + how.get("extra", b"") + b"\r\n" + body)
            # Up to the end of the final answer's head: Envoy keeps a connection that it gave up for a second.
            while b"\r\n\r\n" not in out and (part := connection.recv(1 << 16)):
                out += part
                if out.startswith(b"HTTP/1.1 100"):
                    out = out.partition(b"\r\n\r\n")[2]
        except ConnectionError:
            pass
    return out[9:12].decode("latin-1")


@pytest.mark.parametrize("name", PROXIES)
def test_nothing_odd_gets_a_refused_key_past_the_guard(name: str, live: Live, tmp_path: Path) -> None:
    wrong = []
    with front(name, tmp_path, live.path, hops=0) as door:
        for what, (how, expected) in ODD.items():
            before = len(door.seen)
            refused = _raw(door.port, BLOCKED, how)
            # What reached the model came without the key: the model would not serve it.
            served = [h for h in door.seen[before:] if BLOCKED in h.get("authorization", "")]
            if served or (refused == "200" and expected == OK):
                wrong.append((what, BLOCKED, refused))
            answer = _raw(door.port, FREE, how)
            if answer not in expected and answer != "":
                wrong.append((what, FREE, answer))
        assert wrong == []
        assert door.counted() == 0
        assert _raw(door.port, THROTTLED, {}) == "429"
