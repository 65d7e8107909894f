"""Text sources: variety, the shared composer, recombination of a corpora file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import stillwatch.arena as arena
from stillwatch.arena.corpora import CorporaText
from stillwatch.arena.text import LANGUAGES, BuiltinText, disguise, new_template
from stillwatch.arena.timing import Bursts
from stillwatch.schema.errors import ColumnError, FormatError, InputError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_builtin_material_is_diverse_in_every_language() -> None:
    source = BuiltinText(0)
    for code, language in enumerate(LANGUAGES):
        texts = source.material(rng(code), np.full(2000, code))
        assert len(set(texts)) >= 1990, language
        assert all(texts)
    chinese = "".join(source.material(rng(), np.full(50, LANGUAGES.index("zh"))))
    assert sum("一" <= c <= "鿿" for c in chinese) > 0.5 * len(chinese)


def test_no_slot_survives_in_material_or_templates() -> None:
    source = BuiltinText(0)
    names = (
        "<topic",
        "<noun",
        "<adj",
        "<person",
        "<place",
        "<do>",
        "<time",
        "<num",
        "<small",
        "<word",
        "<a>",
        "<b>",
        "<p>",
    )
    texts = [t for code in range(len(LANGUAGES)) for t in source.material(rng(code), np.full(300, code))]
    for seed in range(60):
        template = new_template(rng(seed), source, harvest=bool(seed % 2), variants=4)
        texts += [template.render(v, "alpha slot", "beta slot", "MATERIAL") for v in range(4)]
        assert all("MATERIAL" in t for t in texts[-4:])
        texts.append(template.system or "")
    assert not [t for t in texts for name in names if name in t]
    assert not [t for t in texts if "|" in t]


def test_template_slots_carry_the_item() -> None:
    template = new_template(rng(5), BuiltinText(0), harvest=True, slots=(7, 9), system_share=0.0)
    assert len(set(template.slots_a)) == 7
    assert len(set(template.slots_b)) == 9
    text = template.render(0, template.slots_a[0], template.slots_b[0], "x")
    assert template.slots_a[0] in text
    assert template.slots_b[0] in text


def test_disguise_changes_code_points_but_hardly_the_length() -> None:
    text = "Score the answer on tidal energy against the criterion given"
    for seed in range(8):
        hidden = disguise(rng(seed), text)
        assert hidden != text
        assert abs(len(hidden) - len(text)) <= 6


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    rows = []
    for i in range(400):
        lead = "Please grade the following answer with great care."
        body = f"{lead}\nThe {i}th lake is {i * 7} metres deep. Nobody has measured lake number {i} twice."
        rows.append(
            {
                "source": "s",
                "kind": "attack",
                "template_id": "t",
                "system": None,
                "prompt": body,
                "lang": "en",
            }
        )
    path = tmp_path / "corpora.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_corpora_are_recombined_and_templates_taken_out(corpora: Path) -> None:
    source = CorporaText(corpora, 0)
    texts = source.material(rng(1), np.zeros(300, dtype=np.int64))
    assert len(set(texts)) >= 295
    assert not [t for t in texts if "grade the following answer" in t]
    assert sum("lake" in t.lower() for t in texts) > 250


def test_corpora_errors_name_file_and_column(tmp_path: Path) -> None:
    bad = tmp_path / "bad.parquet"
    bad.write_text("no")
    with pytest.raises(FormatError, match=r"bad\.parquet"):
        CorporaText(bad, 0)
    pq.write_table(pa.table({"prompt": ["x"]}), bad)
    with pytest.raises(ColumnError, match="source"):
        CorporaText(bad, 0)


def test_make_with_corpora_and_traces(tmp_path: Path, corpora: Path) -> None:
    hours = 48
    table = {
        "category": ["c"] * hours, "model": ["m"] * hours, "client": [1] * hours,
        "window_start_s": [3600.0 * h for h in range(hours)], "rate": [float(h % 5) for h in range(hours)],
    }  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "trace_servegen_rates.parquet")
    summary = arena.make(
        "null", tmp_path / "log", accounts=300, exchanges=3000, corpora=corpora, traces=tmp_path
    )
    assert summary.exchanges > 2500
    with pytest.raises(InputError, match="trace file is missing"):
        Bursts(24, tmp_path / "nowhere")


def test_public_names_exist_and_are_sorted() -> None:
    assert all(hasattr(arena, name) for name in arena.__all__)
    assert sorted(arena.__all__) == sorted(set(arena.__all__))
