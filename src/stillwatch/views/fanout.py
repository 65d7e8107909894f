"""FAN-OUT: what tells one user of an account from another. Values are counted per account, and tie nobody."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillwatch.views.base import U64, column, hash_numbers, hash_strings

KINDS = ("claimed_clients", "languages", "system_prompts", "tool_sets", "end_users")
OF_EXCHANGES = tuple(kind for kind in KINDS if kind != "system_prompts")
"""Kinds whose values come from single exchanges; system prompts are counted where they are kept."""


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
