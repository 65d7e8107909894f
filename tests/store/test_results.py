"""A results folder appears whole or not at all, and says what is wrong when it is read back."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.schema import OutputError, Refusal, ResultError
from stillwatch.schema.findings_schema import build, shipped
from stillwatch.schema.proof import PROOF, nothing_proved
from stillwatch.schema.results import (
    ACCOUNT_ROWS,
    FAMILY_ROWS,
    PROFILE_ROWS,
    SCHEMA_VERSION,
    STREAM_ROWS,
    WATERFALL_ROWS,
    Claim,
    Findings,
    Group,
    Run,
)
from stillwatch.schema.scoring import SCORING, nothing_scored
from stillwatch.store.results import (
    Results,
    encode_findings,
    read_earlier,
    read_proof,
    read_results,
    read_scoring,
    results_digest,
    rounded,
    write_results,
)


def _results() -> Results:
    run = Run(
        version="0", config_digest="0", seed=0, inputs=[], accounts=1, exchanges=2, refused=0,
        first_ts="2026-01-01T00:00:00Z", last_ts="2026-01-02T00:00:00Z", candidates=0, confirmed=0,
        references=0, references_needed=9, p_min=None, reach="", sight=[], releases=[], notes=[],
    )  # fmt: skip
    group = Group(
        id="g", verdict="lead", why="one_view", accounts=1, exchanges=2, harvest_exchanges=0,
        first_ts="2026-01-01T00:00:00Z", last_ts="2026-01-02T00:00:00Z",
        claims=[Claim(name="coordinated", holds=True, text="t", p=1 / 3)], evidence=[], counter_evidence=[],
        capabilities=[], families=[], timeline=[], activity=[1, 1], entities=0, recommended_action="none",
        atlas=[],
    )  # fmt: skip
    accounts = ACCOUNT_ROWS.empty_table().from_pylist(
        [{"account_id": "b", "campaign_id": "g", "verdict": "lead", "role": "core", "e_bits": 1 / 3},
         {"account_id": "a", "campaign_id": "g", "verdict": "lead", "role": "core", "e_bits": 2.0}],
        schema=ACCOUNT_ROWS,
    )  # fmt: skip
    return Results(
        Findings(schema_version=SCHEMA_VERSION, run=run, groups=[group]),
        accounts,
        STREAM_ROWS.empty_table(),
        FAMILY_ROWS.empty_table(),
        PROFILE_ROWS.empty_table(),
        WATERFALL_ROWS.empty_table(),
        [Refusal("log", 3, None, "ts", "why")],
        {"wall_s": 1.0},
        "<html></html>",
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_results(tmp_path / "out", _results())
    back = read_results(tmp_path / "out")
    assert back.findings.groups[0].claims[0].p == pytest.approx(1 / 3, abs=1e-12)
    assert back.accounts.column("account_id").to_pylist() == ["a", "b"]
    assert back.refusals == [Refusal("log", 3, None, "ts", "why")]
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700


def test_equal_results_have_equal_bytes(tmp_path: Path) -> None:
    write_results(tmp_path / "one", _results())
    write_results(tmp_path / "two", _results())
    assert results_digest(tmp_path / "one") == results_digest(tmp_path / "two")


def test_earlier_groups_are_sets_of_accounts(tmp_path: Path) -> None:
    write_results(tmp_path / "out", _results())
    earlier = read_earlier(tmp_path / "out")
    assert earlier.groups == {"g": {"a", "b"}}
    assert earlier.digest == results_digest(tmp_path / "out")


def test_an_existing_folder_is_not_touched_without_force(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_results(out, _results())
    with pytest.raises(OutputError, match="already exists"):
        write_results(out, _results())
    write_results(out, _results(), force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_force_never_replaces_a_folder_that_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(OutputError):
        write_results(tmp_path / "mine", _results(), force=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("stillwatch.store.results.pq.write_table", fail)
    with pytest.raises((OutputError, KeyboardInterrupt)) as caught:
        write_results(tmp_path / "out", _results())
    if isinstance(caught.value, OutputError):
        assert "disk is full" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_findings_and_one_of_another_version_say_so(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"findings\.json is missing"):
        read_results(tmp_path)
    (tmp_path / "findings.json").write_text('{"schema_version": 99}')
    with pytest.raises(ResultError, match="schema version 99"):
        read_results(tmp_path)
    (tmp_path / "findings.json").write_text("[")
    with pytest.raises(ResultError, match="damaged"):
        read_results(tmp_path)


def test_findings_follow_the_shipped_schema_and_the_schema_is_fresh() -> None:
    assert shipped() == build(), "run python -m stillwatch.schema.findings_schema"
    jsonschema.validate(json.loads(encode_findings(_results().findings)), json.loads(shipped()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema_version": 1}, json.loads(shipped()))


def test_statistics_are_rounded_to_twelve_digits() -> None:
    assert rounded({"p": [0.1 + 0.2, (1 / 3,)]}) == {"p": [0.3, [0.333333333333]]}


def test_what_claims_follow_from_is_part_of_the_digest_and_read_back_to_the_last_bit(tmp_path: Path) -> None:
    rows = [{"campaign_id": "g", "view": "LINK", "draw": n, "value": n / 3} for n in range(5)]
    schema = PROOF["proof_nulls"]
    proof = nothing_proved() | {"proof_nulls": pa.Table.from_pylist(rows, schema=schema)}
    for name, values in (("none", {}), ("one", nothing_proved()), ("two", proof)):
        write_results(tmp_path / name, replace(_results(), proof=values))
    assert len({results_digest(tmp_path / name) for name in ("none", "one", "two")}) == 3
    assert read_proof(tmp_path / "two")["proof_nulls"].to_pylist() == rows
    assert read_proof(tmp_path / "one") == nothing_proved()
    with pytest.raises(ResultError, match="scan again with this version"):
        read_proof(tmp_path / "none")
    path = tmp_path / "two" / "proof_nulls.parquet"
    table = pq.read_table(path)
    lacking = pa.table(
        {**{name: table[name] for name in schema.names[:3]}, "value": pa.nulls(5, pa.float64())}
    )
    odd = table.set_column(2, "draw", pa.array([2**40] * 5))
    text = table.set_column(3, "value", pa.array(["x"] * 5))
    for broken in (lacking, odd, text, table.drop_columns(["view"])):
        pq.write_table(broken, path)
        with pytest.raises(ResultError, match="damaged"):
            read_proof(tmp_path / "two")
    for data in (b"", b"PAR1", b"PAR1" + b"\xff" * 40 + b"PAR1"):
        path.write_bytes(data)
        with pytest.raises(ResultError, match="damaged"):
            read_proof(tmp_path / "two")


def test_what_the_guard_measures_by_is_part_of_the_digest_and_read_back(tmp_path: Path) -> None:
    scoring = nothing_scored()
    scoring["scoring_accounts"] = (
        SCORING["scoring_accounts"]
        .empty_table()
        .from_pylist(
            [{"account_id": "a", "exchanges": 3, "excused": True}], schema=SCORING["scoring_accounts"]
        )
    )
    write_results(tmp_path / "one", _results())
    write_results(tmp_path / "two", replace(_results(), scoring=scoring))
    assert results_digest(tmp_path / "one") != results_digest(tmp_path / "two")
    assert read_scoring(tmp_path / "two")["scoring_accounts"]["excused"].to_pylist() == [True]
    with pytest.raises(ResultError, match="scan again with this version"):
        read_scoring(tmp_path / "one")
    (tmp_path / "two" / "scoring_held.parquet").write_bytes(b"PAR1")
    with pytest.raises(ResultError, match="damaged"):
        read_scoring(tmp_path / "two")
