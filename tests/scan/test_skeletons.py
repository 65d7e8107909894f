"""What a skeleton shows, and above all what it never shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.ingest import open_log
from stillwatch.scan.collect import COLUMNS, Collector, Reduced
from stillwatch.scan.places import Places
from stillwatch.scan.skeletons import BLANK, MASK, MOST_CHARACTERS, skeleton, skeletons
from stillwatch.sketch import sketch_text, to_binary

TEMPLATE = (
    "Act as a careful tutor. Solve the following problem about {} and write down every step.\nInput: {}"
)


def _keys(*texts: str) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """The postings that all the texts share."""
    parts = [sketch_text(pa.array([text])).post for text in texts]
    common = parts[0]
    for part in parts[1:]:
        common = np.intersect1d(common, part)
    return np.unique(common)


def _show(texts: list[str]) -> str | None:
    return skeleton([t.encode() for t in texts], _keys(*texts))


def _filled(n: int) -> list[str]:
    words = ["optics", "algebra", "rivers", "chess", "glaciers", "tides", "poetry", "bread"]
    return [TEMPLATE.format(words[i], f"{words[-i]} {words[i]} unlike others") for i in range(n)]


def test_the_invariant_text_is_shown_and_the_slots_are_blank() -> None:
    assert _show(_filled(8)) == (
        f"Act as a careful tutor. Solve the following problem about {BLANK} and write down every step.\n"
        f"Input: {BLANK}"
    )


@pytest.mark.parametrize("writers", [1, 2, 4])
def test_what_fewer_than_five_accounts_write_never_appears(writers: int) -> None:
    texts = _filled(8)
    for i in range(writers):
        texts[i] = texts[i].replace("careful tutor.", "careful tutor. My passphrase is correct horse.")
        texts[-1 - i] = texts[-1 - i].replace("step.", "step!!! @@ ((zebra))")
    shown = _show(texts)
    assert shown is not None
    assert not any(word in shown for word in ("passphrase", "correct", "horse", "zebra", "!!!", "@@"))


def test_fewer_than_five_texts_show_nothing() -> None:
    assert _show(_filled(4)) is None
    assert _show(_filled(5)) is not None


def test_a_spelling_of_one_account_is_not_shown() -> None:
    texts = _filled(8)
    # The one with fewest bytes is the model that the skeleton follows.
    texts[3] = (
        texts[3]
        .replace("careful", "c​AREFUL")
        .replace(" tutor. ", "\n\ttutor ‮~ ")
        .replace("unlike others", "")
    )
    shown = _show(texts)
    assert shown is not None
    assert "careful tutor. Solve" in shown
    assert not any(c in shown for c in "​‮~\t")


def test_numbers_addresses_and_what_looks_like_a_key_are_masked() -> None:
    text = (
        "Give 12.5 reasons for order A77 to ann@example.com or https://x.example/y?z=1 or shop.example.org "
        "with key abcdefghijklmnopqrstuvwxyzabcdefghi and say why: {}"
    )
    shown = _show([text.format(word * 3) for word in ("a", "b", "c", "d", "e", "f")])
    assert (
        shown
        == f"Give {MASK} reasons for order {MASK} to {MASK} or {MASK} or {MASK} with key {MASK} and say why: {BLANK}"
    )


def test_scripts_without_spaces_read_as_they_were_written() -> None:
    texts = [
        f"次の問題を順を追って解いてください。{word}" for word in ("木工", "氷河", "将棋", "電池", "陶芸")
    ]
    assert _show(texts) == f"次の問題を順を追って解いてください。{BLANK}"


def test_a_long_template_is_cut() -> None:
    body = " ".join(
        f"{a}{b}"
        for a in "bcdfghklmnprst"
        for b in ("ax", "ex", "ix", "ox", "ux", "alo", "elo", "ilo", "olo", "ulo")
    )
    shown = _show([f"{body} {body[::-1]} {i * 'q'}" for i in range(1, 7)])
    assert shown is not None
    assert shown.endswith("…")
    assert len(shown) <= MOST_CHARACTERS + 3


def test_our_own_marks_in_a_text_do_not_pass_for_marks() -> None:
    texts = [t.replace("tutor.", f"tutor {BLANK}{MASK}.") for t in _filled(8)]
    shown = _show(texts)
    assert shown is not None
    assert shown.count(BLANK) == 2
    assert MASK not in shown


def _rows() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    system = "You are the desk of the harbour office and you answer in one short paragraph only."
    for account in range(9):
        for turn in range(8):
            mine = f"{'abcdefghi'[account]}{'klmnopqr'[turn]}"
            text = TEMPLATE.format(f"{mine}o", f"{mine}a {mine}e")
            secret = f" secret{account}word" if account < 2 else ""
            rows.append(
                {
                    "exchange_id": f"e{account}-{turn}",
                    "ts": f"2026-03-0{1 + turn}T00:0{account}:00Z",
                    "account_id": f"a{account}",
                    "model": "m",
                    "prompt": text + secret,
                    "system": system + (" Ann is my manager." if account == 0 else ""),
                }
            )
    for other in range(40):
        words = " ".join(f"w{other}{'xyz'[i % 3]}{i}" for i in range(12))
        row: dict[str, object] = {
            "exchange_id": f"z{other}",
            "ts": "2026-03-02T00:00:00Z",
            "account_id": f"z{other}",
        }
        rows.append(row | {"model": "m", "prompt": words, "system": None})
    return rows


def _reduced(paths: list[str], folder: Path) -> tuple[dict[tuple[str, int], str], Reduced]:
    folder.mkdir()
    with open_log(paths, columns=COLUMNS) as log:
        collector = Collector(folder)
        for batch in log.batches():
            collector.add(batch)
        reduced = collector.finish(None)
        groups = []
        for part, families in (("prompt", reduced.prompt_families), ("system", reduced.systems.families)):
            groups.append((np.arange(9), [(part, f) for f in range(len(families))]))
        found = skeletons(log, reduced, groups)
        collector.close()
    return found, reduced


def test_rows_are_read_again_by_place_whatever_their_order_and_files(tmp_path: Path) -> None:
    rows = _rows()
    one = tmp_path / "one.jsonl"
    # A line that is refused: places are raw rows, not delivered ones.
    one.write_text("{broken\n" + "".join(json.dumps(r) + "\n" for r in rows))
    found, reduced = _reduced([str(one)], tmp_path / "a")
    order = np.random.default_rng(1).permutation(len(rows))
    halves = [tmp_path / "x.jsonl", tmp_path / "y.jsonl"]
    for path, part in zip(halves, (order[:30], order[30:]), strict=True):
        path.write_text("".join(json.dumps(rows[i]) + "\n" for i in part))
    again, other = _reduced([str(p) for p in halves], tmp_path / "b")
    assert found == again
    groups = tmp_path / "groups.parquet"
    pq.write_table(pa.Table.from_pylist(rows), groups, row_group_size=7)
    assert _reduced([str(groups)], tmp_path / "c")[0] == found
    assert {part for part, _ in found} == {"prompt", "system"}
    shown = " ".join(found.values())
    assert "careful tutor" in shown
    assert "harbour office" in shown
    assert not any(word in shown for word in ("secret", "Ann", "manager"))
    assert reduced.accounts == other.accounts


def test_a_log_of_sketches_has_no_skeleton(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(_rows())
    plain, sketched = tmp_path / "plain.parquet", tmp_path / "sketched.parquet"
    pq.write_table(table, plain)
    parts = {f"{n}_sketch": to_binary(sketch_text(table.column(n))) for n in ("prompt", "system")}
    bare = table.drop_columns(["prompt", "system"])
    for name, values in parts.items():
        bare = bare.append_column(name, values)
    pq.write_table(bare, sketched)
    with_text, one = _reduced([str(plain)], tmp_path / "a")
    without, two = _reduced([str(sketched)], tmp_path / "b")
    assert with_text
    assert without == {}
    assert np.array_equal(one.form.key_hash, two.form.key_hash)


def test_places_keep_stretches() -> None:
    places = Places()
    places.add(np.array([0, 0, 0, 1]), np.array([1, 2, 5, 1]))
    places.add(np.array([1, 1]), np.array([2, 3]))
    inputs, rows = places.of(np.array([5, 0, 2, 3]))
    assert inputs.tolist() == [1, 0, 0, 1]
    assert rows.tolist() == [3, 1, 5, 1]
