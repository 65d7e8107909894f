"""Threads for kernels that let go of the interpreter. No result depends on how many there are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

MOST_THREADS = 8

T = TypeVar("T")
R = TypeVar("R")


def workers() -> int:
    """How many threads a kernel is given."""
    return min(MOST_THREADS, os.cpu_count() or 1)


def each(kernel: Callable[[T], R], pieces: Iterable[T]) -> list[R]:
    """`kernel` of every piece, in order."""
    pieces = list(pieces)
    if len(pieces) < 2:
        return [kernel(piece) for piece in pieces]
    with ThreadPoolExecutor(min(workers(), len(pieces))) as pool:
        return list(pool.map(kernel, pieces))


def cuts(weight: npt.NDArray[np.int64], pieces: int) -> list[tuple[int, int]]:
    """(first, end) of at most `pieces` stretches of about equal weight; `weight` int64 (n+1,): weight before each."""
    at = np.searchsorted(weight, np.linspace(weight[0], weight[-1], pieces + 1)[1:-1])
    bounds = [0, *np.minimum(at, len(weight) - 1).tolist(), len(weight) - 1]
    return [(a, b) for a, b in pairwise(bounds) if b > a]
