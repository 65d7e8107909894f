"""The text of `stillwatch explain` is reviewed as a diff: golden files beside this test.

Write them again with STILLWATCH_GOLDEN=write.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stillwatch.report.explain import WIDTH, explain_text, printable
from stillwatch.schema import ResultError
from stillwatch.store.results import Results

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(
    ("name", "golden"),
    [
        ("g-0123456789ab", "campaign.txt"),
        ("g-1111111111aa", "lead.txt"),
        ("acct-1", "account.txt"),
        ("acct-2", "recruit.txt"),
        ("stranger", "stranger.txt"),
    ],
)
def test_the_text_is_the_golden_one(sample: Callable[..., Results], name: str, golden: str) -> None:
    text = explain_text(
        sample("Plain words that say why, at a length that a line of the terminal cannot take in one piece."),
        name,
    )
    path = GOLDEN / golden
    if os.environ.get("STILLWATCH_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    assert text + "\n" == path.read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= WIDTH


def test_a_group_that_is_not_there_is_an_error(sample: Callable[..., Results]) -> None:
    with pytest.raises(ResultError, match="no group of that id"):
        explain_text(sample(), "g-ffffffffffff")


def test_nothing_that_a_terminal_obeys_comes_through(sample: Callable[..., Results]) -> None:
    text = explain_text(sample("\x1b[31mred\x07", "a\x1b]0;title\x07▢"), "g-0123456789ab")
    assert "\x1b" not in text
    assert "\x07" not in text
    assert printable("a\nb") == "a\nb"
