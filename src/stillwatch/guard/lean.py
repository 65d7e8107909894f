"""Numba without scipy, which a gateway has no use for. Numba takes an ImportError there as "not installed"."""

from __future__ import annotations

import sys
from importlib import import_module


def load_numba(*, for_compiling: bool = False) -> None:
    """Load numba without its look at scipy's version, and what it loads before it compiles without its look at
    scipy's linear algebra. Where scipy is loaded already nothing is done."""
    name = "numba.np.arraymath" if for_compiling else "numba"
    if name in sys.modules or "scipy" in sys.modules:
        return
    sys.modules["scipy"] = None  # type: ignore[assignment]
    try:
        import_module(name)
    finally:
        del sys.modules["scipy"]
