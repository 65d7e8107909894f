"""The map and reduce of a scan: canonical batches in, per-account tables out. No later stage sees a batch.

Everything that depends on the order of rows is sorted away here: accounts are numbered in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.engine.aggregate import Aggregate, tally
from stillwatch.engine.holders import grouped
from stillwatch.engine.spool import Spool
from stillwatch.ingest.lookup import NO_LOOKUPS, Lookups
from stillwatch.scan.asked import Models, asks_nothing, declined
from stillwatch.scan.events import EventCollector, Events
from stillwatch.scan.fan import FanOut
from stillwatch.scan.places import Places
from stillwatch.scan.systems import SystemPrompts, Systems
from stillwatch.schema.principals import principal_ids
from stillwatch.schema.tables import OWN_REFUSAL
from stillwatch.sketch import PartSketch, RulePack, default_rules, sketch_of, stored_or_text
from stillwatch.views import form, link
from stillwatch.views.base import I32, I64, U64, BatchSignal, KeyTable, column, mix
from stillwatch.views.families import Families, find_families
from stillwatch.views.time import HOUR_US, Activity

COLUMNS = (
    "exchange_id", "ts", "account_id", "entity_id", "end_user_id", "end_user_trust", "gateway_id", "model",
    "system", "prompt", "system_sketch", "prompt_sketch", "content_state", "turn_hashes", "n_messages",
    "system_hash", "tools_hash", "format_hash", "reasoning_in", "reasoning_out", "newest_role", "status", "refused",
    "blocked_by", "ip", "ja4", "header_hash", "user_agent", "latency_ms",
)  # fmt: skip
"""What a scan reads of `exchanges`."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One element per counted exchange, in the order in which they were read."""

    account: I32
    ts: I64
    item: U64
    """Hash of the normalised prompt; 0 where there is none."""
    level: npt.NDArray[np.uint8]
    tags: npt.NDArray[np.uint32]
    """What is asked for, by bit of the rule pack: tags of the prompt and of its system prompt."""
    model: I32
    declined: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Reduced:
    """A log after the reduction. Account codes are places in `principals`, which is sorted."""

    principals: list[str]
    """Account id, or account id + SEPARATOR + verified end user behind a gateway."""
    volume: I64
    first_us: I64
    last_us: I64
    rows: Rows
    link: KeyTable
    form: KeyTable
    prompt_families: Families
    prompt_offsets: I64
    prompt_postings: npt.NDArray[np.uint64]
    systems: Systems
    places: Places
    """Where each counted exchange stands in the inputs."""
    activity: Activity
    first_hour: int
    events: Events
    diversity: I64
    """Different values of each of `views.fanout.KINDS` by account, shape (kinds, accounts)."""
    models: list[str]
    """Names of the models by code."""
    script: I64
    """Class of letters in which most of an account's prompts are written, 0 for none."""
    declared: I64
    """Entity that the log declares, per account: code of the last seen in id order, -1 for none."""
    gateway: npt.NDArray[np.bool_]
    """Accounts whose calls came through a registered gateway."""
    filled: dict[str, int]
    """Rows with a value, per column."""
    own_refusals: int
    rules: RulePack
    untagged: int
    """Exchanges whose prompt came as a sketch with tags of another rule pack."""
    public_postings: U64
    """Shingles of published prompts, sorted; what a family consists of is public if half of it is among them."""
    exits: I64
    """IPv4 ranges that strangers come out of: `Lookups.exits`."""

    @property
    def accounts(self) -> int:
        return len(self.principals)


class Collector:
    """Feeds on canonical batches; `finish` gives the reduced log. `folder` takes the spooled postings.

    `lookups`: published prompts, and exits that strangers share. `rules`: what requests are tagged with.
    """

    def __init__(self, folder: Path, lookups: Lookups = NO_LOOKUPS, rules: RulePack | None = None) -> None:
        self._rules = rules or default_rules()
        self._lookups = lookups
        self._codes: dict[str, int] = {}
        self._signals: tuple[BatchSignal, ...] = (*link.BATCH_SIGNALS, *form.BATCH_SIGNALS)
        self._tables = {signal.name: Aggregate() for signal in self._signals}
        self._hours = Aggregate()
        self._fan = FanOut()
        self._prompts = Spool(folder / "prompt.u64")
        self._systems = SystemPrompts(folder, self._rules)
        self._places = Places()
        self._events = EventCollector()
        self._models = Models()
        self._parts: dict[str, list[npt.NDArray[Any]]] = {}
        self._declared: dict[int, str] = {}
        self._gateway: set[int] = set()
        self.filled: dict[str, int] = {}
        self.rows = 0
        self.own_refusals = 0
        self.untagged = 0

    def close(self) -> None:
        """Delete the spooled postings."""
        self._prompts.close()
        self._systems.close()

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in one canonical batch."""
        self.rows += batch.num_rows
        for name in batch.schema.names:
            present = batch.num_rows - batch.column(name).null_count
            self.filled[name] = self.filled.get(name, 0) + present
        batch = self._account_columns(batch)
        account = self._encode(batch)
        ts = batch.column("ts").cast(pa.int64()).to_numpy(zero_copy_only=False)
        self._events.add(batch, account, ts)
        blocked = column(batch, "blocked_by")
        if not pa.types.is_null(blocked.type):
            own = pc.fill_null(pc.starts_with(blocked, OWN_REFUSAL), False)
            if pc.any(own).as_py():
                keep = pc.invert(own)
                self.own_refusals += batch.num_rows - pc.sum(keep).as_py()
                mask = keep.to_numpy(zero_copy_only=False)
                batch, account, ts = batch.filter(keep), account[mask], ts[mask]
        prompt = part_sketch(batch, "prompt", self._rules)
        self.untagged += prompt.untagged
        self._put("account", account)
        self._put("ts", ts)
        self._put("item", np.where(asks_nothing(batch), np.uint64(0), prompt.exact))
        self._put("level", prompt.level)
        self._put("tags", prompt.tags)
        self._put("model", self._models.encode(batch))
        self._put("declined", declined(batch))
        self._prompts.append(prompt.post_offsets, prompt.post)
        self._systems.add(batch, account, ts, len(self._places))
        self._keep_places(batch)
        stack = np.zeros(len(account), np.uint64)
        for signal in self._signals:
            keys = signal.keys(batch)
            if signal.name == link.AddressBlock.name:
                # What strangers come out of ties nobody, and puts nobody at one site.
                keys = np.where(self._lookups.shared_exits(column(batch, "ip")), np.uint64(0), keys)
            self._tables[signal.name].add(account, keys, ts)
            if signal.name == link.Stack.name:
                stack = keys
        self._fan.add(batch, account, ts, prompt.script, stack)
        self._hours.add(account, (ts // HOUR_US).astype(np.uint64), ts)

    def _put(self, name: str, values: npt.NDArray[Any]) -> None:
        self._parts.setdefault(name, []).append(values)

    def _joined(self, name: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        parts = self._parts.pop(name, [])
        return np.concatenate(parts) if parts else np.zeros(0, dtype)

    def _account_columns(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Give gateway calls with verified end users a principal of their own."""
        at = batch.schema.get_field_index("account_id")
        return batch.set_column(at, "account_id", principal_ids(batch))

    def _encode(self, batch: pa.RecordBatch) -> I32:
        encoded = batch.column("account_id").dictionary_encode()
        codes = self._codes
        table = np.fromiter(
            (codes.setdefault(name, len(codes)) for name in encoded.dictionary.to_pylist()),
            np.int32,
            len(encoded.dictionary),
        )
        account: I32 = table[encoded.indices.to_numpy(zero_copy_only=False)]
        for name, keep in (("entity_id", self._declared), ("gateway_id", None)):
            values = column(batch, name)
            if pa.types.is_null(values.type) or values.null_count == len(values):
                continue
            pairs = pa.table({"a": account, "v": values}).filter(pc.is_valid(values)).group_by(["a", "v"])
            for row in pairs.aggregate([]).to_pylist():
                if keep is None:
                    self._gateway.add(row["a"])
                else:
                    # Several declarations of one account: the smallest, whatever the order of rows.
                    keep[row["a"]] = min(row["v"], keep.get(row["a"], row["v"]))
        return account

    def _keep_places(self, batch: pa.RecordBatch) -> None:
        place = column(batch, "raw_ref")
        if pa.types.is_null(place.type):
            self._places.add(np.full(batch.num_rows, -1), np.arange(batch.num_rows))
            return
        inputs, rows = (place.field(i).to_numpy(zero_copy_only=False).astype(np.int64) for i in range(2))
        self._places.add(inputs, rows)

    def finish(self, accounts: pa.Table | None) -> Reduced:
        """Sort, merge and index. `accounts` is the checked side table, or None."""
        principals = sorted(self._codes)
        rank = np.empty(len(principals), np.int32)
        rank[[self._codes[name] for name in principals]] = np.arange(len(principals), dtype=np.int32)
        n = len(principals)
        account: I32 = rank[self._joined("account", np.int32)]
        ts: I64 = self._joined("ts", np.int64)
        item, level, tags = (
            self._joined("item", np.uint64),
            self._joined("level", np.uint8),
            self._joined("tags", np.uint32),
        )
        models, model_rank = self._models.finish()
        model = model_rank[self._joined("model", np.int32)]
        offsets, postings = self._prompts.read()
        families = find_families(account, offsets, postings, level, n)
        volume = np.bincount(account, minlength=n).astype(np.int64)
        first = np.full(n, np.iinfo(np.int64).max)
        last = np.zeros(n, np.int64)
        np.minimum.at(first, account, ts)
        np.maximum.at(last, account, ts)
        first[volume == 0] = 0
        link_parts = [self._table(s.name, link.KINDS, rank) for s in link.BATCH_SIGNALS]
        link_parts += _account_keys(accounts, principals)
        form_parts = [self._table(s.name, form.KINDS, rank) for s in form.BATCH_SIGNALS]
        form_parts.append(_family_rows(families, account, ts, "prompt_family", n))
        systems = self._systems.finish(rank, n)
        there = systems.of_row >= 0
        tags[there] |= systems.tags[systems.of_row[there]]
        form_parts.append(
            _family_rows(systems.families, systems.account, systems.first_us, "system_family", n)
        )
        activity, first_hour = self._activity(rank, n)
        script, diversity = self._fan.finish(rank, account, ts, systems.account)
        declared = np.full(n, -1, np.int64)
        names = sorted(set(self._declared.values()))
        number = {name: i for i, name in enumerate(names)}
        for code, name in self._declared.items():
            declared[rank[code]] = number[name]
        gateway = np.zeros(n, bool)
        gateway[rank[sorted(self._gateway)]] = True
        return Reduced(
            principals,
            volume,
            first,
            last,
            Rows(account, ts, item, level, tags, model, self._joined("declined", np.bool_)),
            _key_table(link_parts, link.KINDS, n),
            _key_table(form_parts, form.KINDS, n),
            families,
            offsets,
            postings,
            systems,
            self._places,
            activity,
            first_hour,
            self._events.finish(rank),
            diversity,
            models,
            script,
            declared,
            gateway,
            dict(sorted(self.filled.items())),
            self.own_refusals,
            self._rules,
            self.untagged,
            self._lookups.public_postings,
            self._lookups.exits,
        )

    def _table(self, name: str, kinds: Sequence[str], rank: I32) -> _Part:
        group, key, count, first, last = self._tables.pop(name).rows()
        return _part(kinds.index(name), rank[group], key, count, first, last)

    def _activity(self, rank: I32, n: int) -> tuple[Activity, int]:
        group, hour, count, _, _ = self._hours.rows()
        owner, at = rank[group], hour.astype(np.int64)
        first_hour = int(at.min()) if len(at) else 0
        order = np.lexsort((at, owner))
        offsets = np.searchsorted(owner[order], np.arange(n + 1)).astype(np.int64)
        hours = int(at.max() - first_hour + 1) if len(at) else 1
        return Activity(offsets, (at - first_hour)[order].astype(np.int32), count[order], hours), first_hour


@dataclass(frozen=True, slots=True)
class _Part:
    """What one signal gives: accounts and keys, each pair once. `key` is a place in `names`, the different keys."""

    kind: int
    account: I32
    names: U64
    key: I64 | I32
    count: I32
    first: I64
    last: I64


def _part(kind: int, account: I32, key: U64, count: I32, first: I64, last: I64) -> _Part:
    names, place = np.unique(key, return_inverse=True)
    return _Part(kind, account, names, place, count, first, last)


def part_sketch(batch: pa.RecordBatch, part: str, rules: RulePack | None = None) -> PartSketch:
    """The sketch of `prompt` or `system`: supplied by the log, or made from its text."""
    texts = column(batch, part).cast(pa.string())
    return sketch_of(stored_or_text(column(batch, f"{part}_sketch"), texts, rules), rules)


def _family_rows(families: Families, account: I32, ts: I64, kind: str, accounts: int) -> _Part:
    who, family, count, first, last = tally(
        account, ts, families.row, families.family, accounts, len(families)
    )
    held = np.bincount(family, minlength=len(families)) > 0
    keys = mix(families.fingerprint[held], kind)
    return _Part(form.KINDS.index(kind), who, keys, (np.cumsum(held) - 1)[family], count, first, last)


def _account_keys(accounts: pa.Table | None, principals: list[str]) -> list[_Part]:
    """Keys of the accounts table; a principal behind a gateway has none of its gateway's."""
    if accounts is None or accounts.num_rows == 0:
        return []
    number = {name: i for i, name in enumerate(principals)}
    place = np.array([number.get(name, -1) for name in accounts.column("account_id").to_pylist()], np.int32)
    parts = []
    for signal in link.ACCOUNT_SIGNALS:
        keys = signal.keys(accounts)
        there = (place >= 0) & (keys != 0)
        kind = link.KINDS.index("address_block" if signal.name == "signup_block" else signal.name)
        zero = np.zeros(int(there.sum()), np.int64)
        parts.append(_part(kind, place[there], keys[there], np.ones(len(zero), np.int32), zero, zero))
    return parts


def _key_table(parts: list[_Part], kinds: tuple[str, ...], accounts: int) -> KeyTable:
    """One table, sorted by (account, key); rows of one (account, key) from several signals are added up."""
    account = np.concatenate([p.account for p in parts])
    names, place, code = np.unique(
        np.concatenate([p.names for p in parts]), return_index=True, return_inverse=True
    )
    kind = np.concatenate([np.full(len(p.names), p.kind, np.uint8) for p in parts])
    bounds = np.cumsum([0, *(len(p.names) for p in parts)])
    key = np.concatenate([code[b + p.key].astype(np.int32) for b, p in zip(bounds, parts, strict=False)])
    # Two counting sorts, the second one stable: by account, then by key.
    order = grouped(key, len(names))[0]
    order = order[grouped(account[order], accounts)[0]]
    account, key = account[order], key[order]
    start = np.flatnonzero(np.append(True, (account[1:] != account[:-1]) | (key[1:] != key[:-1])))
    if len(order) == 0:
        start = np.zeros(0, np.int64)
    count = np.concatenate([p.count for p in parts])[order]
    first = np.concatenate([p.first for p in parts])[order]
    last = np.concatenate([p.last for p in parts])[order]
    if len(start) < len(order):
        never = np.iinfo(np.int64).max
        count = np.add.reduceat(count.astype(np.int64), start).astype(np.int32)
        first = np.minimum.reduceat(np.where(first == 0, never, first), start)
        first[first == never] = 0
        last = np.maximum.reduceat(last, start)
        account, key = account[start], key[start]
    return KeyTable(account, key, count, first, last, names, kind[place], kinds, accounts)
