"""What can happen to a conversation after it was planned: it moves to another account, blocks are replayed
under another account, its client compacts it. Each function leaves worlds without such streams untouched.
"""

from __future__ import annotations

import numpy as np

from stillwatch.arena.sessions import Sessions, life
from stillwatch.arena.world import World


def compacted(world: World, stream_of: np.ndarray, first: np.ndarray) -> np.ndarray:
    """First turn of each turn's conversation, shape (turns,), after clients replaced prefixes by summaries.

    What follows a compaction starts again from the system prompt, as a new conversation would.
    """
    chance = np.array([s.compact for s in world.streams])[stream_of]
    if not chance.any():
        return first
    index = np.arange(len(first))
    cut = (first != index) & (world.rng.random(len(first)) < chance)
    begins = np.where(cut | (first == index), index, 0)
    out: np.ndarray = np.maximum.accumulate(begins)
    return out


def moved(
    world: World,
    sessions: Sessions,
    session_of: np.ndarray,
    position: np.ndarray,
    account_of: np.ndarray,
    ts: np.ndarray,
) -> np.ndarray:
    """Account of every exchange, shape (exchanges,), where conversations move inside their circle.

    A conversation stays where it went until it moves again; only accounts that live at the moment (us) take it.
    """
    chance = np.array([s.move for s in world.streams])
    rows = np.flatnonzero(chance[sessions.stream][session_of] > 0)
    if len(rows) == 0:
        return account_of
    first, last = life(world)
    circle = np.array([-1 if s.circle is None else s.circle for s in world.streams])[sessions.stream]
    draws = world.rng.random((len(rows), 2))
    out = account_of.copy()
    current = -1
    for row, (go, whom) in zip(rows.tolist(), draws.tolist(), strict=True):
        session = session_of[row]
        if position[row] == 0:
            current = int(out[row])
            continue
        if go < chance[sessions.stream[session]] or not first[current] <= ts[row] < last[current]:
            others = world.circles[circle[session]]
            for step in range(len(others)):
                other = others[(int(whom * len(others)) + step) % len(others)]
                if other != current and first[other] <= ts[row] < last[other]:
                    current = other
                    break
            else:
                current = int(account_of[row])
        out[row] = current
    return out


def replayed(
    world: World,
    stream_of: np.ndarray,
    account_of: np.ndarray,
    ts: np.ndarray,
    block_in: np.ndarray,
    block_out: np.ndarray,
) -> np.ndarray:
    """Reasoning blocks sent in, shape (exchanges,): streams that replay carry blocks of their circle.

    The block is one that another account of the circle was given before that moment; where none exists yet,
    the request carries what it carried.
    """
    share = np.array([s.replay for s in world.streams])[stream_of]
    if not share.any():
        return block_in
    out = block_in.copy()
    chosen = (share > 0) & (world.rng.random(len(share)) < share)
    circle = np.array([-1 if s.circle is None else s.circle for s in world.streams])
    for number in np.unique(circle[stream_of[chosen]]).tolist():
        inside = np.isin(account_of, world.circles[number])
        given = np.flatnonzero(inside & (block_out > 0))
        given = given[np.argsort(ts[given], kind="stable")]
        if len(given) == 0:
            continue
        takers = np.flatnonzero(chosen & (circle[stream_of] == number))
        ready = np.searchsorted(ts[given], ts[takers])
        # The newest eighth of what exists: blocks are used soon after they were taken.
        back = (world.rng.random((len(takers), 6)) * np.maximum(ready / 8, 40)[:, None]).astype(np.int64)
        for attempt in range(back.shape[1]):
            at = ready - 1 - back[:, attempt]
            possible = at >= 0
            rows = given[np.maximum(at, 0)]
            possible &= account_of[rows] != account_of[takers]
            out[takers[possible]] = block_out[rows[possible]]
            takers, ready, back = takers[~possible], ready[~possible], back[~possible]
    return out
