"""Who belongs to a group that wording and links found together: bits of one account for a tie and for a wording.

Both are likelihood ratios against the other accounts of the log. They rank accounts inside a scan
and are no bounds.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from stillwatch.detect.keys import KeyIndex
from stillwatch.detect.population import F64, I64, Bool

KEY_LIFT = 20.0
"""A wording tells a group from others when members hold it this many times as often."""
RATES = (0.05, 0.1, 0.2, 0.4, 0.8)
"""How much of the group's wordings a member may use, compared with the others."""


@nb.njit(nogil=True, cache=True)
def _strongest(account_offsets: Any, keys: Any, count: Any, holders: Any, inside: Any) -> Any:
    """For each account, the best odds that a holder of one of its keys is a member; -1 where it is tied to none."""
    n = len(account_offsets) - 1
    out = np.full(n, -1.0)
    for a in range(n):
        for i in range(account_offsets[a], account_offsets[a + 1]):
            members = count[keys[i]] - inside[a]
            if members >= 1:
                others = holders[keys[i]] - inside[a] - members
                out[a] = max(out[a], members / max(1.0, others))
    return out


def tie_bits(ties: KeyIndex, members: I64, able: Bool) -> F64:
    """Bits of every account for a tie to the members, shape (accounts,); a member is compared with the others.

    The likelihood ratio of being tied at least so strongly, read off the members and the other able accounts;
    strength is the share of members among the holders of the key that ties. No tie counts against an account.
    """
    inside = np.zeros(len(able), np.int64)
    inside[members] = 1
    strength = np.round(
        _strongest(ties.account_offsets, ties.keys, ties.group_counts(members), ties.df(), inside), 9
    )
    mine, others = np.sort(strength[members]), np.sort(strength[able & (inside == 0)])
    above = np.maximum(len(mine) - np.searchsorted(mine, strength), 1) / len(mine)
    outside = (len(others) - np.searchsorted(others, strength) + 1) / (len(others) + 1)
    bits = np.log2(above / outside)
    untied = (np.count_nonzero(mine < 0) + 1) / (len(mine) + 1)
    free = (np.count_nonzero(others < 0) + 1) / (len(others) + 1)
    bits[strength < 0] = min(0.0, np.log2(untied / free))
    return np.asarray(bits)


@nb.njit(nogil=True, cache=True)
def _wording(
    account_offsets: Any,
    keys: Any,
    accounts: Any,
    inside: Any,
    place: Any,
    count: Any,
    outside: Any,
    size: int,
    busy: Any,
    rates: Any,
    out: Any,
) -> None:
    """Bits of each of `accounts`; `place[key]` is the row of the group's keys in `count` and `outside`, else -1."""
    n_rates = len(rates)
    none_in, none_out = np.zeros(n_rates), np.zeros(n_rates)
    chance = 0.0
    for k in range(len(count)):
        chance += outside[k] / np.log(2.0)
        for r in range(n_rates):
            none_in[r] += np.log2(1 - rates[r] * count[k] / size)
            none_out[r] += np.log2(1 - rates[r] * count[k] / (size + 1))
    total = np.empty(n_rates)
    for i in range(len(accounts)):
        a = accounts[i]
        one = inside[a]
        others = size if one else size + 1
        for r in range(n_rates):
            total[r] = (none_in[r] if one else none_out[r]) + chance * busy[a]
        for j in range(account_offsets[a], account_offsets[a + 1]):
            k = place[keys[j]]
            if k < 0:
                continue
            for r in range(n_rates):
                total[r] -= np.log2(1 - rates[r] * count[k] / others)
                if count[k] > one:
                    ratio = rates[r] * (count[k] - one) / others / min(0.5, outside[k] * busy[a])
                    total[r] += np.log2(ratio)
        most = total.max()
        mean = 0.0
        for r in range(n_rates):
            mean += 2.0 ** (total[r] - most)
        out[i] = most + np.log2(mean / n_rates)


def wording_bits(words: KeyIndex, members: I64, able: Bool, accounts: I64) -> F64:
    """Bits of `accounts` for the members' wordings, shape (accounts,); a member is compared with the others.

    A likelihood ratio of independent draws of each key that is `KEY_LIFT` times as frequent among the members as
    elsewhere. A member draws it as often as the others do, times a rate of its own, averaged over `RATES`: most of
    what a member sends may be anything. A stranger draws it as often as outsiders do, times how many more keys than
    the average account it holds. Unlike `members.key_bits` it does not count the cover against an account, and unlike
    it, it is no bound: families of one text are no independent draws. So it is for one last look, after a group has
    settled, and more is asked of it.
    """
    part = words.telling
    at, count = part.held(members)
    df = words.df()[part.key[at]]
    kept = (count >= 2) & (count * words.accounts >= KEY_LIFT * df * len(members))
    at, count, df = at[kept], count[kept], df[kept]
    place = np.full(len(part.key), -1, np.int32)
    place[at] = np.arange(len(at), dtype=np.int32)
    inside = np.zeros(words.accounts, np.int64)
    inside[members] = 1
    held = np.diff(part.account_offsets).astype(float)
    out = np.zeros(len(accounts))
    _wording(
        part.account_offsets,
        part.keys,
        accounts,
        inside,
        place,
        count.astype(float),
        (df - count + 0.5) / (words.accounts - len(members) + 1),
        len(members),
        np.maximum(1.0, held / max(1.0, float(held[able].mean()))),
        np.array(RATES),
        out,
    )
    return out
