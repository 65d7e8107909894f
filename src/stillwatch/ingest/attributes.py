"""Attributes of OTLP JSON: lists of keys with tagged values -> plain dictionaries.

The encoding is proto3-JSON (opentelemetry-proto, `common.proto`): an int64 is a string, a list stands under
`arrayValue.values`, an object under `kvlistValue.values`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

Attributes = dict[str, Any]


class Pair(msgspec.Struct, gc=False):
    """A KeyValue. Of the value's members (`stringValue`, `intValue`, ...) one is set."""

    key: str = ""
    value: dict[str, Any] | None = None


class _Tagged(dict[str, Any]):
    """A list or object that still has its tags: unwrapped when it is asked for."""


def flat(pairs: Sequence[Pair] | None) -> Attributes:
    """Key -> plain value. Lists and objects keep their tags: `plain` takes them off."""
    out: Attributes = {}
    for pair in pairs or ():
        members = pair.value
        if members is None:
            continue
        text = members.get("stringValue")
        if text is not None:
            # Nearly every value is text.
            out[pair.key] = text
            continue
        for name, value in members.items():
            if value is None:
                continue
            if name == "intValue":
                out[pair.key] = whole(value)
            elif name in _NESTED:
                out[pair.key] = _Tagged({name: value})
            else:
                out[pair.key] = value
    return out


_NESTED = frozenset({"arrayValue", "kvlistValue"})


def plain(value: Any) -> Any:
    """A value of `flat` without the tags of nested ones. RecursionError where it nests too deeply."""
    return _untagged(value) if type(value) is _Tagged else value


def _untagged(value: Any) -> Any:
    if not isinstance(value, dict):
        return None
    for name, inner in value.items():
        if inner is None:
            continue
        if name == "intValue":
            return whole(inner)
        if name == "arrayValue":
            return [_untagged(item) for item in _values(inner)]
        if name == "kvlistValue":
            return {
                pair["key"]: _untagged(pair.get("value"))
                for pair in _values(inner)
                if isinstance(pair, dict) and isinstance(pair.get("key"), str)
            }
        return inner
    return None


def _values(holder: Any) -> list[Any]:
    found = holder.get("values") if isinstance(holder, dict) else None
    return found if isinstance(found, list) else []


def whole(value: Any) -> Any:
    """An int64 as JSON writes it (text or number) -> int; anything else stays what it is."""
    if type(value) is str and 0 < len(value) <= 20:
        try:
            return int(value)
        except ValueError:
            return value
    return value


def indexed(attributes: Mapping[str, Any], prefix: str) -> list[Attributes]:
    """Attributes `<prefix><number>.<rest>` -> one dictionary (rest -> value) for each number, in order."""
    found: dict[int, Attributes] = {}
    start = len(prefix)
    for key, value in attributes.items():
        if key.startswith(prefix):
            number, dot, rest = key[start:].partition(".")
            if dot and len(number) <= 6 and number.isascii() and number.isdigit():
                found.setdefault(int(number), {})[rest] = value
    return [found[number] for number in sorted(found)]
