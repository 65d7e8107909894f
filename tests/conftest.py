"""Shared fixtures. Tests that need reference data or a server program skip by name, or fail where they must not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


def shared_data() -> Path | None:
    """The reference data folder, where it is there."""
    named = os.environ.get("STILLWATCH_SHARED")
    places = [Path(named)] if named else [Path(__file__).parents[2] / "shared" / "data"]
    return next((place for place in places if (place / "corpora.parquet").exists()), None)


@pytest.fixture(autouse=True, scope="session")
def no_tables_of_this_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test may depend on lookup tables that somebody keeps on this computer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STILLWATCH_DATA", str(tmp_path_factory.mktemp("tables") / "none"))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shared_data() is None:
        skip = pytest.mark.skip(reason="the reference data folder is absent (STILLWATCH_SHARED names it)")
        for item in items:
            if item.get_closest_marker("corpora"):
                item.add_marker(skip)
