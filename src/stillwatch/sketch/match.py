"""Matching of rule packs on token hashes: one probe of a small table for each token of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

_U = np.uint64
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


class Compiled(NamedTuple):
    """Rules as arrays. A *phrase* is a run of tokens; an *entry* of a rule is a list of phrases: any one will do."""

    table: U64
    """Slot s: a phrase's first token and the number of the first phrase with it, plus 1, in the words 2s and 2s+1."""
    following: I64
    """Next phrase with the same first token, -1 for none, shape (phrases,)."""
    tokens: U64
    token_at: I64
    """Phrase p has `tokens[token_at[p]:token_at[p+1]]`."""
    entries: I64
    entry_at: I64
    """Phrase p stands in the entries `entries[entry_at[p]:entry_at[p+1]]`."""
    rule_of: I64
    """Rule of each entry; a rule's entries are neighbours."""
    first_entry: I64
    """Rule r has the entries `first_entry[r]:first_entry[r+1]`."""
    within: I64
    bit: I64
    """Tag of each rule."""


def compiled(rules: Sequence[tuple[int, int, Sequence[Sequence[U64]]]]) -> Compiled:
    """(tag, within, entries of phrases) of each rule -> arrays."""
    number: dict[tuple[int, ...], int] = {}
    uses: list[list[int]] = []
    rule_of: list[int] = []
    first_entry = [0]
    for rule, (_, _, entries) in enumerate(rules):
        for phrases in entries:
            for phrase in phrases:
                key = tuple(int(t) for t in phrase)
                if key not in number:
                    number[key] = len(uses)
                    uses.append([])
                if len(rule_of) not in uses[number[key]]:
                    uses[number[key]].append(len(rule_of))
            rule_of.append(rule)
        first_entry.append(len(rule_of))
    phrases_in_order = list(number)
    size = 1 << max(4, (4 * len(number)).bit_length())
    table = np.zeros(2 * size, np.uint64)
    following = np.full(len(number), -1, np.int64)
    for place in range(len(number) - 1, -1, -1):
        head = phrases_in_order[place][0]
        slot = (head ^ (head >> 29)) & (size - 1)
        while table[2 * slot] not in (0, head):
            slot = (slot + 1) & (size - 1)
        if table[2 * slot] == head:
            following[place] = int(table[2 * slot + 1]) - 1
        table[2 * slot], table[2 * slot + 1] = head, place + 1
    return Compiled(
        table,
        following,
        np.array([t for phrase in phrases_in_order for t in phrase], np.uint64),
        np.cumsum([0, *(len(phrase) for phrase in phrases_in_order)]).astype(np.int64),
        np.array([e for entries in uses for e in entries], np.int64),
        np.cumsum([0, *(len(entries) for entries in uses)]).astype(np.int64),
        np.array(rule_of, np.int64),
        np.array(first_entry, np.int64),
        np.array([within for _, within, _ in rules], np.int64),
        np.array([bit for bit, _, _ in rules], np.int64),
    )


@nb.njit(nogil=True, cache=True)
def tags_of(tokens: Any, count: int, rules: Any, seen_at: Any, seen_in: Any, row: int) -> Any:
    """Tags of one text as bits, from its first `count` token hashes.

    `seen_at`, `seen_in` int64 (entries,) are scratch: where an entry was last met, and in which `row`; rows differ.
    """
    table, following, words, word_at, entries, entry_at, rule_of, first_entry, within, bit = rules
    mask = _U(len(table) // 2 - 1)
    out = _U(0)
    for i in range(count):
        token = tokens[i]
        s = np.int64((token ^ (token >> _U(29))) & mask)
        while table[2 * s] != _U(0) and table[2 * s] != token:
            s = np.int64(_U(s + 1) & mask)
        if table[2 * s] == _U(0):
            continue
        phrase = np.int64(table[2 * s + 1]) - 1
        while phrase >= 0:
            begin, length = word_at[phrase], word_at[phrase + 1] - word_at[phrase]
            same = i + length <= count
            for j in range(1, length):
                if not same:
                    break
                same = tokens[i + j] == words[begin + j]
            if same:
                for u in range(entry_at[phrase], entry_at[phrase + 1]):
                    entry = entries[u]
                    seen_at[entry], seen_in[entry] = i, row
                    rule = rule_of[entry]
                    one = _U(1) << _U(bit[rule])
                    if out & one:
                        continue
                    matched = True
                    for e in range(first_entry[rule], first_entry[rule + 1]):
                        matched &= (seen_in[e] == row) & (i - seen_at[e] <= within[rule])
                    if matched:
                        out |= one
            phrase = following[phrase]
    return out
