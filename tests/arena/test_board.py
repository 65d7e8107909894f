"""The scoreboard: what it measures is known here, because the methods know the truth."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from stillwatch.arena import board
from stillwatch.arena.board import adversary
from stillwatch.arena.board.cells import Cell
from stillwatch.arena.board.cut import DAY_US, bounds_us, cut
from stillwatch.arena.board.levels import operation_scores, stream_score, wrongly_named
from stillwatch.arena.board.page import render
from stillwatch.arena.board.summary import mean
from stillwatch.arena.board.truth import read_truth
from stillwatch.cli.contest import ours
from stillwatch.schema.errors import OutputError, UsageError

SMALL = Cell("mixed", 400, 2_000, 3)


def _named(
    out: Path, name: str, campaigns: dict[str, list[str]], counts: dict[str, int] | None = None
) -> None:
    folder = out / name
    folder.mkdir()
    (folder / "findings.json").write_text(
        json.dumps(
            {"groups": [{"id": g, "verdict": "campaign", "evidence": [], "claims": []} for g in campaigns]}
        )
    )
    pairs = [(a, g) for g, found in campaigns.items() for a in found]
    columns = {"account_id": [a for a, _ in pairs], "campaign_id": [g for _, g in pairs]}
    table = pa.table(columns, schema=pa.schema([(n, pa.string()) for n in columns]))
    if counts is not None:
        table = table.append_column("verdict", pa.array(["campaign"] * len(pairs), pa.string()))
        table = table.append_column(
            "harvest_exchanges", pa.array([counts.get(a, 0) for a, _ in pairs], pa.int64())
        )
    pq.write_table(table, folder / "accounts.parquet")


def _truth(log: Path) -> dict[str, list[str]]:
    rows = pq.read_table(log / "truth" / "accounts.parquet").to_pylist()
    groups: dict[str, list[str]] = {}
    for row in rows:
        if row["operation"] is not None:
            groups.setdefault(row["group_id"], []).append(row["account_id"])
    return groups


def _everybody(log: Path) -> list[str]:
    names: list[str] = pq.read_table(log / "truth" / "accounts.parquet")["account_id"].to_pylist()
    return names


def oracle(log: Path, out: Path) -> None:
    """Names every operation, one campaign each; with half of the references, none."""
    _named(out, "all", _truth(log))
    _named(out, "half", {})


def crowd(log: Path, out: Path) -> None:
    """Names everybody as one campaign."""
    _named(out, "all", {"everybody": _everybody(log)})


def fewer(log: Path, out: Path) -> None:
    """Names every operation; with a third of the references, none."""
    _named(out, "all", _truth(log))
    _named(out, "third", {})


def broken(log: Path, out: Path) -> None:
    """A method that does not run."""
    raise RuntimeError(f"no model for {out.name and 'this log'}")


def quiet(log: Path, out: Path) -> None:
    """A method that names nobody."""
    _named(out, "all", {})


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("board") / SMALL.name
    SMALL.compose(folder, None, None)
    return folder


def _place(tmp_path: Path, log: Path) -> board.Place:
    return board.Place(tmp_path / "board", logs=log.parent, version="test")


def test_seeds_and_cells_by_name() -> None:
    assert board.parse_seeds("3") == [1, 2, 3]
    assert board.parse_seeds("1-3, 51,2") == [1, 2, 3, 51]
    with pytest.raises(UsageError, match="names no seeds"):
        board.parse_seeds("one")
    with pytest.raises(UsageError, match="there is no scenario 'weird'"):
        board.plan(["weird"], [1])
    cells = board.plan(["mixed"], [1, 2], accounts=[2_000])
    assert [(c.accounts, c.exchanges, c.seed) for c in cells] == [(2_000, 50_000, 1), (2_000, 50_000, 2)]
    assert cells[0].group == cells[1].group
    assert cells[0].name != cells[1].name
    assert replace(cells[0], settings=(("cover", "0.5"),)).group != cells[0].group


def test_a_run_that_stopped_goes_on(tmp_path: Path, log: Path) -> None:
    place, said = _place(tmp_path, log), []
    methods = [board.Method("oracle", "knows", oracle), board.Method("crowd", "names all", crowd)]
    assert board.measure(place, [SMALL], methods, say=said.append) == 0
    assert len(said) == 3
    before = {p.name: p.read_bytes() for p in place.cells.iterdir()}
    assert board.measure(place, [SMALL], methods, say=said.append) == 0
    assert len(said) == 3
    assert {p.name: p.read_bytes() for p in place.cells.iterdir()} == before
    assert log.exists()
    board.forget(replace(place, version="newer"), [SMALL])
    assert not list(place.cells.iterdir())


def test_logs_are_removed_unless_they_are_kept(tmp_path: Path) -> None:
    place = board.Place(tmp_path / "board", version="test")
    board.measure(place, [SMALL], [board.Method("quiet", "names nobody", quiet)], say=lambda text: None)
    assert not place.log(SMALL).exists()
    assert len(board.numbers(place)) == 1


def test_a_failure_is_recorded_and_tried_again(tmp_path: Path, log: Path) -> None:
    place = _place(tmp_path, log)
    methods = [board.Method("broken", "does not run", broken)]
    assert board.measure(place, [SMALL], methods, say=lambda text: None) == 1
    found = board.summarise(board.numbers(place), "oracle")
    assert "RuntimeError: no model for this log" in found["failures"][0]["failure"]
    assert "RuntimeError: no model" in board.markdown(found)
    assert board.measure(place, [SMALL], methods, say=lambda text: None) == 1
    mended = [board.Method("broken", "runs now", oracle)]
    assert board.measure(place, [SMALL], mended, say=lambda text: None) == 0
    assert board.summarise(board.numbers(place), "broken")["failures"] == []


def test_settings_that_are_asked_for_later_are_measured_then(tmp_path: Path, log: Path) -> None:
    place, said = _place(tmp_path, log), []
    board.measure(place, [SMALL], [board.Method("m", "one setting", quiet)], say=said.append)
    both = board.Method("m", "two settings", oracle, ("all", "half"))
    assert board.measure(place, [SMALL], [both], say=said.append) == 0
    assert len(said) == 4
    assert {line["setting"] for line in board.summarise(board.numbers(place), "m")["lines"]} == {
        "all",
        "half",
    }
    assert board.measure(place, [SMALL], [both], say=said.append) == 0
    assert len(said) == 4
    third = board.Method("m", "two other settings", fewer, ("all", "third"))
    assert board.measure(place, [SMALL], [third], say=said.append) == 0
    lines = board.summarise(board.numbers(place), "m")["lines"]
    assert {line["setting"] for line in lines} == {"all", "half", "third"}
    lacking = board.Method("n", "says two, writes one", quiet, ("all", "half"))
    assert board.measure(place, [SMALL], [lacking], say=said.append) == 1
    assert "it wrote no results folder half" in said[-1]


def test_the_scan_is_measured_with_the_references_and_roads_asked_for(tmp_path: Path, log: Path) -> None:
    assert ours().settings == ("all",)
    method = ours(roads=True, references=(150, 20))
    assert method.settings == (
        *("all", "150 references", "50 references", "20 references", "0 references"),
        *("references alone", "direct alone"),
    )
    method = ours(references=(3,))
    method.run(log, tmp_path)
    assert {folder.name for folder in tmp_path.iterdir()} == set(method.settings)


def test_damaged_numbers_are_named(tmp_path: Path, log: Path) -> None:
    place = _place(tmp_path, log)
    place.cells.mkdir(parents=True)
    (place.cells / "x.json").write_text("{")
    with pytest.raises(OutputError, match=r"x\.json"):
        board.numbers(place)
    with pytest.raises(OutputError, match=r"x\.json"):
        board.forget(place, [SMALL])
    (place.cells / f"{SMALL.name}--quiet.json").write_text("[]")
    with pytest.raises(OutputError, match="it is measured again"):
        board.measure(place, [SMALL], [board.Method("quiet", "names nobody", quiet)], say=lambda text: None)


@pytest.mark.slow
def test_known_methods_get_known_scores(tmp_path: Path, log: Path) -> None:
    place = _place(tmp_path, log)
    methods = [board.Method("oracle", "knows", oracle), board.Method("crowd", "names all", crowd)]
    board.measure(place, [SMALL], methods, dated=methods[0], say=lambda text: None)
    found = board.summarise(board.numbers(place), "oracle")
    lines = {(line["method"], line["setting"]): line for line in found["lines"]}
    truth = _truth(log)
    attackers = sum(map(len, truth.values()))
    assert lines["oracle", "all"]["precision"]["value"] == 1.0
    assert lines["oracle", "all"]["recall"]["value"] == 1.0
    assert lines["oracle", "all"]["operations_found"] == len(truth)
    assert lines["oracle", "all"]["pieces"] == 1.0
    assert lines["oracle", "half"]["recall"]["value"] == 0.0
    assert lines["crowd", "all"]["recall"]["value"] == 1.0
    assert lines["crowd", "all"]["precision"]["value"] == pytest.approx(attackers / len(_everybody(log)))
    assert lines["crowd", "all"]["false_campaigns"] == 1
    assert found["lookalikes"][-1]["kind"] == "all"
    assert found["lookalikes"][-1]["hits"] == 0
    assert sum(row["named"]["total"] for row in found["operations"]) == attackers
    achieved = {row["setting"]: row["achieved"] for row in found["false_groups"]}
    assert achieved["all"]["hits"] == 0
    assert achieved["all"]["total"] == len(truth)
    # The oracle names whoever has come: every operation is found on the first day it shows itself.
    assert {row["share"] is not None for row in found["found"]} == {True}
    assert len(found["found"]) == len(truth)


def test_what_is_attributed_is_compared_account_by_account(tmp_path: Path, log: Path) -> None:
    truth = _truth(log)
    group, inside = next(iter(truth.items()))
    _named(tmp_path, "all", {group: inside}, {inside[0]: 10_000, inside[1]: 0})
    known = read_truth(log)
    score = stream_score(tmp_path / "all", known)
    assert score is not None
    first = next(o for o in operation_scores(tmp_path / "all", known) if o.group == group)
    assert first.named == first.accounts == len(inside)
    assert score.attributed == 10_000
    assert 0 < score.hits <= first.harvest
    assert score.harvested == int(
        pc.sum(pq.read_table(log / "truth" / "exchanges.parquet")["harvest"].cast("int64")).as_py()
    )
    assert wrongly_named(tmp_path / "all", known) == []
    honest = next(a for a in _everybody(log) if a not in {b for found in truth.values() for b in found})
    _named(tmp_path, "mixed", {group: [*inside, honest]})
    wrong = wrongly_named(tmp_path / "mixed", known)
    assert [(w["attackers"], w["bits"]) for w in wrong] == [(len(inside), {})]
    _named(tmp_path, "none", {group: inside})
    assert stream_score(tmp_path / "none", known) is None


def test_a_cut_log_knows_nothing_of_the_future(tmp_path: Path, log: Path) -> None:
    first, last = bounds_us(log)
    moment = first + 3 * DAY_US
    assert moment < last
    assert cut(log, tmp_path / "part", moment)
    part = pq.read_table(tmp_path / "part" / "exchanges.parquet")
    whole = pq.read_table(log / "exchanges.parquet")
    assert 0 < part.num_rows < whole.num_rows
    assert pc.max(part["ts"]).value <= moment
    for name, column in (("accounts", "created_at"), ("sanctions", "ts"), ("releases", "ts")):
        times = pq.read_table(tmp_path / "part" / f"{name}.parquet")[column].drop_null()
        assert len(times) == 0 or pc.max(times).value <= moment
    truth = pq.read_table(tmp_path / "part" / "truth" / "accounts.parquet")["account_id"].to_pylist()
    assert set(truth) == set(part["account_id"].to_pylist())
    labels = pq.read_table(tmp_path / "part" / "truth" / "exchanges.parquet")
    assert labels["exchange_id"].to_pylist() == part["exchange_id"].to_pylist()
    assert not cut(log, tmp_path / "before", first - DAY_US)
    assert not (tmp_path / "before").exists()


def test_intervals_of_means_cover_what_they_should() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(2_000):
        found = mean(rng.normal(0.5, 0.05, 5).tolist())
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.5 <= found.high
    assert 0.935 <= covered / 2_000 <= 0.965
    assert mean([0.3]).low is None
    assert mean([None, 0.4, 0.6]).value == pytest.approx(0.5)
    assert mean([None]).value is None


class _Outside(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [v for k, v in attrs if k in ("src", "href") and v]
        if tag in ("script", "link", "iframe"):
            self.found.append(tag)


@pytest.mark.slow
def test_the_page_stands_alone_and_shows_every_part(tmp_path: Path, log: Path) -> None:
    place = _place(tmp_path, log)
    larger = Cell("mixed", 600, 3_000, 3)
    methods = [board.Method("oracle", "knows", oracle), board.Method("<b>crowd", "names & all", crowd)]
    board.measure(
        replace(place, logs=None), [SMALL, larger], methods[:1], dated=methods[0], say=lambda text: None
    )
    board.measure(replace(place, logs=None), [SMALL], methods[1:], say=lambda text: None)
    found = board.summarise(board.numbers(place), "oracle")
    board.write(place, found)
    page = (place.out / "board.html").read_text()
    outside = _Outside()
    outside.feed(page)
    assert outside.found == []
    assert "<b>crowd" not in page
    assert "&lt;b&gt;crowd" in page
    for title in ("Beside other methods", "size of the population", "Recall by operation", "harvest share"):
        assert title in page
    assert "nan" not in re.sub(r"<style>.*</style>", "", page).lower()
    assert json.loads((place.out / "board.json").read_text())["lines"] == json.loads(
        json.dumps(found["lines"])
    )
    assert render({**found, "curve": [], "found": [], "operations": []})


def test_the_price_counts_what_got_past() -> None:
    settings = {"size": 20, "requests_per_account": 10, "cover": 0.5}
    free = adversary.price(quiet, "mixing_50", settings, seed=1, accounts=400)
    assert free.free == free.harvest > 0
    assert free.price == pytest.approx(free.accounts * 14 * 1e6 / free.harvest)
    assert free.seen == []
    stopped = adversary.price(oracle, "mixing_50", settings, seed=1, accounts=400)
    assert stopped.free == 0
    assert stopped.price > 100 * free.price
    assert [g["verdict"] for g in stopped.seen] == ["campaign"]


def test_a_search_goes_on_where_it_stopped(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="needs the extra adversary")
    journal = tmp_path / "trials.jsonl"
    how = {"accounts": 400, "seed": 2, "journal": journal, "say": lambda text: None}
    adversary.search(quiet, trials=2, **how)
    first = journal.read_text()
    found = adversary.search(quiet, trials=3, confirm=[7], best=1, **how)
    assert journal.read_text().startswith(first)
    assert len(found["trials"]) == 3
    best = found["best"][0]
    assert best["first"]["price"] == min(p["price"] for p in found["trials"])
    assert best["again"][0]["seed"] == 7
    assert "nothing" in board.search_table(found)
    journal.write_text(first + '{"operation": "mix')
    with pytest.raises(OutputError, match=r"trials\.jsonl"):
        adversary.search(quiet, trials=3, **how)
    with pytest.raises(UsageError, match="to get past"):
        adversary.search(quiet, trials=1, past="cleared", **how)
