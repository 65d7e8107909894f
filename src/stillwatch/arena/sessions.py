"""From a planned world to sessions: how much each account sends, of which stream, and when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stillwatch.arena.timing import DAY_US, HOUR_US
from stillwatch.arena.world import LOG_DAYS, LOG_HOURS, Account, World


@dataclass(frozen=True)
class Sessions:
    """Parallel arrays, one entry per session: account, stream, exchanges, start (us)."""

    account: np.ndarray
    stream: np.ndarray
    length: np.ndarray
    start_us: np.ndarray


def volumes(world: World) -> np.ndarray:
    """Exchanges per account, shape (accounts,): fixed ones kept, the rest scaled to the requested total."""
    fixed = np.array([a.volume if a.volume is not None else 0 for a in world.accounts], dtype=np.int64)
    weight = np.array([0.0 if a.volume is not None else a.weight for a in world.accounts])
    room = max(world.requested_exchanges - int(fixed.sum()), int((weight > 0).sum()))
    scaled = weight * room / max(weight.sum(), 1e-9)
    cap = 0.02 * world.requested_exchanges
    for _ in range(4):  # what the cap takes from the largest goes to the others
        scaled = np.minimum(scaled * room / max(scaled.sum(), 1e-9), cap)
    whole = np.floor(scaled + world.rng.random(len(scaled)))
    out: np.ndarray = np.where(weight > 0, np.maximum(whole, 1), fixed).astype(np.int64)
    return out


def hourly_weights(world: World, account: Account) -> np.ndarray:
    """The account's weight of each hour of the log, shape (LOG_HOURS,)."""
    rng = world.rng
    own = world.curve(account.region)
    own = own * (world.bursts.draw(rng) + 0.02)
    own = own / own.sum()
    if account.schedule is not None:
        shared = account.schedule / account.schedule.sum()
        own = account.schedule_share * shared + (1 - account.schedule_share) * own
    first, last = account.active_us or (max(world.start_us, account.created_us), world.end_us)
    if first > world.start_us or last < world.end_us:
        hours = world.start_us + np.arange(LOG_HOURS) * HOUR_US
        alive = (hours + HOUR_US > first) & (hours < last)
        if alive.any():
            own = (own + 1e-12) * alive
    out: np.ndarray = own
    return out


def draw_sessions(world: World) -> Sessions:
    """Draw every session of every account."""
    rng = world.rng
    counts = volumes(world)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    for index, account in enumerate(world.accounts):
        cdf = np.cumsum(hourly_weights(world, account))
        cdf /= cdf[-1]
        shares = np.array([w for w, _ in account.streams])
        split = rng.multinomial(int(counts[index]), shares / shares.sum())
        for (_, ident), exchanges in zip(account.streams, split.tolist(), strict=True):
            if exchanges == 0:
                continue
            sessions = max(1, int(exchanges / world.streams[ident].mean_length + rng.random()))
            sessions = min(sessions, exchanges)
            lengths = 1 + rng.multinomial(exchanges - sessions, np.full(sessions, 1.0 / sessions))
            window = world.streams[ident].window_us
            within = cdf if window is None else _inside(world, cdf, window)
            hours = np.minimum(np.searchsorted(within, rng.random(sessions)), LOG_HOURS - 1)
            starts = world.start_us + ((hours + rng.random(sessions)) * HOUR_US).astype(np.int64)
            parts.append((np.full(sessions, index), np.full(sessions, ident), lengths, starts))
    account_of, stream_of, length, start = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Sessions(account_of, stream_of, length, start)


def _inside(world: World, cdf: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    """Cumulative hourly weights `cdf` restricted to the window (us); unrestricted where nothing is left."""
    hours = world.start_us + np.arange(LOG_HOURS) * HOUR_US
    weights = np.diff(cdf, prepend=0.0) * ((hours >= window[0]) & (hours < window[1]))
    out: np.ndarray = np.cumsum(weights) / weights.sum() if weights.sum() > 0 else cdf
    return out


def life(world: World) -> tuple[np.ndarray, np.ndarray]:
    """First and last permitted moment (us) of each account inside the log."""
    first = np.array(
        [max(world.start_us, a.active_us[0] if a.active_us else a.created_us) for a in world.accounts]
    )
    last = np.array([a.active_us[1] if a.active_us else world.end_us for a in world.accounts])
    return first, np.minimum(np.maximum(last, first + 60_000_000), world.start_us + LOG_DAYS * DAY_US)
