"""Methods that look at one account's distribution of requests: MMD against the background, and PRADA.

Both get the same features: hashed one- and two-word counts, TF-IDF, a random projection to `WIDTH` dimensions, unit
length. Thresholds are set where `ALARMS` of the windows of accounts that a provider knows to be honest (verified
organisations) would be flagged, or of all accounts where none is verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stillwatch.arena.baselines.log import first_rows, honest_accounts, missing, write_groups

WIDTH = 64
WINDOW, LEAST_WINDOW = 1_500, 20
"""Requests of a window, as published, and the fewest of an account that are looked at at all."""
ALARMS = 0.003
"""Share of honest windows that are flagged, as published for MMD."""
BACKGROUND = 20_000
WAVES = 512
LEAST_QUERIES = 40
"""Distances from which PRADA tests for normality."""

ABOUT_MMD = (
    "maximum mean discrepancy of an account's windows of up to 1,500 requests against a random background (Gretton "
    "et al. 2012), hashed text features, threshold at .3 % of windows of verified organisations"
)
ABOUT_PRADA = (
    "PRADA (Juuti et al. 2019): distances of an account's requests to their nearest earlier one should look normal "
    "(Shapiro-Wilk), hashed text features, threshold at .3 % of accounts of verified organisations"
)
Floats = np.ndarray[Any, np.dtype[np.float32]]


def features(log: Path, seed: int = 0) -> tuple[list[str], list[Floats]]:
    """Accounts with enough requests, and the features (requests, WIDTH) of each in the order of time."""
    try:
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
        from sklearn.preprocessing import normalize
        from sklearn.random_projection import SparseRandomProjection
    except ModuleNotFoundError as error:
        raise missing("scikit-learn") from error
    rows = first_rows(log, "account_id, prompt", where="prompt is not null")
    names, code = np.unique(np.array(rows["account_id"].to_pylist(), object), return_inverse=True)
    counts = HashingVectorizer(
        ngram_range=(1, 2), n_features=2**16, alternate_sign=False, norm=None
    ).transform(text[:4_000] for text in rows["prompt"].to_pylist())
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    dense = SparseRandomProjection(WIDTH, random_state=seed, dense_output=True).fit_transform(weighted)
    points = normalize(dense).astype(np.float32)
    order = np.argsort(code, kind="stable")
    ends = np.cumsum(np.bincount(code, minlength=len(names)))
    groups = np.split(points[order], ends[:-1])
    kept = [i for i, group in enumerate(groups) if len(group) >= LEAST_WINDOW]
    return [str(names[i]) for i in kept], [groups[i] for i in kept]


def mmd_windows(groups: Sequence[Floats], seed: int = 0) -> list[list[float]]:
    """For each account, the statistic of each of its windows: n times the squared MMD, less its expectation.

    Radial kernel with the median distance as its width, by random Fourier features (Rahimi, Recht 2007).
    """
    rng = np.random.default_rng(seed)
    everything = np.concatenate(groups)
    background = everything[rng.choice(len(everything), min(BACKGROUND, len(everything)), replace=False)]
    pairs = rng.choice(len(background), (2, 2_000))
    width = float(np.median(np.linalg.norm(background[pairs[0]] - background[pairs[1]], axis=1))) or 1.0
    waves = (rng.normal(size=(WIDTH, WAVES)) / width).astype(np.float32)
    shift = rng.uniform(0, 2 * np.pi, WAVES).astype(np.float32)

    def mapped(points: Floats) -> Floats:
        return np.sqrt(np.float32(2 / WAVES)) * np.cos(points @ waves + shift)

    middle = mapped(background).mean(axis=0)
    out = []
    for group in groups:
        found = []
        for start in range(0, len(group), WINDOW):
            part = group[start : start + WINDOW]
            if len(part) < LEAST_WINDOW:
                continue
            images = mapped(part)
            gap = float(((images.mean(axis=0) - middle) ** 2).sum())
            spread = float(((images - images.mean(axis=0)) ** 2).sum()) / max(1, len(part) - 1)
            found.append(len(part) * gap - spread)
        out.append(found)
    return out


def prada_statistic(points: Floats) -> float | None:
    """Shapiro-Wilk's W of the distances of each request to its nearest earlier one; None for too few.

    As in the paper, distances beyond three standard deviations are left out first. Small is suspicious.
    """
    from scipy import stats

    kept = points[:WINDOW]
    if len(kept) < LEAST_QUERIES:
        return None
    near = kept @ kept.T
    near[np.triu_indices(len(kept))] = -np.inf
    distance = np.sqrt(np.maximum(0.0, 2 - 2 * near[1:].max(axis=1)))
    middle, spread = distance.mean(), distance.std()
    inner = distance[np.abs(distance - middle) <= 3 * spread] if spread > 0 else distance
    if len(inner) < LEAST_QUERIES // 2 or np.ptp(inner) < 1e-6:
        return 0.0
    return float(stats.shapiro(inner).statistic)


def _calibration(names: Sequence[str], log: Path) -> np.ndarray[Any, np.dtype[np.bool_]]:
    honest = honest_accounts(log)
    known = np.array([name in honest for name in names], bool)
    return known if known.sum() >= 100 else np.ones(len(names), bool)


def run_mmd(log: Path, out: Path) -> None:
    """See `ABOUT_MMD`."""
    names, groups = features(log)
    windows = mmd_windows(groups) if groups else []
    known = _calibration(names, log)
    values = [v for found, k in zip(windows, known.tolist(), strict=True) if k for v in found]
    limit = float(np.quantile(values, 1 - ALARMS)) if values else np.inf
    write_groups(
        log,
        out,
        {"flagged": [n for n, found in zip(names, windows, strict=True) if any(v > limit for v in found)]},
    )


def run_prada(log: Path, out: Path) -> None:
    """See `ABOUT_PRADA`."""
    names, groups = features(log)
    found = [prada_statistic(points) for points in groups]
    known = _calibration(names, log)
    values = [v for v, k in zip(found, known.tolist(), strict=True) if k and v is not None]
    limit = float(np.quantile(values, ALARMS)) if values else -np.inf
    write_groups(
        log, out, {"flagged": [n for n, v in zip(names, found, strict=True) if v is not None and v < limit]}
    )
