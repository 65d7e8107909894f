"""What a request shows: its keys, as places in the snapshot. The scan's sketch and hashes, one request at a time."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from stillwatch.guard.kernel import families_in, families_of, find, partners_in
from stillwatch.guard.snapshot import Arrays, Snapshot
from stillwatch.guard.subject import ADDRESS, BODY, PROMPT, Subject
from stillwatch.ingest.bodies import asking_columns
from stillwatch.schema.intel import HASH_HEX, HASHED_AFTER
from stillwatch.schema.tables import REDACTION_MARKERS
from stillwatch.sketch.fold import basic_plane, mathematical
from stillwatch.views.base import hash_one, mix_one
from stillwatch.views.link import AddressBlock, address_block

MOST_BODY = 8 << 20
"""Bytes of a body beyond which it is not read."""
MOST_TEXT = 4 << 20
"""Characters of a text beyond which it is not sketched: about 10 ms of one core."""
MOST_PARTS, MOST_ITEMS = 20_000, 200_000
"""Objects and arrays, and what stands between commas, of a body beyond which it is not read: 10^6 empty messages
(3 MB) took 6 s."""
MOST_CACHED = 1 << 14
KNOWN = 1 << 15
"""Postings whose hash is remembered, by key: those of templates come again, and a hash costs 0.7 us. 400 kB."""
MOST_HASHED = 256
"""Postings of one text that are compared with partners' fingerprints, by key: 0.1 ms of one core."""
_IPV4 = re.compile(r"(::ffff:)?(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})")
ROUTABLE = frozenset(range(1, 224)) - {10, 100, 127, 169, 172, 192, 198, 203}
"""First numbers under which every IPv4 address is routable: no need to ask `ipaddress`, which takes 20 us."""
_HASHES = (("tools_hash", "tool_schema"), ("format_hash", "output_format"), ("system_hash", "system_prompt"))

_decode = msgspec.json.Decoder().decode


class _Text:
    """Families of one part (prompt or system), with the scratch that the kernel needs."""

    def __init__(self, arrays: Arrays, part: str) -> None:
        self._table = getattr(arrays, f"{part}_table")
        self._family = getattr(arrays, f"{part}_family")
        self._place = getattr(arrays, f"{part}_place")
        self._need = getattr(arrays, f"{part}_need")
        families = len(self._place)
        self._seen = np.zeros(len(self._family), np.int32)
        self._hits = np.zeros(families, np.int32)
        self._touched = np.zeros(families, np.int32)
        self._out = np.zeros(families, np.int32)
        self._call = 0
        self._plane, self._math = basic_plane(), mathematical()
        self._spans = np.zeros((1, 2), np.int64)
        self._size = np.zeros(1, np.int64)
        self._room(1 << 14)

    def _room(self, size: int) -> None:
        self._tokens = np.empty(size, np.uint64)
        self._post = np.empty(size, np.uint64)

    def families(self, text: str) -> list[int]:
        """Places of the families that `text` belongs to."""
        data = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
        if len(data) + 2 > len(self._tokens):
            self._room(2 * len(data) + 2)
        self._call += 1
        found = families_of(
            data, self._plane, self._math, self._tokens, self._spans, self._post, self._table, self._family,
            self._place, self._need, self._seen, self._call, self._hits, self._touched, self._out,
            self._size,
        )  # fmt: skip
        out: list[int] = self._out[:found].tolist() if found > 0 else []
        return out

    def postings(self) -> npt.NDArray[np.uint64]:
        """Of the text that `families` saw last; to be used before the next."""
        return self._post[: self._size[0]]

    def families_of_sketch(self, sketch: Sketched) -> list[int]:
        """The same of a text's sketch."""
        self._call += 1
        found = families_in(
            sketch.post, sketch.level, self._table, self._family, self._place, self._need, self._seen, self._call,
            self._hits, self._touched, self._out,
        )  # fmt: skip
        out: list[int] = self._out[:found].tolist() if found > 0 else []
        return out


@dataclass(frozen=True, slots=True)
class Sketched:
    """A text that is there as its sketch alone (`sketch.PartSketch`): logs without text."""

    exact: int
    post: npt.NDArray[np.uint64]
    level: int


class _Partners:
    """Fingerprints of partners, with the scratch that the kernel needs."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self._seen = np.zeros(len(arrays.intel_hash), np.int64)
        count = len(arrays.intel_need)
        self._hits, self._touched, self._out = (np.zeros(count, np.int32) for _ in range(3))
        self._chosen, self._short = (np.empty(MOST_HASHED + 1, np.uint64) for _ in range(2))
        keys = len(arrays.intel_level)
        self._known, self._known_at = np.zeros((keys, KNOWN), np.uint64), np.full((keys, KNOWN), -1, np.int32)
        self._known[:, 0] = 1
        self._head = np.frombuffer(HASHED_AFTER.ljust(64, b"\0"), np.uint8).copy()
        self._call = 0

    def fit(self, post: npt.NDArray[np.uint64]) -> tuple[int, ...]:
        """Numbers of the fingerprints that a text's postings fit."""
        a = self._arrays
        self._call += 1
        found = partners_in(
            post, a.intel_level, a.intel_inner, a.intel_outer, self._head, len(HASHED_AFTER), 4 * HASH_HEX,
            a.intel_hash, a.intel_offsets, a.intel_of, a.intel_need, self._seen, self._call, self._hits,
            self._touched, self._chosen, self._short, self._known, self._known_at, self._out,
        )  # fmt: skip
        return tuple(self._out[:found].tolist()) if found else ()


class Sight:
    """Reads requests. Not for two threads at once."""

    def __init__(self, snapshot: Snapshot) -> None:
        a = snapshot.arrays
        self._form = snapshot.meta.form_places
        self._keys = a.key_hash
        self._exits = a.exit_first, a.exit_last
        self._prompt, self._system = _Text(a, "prompt"), _Text(a, "system")
        self._systems: dict[int, list[int]] = {}
        self._hashes: dict[tuple[str, int], int] = {}
        self._addresses: dict[str, int] = {}
        self._partners = _Partners(a) if snapshot.meta.intel else None
        self._system_fits: dict[int, tuple[int, ...]] = {}
        self.fits: tuple[int, ...] = ()
        """Fingerprints of partners (`Meta.intel`) that the request seen last fits."""

    def look(
        self,
        subject: Subject,
        places: list[int],
        prompt_sketch: Sketched | None = None,
        system_sketch: Sketched | None = None,
    ) -> int:
        """Put the places of the request's keys into `places`, each once; bits of what could not be seen.

        Sketches stand for texts that the subject lacks.
        """
        lacked = 0
        self.fits = ()
        prompt: Any = subject.prompt
        system: Any = subject.system
        hashes: Any = subject
        if subject.body is not None:
            found = _columns(subject.body)
            if found is None:
                lacked |= BODY
            else:
                prompt, system = found.get("prompt"), found.get("system")
                hashes = found
        if prompt is None and prompt_sketch is not None:
            places += self._prompt.families_of_sketch(prompt_sketch)
        elif type(prompt) is not str or len(prompt) > MOST_TEXT:
            lacked |= PROMPT
        elif prompt and prompt not in REDACTION_MARKERS:
            places += self._prompt.families(prompt)
            if self._partners is not None:
                self.fits = self._partners.fit(self._prompt.postings())
        if type(system) is str and 0 < len(system) <= MOST_TEXT and system not in REDACTION_MARKERS:
            places += self._of_system(system)
        elif system is None and system_sketch is not None:
            places += self._of_system_sketch(system_sketch)
        for name, kind in _HASHES:
            value = hashes.get(name) if hashes is not subject else getattr(subject, name)
            if value is not None and type(value) is int and 0 < value < 1 << 64:
                place = self._hashes.get((kind, value), -2)
                if place == -2:
                    place = self._remember(
                        self._hashes, (kind, value), self._find(mix_one(value, kind), True)
                    )
                if place >= 0:
                    places.append(place)
        ip: Any = subject.ip
        if type(ip) is not str or not ip or len(ip) > 64:
            return lacked | ADDRESS
        place = self._addresses.get(ip, -2)
        if place == -2:
            place = self._remember(self._addresses, ip, self._of_address(ip))
        if place >= 0:
            places.append(place)
        return lacked

    def _of_system(self, text: str) -> list[int]:
        """System prompts repeat: their families are remembered by hash."""
        name = xxhash.xxh3_64_intdigest(text.encode("utf-8", "replace"))
        found = self._systems.get(name)
        if found is None:
            found = self._remember(self._systems, name, self._system.families(text))
            if self._partners is not None:
                self._remember(self._system_fits, name, self._partners.fit(self._system.postings()))
        if self._partners is not None:
            self.fits += self._system_fits.get(name, ())
        return found

    def _of_system_sketch(self, sketch: Sketched) -> list[int]:
        # Another kind of hash than that of a text: the two never meet in one log's rows for one system prompt.
        found = self._systems.get(sketch.exact)
        if found is None:
            found = self._remember(self._systems, sketch.exact, self._system.families_of_sketch(sketch))
        return found

    def _find(self, key: int, form: bool) -> int:
        first, end = (0, self._form) if form else (self._form, len(self._keys))
        return int(find(self._keys, first, end, np.uint64(key)))

    def _of_address(self, ip: str) -> int:
        """Place of the address's block; -1 for what strangers come out of."""
        plain = _IPV4.fullmatch(ip) or _IPV4.fullmatch(ip.strip().lower())
        block = None
        if plain is not None:
            mapped, a, b, c, d = plain.groups()
            first, second, third, fourth = int(a), int(b), int(c), int(d)
            if len(self._exits[0]) and max(first, second, third, fourth) <= 255:
                number = ((first * 256 + second) * 256 + third) * 256 + fourth
                at = int(np.searchsorted(self._exits[0], number, side="right")) - 1
                if at >= 0 and number <= int(self._exits[1][at]):
                    return -1
            if not mapped and first in ROUTABLE and max(second, third, fourth) <= 255:
                text = f"{first}.{second}.{third}."
                # Written as a block is; with leading zeros it is no address.
                block = f"{text}0" if ip == f"{text}{fourth}" else None
        key = hash_one(block or address_block(ip), AddressBlock.name)
        return self._find(key, False) if key else -1

    @staticmethod
    def _remember(cache: dict[Any, Any], name: Any, value: Any) -> Any:
        if len(cache) >= MOST_CACHED:
            cache.clear()
        cache[name] = value
        return value


def _columns(body: Any) -> dict[str, Any] | None:
    """Canonical columns of a request body; None where it is no JSON object, or too large to be read."""
    if isinstance(body, bytes | bytearray | memoryview):
        if len(body) > MOST_BODY:
            return None
        if unwieldy(body):
            return None
        try:
            body = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            body = _lenient(body)
    return asking_columns(body) if isinstance(body, dict) else None


def unwieldy(body: bytes | bytearray | memoryview) -> bool:
    """Whether the JSON has so many parts that to read it would hold up everybody else."""
    data = bytes(body)
    if data.count(b"{") + data.count(b"[") <= MOST_PARTS and data.count(b",") <= MOST_ITEMS:
        return False
    # Texts may be full of them, code for example. Only what stands outside of strings counts.
    text = np.frombuffer(data.replace(b"\\\\", b"").replace(b'\\"', b""), np.uint8)
    outside = text[np.cumsum(text == ord('"'), dtype=np.uint8) % 2 == 0]
    parts = np.count_nonzero((outside == ord("{")) | (outside == ord("[")))
    return bool(parts > MOST_PARTS or np.count_nonzero(outside == ord(",")) > MOST_ITEMS)


def _lenient(body: bytes | bytearray | memoryview) -> Any:
    """As Python's own `json` reads it, as many servers do: NaN, lone surrogates, numbers of any size, UTF-16.

    Otherwise one such token would hide a prompt that the model sees. None where Python cannot read it either.
    """
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError):
        return None
