"""What the tables `proof_*` say, computed again by the formulas of docs/results.md with the standard library alone.

Whoever does not trust the scan would write this. It imports nothing of Stillwatch, and no numpy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
TAIL = 100


def fitted_tail(null: Sequence[float], observed: float) -> float:
    """P(null >= observed) by a generalised Pareto tail of the TAIL largest values, fitted by moments."""
    ranked = sorted(null)
    plain = (sum(value >= observed for value in null) + 1) / (len(null) + 1)
    if len(ranked) <= TAIL:
        return plain
    threshold = (ranked[-TAIL] + ranked[-TAIL - 1]) / 2
    excess = [value - threshold for value in ranked[-TAIL:]]
    mean = math.fsum(excess) / TAIL
    variance = math.fsum((value - mean) ** 2 for value in excess) / (TAIL - 1)
    if observed <= threshold or variance <= 0 or mean <= 0:
        return plain
    shape = min(max((1 - mean**2 / variance) / 2, 0.0), 0.45)
    far = (observed - threshold) / (mean * (1 - shape))
    tail = math.exp(-far) if shape < 1e-9 else math.exp(-math.log1p(shape * far) / shape)
    return min(1.0, max(TAIL / len(null) * tail, 1e-15))


def view_p(view: Row, null: Sequence[float]) -> float:
    """p of one row of `proof_views` from its null values."""
    if view["method"] == "none":
        assert not null
        return 1.0
    if view["method"] == "Poisson, degrees given":
        return poisson_upper(int(view["statistic"]), max(view["expected"], 1e-12))
    above = sum(value >= view["statistic"] for value in null)
    assert (above, len(null)) == (view["above"], view["draws"])
    if view["method"] == "permutation":
        p = above / len(null)
    else:
        p = fitted_tail(null, view["statistic"])
    return min(1.0, 2 * p) if view["parts"] > 1 else p


def conjunction(views: Sequence[Row]) -> float:
    """p of the claim `coordinated`: at least one of the views that did not find the group confirms it."""
    seen = [view["p"] for view in views if view["counted"] and view["method"] != "none"]
    return min(1.0, views[0]["views_tested"] * min(seen)) if seen else 1.0


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """q of each p, in the order given."""
    ranked = sorted(range(len(p)), key=lambda i: p[i])
    q, least = [0.0] * len(p), 1.0
    for rank in range(len(p), 0, -1):
        i = ranked[rank - 1]
        least = min(least, p[i] * len(p) / rank)
        q[i] = least
    return q


def poisson_lower(k: int, mean: float) -> float:
    """P(X <= k)."""
    if mean == 0:
        return 1.0
    terms = [math.exp(i * math.log(mean) - mean - math.lgamma(i + 1)) for i in range(k + 1)]
    return math.fsum(terms)


def poisson_upper(k: int, mean: float) -> float:
    """P(X >= k)."""
    if k <= 0:
        return 1.0
    if mean == 0:
        return 0.0
    if k < mean:
        return 1.0 - poisson_lower(k - 1, mean)
    terms, i = [math.exp(k * math.log(mean) - mean - math.lgamma(k + 1))], k
    while terms[-1] > terms[0] * 1e-18:
        i += 1
        terms.append(terms[-1] * mean / i)
    return math.fsum(terms)


def binomial_upper(k: int, trials: int, share: float) -> float:
    """P(X >= k)."""
    return math.fsum(
        math.comb(trials, i) * share**i * (1 - share) ** (trials - i) for i in range(k, trials + 1)
    )


def direct_p(test: Row) -> float:
    """p of one row of `proof_direct`."""
    k, mean = test["observed"], test["mean"]
    if k < test["least"]:
        return 1.0
    if test["tail"] == "lower":
        p = poisson_lower(k, mean)
    elif test["law"] == "binomial":
        p = binomial_upper(k, test["trials"], mean / test["trials"])
    else:
        p = poisson_upper(k, mean)
    return min(1.0, test["times"] * p)


def expected(test: Row) -> float:
    """The expectation of one row of `proof_direct` from its counts; 0 where there was nothing to count."""
    counts = test["counts"]
    if not counts:
        return 0.0
    if test["test"] == "work_split":
        pairs, first, second = counts
        return first * second / pairs
    if test["test"] in ("handover", "replay"):
        outside, n, accounts = counts
        return outside * n * (n - 1) / (accounts * (accounts - 1))
    if test["test"] == "signup_batch":
        return math.fsum(
            n * (n - 1) / 2 * chance for n, chance in zip(counts[::2], counts[1::2], strict=True)
        )
    if test["test"] == "takeover":
        return math.fsum(min(1.0, ends * 120 / 1800) for ends in counts)
    return counts[0] * counts[1]


def space(items: int, coincidences: int) -> float:
    """log10 of the effective number of different items."""
    return math.log10((items * (items - 1) / 2 + 1) / (coincidences + 3))


def scores(rows: Sequence[Row]) -> list[float]:
    """The score of every row of `proof_scores`: location, scale and slope come from the references alone."""
    known = [row for row in rows if row["kind"] == "reference"]
    if len(known) < 9:
        return [row["evasion"] + row["space"] / 10 for row in rows]
    x = [math.log10(row["size"]) for row in known]
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(row["space"] for row in known) / len(x)
    square = math.fsum((a - mean_x) ** 2 for a in x)
    both = math.fsum((a - mean_x) * (row["space"] - mean_y) for a, row in zip(x, known, strict=True))
    # Where all references have one size, the shortest solution of least squares is meant; no log is like that.
    slope = both / square
    rest = [row["space"] - mean_y - slope * (math.log10(row["size"]) - mean_x) for row in rows]
    return [
        a + b
        for a, b in zip(_standard([row["evasion"] for row in rows], rows), _standard(rest, rows), strict=True)
    ]


def _standard(values: Sequence[float], rows: Sequence[Row]) -> list[float]:
    mine = [value for value, row in zip(values, rows, strict=True) if row["kind"] == "reference"]
    mean = math.fsum(mine) / len(mine)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in mine) / len(mine))
    return [(value - mean) / max(spread, 0.05) for value in values]


def conformal(score: float, known: Sequence[float]) -> float:
    """p of a group among references."""
    return (1 + sum(value >= score for value in known)) / (len(known) + 1)
