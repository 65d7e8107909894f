"""When people and programs send requests.

Hourly weights over the log window: a daily curve by time zone, a weekday factor, heavy-tailed bursts of each
account. With a folder of public serving traces, the bursts come from recorded clients instead.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from stillwatch.schema.errors import InputError, Where

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US


def daily_curve(
    hours: int, zone: int, *, peak: float, width: float, floor: float, weekend: float, first_weekday: int
) -> np.ndarray:
    """Weight of each hour (length `hours`) for people in time zone `zone` (hours east of UTC)."""
    hour = np.arange(hours)
    local = (hour + zone) % 24
    distance = (local - peak + 12) % 24 - 12
    curve = floor + np.exp(-0.5 * (distance / width) ** 2)
    weekday = ((hour + zone) // 24 + first_weekday) % 7
    out: np.ndarray = curve * np.where(weekday < 5, 1.0, weekend)
    return out


class Bursts:
    """Burst multipliers per account: gamma days times gamma hours, or rows of recorded traces."""

    def __init__(self, hours: int, traces: Path | None) -> None:
        self._hours = hours
        self._recorded = _recorded_bursts(traces, hours) if traces is not None else None

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One account's multipliers, shape (hours,), mean about 1."""
        days = self._hours // 24 + 1
        if self._recorded is not None and rng.random() < 0.7:
            row = self._recorded[int(rng.integers(len(self._recorded)))]
            shifted: np.ndarray = np.roll(row, 24 * int(rng.integers(days)))
            return shifted * rng.gamma(2.0, 0.5, self._hours)
        per_day = rng.gamma(0.5, 2.0, days).repeat(24)[: self._hours]
        out: np.ndarray = per_day * rng.gamma(1.0, 1.0, self._hours)
        return out


def _recorded_bursts(folder: Path, hours: int) -> np.ndarray:
    """Hourly rates of recorded clients, tiled to the window and freed of the mean daily curve."""
    path = folder / "trace_servegen_rates.parquet"
    if not path.exists():
        raise InputError(
            "the trace file is missing", where=Where(file=path.name), hint="point traces at its folder"
        )
    table = pq.read_table(path, columns=["category", "model", "client", "window_start_s", "rate"]).to_pydict()
    series: dict[tuple[str, str, int], np.ndarray] = {}
    length = int(max(table["window_start_s"]) // 3600) + 1
    for category, model, client, start, rate in zip(*table.values(), strict=True):
        row = series.setdefault((category, model, client), np.zeros(length))
        row[int(start // 3600)] += rate
    rows = np.stack([series[key] for key in sorted(series)])
    rows = rows[rows.sum(axis=1) > 0]
    rows = rows / rows.mean(axis=1, keepdims=True)
    curve = np.array([rows[:, h::24].mean() for h in range(24)])
    rows = rows / np.maximum(curve[np.arange(rows.shape[1]) % 24], 0.05)
    tiled = np.tile(rows, (1, hours // rows.shape[1] + 1))[:, :hours]
    out: np.ndarray = tiled[tiled.sum(axis=1) > 0]
    return out
