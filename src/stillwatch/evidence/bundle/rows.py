"""The rows that a bundle shows: those of the campaign's named accounts that its claims rest on, and no others.

Read again from the inputs that the scan committed to. A row is in if it is in one of the campaign's own families, or
if a conversation or a reasoning block passes between two named accounts by it. Of everything else nothing is kept.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.evidence.merkle import Frontier, leaf_hash
from stillwatch.guard.kernel import families_in
from stillwatch.ingest import Log
from stillwatch.scan.collect import part_sketch
from stillwatch.schema.errors import InputError
from stillwatch.schema.principals import principal_ids
from stillwatch.schema.results import InputFile
from stillwatch.schema.tables import EXCHANGES, OWN_REFUSAL
from stillwatch.store.pseudonyms import Pseudonyms
from stillwatch.views.base import column
from stillwatch.views.families import needed, posting_table

MOST_ROWS = 10_000
EACH = 20
"""Rows of one account in the campaign's own families, and as many again by which something passes."""
PASSING = (
    "account_id", "gateway_id", "end_user_id", "end_user_trust", "turn_hashes", "reasoning_in", "reasoning_out",
    "blocked_by",
)  # fmt: skip
"""What `passed` reads."""
WAYS = (("held", "went_on"), ("block_out", "block_in"))
"""What one account leaves, and another takes up."""
_RAW = [name for name in EXCHANGES.names if name != "raw_ref"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Rows of a bundle."""

    lines: list[bytes]
    """Canonical JSON of each, with its salt: the leaves of the tree."""
    eligible: int
    """Rows that could have been shown."""

    @property
    def root(self) -> bytes:
        """Root of the tree (RFC 6962)."""
        tree = Frontier()
        for line in self.lines:
            tree.add(leaf_hash(line))
        return tree.root


def check_inputs(log: Log, inputs: Sequence[InputFile]) -> list[int]:
    """Place in the scan's list of each input of `log`. InputError unless they are the inputs of the scan."""
    there = [entry.digest for entry in inputs]
    given = [entry.digest for entry in log.inputs]
    if sorted(there) != sorted(given):
        lacking = len(set(there) - set(given))
        raise InputError(
            f"these are not the inputs of the scan: {lacking} of its {len(there)} are missing or were changed",
            hint="name the same files with --inputs; the results and the transparency log have their SHA-256",
        )
    return [there.index(digest) for digest in given]


class _Families:
    """Which of the campaign's own families a text is in."""

    def __init__(self, scoring: Mapping[str, pa.Table], part: str, own: Mapping[int, str]) -> None:
        table = scoring["scoring_postings"]
        mine = table.filter(
            pc.and_(
                pc.equal(table.column("part"), part),
                pc.is_in(table.column("place"), value_set=pa.array(sorted(own), pa.int32())),
            )
        )
        self.posting = mine.column("posting").to_numpy()
        places, family = np.unique(mine.column("place").to_numpy(), return_inverse=True)
        self._names = [own[int(place)] for place in places]
        n = len(places)
        self._family = family.astype(np.int32)
        self._table = posting_table(self.posting)
        self._need = needed(self.posting, self._family, n)
        self._seen = np.zeros(len(self._family), np.int64)
        self._hits, self._touched, self._out = (np.zeros(n, np.int32) for _ in range(3))
        self._place = np.arange(n, dtype=np.int32)
        self._part, self._call = part, 0

    def of(self, batch: pa.RecordBatch) -> list[list[str]]:
        """Pseudonyms of the families of each row."""
        if not self._names:
            return [[] for _ in range(batch.num_rows)]
        sketch = part_sketch(batch, self._part)
        found = []
        for row in range(batch.num_rows):
            post = sketch.post[sketch.post_offsets[row] : sketch.post_offsets[row + 1]]
            self._call += 1
            count = families_in(
                post, np.int64(sketch.level[row]), self._table, self._family, self._place, self._need, self._seen,
                self._call, self._hits, self._touched, self._out,
            )  # fmt: skip
            found.append([self._names[i] for i in self._out[:count].tolist()])
        return found


def _mine(batch: pa.RecordBatch, members: pa.Array) -> pa.RecordBatch:
    """Rows of named accounts that Stillwatch did not refuse itself, with their principals as `account_id`."""
    who = principal_ids(batch)
    keep = pc.is_in(who, value_set=members)
    blocked = column(batch, "blocked_by")
    if not pa.types.is_null(blocked.type):
        keep = pc.and_(keep, pc.invert(pc.fill_null(pc.starts_with(blocked, OWN_REFUSAL), False)))
    at = batch.schema.get_field_index("account_id")
    return batch.set_column(at, batch.schema.field(at), who).filter(keep)


def _states(batch: pa.RecordBatch) -> Iterator[tuple[int, str, int]]:
    """(row, way, hash) of what each row leaves to be taken up, or takes up: as `scan.events` reads it."""
    for row, turns in enumerate(column(batch, "turn_hashes").to_pylist()):
        if turns is not None and len(turns) >= 2:
            yield row, "held", turns[-2]
        if turns is not None and len(turns) >= 3:
            yield row, "went_on", turns[-3]
    for name, way in (("reasoning_out", "block_out"), ("reasoning_in", "block_in")):
        for row, blocks in enumerate(column(batch, name).to_pylist()):
            for block in blocks or ():
                yield row, way, block


def passed(log: Log, members: pa.Array) -> dict[str, set[int]]:
    """By way, the hashes that one named account left and another one took up. `log` has the columns `PASSING`."""
    holders: dict[str, dict[int, set[str]]] = {way: {} for pair in WAYS for way in pair}
    for batch in log.batches():
        mine = _mine(batch, members)
        ids = mine.column("account_id").to_pylist()
        for row, way, value in _states(mine):
            known = holders[way].setdefault(value, set())
            if len(known) < 2:
                known.add(ids[row])
    found: dict[str, set[int]] = {}
    for left, taken in WAYS:
        both = holders[left].keys() & holders[taken].keys()
        found[left] = found[taken] = {
            value for value in both if len(holders[left][value] | holders[taken][value]) > 1
        }
    return found


def choose(
    log: Log,
    places: Sequence[int],
    inputs: Sequence[InputFile],
    members: pa.Array,
    states: Mapping[str, set[int]],
    scoring: Mapping[str, pa.Table],
    families: Mapping[str, str],
    names: Pseudonyms,
) -> Chosen:
    """Read the rows and choose: of each account those whose keyed hash is smallest, so that nobody picks them.

    `places` as `check_inputs` gives them; `states` as `passed` does; `families`: id and pseudonym of the campaign's
    own families.
    """
    keys = scoring["scoring_keys"].column("key").to_numpy()
    wanted = np.array([int(name, 16) for name in families], np.uint64)
    own = {int(at): families[f"{int(keys[at]):016x}"] for at in np.flatnonzero(np.isin(keys, wanted))}
    parts = [_Families(scoring, part, own) for part in ("prompt", "system")]
    each = max(1, min(EACH, MOST_ROWS // (2 * max(1, len(members)))))
    kept: dict[tuple[str, bool], list[tuple[int, bytes, bytes]]] = {}
    eligible = 0
    for batch in log.batches():
        mine = _mine(batch, members)
        if not mine.num_rows:
            continue
        found = [sorted({*a, *b}) for a, b in zip(*(part.of(mine) for part in parts), strict=True)]
        moves: dict[int, list[list[str]]] = {}
        for row, way, value in _states(mine):
            if value in states[way]:
                moves.setdefault(row, []).append([way, names.of("state", f"{value:016x}")])
        for row in range(mine.num_rows):
            if not found[row] and row not in moves:
                continue
            eligible += 1
            plain = mine.slice(row, 1).to_pylist()[0]
            ref = plain["raw_ref"]
            number = places[ref["input"]]
            place = f"{inputs[number].digest}:{ref['row']}".encode()
            rank = -int.from_bytes(names.digest("rank", place)[:8], "big")
            heap = kept.setdefault((plain["account_id"], row in moves), [])
            if len(heap) == each and rank <= heap[0][0]:
                continue
            line = _line(plain, number, place, found[row], sorted(moves.get(row, [])), names)
            at = _order(plain, place, names)
            (heapq.heappushpop if len(heap) == each else heapq.heappush)(heap, (rank, at, line))
    # Of a campaign of many thousand accounts not each one has a row: by the same keyed hash, nobody picks them.
    first = heapq.nlargest(MOST_ROWS, (entry for heap in kept.values() for entry in heap))
    lines = sorted((at, line) for _, at, line in first)
    return Chosen([line for _, line in lines], eligible)


def _order(plain: Mapping[str, Any], place: bytes, names: Pseudonyms) -> bytes:
    """Rows stand in the order of time; what is left to decide is decided by a keyed hash."""
    us = int(_time(plain["ts"]))
    return us.to_bytes(9, "big", signed=True) + names.digest("order", place)


def _time(value: datetime) -> int:
    return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _line(
    plain: Mapping[str, Any],
    number: int,
    place: bytes,
    families: list[str],
    moves: list[list[str]],
    names: Pseudonyms,
) -> bytes:
    row = {
        "account": names.of("account", plain["account_id"]),
        "at": plain["ts"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "exchange": names.of("exchange", plain["exchange_id"]),
        "families": families,
        "input": number,
        "model": plain["model"],
        "moves": moves,
        "raw": commitment(plain, place, names),
        "row": plain["raw_ref"]["row"],
        "status": plain["status"],
        "tokens_in": plain["input_tokens"],
        "tokens_out": plain["output_tokens"],
    }
    whole = {"row": row, "salt": names.digest("leaf_salt", place).hex()}
    return json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def commitment(plain: Mapping[str, Any], place: bytes, names: Pseudonyms) -> str:
    """SHA-256 over a salt that only the key ring can make again, and the whole row as it was read, hex.

    Without the salt a guessed row cannot be tested. Whoever is shown the salt and the row can check it.
    """
    return raw_of(plain, place, names)[2]


def raw_of(plain: Mapping[str, Any], place: bytes, names: Pseudonyms) -> tuple[bytes, dict[str, Any], str]:
    """(salt, the row as plain JSON, `commitment` of both). `place`: the input's digest, a colon, the row's number."""
    raw = {name: _json(plain[name]) for name in _RAW if plain.get(name) is not None}
    text = json.dumps(raw, sort_keys=True, separators=(",", ":"))
    salt = names.digest("raw_salt", place)
    return salt, raw, hashlib.sha256(salt + text.encode()).hexdigest()


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return _time(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, np.ndarray | list | tuple):
        return [_json(part) for part in value]
    return value
