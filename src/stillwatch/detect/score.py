"""Stage 6: harvest-like? A pre-declared score, compared with groups known to be honest.

The score was fixed before any label was seen: evasion cost plus effective item space, the two statistics that
order the worst case correctly alone. Volume, hours, novelty and coverage are left out: cover traffic and slowness
turn them round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stillwatch.detect.confirm import benjamini_hochberg
from stillwatch.detect.population import F64, I64

LEVEL = 0.10
"""Benjamini-Hochberg level over candidates: the promised share of false groups among those named."""
LEAST_REFERENCES = 9
"""Below this no p-value can reach the level, whatever the score: 1 / (9 + 1) = 0.10."""


def coincidences(items: I64) -> int:
    """Pairs of equal items."""
    counts = np.bincount(np.unique(items, return_inverse=True)[1]) if len(items) else np.zeros(1, np.int64)
    return int((counts * (counts - 1) // 2).sum())


def item_space(m: int, c: int) -> float:
    """log10 of the effective number of different items asked for, from coincidences among the draws.

    log10((m(m-1)/2 + 1) / (c + 3)) over m draws with c coinciding pairs (a birthday estimate).
    """
    return math.log10((m * (m - 1) / 2 + 1) / (c + 3))


@dataclass(frozen=True, slots=True)
class Conformal:
    """Outcome for each tested group, shape (tested,), and what the number of references allows."""

    score: F64
    p: F64
    q: F64
    references: int
    p_min: float
    """Smallest p that this number of references can give."""
    needed: int
    """References needed to name as many groups as have a score above every reference."""


def residual_scores(
    evasion: F64, space: F64, size: I64, reference: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> F64:
    """Standardised evasion + standardised residual of item space after regression on log10(size).

    Location, scale and slope come from the references alone.
    """
    x = np.log10(np.maximum(size, 1).astype(float))
    ref = np.flatnonzero(reference)
    if len(ref) < LEAST_REFERENCES:
        return evasion + space / 10
    design = np.column_stack([np.ones(len(ref)), x[ref]])
    coefficients, *_ = np.linalg.lstsq(design, space[ref], rcond=None)
    residual = space - (coefficients[0] + coefficients[1] * x)

    def standard(values: F64) -> F64:
        spread = max(float(values[ref].std()), 0.05)
        return (values - values[ref].mean()) / spread

    return standard(evasion) + standard(residual)


def conformal(
    score: F64,
    reference: np.ndarray[tuple[int], np.dtype[np.bool_]],
    tested: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> Conformal:
    """Conformal p-values (Bates et al. 2023, doi:10.1214/22-AOS2244) of the tested groups against the references."""
    known = score[reference]
    mine = score[tested]
    p = (1 + (known[None, :] >= mine[:, None]).sum(axis=1)) / (len(known) + 1.0)
    q = benjamini_hochberg(p) if len(p) else p
    above = int((p <= 1.0 / (len(known) + 1)).sum())
    # To name k of m tested, each above every reference: n >= m / (level k) - 1.
    needed = int(np.ceil(len(mine) / (LEVEL * max(above, 1)) - 1)) if len(mine) else 0
    return Conformal(mine, p, q, len(known), 1.0 / (len(known) + 1), max(needed, LEAST_REFERENCES))
