"""FAN-OUT: what tells one user of an account from another. Values are counted per account, and tie nobody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillwatch.engine.holders import grouped
from stillwatch.views.base import I32, I64, U64, column, hash_numbers, hash_strings

OF_EXCHANGES = ("claimed_clients", "languages", "tool_sets", "end_users")
"""Kinds whose values come from single exchanges."""
KINDS = (*OF_EXCHANGES, "system_prompts", "borrowed_clients", "requests_at_once")
LEAST_KNOWN = 50
"""Accounts that must claim a client before anybody can say which TLS and header stacks it has."""
RARE_STACK = 0.02
"""A stack that fewer of a client's accounts are seen with is not one of its own."""


def values(batch: pa.RecordBatch, script: npt.NDArray[np.uint8]) -> Iterator[tuple[str, U64]]:
    """(kind, value of each row, 0 for none). `script` uint8 (rows,): class of the prompt's letters, 0 for none.

    A claimed client is its user agent without version numbers: an update is no other client.
    """
    agent = column(batch, "user_agent")
    if not pa.types.is_null(agent.type):
        yield "claimed_clients", hash_strings(_families(agent), "user_agent")
    yield "languages", script.astype(np.uint64)
    yield "tool_sets", hash_numbers(column(batch, "tools_hash"), "tool_schema")
    user = column(batch, "end_user_id")
    if not pa.types.is_null(user.type):
        yield "end_users", hash_strings(user, "end_user")


def _families(agents: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(agents, pa.ChunkedArray):
        agents = agents.combine_chunks()
    encoded = agents if pa.types.is_dictionary(agents.type) else agents.dictionary_encode()
    plain = pa.array([None if a is None else _plain(a) for a in encoded.dictionary.to_pylist()], pa.string())
    return plain.take(encoded.indices)


def _plain(agent: str) -> str:
    """Without digits, dots and underscores between them: `OpenAI/Python 1.30.1` is `OpenAI/Python `."""
    return "".join(c for c in agent if not (c.isdigit() or c in "._")).strip().lower()


def borrowed_clients(account: I32, client: U64, stack: U64, accounts: int) -> I64:
    """Clients of each account that it claims from a stack which next to nobody else has them on, int64 (accounts,).

    `account` int32, `client` uint64, `stack` uint64, each (triples,), every triple once: who claims which client over
    which TLS and header stack. A relay claims many clients and speaks with one voice.
    """
    known, code = np.unique(client, return_inverse=True)
    claims = np.unique(np.stack([code, account]), axis=1)
    claimed_by = np.bincount(claims[0], minlength=len(known))
    order = np.lexsort((stack, code))
    fresh = np.append(True, (code[order][1:] != code[order][:-1]) | (stack[order][1:] != stack[order][:-1]))
    pair = np.empty(len(order), np.int64)
    pair[order] = np.cumsum(fresh[: len(order)]) - 1
    together = np.bincount(pair)[pair] if len(pair) else pair
    odd = (claimed_by[code] >= LEAST_KNOWN) & (together < RARE_STACK * claimed_by[code])
    clients = np.unique(np.stack([code[odd], account[odd]]), axis=1)
    return np.bincount(clients[1], minlength=accounts).astype(np.int64)


def requests_at_once(account: I32, start_us: I64, duration_us: I64, accounts: int) -> I64:
    """Most requests of each account that were answered at the same time, int64 (accounts,).

    `account`, `start_us`, `duration_us` (rows,): arrival, and time to the last token, in microseconds; rows without a
    duration are below 0 and left out. Whoever is answered when the next one arrives is not at once with it.
    """
    order, starts = grouped(np.where(duration_us >= 0, account, -1).astype(np.int32), accounts)
    return np.asarray(_most(start_us, start_us + duration_us, order, starts))


@nb.njit(nogil=True, cache=True)
def _most(begin: Any, end: Any, order: Any, starts: Any) -> Any:
    out = np.zeros(len(starts) - 1, np.int64)
    for account in range(len(out)):
        mine = order[starts[account] : starts[account + 1]]
        begins, ends = np.sort(begin[mine]), np.sort(end[mine])
        over = 0
        for i in range(len(mine)):
            while over < i and ends[over] <= begins[i]:
                over += 1
            out[account] = max(out[account], i + 1 - over)
    return out
