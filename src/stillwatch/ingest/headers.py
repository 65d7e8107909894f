"""HTTP request headers -> canonical columns.

Only the names, the user agent and the TLS fingerprint that a gateway puts in front are looked at: credentials
and cookies stay unread.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from stillwatch.ingest.bodies import Columns
from stillwatch.sketch.hashing import content_hash

_READ = {"user-agent": "user_agent", "x-ja4": "ja4"}


def header_columns(headers: Any) -> Columns | None:
    """`header_hash`, `user_agent` and `ja4`; None for what is no set of headers.

    The hash is over the names in order, in lower case as HTTP/2 and 3 send them (RFC 9113, section 8.2).
    Taken are an object, a list of [name, value] pairs, and a list of objects with `name` (or `key`) and
    `value`. Of a header that occurs several times the first value counts, and its name each time.
    """
    pairs = headers.items() if isinstance(headers, dict) else _pairs(headers)
    if pairs is None:
        return None
    names = [name.lower() for name, _ in pairs]
    out: Columns = {"header_hash": content_hash("headers", "\n".join(names)) if names else None}
    for place, name in enumerate(names):
        if name in _READ and _READ[name] not in out:
            value = _at(pairs, place)
            if isinstance(value, str) and value:
                out[_READ[name]] = value
    return out


def _at(pairs: Iterable[tuple[str, Any]], place: int) -> Any:
    """The value at a place; the first of several (Go's servers keep a list for every name)."""
    _, value = next(islice(pairs, place, None))
    return value[0] if isinstance(value, list) and value else value


def _pairs(headers: Any) -> list[tuple[str, Any]] | None:
    if not isinstance(headers, list):
        return None
    pairs: list[tuple[str, Any]] = []
    for item in headers:
        if isinstance(item, list) and len(item) == 2:
            name, value = item
        elif isinstance(item, dict):
            name, value = item.get("name", item.get("key")), item.get("value")
        else:
            return None
        if not isinstance(name, str):
            return None
        pairs.append((name, value))
    return pairs
