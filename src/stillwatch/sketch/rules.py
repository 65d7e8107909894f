"""The rule pack: which wording gives which tag. A YAML file that an analyst can read and edit.

The file is checked when it is read, and its phrases are cut into tokens by the same code as every text, so that case,
punctuation, spacing and look-alike letters make no difference on either side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from stillwatch.schema.errors import FormatError, InputError, Where
from stillwatch.sketch.fold import basic_plane, mathematical
from stillwatch.sketch.kernel import tokens_of
from stillwatch.sketch.match import Compiled, compiled

MOST_TAGS = 32
MOST_WITHIN = 10_000
MOST_BYTES = 4 << 20
"""A larger file is no rule pack."""

Kind = Literal["elicitation", "capability"]


class _Rule(msgspec.Struct, forbid_unknown_fields=True):
    within: int
    all: list[list[str]]


class _Tag(msgspec.Struct, forbid_unknown_fields=True):
    kind: Kind
    says: str
    rules: list[_Rule]


class _Pack(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    tags: dict[str, _Tag]


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag: bit number, name, kind, and what it says in words."""

    bit: int
    name: str
    kind: Kind
    says: str


@dataclass(frozen=True, slots=True)
class RulePack:
    """Tags by bit, and the compiled rules."""

    version: int
    """1..65535; stored sketches carry it, and tags of another version are not read."""
    digest: str
    """SHA-256 of the file, hex."""
    tags: tuple[Tag, ...]
    rules: Compiled

    def mask(self, kind: Kind) -> int:
        """Bits of all tags of one kind."""
        return sum(1 << tag.bit for tag in self.tags if tag.kind == kind)

    def names(self, bits: int, kind: Kind) -> list[str]:
        """Names of the tags of one kind that are set in `bits`, by bit."""
        return [tag.name for tag in self.tags if tag.kind == kind and bits >> tag.bit & 1]


def load_rules(path: Path) -> RulePack:
    """Read a rule pack. InputError where the file cannot be read, FormatError where it is none, naming the place."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise FormatError("the rule pack is larger than 4 MiB", where=Where(file=path.name))
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or "it cannot be opened"
        raise InputError(f"the rule pack cannot be read: {reason}", where=Where(file=path.name)) from error
    return read_rules(data, path.name)


def read_rules(data: bytes, name: str) -> RulePack:
    """A rule pack from the bytes of a YAML file; `name` is for errors."""
    where = Where(file=name)
    try:
        pack = msgspec.yaml.decode(data, type=_Pack)
    except msgspec.ValidationError as error:
        raise FormatError(f"the rule pack does not have the right form: {error}", where=where) from error
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        line = getattr(getattr(error.__context__, "problem_mark", None), "line", None)
        at = f" (line {line + 1})" if line is not None else ""
        raise FormatError(f"the rule pack is no YAML{at}", where=where) from error
    if not 1 <= pack.version <= 0xFFFF:
        raise FormatError("`version` of the rule pack must be 1 to 65535", where=where)
    if not 1 <= len(pack.tags) <= MOST_TAGS:
        raise FormatError(f"a rule pack has 1 to {MOST_TAGS} tags, this one {len(pack.tags)}", where=where)
    rules: list[tuple[int, int, list[list[npt.NDArray[np.uint64]]]]] = []
    for bit, (tag, body) in enumerate(pack.tags.items()):
        if not body.rules:
            raise FormatError(f"tag {tag!r} has no rule", where=where)
        for number, rule in enumerate(body.rules, 1):
            place = f"rule {number} of tag {tag!r}"
            if not 0 <= rule.within <= MOST_WITHIN:
                raise FormatError(f"{place}: `within` must be 0 to {MOST_WITHIN}", where=where)
            if not rule.all or not all(rule.all):
                raise FormatError(f"{place} has an empty list of phrases", where=where)
            rules.append((bit, rule.within, [_phrases(each, place, where) for each in rule.all]))
    tags = tuple(Tag(i, name, body.kind, body.says) for i, (name, body) in enumerate(pack.tags.items()))
    return RulePack(pack.version, hashlib.sha256(data).hexdigest(), tags, compiled(rules))


def _phrases(phrases: Sequence[str], place: str, where: Where) -> list[npt.NDArray[np.uint64]]:
    out = []
    for phrase in phrases:
        tokens = _tokens(phrase)
        if len(tokens) == 0 or len(phrase.strip()) < 2:
            raise FormatError(f"{place}: the phrase {phrase!r} is too short to match anything", where=where)
        out.append(tokens)
    return out


def _tokens(text: str) -> npt.NDArray[np.uint64]:
    data = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    out = np.empty(2 * len(data) + 2, np.uint64)
    spans = np.empty((1, 2), np.int64)
    count, _, _ = tokens_of(data, 0, len(data), basic_plane(), mathematical(), out, spans, False)
    return out[:count].copy()


@cache
def default_rules() -> RulePack:
    """The pack that comes with this version."""
    data = resources.files("stillwatch.sketch").joinpath("packs/tags.yaml").read_bytes()
    return read_rules(data, "tags.yaml")
