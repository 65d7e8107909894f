"""The invariant text of a family, read again from a few rows after the findings are known.

The only place after the sketch that sees text, and it sees at most `CHOSEN` rows of a family that at least
`LEAST_ACCOUNTS` accounts of one campaign or lead hold. What it lets through stands, in the same three-word context,
in the texts of most of the chosen accounts and of five at the least; the rest is blanked. Spelling, punctuation and
line breaks count too: where fewer accounts agree, the normalised spelling is shown. Tokens with digits, mail
addresses, and what looks like a URL or a secret are masked even where everybody has them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillwatch.detect.keys import KeyIndex
from stillwatch.ingest.read import Log
from stillwatch.scan.assign import typical_keys
from stillwatch.scan.collect import Reduced
from stillwatch.scan.context import Context
from stillwatch.schema.errors import StillwatchError
from stillwatch.sketch.fold import POINT, basic_plane, mathematical
from stillwatch.sketch.kernel import shingle, tokens_of
from stillwatch.views.base import I64, U64
from stillwatch.views.families import Families

LEAST_ACCOUNTS = 5
CHOSEN = 8
MOST_CHARACTERS = 600
MOST_FAMILIES = 12
"""Families of one part that are listed for one group besides those that its requests were counted in."""
BLANK = "▢"
MASK = "▪"

_ADDRESS = re.compile(
    r"\S*@\S+"
    r"|\S*://\S*"
    r"|\bwww\.\S+"
    r"|\b[A-Za-z0-9_▪-]+(?:\.[A-Za-z0-9_▪-]+)*\.[A-Za-z]{2,}\b(?:[/:]\S*)?"
    r"|(?=[_+=/-]*[A-Za-z])[A-Za-z_+=/-]{30,}"
)
_RUN_OF_MASKS = re.compile(f"{MASK}(?:[^\\w\\s{BLANK}]?{MASK})+")
_SPACE = re.compile(r"\s+")

Held = tuple[str, int]
"""(`prompt` or `system`, number of the family)."""


@nb.njit(nogil=True, cache=True)
def _shingles(tokens: Any) -> Any:
    out = np.empty(max(0, len(tokens) - 2), np.uint64)
    for i in range(len(out)):
        out[i] = shingle(tokens[i], tokens[i + 1], tokens[i + 2])
    return out


def telling(context: Context, index: KeyIndex, members: I64, part: str) -> list[int]:
    """Families that at least five members hold and that tell them from others, those with most bits first."""
    place = context.family_key if part == "prompt" else context.system_key
    if len(place) == 0:
        return []
    typical = np.zeros(index.n_keys, bool)
    typical[typical_keys(index, members)] = True
    usable = np.flatnonzero(place >= 0)
    usable = usable[typical[place[usable]]]
    counts = index.counts_of(members, place[usable])
    usable, counts = usable[counts >= LEAST_ACCOUNTS], counts[counts >= LEAST_ACCOUNTS]
    order = np.lexsort((usable, -np.round(counts * index.weight[place[usable]], 9)))
    return usable[order][:MOST_FAMILIES].tolist()


def skeletons(log: Log, reduced: Reduced, groups: Iterable[tuple[I64, Sequence[Held]]]) -> dict[Held, str]:
    """Skeletons of the families that may be shown.

    `groups`: (members, families) of each campaign and lead; of nothing else. A family whose text is not there (a
    log of sketches, inputs that changed meanwhile) has none.
    """
    groups = list(groups)
    names = {name for _, held in groups for name in held}
    rows, keys = _rows(reduced, names), _keys(reduced, names)
    chosen: dict[Held, set[int]] = {}
    for members, held in groups:
        inside = np.zeros(reduced.accounts, bool)
        inside[members] = True
        for name in held:
            owner = rows[name][1]
            if len(np.unique(owner[inside[owner]])) >= LEAST_ACCOUNTS:
                chosen.setdefault(name, set()).update(members.tolist())
    wanted: dict[tuple[int, int], list[tuple[Held, int]]] = {}
    for name in sorted(chosen):
        members = np.array(sorted(chosen[name]), np.int64)
        for account, counted in _fullest(reduced, name, keys[name], *rows[name], members):
            for place in zip(*(part.tolist() for part in reduced.places.of(counted)), strict=True):
                wanted.setdefault(place, []).append((name, account))
    texts: dict[Held, list[bytes]] = {}
    for (name, _), written in sorted(_read(log, wanted).items()):
        texts.setdefault(name, []).append(written)
    out: dict[Held, str] = {}
    for name in sorted(chosen):
        text = skeleton(texts.get(name, []), keys[name])
        if text is not None:
            out[name] = text
    return out


def _families(reduced: Reduced, part: str) -> Families:
    return reduced.prompt_families if part == "prompt" else reduced.systems.families


def _rows(reduced: Reduced, names: set[Held]) -> dict[Held, tuple[I64, I64]]:
    """(element, account) of the rows of each family; an element is a counted row, or one account's system prompt."""
    owners = {"prompt": reduced.rows.account, "system": reduced.systems.account}
    out: dict[Held, tuple[I64, I64]] = {}
    for part, owner in owners.items():
        families = _families(reduced, part)
        for number, places in _places(families.family, len(families), {n for p, n in names if p == part}):
            element = families.row[places]
            out[part, number] = (element, owner[element].astype(np.int64))
    return out


def _keys(reduced: Reduced, names: set[Held]) -> dict[Held, U64]:
    """Postings of each family, sorted."""
    out: dict[Held, U64] = {}
    for part in ("prompt", "system"):
        families = _families(reduced, part)
        for number, places in _places(families.key_family, len(families), {n for p, n in names if p == part}):
            out[part, number] = families.key[places]
    return out


def _places(codes: npt.NDArray[np.int32], count: int, wanted: set[int]) -> Iterator[tuple[int, I64]]:
    """Where each of the `wanted` codes, all below `count`, stands, in order."""
    numbers = np.array(sorted(wanted), np.int64)
    chosen = np.zeros(count, bool)
    chosen[numbers] = True
    picked = np.flatnonzero(chosen[codes])
    order = picked[np.argsort(codes[picked], kind="stable")]
    bounds = np.searchsorted(codes[order], np.append(numbers, np.iinfo(np.int32).max))
    for i, number in enumerate(numbers.tolist()):
        yield number, order[bounds[i] : bounds[i + 1]]


def _fullest(
    reduced: Reduced, name: Held, keys: U64, element: I64, owner: I64, members: I64
) -> list[tuple[int, I64]]:
    """(account, counted rows) of the members whose rows hold most of the family's postings, at most `CHOSEN`.

    One row of each account: its fullest, then its earliest. Rows that tie are all taken, for their order in the log
    must not matter.
    """
    part, _ = name
    keep = np.isin(owner, members)
    element, owner = element[keep], owner[keep]
    if part == "prompt":
        ts, item = reduced.rows.ts[element], reduced.rows.item[element]
        offsets, values = reduced.prompt_offsets, reduced.prompt_postings
    else:
        ts, item = reduced.systems.first_us[element], np.zeros(len(element), np.uint64)
        offsets, values = reduced.systems.offsets, reduced.systems.postings
    hits = _hits(element, offsets, values, keys)
    order = np.lexsort((item, ts, -hits, owner))
    best = order[np.append(True, np.diff(owner[order]) != 0)]
    out = []
    for first in best[np.lexsort((owner[best], -hits[best]))][:CHOSEN].tolist():
        same = (owner == owner[first]) & (hits == hits[first]) & (ts == ts[first]) & (item == item[first])
        rows = element[same]
        if part == "system":
            rows = np.array([row for e in rows.tolist() for row in reduced.systems.rows[e]], np.int64)
        out.append((int(owner[first]), rows))
    return out


@nb.njit(nogil=True, cache=True)
def _hits(rows: Any, offsets: Any, values: Any, keys: Any) -> Any:
    """How many of `keys` (sorted) each row holds."""
    out = np.zeros(len(rows), np.int64)
    seen = np.full(len(keys), -1, np.int64)
    for i in range(len(rows)):
        for j in range(offsets[rows[i]], offsets[rows[i] + 1]):
            at = np.searchsorted(keys, values[j])
            if at < len(keys) and keys[at] == values[j] and seen[at] != i:
                seen[at] = i
                out[i] += 1
    return out


def _read(
    log: Log, wanted: Mapping[tuple[int, int], list[tuple[Held, int]]]
) -> dict[tuple[Held, int], bytes]:
    """The smallest text of each (family, account)."""
    by_input: dict[int, list[int]] = {}
    for number, row in wanted:
        by_input.setdefault(number, []).append(row)
    places = {number: np.array(sorted(rows), np.int64) for number, rows in by_input.items()}
    texts: dict[tuple[Held, int], bytes] = {}
    try:
        for number, rows, table in log.again(places, ("prompt", "system")):
            columns = {
                part: table.column(part) for part in ("prompt", "system") if part in table.column_names
            }
            for at, row in enumerate(rows.tolist()):
                for name, account in wanted[number, row]:
                    value = columns[name[0]][at].as_py() if name[0] in columns else None
                    if isinstance(value, str) and value:
                        text = value.encode("utf-8", "replace")
                        key = (name, account)
                        texts[key] = min(text, texts.get(key, text))
    except (StillwatchError, OSError, pa.ArrowException):
        # The findings stand without the wording; a file that went away meanwhile must not cost them.
        return {}
    return texts


@dataclass(frozen=True, slots=True)
class _Text:
    """One text, cut up."""

    data: bytes
    spans: I64
    shingles: U64
    names: U64
    """The different shingles."""
    first: dict[int, int]
    """Where each shingle stands first."""

    def piece(self, token: int, joined: bool) -> str:
        """A token as written; what the token before it (`joined`) already covers is left out."""
        start = self.spans[token, 0]
        if joined:
            start = max(start, self.spans[token - 1, 1])
        return self._cut(start, self.spans[token, 1])

    def after(self, token: int) -> str:
        """What stands between a token and the next one, or the end."""
        stop = self.spans[token + 1, 0] if token + 1 < len(self.spans) else len(self.data)
        return self._cut(self.spans[token, 1], stop)

    def before(self, token: int) -> str:
        """What stands between the token before, or the beginning, and a token."""
        return self._cut(self.spans[token - 1, 1] if token else 0, self.spans[token, 0])

    def _cut(self, start: int, stop: int) -> str:
        return _clean(self.data[start : max(start, stop)].decode("utf-8", "replace"))


def _clean(text: str) -> str:
    """Without characters that nobody sees or that re-order what is seen, and without our own marks."""
    kept = [
        c
        for c in text
        if c.isspace()
        or (unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn") and c not in BLANK + MASK)
    ]
    return _SPACE.sub(lambda space: "\n" if "\n" in space.group() else " ", "".join(kept))


def _cut_up(data: bytes) -> _Text:
    raw = np.frombuffer(data, np.uint8)
    tokens, spans = np.empty(len(data) + 2, np.uint64), np.empty((len(data) + 2, 2), np.int64)
    count, _, _ = tokens_of(raw, 0, len(data), basic_plane(), mathematical(), tokens, spans, True)
    shingles = _shingles(tokens[:count])
    names, place = np.unique(shingles, return_index=True)
    return _Text(
        data, spans[:count].copy(), shingles, names, dict(zip(names.tolist(), place.tolist(), strict=True))
    )


def skeleton(texts: Sequence[bytes], keys: U64) -> str | None:
    """What `texts` of different accounts have in common around the family's postings `keys`, or None.

    None too where there are fewer than `LEAST_ACCOUNTS` texts.
    """
    if len(texts) < LEAST_ACCOUNTS:
        return None
    least = max(LEAST_ACCOUNTS, len(texts) // 2 + 1)
    cut = [_cut_up(text) for text in texts]
    names, counts = np.unique(np.concatenate([t.names for t in cut]), return_counts=True)
    common = names[counts >= least]
    model = min(cut, key=lambda t: (-int(np.isin(t.names, keys).sum()), len(t.data), t.data))
    start = np.isin(model.shingles, common)
    anchor = start & np.isin(model.shingles, keys)
    out: list[str] = []
    size, end, full = 0, 0, False
    for first, last in _runs(start, anchor):
        text, full = _run_text(cut, model, start, first, last, least, MOST_CHARACTERS - size)
        out.append(text)
        size, end = size + len(text) + 1, last + 1
        if full:
            break
    if not out:
        return None
    if full:
        out.append("…")
    elif end < len(model.spans):
        out.append(BLANK)
    return _masked("".join(out))


def _runs(start: npt.NDArray[np.bool_], anchor: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first token, last token) of stretches in which each pair of neighbours lies in a common shingle.

    Only stretches that hold a posting of the family: what else nearly everybody writes is everyday language.
    """
    runs: list[tuple[int, int, bool]] = []
    for i in np.flatnonzero(start).tolist():
        if runs and i < runs[-1][1]:
            runs[-1] = (runs[-1][0], i + 2, runs[-1][2] or bool(anchor[i]))
        else:
            # A token can end one stretch and begin the next: it belongs to the first.
            begin = max(i, runs[-1][1] + 1) if runs else i
            runs.append((begin, i + 2, bool(anchor[i])))
    return [(first, last) for first, last, kept in runs if kept]


def _run_text(
    cut: list[_Text], model: _Text, start: npt.NDArray[np.bool_], first: int, last: int, least: int, room: int
) -> tuple[str, bool]:
    """One stretch as most accounts write it, and whether the room ran out."""

    def covering(token: int, back: int, ahead: int) -> list[tuple[_Text, int]]:
        """Each text's own place of this token, by a common shingle that holds its neighbours so far too."""
        for i in range(token - back, token - 3 + ahead, -1):
            if 0 <= i < len(start) and start[i]:
                name = int(model.shingles[i])
                return [(t, t.first[name] + token - i) for t in cut if name in t.first]
        return []

    where = covering(first, 0, 0)
    lead = _agreed((t.before(at) for t, at in where), least)
    # Something comes before it: here, or in the texts of most.
    blank = first > 0 or sum(at > 0 for _, at in where) >= least
    out = [(BLANK if blank else "") + (lead if lead is not None else " " if blank else "")]
    size = 0
    for token in range(first, last + 1):
        joined = token > first
        where = covering(token, int(joined), 0)
        written = _agreed((t.piece(at, joined) for t, at in where), least)
        piece = _plain(model.piece(token, joined)) if written is None else written
        piece = MASK if any(c.isnumeric() for c in piece) else piece
        if size + len(piece) > room:
            return "".join(out), True
        out.append(piece)
        if token < last:
            between = _agreed((t.after(at) for t, at in covering(token, 0, 1)), least)
            gap = between if between is not None else " "
        else:
            ends = [t.after(at) for t, at in where]
            agreed = _agreed(ends, least)
            gap = agreed if agreed is not None else (_agreed((e[:1] for e in ends), least) or "") + " "
        out.append(gap)
        size += len(piece) + len(gap)
    return "".join(out), False


def _agreed(values: Iterable[str], least: int) -> str | None:
    """The value that at least `least` texts have (more than half of them, so there is one at most)."""
    counts = Counter(values).most_common(1)
    return counts[0][0] if counts and counts[0][1] >= least else None


def _plain(text: str) -> str:
    """The normalised spelling: by construction the same in every text that has the token."""
    plane = basic_plane()
    folded = (int(plane[ord(c)]) & POINT for c in text if ord(c) < 0x10000)
    return "".join(chr(point) for point in folded if point > 1)


def _masked(text: str) -> str:
    text = _ADDRESS.sub(MASK, text)
    return _RUN_OF_MASKS.sub(MASK, text).strip()
