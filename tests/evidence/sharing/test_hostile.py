"""A TAXII server that is hostile or broken: bounded, refused in words, and nothing goes where it was not meant to."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwatch.evidence.sharing import taxii
from stillwatch.evidence.sharing.taxii import authorization, pull, push, read_bundle, without_definitions
from stillwatch.evidence.sharing.wire import Limits, Wire, is_loopback, origin_of
from stillwatch.schema.errors import (
    FormatError,
    InputError,
    MissingExtraError,
    OutputError,
    UsageError,
    Where,
)
from tests.evidence.sharing.kit import run

LIMITS = Limits(bytes=1 << 16, seconds=0.4, idle_seconds=0.2)
TYPE = "application/taxii+json;version=2.1"
NAME = "365fed99-08fa-4fdc-a1b3-fb247eb41d01"
OBJECT = {"type": "identity", "id": "identity--1", "modified": "2026-01-01T00:00:00.000Z", "name": "x"}
Speak = Callable[[socket.socket, str], None]


def answer(body: object, kind: str = TYPE, status: str = "200 OK", **headers: str) -> bytes:
    """A whole answer; a `body` that is no bytes becomes JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"Content-Type": kind, "Content-Length": str(len(data)), "Connection": "close"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + data


@contextmanager
def served(speak: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port of loopback at which `speak` is called with each connection."""
    ends = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                speak(connection)

        def listen() -> None:
            while not ends.is_set():
                with contextlib.suppress(TimeoutError):
                    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        ends.set()
        thread.join()


@contextmanager
def speaking(speak: Speak) -> Iterator[tuple[str, list[str]]]:
    """URL of an API root at which `speak` is called with each connection and its request, and the requests so far."""
    heard: list[str] = []

    def hear(connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data and (part := connection.recv(1 << 16)):
            data += part
        heard.append(data.decode("latin-1"))
        speak(connection, heard[-1])

    with served(hear) as port:
        yield f"http://127.0.0.1:{port}/api1/", heard


def always(data: bytes) -> Speak:
    return lambda connection, _: connection.sendall(data)


def endless(head: bytes, part: bytes, pause_s: float = 0.0) -> Speak:
    """`head`, then `part` again and again until nobody listens."""

    def speak(connection: socket.socket, _: str) -> None:
        connection.sendall(head)
        ends = time.monotonic() + 5
        while time.monotonic() < ends:
            connection.sendall(part)
            time.sleep(pause_s)

    return speak


def silent(connection: socket.socket, _: str) -> None:
    with contextlib.suppress(TimeoutError):
        connection.settimeout(2)
        connection.recv(1)


PLAIN = f"HTTP/1.1 200 OK\r\nContent-Type: {TYPE}\r\n".encode()
DEEP = b"[" * 40_000


@pytest.mark.parametrize(
    ("speak", "said"),
    [
        (endless(PLAIN + b"\r\n", b'"' + b"a" * 4096), "larger than 65,536 bytes"),
        (endless(PLAIN + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b" " * 4096 + b"\r\n"), "larger than"),
        (endless(PLAIN + b"Content-Length: 99999\r\n\r\n", b" ", 0.05), "takes longer than 0.4 seconds"),
        (endless(PLAIN + b"Connection: close\r\n\r\n", b" ", 0.05), "takes longer than 0.4 seconds"),
        (endless(PLAIN, b"X: y\r\n", 0.05), "takes longer|does not speak HTTP"),
        (endless(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 10_000), "does not speak HTTP"),
        (endless(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05), "takes longer"),
        (silent, "cannot be reached, or went away"),
        (lambda connection, _: connection.close(), "cannot be reached, or went away"),
        (always(b"SSH-2.0-OpenSSH\r\n"), "does not speak HTTP"),
        (always(answer({}, status="302 Found", Location="file:///etc/passwd")), "redirects are not followed"),
        (always(answer({}, status="307 No", Location="https://elsewhere.example/")), "redirects are not followed"),
        (always(answer({}, kind="text/html")), "not TAXII 2.1"),
        (always(answer({}, kind="application/vnd.oasis.taxii+json; version=2.0")), "not TAXII 2.1"),
        (always(answer({}, kind="application/taxii+json;version=3.0")), "not TAXII 2.1"),
        (always(answer(b"\x1f\x8b" + b"x" * 99, Content_Encoding="gzip")), "packed"),
        (always(answer(DEEP)), "no JSON"),
        (always(answer(b"\xff\xfe")), "no JSON"),
        (always(answer(b'{"id": ')), "no JSON"),
        (always(PLAIN + b"Content-Length: 100\r\n\r\n{}"), "went away"),
        (always(answer({}, status="404 Not Found")), "no such API root or collection"),
        (always(answer({}, status="401 No")), "refuses us"),
        (always(answer({}, status="418 Teapot")), "status 418"),
        (always(answer({}, status="503 Busy", Retry_After="9e99")), "out of order"),
        (always(answer([1])), "no collection"),
        (always(answer({"id": "other", "title": "x", "can_read": True, "can_write": True})), "no collection"),
        (always(answer({"id": 7, "title": "x", "can_read": True, "can_write": True})), "no collection"),
        (always(answer({"id": NAME, "title": "x", "can_read": "yes", "can_write": 1})), "not for reading"),
        (always(answer({"id": NAME, "title": "x", "can_read": False, "can_write": False})), "not for reading"),
    ],
)  # fmt: skip
def test_whatever_a_server_says_ends_soon_and_in_words(speak: Speak, said: str) -> None:
    waits: list[float] = []
    with speaking(speak) as (url, heard):
        wire = Wire(url, auth="Basic c2VjcmV0", limits=LIMITS, sleep=waits.append)
        with pytest.raises(InputError, match=said) as stop:
            pull(wire, url, NAME)
    assert "c2VjcmV0" not in str(stop.value)
    assert str(stop.value).startswith("127.0.0.1: ")
    assert 1 <= len(heard) <= 3
    assert all(0 <= wait <= 10 for wait in waits)


def test_a_redirect_leads_nowhere(tmp_path: Path) -> None:
    with speaking(always(answer({}))) as (other, visited):
        elsewhere = answer({}, status="301 Moved", Location=other)
        with speaking(always(elsewhere)) as (url, _), pytest.raises(InputError, match="redirects"):
            pull(Wire(url, auth="Basic x", limits=LIMITS), url, NAME)
        assert visited == []


def test_a_server_that_was_busy_is_asked_again() -> None:
    turn: list[bytes] = [
        answer({}, status="503 Busy", Retry_After="3"),
        answer({"id": NAME, "title": "x", "can_read": True, "can_write": False}),
        answer({}, status="429 Slow down"),
        answer({"objects": [OBJECT]}, X_TAXII_Date_Added_Last="2026-01-02T03:04:05.123456Z"),
    ]
    waits: list[float] = []
    with speaking(lambda connection, _: connection.sendall(turn.pop(0))) as (url, heard):
        found = pull(
            Wire(url, limits=LIMITS, sleep=waits.append), url, NAME, datetime(2026, 1, 1, tzinfo=UTC)
        )
    assert (found.objects, found.until, waits) == (1, "2026-01-02T03:04:05.123456Z", [3.0, 1.0])
    assert "added_after=2026-01-01T00%3A00%3A00Z" in heard[-1].splitlines()[0]


class Told(Wire):
    """A server that gives the prepared answers, in order, without any network."""

    def __init__(self, *answers: Any) -> None:
        super().__init__("http://127.0.0.1:1/api1/", sleep=lambda _: None)
        self.answers, self.asked = list(answers), 0

    def _ask(self, *what: Any) -> Any:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


URL = "http://127.0.0.1:1/api1/"
OPEN = {"id": NAME, "title": "x", "can_read": True, "can_write": True}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["id", "title", "can_read", "objects", "more", "next", "type", "status", "failure_count"])
        | st.text(max_size=4), inner, max_size=5,
    ),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(JSON, JSON, st.booleans())
def test_any_json_is_objects_or_an_error_of_ours(first: Any, second: Any, open_: bool) -> None:
    answers = (OPEN, first, second) if open_ else (first, second)
    with contextlib.suppress(InputError):
        found = pull(Told(*answers), URL, NAME)
        assert json.loads(found.bundle)["type"] == "bundle"
    with contextlib.suppress(InputError, OutputError):
        assert push([OBJECT], Told(*answers), URL, NAME) == 1


@pytest.mark.parametrize(
    "page",
    [
        {"objects": [OBJECT], "more": True, "next": "1"},
        {"objects": [], "more": True, "next": "1"},
        {"objects": [OBJECT], "more": True},
        {"objects": [OBJECT], "more": True, "next": 7},
        {"objects": [OBJECT], "more": True, "next": "a\r\nX: y"},
        {"objects": [OBJECT], "more": True, "next": "x" * 2000},
    ],
)
def test_pages_that_bring_nothing_end(page: Any) -> None:
    server = Told(OPEN, page)
    with pytest.raises(InputError, match="without an end"):
        pull(server, URL, NAME)
    assert server.asked <= 3


def test_a_collection_that_is_too_large_for_us_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taxii, "MOST_PAGES", 5)
    pages = [{"objects": [OBJECT | {"id": f"identity--{n}"}], "more": True, "next": str(n)} for n in range(9)]
    with pytest.raises(InputError, match="more than 5 pages"):
        pull(Told(OPEN, *pages), URL, NAME)
    monkeypatch.setattr(taxii, "MOST_OBJECTS", 2)
    with pytest.raises(InputError, match="more than 2 objects"):
        pull(Told(OPEN, *pages), URL, NAME)


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        ([], InputError, "no status"),
        ({"id": 7, "status": "complete"}, InputError, "no status"),
        ({"id": "../../../x", "status": "pending"}, InputError, "no status"),
        ({"id": "http://elsewhere.example", "status": "pending"}, InputError, "no status"),
        ({"id": "a", "status": "pending"}, OutputError, "does not get done"),
        ({"id": "a", "status": "complete", "failure_count": 1}, OutputError, "refused 1 of 1 objects"),
        ({"id": "a", "status": "complete", "failure_count": "1"}, OutputError, "refused some of 1 objects"),
    ],
)
def test_what_was_not_taken_is_said(status: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        push([OBJECT], Told(OPEN, status), URL, NAME)


def test_the_wire_stays_with_its_server() -> None:
    with pytest.raises(InputError, match="names another server"):
        Wire(URL, limits=LIMITS).get("http://127.0.0.1:2/api1/status/1/")


@pytest.mark.parametrize(
    "url",
    ["http://taxii.example/api1/", "ftp://127.0.0.1/", "file:///etc/passwd", "https://", "https://u:p@x.example/",
     "https://x.example/?a=b", "https://x.example/#a", "http://[::1", "https://x.example:99999/", "http://127.1/",
     "http://localhost.example/", "nothing", "https://x.example/a b", "https://x.example/\r\nX: y", "https://ü.example/"],
)  # fmt: skip
def test_a_server_that_may_not_be_asked_is_refused_at_once(url: str) -> None:
    with pytest.raises(UsageError) as stop:
        origin_of(url)
    assert "u:p" not in str(stop.value)


def test_only_this_machine_is_asked_without_tls() -> None:
    for url in ("http://127.0.0.1:5000/a/", "http://[::1]/a/", "http://localhost/", "https://x.example/a/"):
        origin_of(url)
    assert is_loopback("127.9.9.9")
    assert not is_loopback("128.0.0.1")


def test_passwords_come_from_a_file_or_the_environment_and_are_never_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(taxii.VARIABLE, raising=False)
    assert authorization(None) is None
    monkeypatch.setenv(taxii.VARIABLE, "bearer abc")
    assert authorization(None) == "Bearer abc"
    path = tmp_path / "auth"
    path.write_text("basic anna:pässword\n")
    assert authorization(path) == "Basic YW5uYTpww6Rzc3dvcmQ="
    for wrong in ("hunter2", "digest hunter2", "bearer hunter2\r\nX: y", "bearer hünter2", "bearer "):
        path.write_text(wrong)
        with pytest.raises(InputError) as stop:
            authorization(path)
        assert "nter2" not in str(stop.value)
    with pytest.raises(InputError, match="cannot be read"):
        authorization(tmp_path)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"type": "bundle"}', b'{"type": "bundle", "objects": []}', b"\xff",
     b'{"type": "bundle", "objects": [1]}', b'{"type": "bundle", "objects": [{"id": 1, "type": "x"}]}',
     b'{"type": "bundle", "objects": ' + b"[" * 5000],
)  # fmt: skip
def test_a_file_that_is_no_bundle_is_not_pushed(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bundle.json"
    path.write_bytes(data)
    with pytest.raises(FormatError):
        read_bundle(path)


def test_a_bundle_too_large_or_missing_is_not_pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taxii, "MOST_FILE_BYTES", 10)
    (tmp_path / "large").write_bytes(b" " * 11)
    with pytest.raises(FormatError, match="larger"):
        read_bundle(tmp_path / "large")
    with pytest.raises(InputError, match="cannot be read"):
        read_bundle(tmp_path / "none")


def test_the_commands_end_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    there = ["share", "pull", "--collection", NAME, "--out", out, "--server"]
    assert "over https only" in run(capsys, *there, "http://taxii.example/", fails=2)
    with speaking(always(answer({}, kind="text/html"))) as (url, _):
        assert run(capsys, *there, url, fails=3) == (
            "stillwatch: 127.0.0.1: the answer is not TAXII 2.1\n  check that --server names an API root\n"
        )
        assert "no id of a collection" in run(capsys, *there[:3], "../x", *there[4:], url, fails=2)
    assert not out.exists()


def test_without_the_extra_the_install_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "taxii2client.v21", None)
    with pytest.raises(MissingExtraError, match="TAXII needs") as stop:
        pull(Told(OPEN), URL, NAME)
    assert "pip install 'stillwatch[sharing]'" in str(stop.value)


def test_extension_definitions_stay_at_home_unless_asked_for() -> None:
    assert without_definitions([OBJECT, {"type": "extension-definition", "id": "x"}]) == [OBJECT]


def _certificate(folder: Path) -> tuple[Path, Path]:
    """(certificate, key) of 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "here")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))
    return folder / "cert.pem", folder / "key.pem"


def test_a_certificate_is_trusted_only_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    certificate, key = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    data = answer({"id": NAME, "title": "x", "can_read": False, "can_write": False})

    def speak(connection: socket.socket) -> None:
        with connection, context.wrap_socket(connection, server_side=True) as inside:
            inside.recv(1 << 16)
            inside.sendall(data)

    with served(speak) as port:
        url = f"https://127.0.0.1:{port}/api1/"
        with pytest.raises(InputError, match="certificate cannot be trusted"):
            pull(Wire(url, limits=LIMITS), url, NAME)
        with pytest.raises(InputError, match="not for reading"):
            pull(Wire(url, limits=LIMITS, ca=certificate), url, NAME)
    with served(lambda connection: silent(connection, "")) as port:
        url = f"https://127.0.0.1:{port}/api1/"
        with pytest.raises(InputError, match="cannot be reached, or went away"):
            pull(Wire(url, limits=LIMITS, sleep=lambda _: None), url, NAME)
    with pytest.raises(InputError, match="certificates cannot be read"):
        Wire(url, ca=key)
    assert Wire(url).where == Where("127.0.0.1")
