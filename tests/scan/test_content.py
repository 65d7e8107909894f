"""What groups ask for, by the tags of the rule pack."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from stillwatch.scan.content import capabilities, counts, elicitation, of_families
from stillwatch.sketch.rules import read_rules

PACK = read_rules(
    b"version: 1\ntags:\n"
    b"  grade: {kind: elicitation, says: have answers graded, rules: [{within: 0, all: [[xx]]}]}\n"
    b"  coding: {kind: capability, says: programs, rules: [{within: 0, all: [[xx]]}]}\n"
    b"  maths: {kind: capability, says: sums, rules: [{within: 0, all: [[xx]]}]}\n",
    "p",
)
GRADE, CODING, MATHS = 1, 2, 4


def _reduced(tags: list[int]) -> Any:
    return SimpleNamespace(rows=SimpleNamespace(tags=np.array(tags, np.uint32)), rules=PACK)


def test_capabilities_are_those_of_a_tenth_of_the_requests_most_asked_first() -> None:
    tags = np.array([MATHS] * 5 + [CODING] * 2 + [0] * 3, np.uint32)
    assert capabilities(tags, PACK) == ["maths", "coding"]
    assert capabilities(np.array([CODING] + [0] * 30, np.uint32), PACK) == []
    assert capabilities(np.zeros(0, np.uint32), PACK) == []


def test_asking_for_training_material_is_named_beside_what_everybody_else_asks() -> None:
    reduced = _reduced([GRADE] * 6 + [0] * 4 + [GRADE] * 1 + [0] * 99)
    (found,) = elicitation(reduced, np.arange(10), counts(reduced.rows.tags, PACK))
    assert found.kind == "TRACE"
    assert found.signal == "grade"
    assert (
        "60 % of the 10 requests in its own templates have answers graded; 1 % of all others do."
        in found.text
    )
    assert 3 < found.bits < 4


def test_what_everybody_asks_for_is_no_evidence() -> None:
    usual = _reduced([GRADE] * 6 + [0] * 4 + [GRADE] * 60 + [0] * 40)
    everybody = counts(usual.rows.tags, PACK)
    assert everybody.tolist() == [66, 0, 0]
    assert elicitation(usual, np.arange(10), everybody) == []
    assert elicitation(usual, np.zeros(0, np.int64), everybody) == []


def test_a_familys_tags_are_those_of_half_of_its_requests() -> None:
    reduced = _reduced([CODING, CODING | MATHS, CODING, MATHS])
    reduced.prompt_families = SimpleNamespace(family=np.array([1, 0, 1, 0, 1]), row=np.array([0, 1, 2, 3, 3]))
    reduced.systems = SimpleNamespace(
        tags=np.array([GRADE, 0], np.uint32),
        families=SimpleNamespace(family=np.array([0]), row=np.array([0])),
    )
    held = [("prompt", 0), ("prompt", 1), ("system", 0)]
    assert of_families(reduced, held) == {
        ("prompt", 0): ["coding", "maths"], ("prompt", 1): ["coding"], ("system", 0): ["grade"],
    }  # fmt: skip
