"""FAN-OUT on its way through the reduction: what each account has of every kind that `views.fanout` counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.engine.aggregate import Aggregate
from stillwatch.views import fanout
from stillwatch.views.base import I32, I64, U64, column, mix

LONGEST_MS = 86_400_000.0
"""A day. What is said to have taken longer is a fault of the log."""


class FanOut:
    """Feeds on canonical batches; `finish` gives the counts."""

    def __init__(self) -> None:
        self._values = {name: Aggregate() for name in fanout.OF_EXCHANGES}
        self._voices = Aggregate()
        self._parts: dict[int, tuple[int, int]] = {}
        self._duration: list[I64] = []

    def add(
        self, batch: pa.RecordBatch, account: I32, ts: I64, script: npt.NDArray[np.uint8], stack: U64
    ) -> None:
        """Take in one batch. `script` as for `fanout.values`; `stack` uint64 (rows,): TLS and header stack, or 0."""
        for name, values in fanout.values(batch, script):
            self._values[name].add(account, values, ts)
            if name == "claimed_clients":
                with np.errstate(over="ignore"):
                    both = mix(values ^ (stack * np.uint64(0xD6E8FEB86659FD93)), "claimed_client_and_stack")
                both[(values == 0) | (stack == 0)] = 0
                names, first = np.unique(both, return_index=True)
                clients, stacks = values[first].tolist(), stack[first].tolist()
                self._parts.update(zip(names.tolist(), zip(clients, stacks, strict=True), strict=True))
                self._voices.add(account, both, ts)
        latency = column(batch, "latency_ms")
        if pa.types.is_null(latency.type):
            self._duration.append(np.full(batch.num_rows, -1, np.int64))
            return
        ms = pc.fill_null(latency, -1).to_numpy(zero_copy_only=False).astype(np.float64)
        sane = (ms >= 0) & (ms <= LONGEST_MS)
        self._duration.append(np.where(sane, ms * 1000, -1.0).astype(np.int64))

    def finish(self, rank: I32, account: I32, ts: I64, system_of: I32) -> tuple[I64, I64]:
        """(class of letters in which most of each account's prompts are written, int64 (accounts,), 0 for none;
        values of each of `fanout.KINDS` by account, int64 (kinds, accounts)).

        `rank` int32: final number of each account code; `account`, `ts` (rows,): final numbers and arrivals of the
        rows taken in; `system_of` int32: the account of each different system prompt.
        """
        n = len(rank)
        held = {name: table.rows() for name, table in self._values.items()}
        found = {name: np.bincount(rank[rows[0]], minlength=n) for name, rows in held.items()}
        found["system_prompts"] = np.bincount(system_of, minlength=n)
        who, voice, _, _, _ = self._voices.rows()
        names, place = np.unique(voice, return_inverse=True)
        parts = np.array([self._parts[v] for v in names.tolist()], np.uint64).reshape(-1, 2)[place]
        found["borrowed_clients"] = fanout.borrowed_clients(rank[who], parts[:, 0], parts[:, 1], n)
        duration = np.concatenate(self._duration) if self._duration else np.zeros(0, np.int64)
        found["requests_at_once"] = fanout.requests_at_once(account, ts, duration, n)
        owner, script, count, _, _ = held["languages"]
        uses = np.zeros((n, int(script.max(initial=0)) + 1), np.int64)
        np.add.at(uses, (rank[owner], script.astype(np.int64)), count)
        return uses.argmax(axis=1), np.stack([found[kind] for kind in fanout.KINDS]).astype(np.int64)
