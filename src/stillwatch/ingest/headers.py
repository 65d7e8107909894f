"""HTTP request headers -> canonical columns.

Only the names, the user agent and the TLS fingerprint that a gateway puts in front are looked at: credentials
and cookies stay unread.
"""

from __future__ import annotations

from typing import Any

from stillwatch.ingest.bodies import Columns
from stillwatch.sketch.hashing import content_hash


def header_columns(headers: Any) -> Columns | None:
    """`header_hash`, `user_agent` and `ja4`; None for what is no set of headers.

    The hash is over the names in order, in lower case as HTTP/2 and 3 send them (RFC 9113, section 8.2).
    Taken are an object, a list of [name, value] pairs, and a list of objects with `name` (or `key`) and
    `value`. Of a header that occurs several times the first value counts, and its name each time.
    """
    pairs = _pairs(headers)
    if pairs is None:
        return None
    names = [name for name, _ in pairs]
    joined = "\n".join(names).lower()
    out: Columns = {"header_hash": content_hash("headers", joined) if names else None}
    for header, column in (("user-agent", "user_agent"), ("x-ja4", "ja4")):
        if header in joined:
            value = next((value for name, value in pairs if name.lower() == header), None)
            value = value[0] if isinstance(value, list) and value else value
            if isinstance(value, str) and value:
                out[column] = value
    return out


def _pairs(headers: Any) -> list[tuple[str, Any]] | None:
    if isinstance(headers, dict):
        return list(headers.items())
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
