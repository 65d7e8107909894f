"""Snapshots from elsewhere: `http://`, `https://` (long poll) and `valkey://`, into a file beside the door.

What arrives is checked like any snapshot before it replaces the file, and the file is what the door loads: a door
that is started again needs no network, and one whose source is away goes on with what it has until that expires.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from stillwatch.guard.doors.metrics import Tally
from stillwatch.guard.layout import map_snapshot
from stillwatch.guard.secret import Secret
from stillwatch.guard.snapshot import Meta
from stillwatch.schema.errors import MissingExtraError, SnapshotError, StillwatchError, UsageError, Where

CACHE_VARIABLE = "STILLWATCH_GUARD_CACHE"
MOST_BYTES = 1 << 30
"""Of a snapshot that is taken from elsewhere; that of a million accounts has about a fifth of it."""
WAIT_S = 25
TIMEOUT_S = 10.0
"""For an answer to begin, besides the wait, and between two pieces of it."""
LONGEST_S = 300.0
"""For a whole snapshot to arrive."""
FIRST_S, SLOWEST_S = 0.5, 30.0
"""How long a source is left alone after it failed: doubled every time."""
POLL_S = 5.0
KEY = "stillwatch:snapshot"
_PIECE = 1 << 20


class Unavailable(Exception):
    """The source did not give what it should. Holds no address and no credential."""


def etag_of(parts: Iterator[bytes]) -> str:
    """By content, so that a door knows it of the file that it has."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return f'"{digest.hexdigest()}"'


def pieces(handle: Any) -> Iterator[bytes]:
    """What is left of a file."""
    return iter(lambda: handle.read(_PIECE), b"")


class Fetched:
    """A file that follows a source. `start` begins; `path` is there from then on, or an error says why not."""

    def __init__(
        self,
        url: str,
        secret: Secret,
        *,
        token: str | None = None,
        cache: Path | None = None,
        most: int = MOST_BYTES,
        wait_s: float = WAIT_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """UsageError for an address that is none."""
        self._url, self._secret, self._token = url, secret, token
        self._most, self._wait_s, self._timeout_s = most, wait_s, timeout_s
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "valkey") or not parts.hostname:
            raise UsageError(
                "the snapshot's address is none that is known",
                hint="a file, http://HOST:PORT/v1/snapshot, https://..., or valkey://HOST:PORT/0",
            )
        self._get = self._valkey if parts.scheme == "valkey" else self._http
        name = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()
        self.path = (cache or _cache()) / f"snapshot-{name}"
        self.failed = 0
        """Times that the source was away, or gave what cannot be used."""
        self.problem: str | None = None
        """What was wrong the last time, None when it answers."""
        self._etag = ""
        self._last_us = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._pubsub: Any = None
        self._client: Any = None
        self._deaf = False
        """Whether the server lets this door read, but not listen."""

    def tally(self) -> Tally:
        """`failed`, for metrics."""
        what = "Times that snapshots were asked for elsewhere, in vain."
        return Tally("snapshot_fetches", what, "state", lambda: {"failed": self.failed})

    def start(self, told: Callable[[], object], first_s: float = TIMEOUT_S) -> None:
        """Have a snapshot, from before or from the source within `first_s`, and begin to follow. `told` is called in
        another thread after each new one. SnapshotError where there is none."""
        try:
            with self.path.open("rb") as handle:
                self._etag = etag_of(pieces(handle))
            self._last_us = map_snapshot(self.path, self._secret, Meta)[0].last_us
        except (OSError, StillwatchError):
            # None yet, or none that is of use.
            self._etag = ""
            end = time.monotonic() + first_s
            while not self._once(0):
                if time.monotonic() > end or self._stop.wait(FIRST_S):
                    self.close()
                    raise SnapshotError(
                        f"there is no snapshot: {self.problem}", hint="is `stillwatch guard publish` running?"
                    ) from None
        self._thread = threading.Thread(
            target=self._follow, args=(told,), name="stillwatch-snapshot", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop. The thread ends when the source has answered or timed out."""
        self._stop.set()

    def _follow(self, told: Callable[[], object]) -> None:
        pause = FIRST_S
        while not self._stop.is_set():
            failed = self.failed
            if self._once(self._wait_s):
                told()
            if self.failed == failed:
                pause = FIRST_S
            elif self._stop.wait(pause):
                return
            else:
                pause = min(2 * pause, SLOWEST_S)

    def _once(self, wait_s: float) -> bool:
        """Ask once; whether the file is another one now."""
        try:
            found = self._get(wait_s)
            self.problem = None
            return found
        except Unavailable as error:
            self.problem = str(error)
        except StillwatchError as error:
            self.problem = error.what
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.problem = f"the source of snapshots cannot be reached ({type(error).__name__})"
        self.failed += 1
        return False

    def _http(self, wait_s: float) -> bool:
        parts = urlsplit(self._url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=self._timeout_s + wait_s)
        headers = {"if-none-match": self._etag} if self._etag else {}
        if self._token is not None:
            headers["x-stillwatch-token"] = self._token
        query = f"{parts.query}&" if parts.query else ""
        began = time.monotonic()
        try:
            connection.request("GET", f"{parts.path or '/'}?{query}wait={wait_s:g}", headers=headers)
            answer = connection.getresponse()
            if answer.status == 304:
                # A server that does not know how to wait must not be asked all the time.
                self._stop.wait(max(0.0, min(FIRST_S, wait_s) - (time.monotonic() - began)))
                return False
            if answer.status != 200:
                raise Unavailable(f"the source of snapshots answers {answer.status}")
            size = answer.headers.get("content-length", "")
            if not size.isdecimal():
                raise Unavailable("the source of snapshots does not say how large the snapshot is")
            if connection.sock is not None:
                connection.sock.settimeout(self._timeout_s)
            body = iter(lambda: answer.read1(_PIECE), b"")
            return self._take(body, int(size), answer.headers.get("etag", ""))
        finally:
            connection.close()

    def _valkey(self, wait_s: float) -> bool:
        valkey = _valkey_package()
        try:
            if self._client is None:
                self._client, self._key = client_of(self._url, self._timeout_s)
            client, key = self._client, self._key
            if self._pubsub is None and wait_s and not self._deaf:
                pubsub = client.pubsub(ignore_subscribe_messages=True)
                pubsub.subscribe(key)
                self._pubsub = pubsub
            found = client.get(f"{key}:etag")
            if found is None:
                raise Unavailable("there is no snapshot at this key")
            etag = found.decode("latin-1")
            if etag == self._etag:
                if wait_s:
                    self._listen(valkey, min(wait_s, POLL_S))
                return False
            size = int(client.strlen(key))
            if size > self._most:
                raise Unavailable(f"the snapshot has more than {self._most:,} bytes")
            body = (client.getrange(key, at, at + _PIECE - 1) for at in range(0, size, _PIECE))
            return self._take(body, size, etag)
        except valkey.exceptions.ValkeyError as error:
            self._client = self._pubsub = None
            raise Unavailable(
                f"the source of snapshots cannot be reached ({type(error).__name__})"
            ) from error

    def _listen(self, valkey: Any, wait_s: float) -> None:
        """Until somebody says that there is a new one, or `wait_s`; where nobody may listen, a little while."""
        if self._deaf:
            self._stop.wait(FIRST_S)
            return
        try:
            self._pubsub.get_message(timeout=wait_s)
        except valkey.exceptions.ResponseError:
            self._deaf = True

    def _take(self, body: Iterator[bytes], size: int, etag: str) -> bool:
        """Put what arrives in the file's place, if it is whole, sealed and no older than the one that is there."""
        if size > self._most:
            raise Unavailable(f"the snapshot has more than {self._most:,} bytes")
        end = time.monotonic() + LONGEST_S
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(prefix=f".{self.path.name}-", dir=self.path.parent)
        temporary, got = Path(name), 0
        try:
            with os.fdopen(handle, "wb") as file:
                for part in body:
                    got += len(part)
                    if got > size or time.monotonic() > end or self._stop.is_set():
                        break
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            if got != size:
                raise Unavailable(f"the snapshot broke off: {got:,} bytes of {size:,}")
            try:
                meta: Meta = map_snapshot(temporary, self._secret, Meta)[0]
            except SnapshotError as error:
                # The same again would not be better.
                self._etag = etag
                raise SnapshotError(error.what, where=Where(self.path.name)) from error
            if meta.last_us < self._last_us:
                self._etag = etag
                raise Unavailable("the snapshot is older than the one in use")
            os.replace(temporary, self.path)
            self._etag, self._last_us = etag, meta.last_us
            return True
        finally:
            temporary.unlink(missing_ok=True)


def _cache() -> Path:
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stillwatch"


def _valkey_package() -> Any:
    try:
        import valkey
    except ImportError as error:
        raise MissingExtraError("valkey", "valkey", needed_for="snapshots from Valkey") from error
    return valkey


def client_of(url: str, timeout_s: float = TIMEOUT_S) -> tuple[Any, str]:
    """(client, key) of an address `valkey://[USER:PASSWORD@]HOST[:PORT][/DB][?key=KEY]`."""
    key = parse_qs(urlsplit(url).query).get("key", [KEY])[0]
    client = _valkey_package().Valkey.from_url(
        url.partition("?")[0], socket_timeout=timeout_s, socket_connect_timeout=timeout_s
    )
    return client, key


def publish(path: Path, url: str) -> str:
    """Put a snapshot file where `valkey://` doors find it, and tell them; its etag. SnapshotError if it cannot be."""
    valkey = _valkey_package()
    data = path.read_bytes()
    etag = etag_of(iter([data]))
    try:
        client, key = client_of(url)
        with client.pipeline(transaction=True) as all_at_once:
            all_at_once.set(key, data).set(f"{key}:etag", etag).publish(key, etag).execute()
    except valkey.exceptions.ValkeyError as error:
        raise SnapshotError(
            f"the snapshot cannot be published: {type(error).__name__}", hint="is Valkey running there?"
        ) from error
    return etag
