"""HTTP to a TAXII server that may be hostile or broken: what comes back is bounded in size, time and place.

An object of this class is the connection that `taxii2client` is given. HTTPS unless the server is this machine; no
redirect is followed; every request goes to the one origin that was named; an answer has the right type, at most
`MOST_BYTES` and `MOST_SECONDS`, headers and all. Passing faults are tried again.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec

from stillwatch.schema.errors import InputError, UsageError, Where

MEDIA_TYPE = "application/taxii+json"
MOST_BYTES = 16 << 20
"""Of one answer. None is packed: that is not asked for, and refused."""
MOST_SECONDS = 60.0
"""For one answer, from asking to its last byte."""
IDLE_SECONDS = 15.0
"""Without a byte."""
TRIES = 3
MOST_WAIT_SECONDS = 10.0
PASSING = (429, 500, 502, 503, 504)
BLOCK = 1 << 16


def origin_of(url: str) -> SplitResult:
    """The parts of a server's URL. UsageError if it may not be asked."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError("--server is no URL", hint="as in https://taxii.example.org/api1/")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError("--server is no URL", hint="as in https://taxii.example.org/api1/") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise UsageError("--server is no http(s) URL", hint="as in https://taxii.example.org/api1/")
    if parts.username or parts.password:
        raise UsageError(
            "the URL of the server has a password in it", hint="set STILLWATCH_TAXII_AUTH or name --auth-file"
        )
    if parts.query or parts.fragment:
        raise UsageError(
            "the URL of the server ends with a query or a fragment", hint="name the API root alone"
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise UsageError("a server elsewhere is asked over https only", hint="name it as https://...")
    return parts


def is_loopback(host: str) -> bool:
    """Whether a host of a URL is this machine by its very name."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a server is borne."""

    bytes: int = MOST_BYTES
    seconds: float = MOST_SECONDS
    idle_seconds: float = IDLE_SECONDS


class _Busy(Exception):
    """The server may answer later."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.what, self.wait = what, wait


class Wire:
    """A connection to one origin, as `taxii2client` wants it: `get`, `post`, `close`."""

    def __init__(
        self,
        server: str,
        *,
        auth: str | None = None,
        ca: Path | None = None,
        limits: Limits | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`auth`: value of the header Authorization; `ca`: certificates to trust instead of the system's.

        UsageError for a server that may not be asked, InputError for certificates that cannot be read.
        """
        self._parts = origin_of(server)
        self.where = Where(self._parts.hostname)
        self._auth, self._limits, self.pause = auth, limits or Limits(), sleep
        self._tls: ssl.SSLContext | None = None
        if self._parts.scheme == "https":
            try:
                self._tls = ssl.create_default_context(cafile=None if ca is None else str(ca))
            except (OSError, ssl.SSLError) as error:
                raise InputError("the certificates cannot be read", where=Where(str(ca))) from error
        self.last_headers: Mapping[str, str] = {}
        """Of the newest answer, names in lower case."""
        self.last_bytes = 0
        """Of the newest answer."""

    def get(self, url: str, headers: Mapping[str, str] | None = None, params: Any = None) -> Any:
        """The JSON that is there. InputError says what is wrong with the answer."""
        return self._ask("GET", url, headers, params, None)

    def post(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        params: Any = None,
        data: bytes | None = None,
    ) -> Any:
        """The JSON that answers `data`. Said again where the server was busy: ids make that harmless."""
        return self._ask("POST", url, headers, params, data)

    def close(self) -> None:
        """Nothing is open between two requests."""

    def _ask(
        self, method: str, url: str, headers: Mapping[str, str] | None, params: Any, data: bytes | None
    ) -> Any:
        parts = urlsplit(url)
        if (parts.scheme, parts.netloc) != (self._parts.scheme, self._parts.netloc):
            raise self._fault("the server names another server")
        target = parts.path + (f"?{urlencode(params, doseq=True)}" if params else "")
        sent = {"User-Agent": "stillwatch", "Accept-Encoding": "identity", **(headers or {})}
        if self._auth is not None:
            sent["Authorization"] = self._auth
        for tried in range(1, TRIES + 1):
            try:
                return self._once(method, target, sent, data)
            except _Busy as busy:
                if tried == TRIES:
                    raise self._fault(busy.what) from busy
                self.pause(min(MOST_WAIT_SECONDS, 2.0 ** (tried - 1) if busy.wait is None else busy.wait))
        raise AssertionError  # the last try returned or raised

    def _once(self, method: str, target: str, headers: Mapping[str, str], data: bytes | None) -> Any:
        connection = self._connection()
        with _at_most(self._limits.seconds, connection) as watch:
            try:
                connection.connect()
                # The connection forgets its socket where the server wants to close it after the answer.
                watch.sock = connection.sock
                connection.request(method, target, data, dict(headers))
                with connection.getresponse() as response:
                    self._check(response)
                    body = self._body(response)
            except ssl.SSLCertVerificationError as error:
                raise self._fault(
                    "the server's certificate cannot be trusted", "name --ca if it is your own"
                ) from error
            except (http.client.HTTPException, OSError, ValueError) as error:
                if watch.late:
                    raise self._fault(
                        f"the answer takes longer than {self._limits.seconds:g} seconds"
                    ) from error
                if isinstance(error, OSError | http.client.RemoteDisconnected | http.client.IncompleteRead):
                    raise _Busy("the server cannot be reached, or went away") from error
                raise self._fault("the server does not speak HTTP as it should") from error
        if watch.late:
            raise self._fault(f"the answer takes longer than {self._limits.seconds:g} seconds")
        try:
            found = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._fault("the answer is no JSON") from error
        self.last_headers = {name.lower(): value for name, value in response.getheaders()}
        self.last_bytes = len(body)
        return found

    def _connection(self) -> http.client.HTTPConnection:
        host, port, idle = self._parts.hostname or "", self._parts.port, self._limits.idle_seconds
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=idle)
        through = None if proxy_bypass(host) else getproxies().get("https")
        if through is None:
            return _Tls(host, port, idle, self._tls, host)
        proxy = urlsplit(through if "//" in through else f"//{through}")
        made = _Tls(proxy.hostname or "", proxy.port, idle, self._tls, host)
        made.set_tunnel(host, port or 443)
        return made

    def _check(self, response: http.client.HTTPResponse) -> None:
        status = response.status
        if 300 <= status < 400:
            raise self._fault("the server sends us elsewhere: redirects are not followed")
        if status in PASSING:
            raise _Busy(
                f"the server is out of order (status {status})", _seconds(response.getheader("Retry-After"))
            )
        if status in (401, 403):
            raise self._fault(
                "the server refuses us",
                "set STILLWATCH_TAXII_AUTH, or name --auth-file, if it needs a password",
            )
        if status == 404:
            raise self._fault("there is no such API root or collection", "check --server and --collection")
        if not 200 <= status < 300:
            raise self._fault(f"the server answers with status {status}")
        kind, *rest = (part.strip().lower() for part in response.getheader("Content-Type", "").split(";"))
        versions = [part.partition("=")[2].strip('"') for part in rest if part.startswith("version=")]
        if kind != MEDIA_TYPE or any(version != "2.1" for version in versions):
            raise self._fault("the answer is not TAXII 2.1", "check that --server names an API root")
        if response.getheader("Content-Encoding", "identity").lower() != "identity":
            raise self._fault("the answer is packed, which was not asked for")

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        parts: list[bytes] = []
        left = self._limits.bytes
        while part := response.read1(BLOCK):
            left -= len(part)
            if left < 0:
                raise self._fault(f"the answer is larger than {self._limits.bytes:,} bytes")
            parts.append(part)
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        return b"".join(parts)

    def _fault(self, what: str, hint: str | None = None) -> InputError:
        return InputError(what, where=self.where, hint=hint)


class _Tls(http.client.HTTPSConnection):
    """Shows its socket before the handshake, so that one that takes too long can be hung up, too."""

    def __init__(self, host: str, port: int | None, idle: float, context: ssl.SSLContext, name: str) -> None:
        super().__init__(host, port, timeout=idle, context=context)
        self._own, self._name = context, name

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        sock = self._own.wrap_socket(self.sock, server_hostname=self._name, do_handshake_on_connect=False)
        self.sock = sock
        sock.do_handshake()


@dataclass(slots=True)
class _Watch:
    late: bool = False
    sock: socket.socket | None = None


@contextlib.contextmanager
def _at_most(seconds: float, connection: http.client.HTTPConnection) -> Iterator[_Watch]:
    """Hang up after `seconds`, however slowly the bytes come."""
    watch = _Watch()

    def hang_up() -> None:
        watch.late = True
        sock = watch.sock or connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield watch
    finally:
        timer.cancel()
        connection.close()


def _seconds(given: str | None) -> float | None:
    """Seconds of a header Retry-After; None where it is a date or nonsense."""
    try:
        seconds = float(given or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None
