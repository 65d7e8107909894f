"""TAXII 2.1: a bundle is pushed to a collection of a server, and what partners pushed is pulled.

What is pulled is not believed: it is written down as it came, for `stillwatch intel import` to judge.
TAXII 2.1: OASIS Standard, 10 June 2021.
"""

from __future__ import annotations

import base64
import json
import os
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from stillwatch.evidence.sharing.stix import NAMESPACE
from stillwatch.evidence.sharing.terms import stamp
from stillwatch.evidence.sharing.wire import Wire
from stillwatch.schema.errors import (
    FormatError,
    InputError,
    MissingExtraError,
    OutputError,
    UsageError,
    Where,
)

VARIABLE = "STILLWATCH_TAXII_AUTH"
MOST_FILE_BYTES = 16 << 20
MOST_PAGES = 1_000
MOST_OBJECTS = 100_000
MOST_PULLED_BYTES = 64 << 20
PAGE = 500
_COLLECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CURSOR = re.compile(r"[\x21-\x7e]{1,1024}")
POLL_SECONDS, MOST_POLLS = 1.0, 60


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a collection held."""

    bundle: bytes
    """A STIX bundle with the objects as they came; the same objects give the same bytes."""
    objects: int
    until: str | None
    """When the server was given the newest of them: `--since` of the next pull. None if it does not say."""


def authorization(file: Path | None) -> str | None:
    """The header Authorization from `file`, else from the environment, None without either.

    The text is `basic USER:PASSWORD` or `bearer TOKEN`. UsageError or InputError if it is neither; they never say it.
    """
    where = Where(VARIABLE if file is None else file.name)
    try:
        text = os.environ.get(VARIABLE) if file is None else file.read_text()[:8192]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the password cannot be read", where=where) from error
    if text is None:
        return None
    kind, _, secret = text.strip().partition(" ")
    secret = secret.strip()
    if not secret.isprintable() or not secret or kind.lower() not in ("basic", "bearer"):
        raise InputError("this is no password", where=where, hint="basic USER:PASSWORD, or bearer TOKEN")
    if kind.lower() == "basic":
        return "Basic " + base64.b64encode(secret.encode()).decode()
    if not secret.isascii():
        raise InputError("a token is ASCII", where=where)
    return f"Bearer {secret}"


def read_bundle(path: Path) -> list[dict[str, Any]]:
    """The objects of a STIX 2.1 bundle. FormatError or InputError if it is none."""
    where = Where(path.name)
    try:
        with path.open("rb") as handle:
            data = handle.read(MOST_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"the bundle cannot be read: {error.strerror}", where=where) from error
    if len(data) > MOST_FILE_BYTES:
        raise FormatError("the bundle is larger than 16 MiB", where=where)
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError("this is no JSON", where=where) from error
    objects = found.get("objects") if isinstance(found, dict) and found.get("type") == "bundle" else None
    if not isinstance(objects, list) or not objects or not all(_is_object(o) for o in objects):
        raise FormatError(
            "this is no STIX 2.1 bundle",
            where=where,
            hint="stillwatch share CAMPAIGN --format stix writes one",
        )
    return objects


def without_definitions(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The objects but Extension Definitions.

    The property `version` that these must have is taken for a time by medallion, TAXII's reference server: once a
    collection holds one, medallion 3.0.0 answers nobody who asks for its objects any more.
    """
    return [plain for plain in objects if plain["type"] != "extension-definition"]


def push(objects: list[dict[str, Any]], wire: Wire, server: str, collection: str) -> int:
    """Put `objects` into a collection; how many were taken. OutputError if one is refused, InputError as `Wire`."""
    there = _collection(wire, server, collection)
    if not _allowed(wire, there, "can_write"):
        raise OutputError("the collection is not for writing by us", where=wire.where)
    data = json.dumps({"objects": objects}, ensure_ascii=False).encode()
    headers = {"Accept": _media(), "Content-Type": _media()}
    status = wire.post(f"{there.url}objects/", headers=headers, data=data)
    for _ in range(MOST_POLLS):
        if not isinstance(status, dict) or not isinstance(status.get("id"), str):
            raise InputError("the server's answer to what was pushed is no status", where=wire.where)
        if status.get("status") == "complete":
            break
        number = status["id"]
        if not _COLLECTION.fullmatch(number):
            raise InputError("the server's answer to what was pushed is no status", where=wire.where)
        wire.pause(POLL_SECONDS)
        status = wire.get(f"{_root(server)}status/{number}/", headers={"Accept": _media()})
    else:
        raise OutputError("the server does not get done with what was pushed", where=wire.where)
    failed = status.get("failure_count", 0)
    if failed != 0:
        raise OutputError(
            f"the server refused {failed if isinstance(failed, int) else 'some'} of {len(objects)} objects",
            where=wire.where,
        )
    return len(objects)


def pull(wire: Wire, server: str, collection: str, since: datetime | None = None) -> Pulled:
    """All objects that the collection was given after `since`. InputError if the answers cannot be used."""
    there = _collection(wire, server, collection)
    if not _allowed(wire, there, "can_read"):
        raise InputError("the collection is not for reading by us", where=wire.where)
    asked: dict[str, Any] = {"limit": PAGE}
    if since is not None:
        asked["added_after"] = stamp(since)
    found: list[dict[str, Any]] = []
    seen: set[tuple[str, str]] = set()
    size, until = 0, None
    for _ in range(MOST_PAGES):
        page = _taxii(wire, lambda: there.get_objects(**asked))
        objects = page.get("objects", []) if isinstance(page, dict) else None
        if not isinstance(objects, list) or not all(_is_object(o) for o in objects):
            raise InputError("the server's answer is no TAXII envelope", where=wire.where)
        found += objects
        size += wire.last_bytes
        if len(found) > MOST_OBJECTS or size > MOST_PULLED_BYTES:
            raise InputError(
                f"the collection has more than {MOST_OBJECTS:,} objects or {MOST_PULLED_BYTES >> 20} MiB for us",
                where=wire.where,
                hint="ask for less with --since",
            )
        told = wire.last_headers
        until = _time(told.get("x-taxii-date-added-last") or told.get("x-taxii-date-added-first")) or until
        if page.get("more") is not True:
            return Pulled(_bundle(found), len(found), until)
        following, known = page.get("next"), len(seen)
        seen |= {(o["id"], str(o.get("modified", ""))) for o in objects}
        # The name of the next page may stay the same (medallion's does), but it has to bring something.
        if not isinstance(following, str) or not _CURSOR.fullmatch(following) or len(seen) == known:
            raise InputError("the server's pages go on without an end", where=wire.where)
        asked["next"] = following
    raise InputError(f"the collection has more than {MOST_PAGES:,} pages", where=wire.where)


def _bundle(objects: list[dict[str, Any]]) -> bytes:
    """Sorted by id and version, each once."""
    texts = sorted({json.dumps(o, sort_keys=True, ensure_ascii=False) for o in objects})
    plain = sorted((json.loads(text) for text in texts), key=_order)
    name = uuid.uuid5(NAMESPACE, "\n".join(["pulled", *texts]))
    bundle = {"type": "bundle", "id": f"bundle--{name}", "objects": plain}
    return (json.dumps(bundle, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode(
        "utf-8", "replace"
    )


def _order(plain: dict[str, Any]) -> tuple[str, str, str]:
    return plain["id"], str(plain.get("modified", "")), json.dumps(plain, sort_keys=True)


def _is_object(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("id"), str) and isinstance(value.get("type"), str)


def _root(server: str) -> str:
    return server if server.endswith("/") else f"{server}/"


def _collection(wire: Wire, server: str, collection: str) -> Any:
    """The library's collection over our connection. UsageError for an id that cannot be."""
    if not _COLLECTION.fullmatch(collection):
        raise UsageError("--collection is no id of a collection")
    try:
        from taxii2client.v21 import Collection
    except ImportError as error:
        raise MissingExtraError("taxii2-client", "sharing", needed_for="TAXII") from error
    return Collection(f"{_root(server)}collections/{collection}/", conn=wire)


def _allowed(wire: Wire, there: Any, right: str) -> bool:
    """`can_read` or `can_write` as the server says it."""
    return _taxii(wire, lambda: getattr(there, right)) is True


def _taxii(wire: Wire, ask: Callable[[], Any]) -> Any:
    """What the library makes of an answer. InputError where the server says what no collection is."""
    from taxii2client.exceptions import TAXIIServiceException

    try:
        return ask()
    except TAXIIServiceException as error:
        raise InputError("the server's answer is no collection that we may use", where=wire.where) from error
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise InputError("the server's answer is no collection", where=wire.where) from error


def _media() -> str:
    return "application/taxii+json;version=2.1"


def _time(text: str | None) -> str | None:
    try:
        return None if text is None else stamp(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None
