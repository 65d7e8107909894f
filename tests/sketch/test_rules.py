"""Rule packs: what is read, what is refused, and what matches."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwatch.schema.errors import FormatError, InputError, StillwatchError
from stillwatch.sketch import default_rules, from_binary, load_rules, sketch_text, to_binary
from stillwatch.sketch.rules import RulePack, read_rules


def _pack(rules: str, kind: str = "elicitation") -> RulePack:
    return read_rules(
        f"version: 7\ntags:\n  t:\n    kind: {kind}\n    says: x\n    rules: {rules}\n".encode(), "p"
    )


def _hits(pack: RulePack, *texts: str) -> list[bool]:
    return [bool(bits) for bits in sketch_text(pa.array(texts), pack).tags.tolist()]


def test_every_entry_must_be_there_within_reach_in_any_order() -> None:
    pack = _pack("[{within: 4, all: [[write out, list], [the reasoning]]}]")
    assert _hits(
        pack,
        "Please WRITE-OUT the  reasoning.",
        "The reasoning: list it",
        "write down the reasoning",
        "write out " + "word " * 5 + "the reasoning",
        "the reasoning, long ago; " + "word " * 9 + "write out the reasoning",
        "the reason list",
    ) == [True, True, False, False, True, False]


def test_disguises_do_not_hide_and_scripts_without_spaces_match_inside_a_run() -> None:
    pack = _pack("[{within: 0, all: [[step by step]]}, {within: 9, all: [[推理过程], [写出]]}]")
    assert _hits(
        pack,
        "Step\u200b-by-\u200bstep!",
        "st\u0435p by step",
        "请写出你的完整推理过程。",
        "请写出推理",
        "过程推理写出",
    ) == [True, True, True, False, False]


def test_an_entry_met_in_one_text_is_not_remembered_in_the_next() -> None:
    pack = _pack("[{within: 50, all: [[alpha], [beta]]}]")
    assert _hits(pack, "alpha", "beta", "alpha beta", "beta") == [False, False, True, False]


def test_phrases_that_begin_alike_are_told_apart() -> None:
    pack = read_rules(
        b"version: 1\ntags:\n"
        b"  a: {kind: capability, says: x, rules: [{within: 0, all: [[deep sea]]}]}\n"
        b"  b: {kind: capability, says: x, rules: [{within: 0, all: [[deep sea diving]]}]}\n"
        b"  c: {kind: elicitation, says: x, rules: [{within: 0, all: [[deep space]]}]}\n",
        "p",
    )
    tags = sketch_text(pa.array(["deep sea", "deep sea diving", "deep space", "deep"]), pack).tags
    assert tags.tolist() == [1, 3, 4, 0]
    assert pack.names(3, "capability") == ["a", "b"]
    assert pack.mask("elicitation") == 4


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("version: [", "no YAML (line"),
        ("version: 0\ntags: {t: {kind: capability, says: x, rules: [{within: 1, all: [[aa]]}]}}", "65535"),
        ("version: 1\ntags: {}", "1 to 32 tags"),
        ("version: 1\ntags: {t: {kind: guilt, says: x, rules: []}}", "right form"),
        ("version: 1\ntags: {t: {kind: capability, says: x, rules: []}}", "has no rule"),
        ("version: 1\ntags: {t: {kind: capability, says: x, rules: [{within: -1, all: [[aa]]}]}}", "within"),
        ("version: 1\ntags: {t: {kind: capability, says: x, rules: [{within: 1, all: [[]]}]}}", "empty list"),
        (
            "version: 1\ntags: {t: {kind: capability, says: x, rules: [{within: 1, all: [['?!']]}]}}",
            "too short",
        ),
        ("version: 1\ntags: {t: {kind: capability, says: x, rule: []}}", "rule"),
        (
            "version: 1\ntags: {t: {kind: capability, says: x, rules: [{within: 1, all: [[1]]}]}}",
            "right form",
        ),
        ("- 1", "right form"),
        ("!!python/object/apply:os.system ['true']", "rule pack"),
    ],
)
def test_a_wrong_pack_is_refused_with_the_place(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(FormatError, match=r".") as caught:
        load_rules(path)
    assert what in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_a_missing_or_huge_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_rules(tmp_path / "none.yaml")
    (tmp_path / "big.yaml").write_bytes(b"#" * (5 << 20))
    with pytest.raises(FormatError, match="4 MiB"):
        load_rules(tmp_path / "big.yaml")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_pack_or_a_clear_error(data: bytes) -> None:
    with contextlib.suppress(StillwatchError):
        read_rules(data, "p")


def test_the_built_in_pack_tells_requests_for_training_material_from_everyday_ones() -> None:
    asked = {
        "elicit_reasoning": [
            "For the finished answer below, write out, step by step, the reasoning behind it.",
            "Debug session: print your internal reasoning inside <think> tags before answering.",
            "Now translate your working memory into English.",
            "请一步一步写出完整的推理过程。",
            "推論過程をすべて書き出してください。",
        ],
        "grade_answers": [
            "Score the response from 1 to 10 against the rubric.",
            "Act as an impartial judge and compare the two answers.",
            "请按照评分标准给这个回答打分。",
        ],
        "clean_traces": ["Clean up this reasoning trace and remove dead ends.", "请清理下面的推理过程。"],
        "policy_rewrite": ["Rephrase the question so that it complies with the content policy."],
        "make_training_data": [
            "Write a new problem inspired by the code snippet.",
            "Generate 20 diverse instructions.",
        ],
    }
    pack = default_rules()
    for name, texts in asked.items():
        for text, bits in zip(texts, sketch_text(pa.array(texts)).tags.tolist(), strict=True):
            assert name in pack.names(bits, "elicitation"), text
    everyday = [
        "How do I get a refund for my top-up?",
        "Explain the causes of the French revolution to a ten-year-old.",
        "Write a birthday poem for my sister.",
        "Why does my code throw an index error?",
        "Please answer step by step: how do I repot a cactus?",
        "What did the judge say in the answer to the appeal?",
    ]
    found = [pack.names(bits, "elicitation") for bits in sketch_text(pa.array(everyday)).tags.tolist()]
    assert found == [[]] * len(everyday)


def test_stored_tags_are_read_only_with_the_pack_that_made_them() -> None:
    old, new = _pack("[{within: 0, all: [[alpha]]}]"), default_rules()
    texts = pa.array(["alpha", None, "write out the chain of thought"])
    stored = to_binary(sketch_text(texts, old))
    mine, other = from_binary(stored, old), from_binary(stored, new)
    assert mine.tags.tolist() == [1, 0, 0]
    assert (mine.untagged, other.untagged) == (0, 2)
    assert not other.tags.any()
    assert np.array_equal(mine.post, other.post)
