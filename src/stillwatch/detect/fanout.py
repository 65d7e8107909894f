"""FAN-OUT: accounts with more behind them than one account has.

A pool that relays other people's requests, or that passes them off as many clients, shows it inside its accounts:
more claimed clients, languages, system prompts, sets of tools or end users than equally busy accounts have. So do
honest products with many users, and everybody who uses one agent framework does so alike; therefore this test never
singles a group out. It counts beside one that did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from stillwatch.detect.direct import Direct
from stillwatch.detect.population import I64, Bool

LEAST_EXCHANGES = 10
"""Exchanges from which an account can show that it is wide."""
WIDE = 0.02
"""Share of equally busy accounts that may be wider, at most, for an account to be called wide."""


def wide_accounts(volume: I64, diversity: I64, eligible: Bool) -> tuple[Bool, Bool]:
    """(who is wide in each kind, bool (kinds, accounts); who can be judged at all, bool (accounts,)).

    `volume` int64 (accounts,): exchanges; `diversity` int64 (kinds, accounts): different values of each kind;
    `eligible`: accounts whose users are not known to be many (registered gateways are left out). Compared within
    deciles of volume, so that being busy is not being wide.
    """
    able = eligible & (volume >= LEAST_EXCHANGES)
    wide = np.zeros(diversity.shape, bool)
    if not able.any():
        return wide, able
    edges = np.unique(np.quantile(volume[able], np.arange(1, 10) / 10))
    decile = np.searchsorted(edges, volume, side="left")
    for number in np.unique(decile[able]):
        mine = able & (decile == number)
        # More than this, not as many: most accounts have one client and one language.
        most = np.quantile(diversity[:, mine], 1 - WIDE, axis=1, method="higher")
        wide[:, mine] = diversity[:, mine] > most[:, None]
    return wide, able


def fan_out(wide: Bool, able: Bool, names: Sequence[str], members: I64) -> Direct:
    """More wide members than `WIDE` of them? Binomial, the smallest p over the kinds times their number.

    `names`: the kinds in words.
    """
    judged = members[able[members]]
    best = Direct(
        "fan_out",
        "FANOUT",
        1.0,
        0,
        WIDE * len(judged),
        0.0,
        alone=False,
        trials=len(judged),
        times=float(len(wide)),
        counts=(WIDE, float(len(judged))),
    )
    if len(judged) == 0:
        return best
    for name, row in zip(names, wide, strict=True):
        observed = int(row[judged].sum())
        p = min(1.0, float(stats.binom.sf(observed - 1, len(judged), WIDE)) * len(wide)) if observed else 1.0
        if p < best.p:
            reach = observed / len(members)
            best = replace(best, p=p, observed=observed, reach=reach, detail=name)
    return best
