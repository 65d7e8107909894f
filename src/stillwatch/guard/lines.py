"""On which line of a TOML file a value stands: the parser of the standard library does not say.

Only what a policy is written with is followed: tables, arrays of tables, and keys at the beginning of a line. Values
over several lines (arrays, long strings) are passed over. The parser has accepted the text before.
"""

from __future__ import annotations

import re

Path = tuple[str | int, ...]

_TABLE = re.compile(r"^\s*(\[\[?)\s*([A-Za-z0-9_.\"' -]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"^\s*([A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')\s*=\s*(.*)$")
_STRING = re.compile(r"\"(?:\\.|[^\"\\])*\"|'[^']*'")
_PATH = re.compile(r"\.([A-Za-z0-9_-]+)|\[(\d+)\]")


def lines_of(text: str) -> dict[Path, int]:
    """Line, counted from 1, of each key and table by its path, e.g. ("rule", 0, "action")."""
    found: dict[Path, int] = {}
    number_of: dict[str, int] = {}
    table: Path = ()
    inside = ""
    depth = 0
    for number, line in enumerate(text.splitlines(), 1):
        if inside:
            if inside in line:
                inside = ""
            continue
        rest = line
        if depth == 0:
            head = _TABLE.match(line)
            if head is not None:
                name = head[2].strip("\"' ")
                table = (*name.split("."),)
                if head[1] == "[[":
                    number_of[name] = number_of.get(name, -1) + 1
                    table = (name, number_of[name])
                found[table] = number
                continue
            key = _KEY.match(line)
            if key is None:
                continue
            found[(*table, key[1].strip("\"'"))] = number
            rest = key[2]
        for mark in ('"""', "'''"):
            if rest.count(mark) % 2:
                inside = mark
        plain = _STRING.sub("", rest.replace('"""', "").replace("'''", "")).partition("#")[0]
        depth = max(0, depth + plain.count("[") + plain.count("{") - plain.count("]") - plain.count("}"))
    return found


def line_of(found: dict[Path, int], where: str) -> int | None:
    """Line of a place as msgspec names it (`$.rule[0].action`), or of the nearest thing around it that has one."""
    path: Path = tuple(int(n) if n else name for name, n in _PATH.findall(where))
    while path:
        if path in found:
            return found[path]
        path = path[:-1]
    return None
