"""What a process counted lately, so that the guard of a new snapshot can go on from it.

A scan has seen what came before its log's end. What came later is known to the gateway's process alone: it is kept
here, request by request, in rings of fixed size, and counted again by the keys of the new snapshot.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stillwatch.guard.account import view
from stillwatch.guard.kernel import find
from stillwatch.guard.snapshot import Snapshot

MOST_REQUESTS = 1 << 19
MOST_PLACES = 1 << 21
"""16 MiB in all: nine minutes of a thousand requests a second. Beyond it the oldest give way, and are counted."""


class Since(NamedTuple):
    """Requests in the order in which they came."""

    ts_us: npt.NDArray[np.int64]
    account: npt.NDArray[np.uint64]
    """Keyed hash of each request's account."""
    lengths: npt.NDArray[np.int64]
    """Places of each request."""
    place: npt.NDArray[np.int64]
    """All places, one request after the other."""
    lost: int
    """Requests that gave way to others before they were asked for, whenever they came."""


class Sums(NamedTuple):
    """Requests by account and key."""

    account: npt.NDArray[np.uint64]
    """Keyed hashes, each once, rising."""
    volume: npt.NDArray[np.int64]
    """Requests of each."""
    of: npt.NDArray[np.int64]
    """Rows of (account, place): index into `account`, rising."""
    place: npt.NDArray[np.int64]
    uses: npt.NDArray[np.int64]


class Recent:
    """Requests that were counted, in the order in which they came. Not for two threads at once."""

    __slots__ = ("_account", "_account_view", "_begin", "_begin_view", "_place", "_place_view", "_ts", "_ts_view",
                 "next", "places")  # fmt: skip

    def __init__(self) -> None:
        self._ts = np.zeros(MOST_REQUESTS, np.int64)
        self._account = np.zeros(MOST_REQUESTS, np.uint64)
        self._begin = np.zeros(MOST_REQUESTS, np.int64)
        self._place = np.zeros(MOST_PLACES, np.int32)
        self._ts_view, self._account_view = view(self._ts), view(self._account)
        self._begin_view, self._place_view = view(self._begin), view(self._place)
        self.next = 0
        """Requests since the start: the next one's number."""
        self.places = 0

    def add(self, account: int, places: list[int], ts_us: int) -> None:
        """Remember a request. At most `MOST_PLACES` places are looked at."""
        at = self.next & (MOST_REQUESTS - 1)
        self._ts_view[at] = ts_us
        self._account_view[at] = account
        self._begin_view[at] = self.places
        self.next += 1
        begin = self.places
        for place in places:
            self._place_view[begin & (MOST_PLACES - 1)] = place
            begin += 1
        self.places = begin

    def extend(self, since: Since) -> None:
        """Remember what another process's life or another snapshot's guard remembered; places are this one's."""
        kept = len(since.ts_us)
        at = (self.next + np.arange(kept)) & (MOST_REQUESTS - 1)
        ends = self.places + np.cumsum(since.lengths)
        self._ts[at], self._account[at], self._begin[at] = since.ts_us, since.account, ends - since.lengths
        self._place[(self.places + np.arange(len(since.place))) & (MOST_PLACES - 1)] = since.place
        self.next += kept
        self.places += len(since.place)

    def since(self, number: int, after_us: int) -> Since:
        """Requests from `number` on that came after `after_us` (event time)."""
        end, places = self.next, self.places
        first = max(number, end - MOST_REQUESTS)
        numbers = np.arange(first, end)
        at = numbers & (MOST_REQUESTS - 1)
        begin = self._begin[at]
        stop = np.append(begin[1:], places)
        whole = begin >= places - MOST_PLACES
        lost = first - number + int((~whole).sum())
        kept = whole & (self._ts[at] > after_us)
        lengths = (stop - begin)[kept]
        source = np.repeat(begin[kept] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
        source += np.arange(int(lengths.sum()))
        place = self._place[source & (MOST_PLACES - 1)].astype(np.int64)
        return Since(self._ts[at[kept]], self._account[at[kept]], lengths, place, lost)


def by_keys_of(since: Since, old: Snapshot, new: Snapshot) -> Since:
    """The same requests by the places that `new` has for the keys of `old`'s; what it does not know is left out."""
    used, at = np.unique(since.place, return_inverse=True)
    mapped = _places_in(new, old, used)[at]
    known = mapped >= 0
    request = np.repeat(np.arange(len(since.lengths)), since.lengths)[known]
    lengths = np.bincount(request, minlength=len(since.lengths)).astype(np.int64)
    return since._replace(lengths=lengths, place=mapped[known])


def _places_in(new: Snapshot, old: Snapshot, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Places in `new` of places in `old`; -1 where it does not know the key."""
    table, split = new.arrays.key_hash, new.meta.form_places
    keys = old.arrays.key_hash[places]
    form = places < old.meta.form_places
    out = np.full(len(places), -1, np.int64)
    for mine, first, end in ((form, 0, split), (~form, split, len(table))):
        part = table[first:end]
        if len(part) == 0:
            continue
        at = np.minimum(np.searchsorted(part, keys[mine]), len(part) - 1)
        out[mine] = np.where(part[at] == keys[mine], at + first, -1)
    return out


def owners_in(snapshot: Snapshot, numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The accounts that API keys belong to, as a snapshot knows; a key that it does not know stays itself."""
    a = snapshot.arrays
    if len(a.api_key_hash) == 0:
        return numbers
    at = np.minimum(np.searchsorted(a.api_key_hash, numbers), len(a.api_key_hash) - 1)
    return np.where(a.api_key_hash[at] == numbers, a.api_key_account[at], numbers)


def added_up(since: Since) -> Sums:
    """Volume of each account, and its uses of each key."""
    account, of = np.unique(since.account, return_inverse=True)
    volume = np.bincount(of, minlength=len(account)).astype(np.int64)
    # Both in one number: rows of two columns take sixty times as long to sort.
    span = int(since.place.max(initial=0)) + 1
    pairs, count = np.unique(np.repeat(of, since.lengths) * span + since.place, return_counts=True)
    return Sums(account, volume, pairs // span, pairs % span, count.astype(np.int64))


def row_of(sums: Sums, number: int) -> int:
    """Row of an account in `sums`, -1 where it is not there."""
    return int(find(sums.account, 0, len(sums.account), np.uint64(number)))
