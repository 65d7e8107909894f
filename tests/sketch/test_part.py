"""The sketch: what does not alter it, what it keeps of a short template, and that hostile bytes cannot break it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwatch.schema import FormatError
from stillwatch.sketch import PartSketch, from_binary, sketch_of, sketch_text, stored_or_text, to_binary

TEMPLATE = (
    "You are given a program. Explain step by step how it works, name every function, and then write a harder "
    "exercise of the same kind with a full solution."
)

GOLDEN_EXACT = ["fe6ce81788b3ecfe", "672a2d679d505d5b", "7a7217f1e7e2c8ac"]
GOLDEN_POST = [
    "f3b06bdba3987fa9",
    "17111d261c545f75",
    "2646fb12635ad540",
    "7bd2a9806b5dcf1a",
    "bb6a31c7490159cc",
    "7f73a27635d3be79",
]


def _postings(part: PartSketch, row: int) -> set[int]:
    return set(part.post[part.post_offsets[row] : part.post_offsets[row + 1]].tolist())


def test_golden_vectors() -> None:
    part = sketch_text(pa.array(["Hello World this is a test", "\u4f60\u597d\u4e16\u754c", "x"]))
    assert [f"{v:016x}" for v in part.exact.tolist()] == GOLDEN_EXACT
    assert [f"{v:016x}" for v in part.post.tolist()] == GOLDEN_POST


@pytest.mark.parametrize(
    "variant",
    [
        "HELLO   world, this is -- a test!",
        "hell\u043e w\u043erld this is a test",
        "he\u200bllo wor\u00adld this is a te\ufe0fst",
        "\uff28\uff45\uff4c\uff4c\uff4f world this is a test",
        "\U0001d407\U0001d41e\U0001d425\U0001d425\U0001d428 w\u00f6rld this is a test",
    ],
)
def test_case_spacing_zero_width_and_look_alikes_do_not_alter_the_text(variant: str) -> None:
    part = sketch_text(pa.array(["Hello World this is a test", variant]))
    assert part.exact[0] == part.exact[1]
    assert _postings(part, 0) == _postings(part, 1)


def test_a_150_byte_template_survives_a_4_kb_payload() -> None:
    rng = np.random.default_rng(5)
    words = np.array([f"w{i}" for i in range(20_000)])
    kept = 0
    for number in range(200):
        template = TEMPLATE.replace("program", f"program{number}").replace("exercise", f"exercise{number}")
        texts = [" ".join(rng.choice(words, 700)) for _ in range(2)]
        cut = int(rng.integers(0, 700))
        part = sketch_text(pa.array([f"{t[:cut]} {template} {t[cut:]}" for t in texts]))
        kept += len(_postings(part, 0) & _postings(part, 1)) >= 2
    assert kept >= 198


def test_reordered_clauses_keep_most_postings() -> None:
    first, second = TEMPLATE.split(". ")
    part = sketch_text(pa.array([f"{first}. {second}", f"{second} {first}"]))
    shared = _postings(part, 0) & _postings(part, 1)
    assert len(shared) >= 0.8 * len(_postings(part, 0))


@pytest.mark.parametrize(
    "text",
    [
        "\u8bf7\u9010\u6b65\u89e3\u91ca\u4e0b\u9762\u7684\u7a0b\u5e8f",
        "\u6b21\u306e\u6587\u7ae0\u3092\u8981\u7d04\u3057\u3066\u304f\u3060\u3055\u3044",
    ],
)
def test_text_without_spaces_shares_its_middle(text: str) -> None:
    part = sketch_text(pa.array([text, "\u524d" + text + "\u540e"]))
    assert len(_postings(part, 0)) >= 4
    assert _postings(part, 0) <= _postings(part, 1)
    assert part.script.tolist() == [2, 2]


def test_numbers_and_quoted_text_are_blanked_in_the_mask_alone() -> None:
    part = sketch_text(pa.array(['Sum 12 and 34 of "alpha beta"', 'Sum 7 and 901 of "gamma"']))
    assert part.mask[0] == part.mask[1]
    assert part.exact[0] != part.exact[1]


def test_null_empty_and_punctuation_have_no_sketch_and_a_long_prompt_a_bounded_one() -> None:
    long = " ".join(f"t{i}" for i in range(700_000))
    part = sketch_text(pa.array([None, "", "?! ...", "[REDACTED]", long]))
    assert part.exact.tolist()[:4] == [0, 0, 0, 0]
    assert 400 < len(_postings(part, 4)) < 1100


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=60)), max_size=8))
def test_any_text_is_sketched_alike_in_any_company_and_stored_without_loss(texts: list[str | None]) -> None:
    clean = [None if t is None else t.encode("utf-8", "ignore").decode() for t in texts]
    part = sketch_text(pa.array(clean, pa.string()))
    for row, text in enumerate(clean):
        alone = sketch_text(pa.array([text], pa.string()))
        assert alone.exact[0] == part.exact[row]
        assert _postings(alone, 0) == _postings(part, row)
    back = from_binary(to_binary(part))
    for name in ("exact", "mask", "post", "post_offsets", "level", "n_tokens", "script"):
        assert np.array_equal(getattr(back, name), getattr(part, name))


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=120))
def test_stored_sketches_of_hostile_bytes_are_refused_by_row(data: bytes) -> None:
    good = to_binary(sketch_text(pa.array(["one two three four"])))[0].as_py()
    words = len(data) // 8
    if len(data) % 8 or words < 6 or data[0] != 1:
        with pytest.raises(FormatError, match="row 2"):
            from_binary(pa.array([good, data], pa.binary()))
    else:
        assert len(from_binary(pa.array([good], pa.binary()))) == 1


def test_a_sketch_that_lies_about_its_length_is_refused() -> None:
    good = to_binary(sketch_text(pa.array(["one two three four five six"])))[0].as_py()
    for broken in (good[:-8], good + bytes(8), bytes([9]) + good[1:], good[:24] + bytes(8) + good[32:]):
        with pytest.raises(FormatError, match="row 3"):
            from_binary(pa.array([good, None, broken], pa.binary()))


def test_rows_with_text_only_beside_rows_with_a_sketch_only_lose_nothing() -> None:
    texts = ["one two three four five", "six seven eight nine", None, "ten eleven twelve"]
    whole = sketch_text(pa.array(texts))
    stored = to_binary(whole)
    half = pc.if_else(pa.array([True, False, True, False]), stored, pa.scalar(None, stored.type))
    rest = pa.array([None, texts[1], None, texts[3]])
    for mixed in (
        stored_or_text(half, rest),
        stored_or_text(stored, pa.array(texts)),
        stored_or_text(pa.nulls(4), pa.array(texts)),
        stored_or_text(stored, pa.nulls(4, pa.string())),
    ):
        found = sketch_of(mixed)
        assert found.exact.tolist() == whole.exact.tolist()
        assert found.post.tolist() == whole.post.tolist()
