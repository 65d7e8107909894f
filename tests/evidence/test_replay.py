"""Tables against tables: what is the same, what differs, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from stillwatch.evidence.inputs import check_inputs, check_settings, committed, other_computer, sources_of
from stillwatch.evidence.log import TransparencyLog
from stillwatch.evidence.replay import KEYS, Comparison, claims_table, compare, renamed
from stillwatch.schema import InputError, JournalError, ResultError, StillwatchError, UsageError
from stillwatch.schema.proof import PROOF
from stillwatch.schema.results import InputFile, Run, TableUsed
from stillwatch.store.results import read_findings, read_proof
from tests.conftest import sample_results
from tests.evidence.conftest import KEY, OTHER, ticking

Tables = dict[str, pa.Table]


@pytest.fixture(scope="module")
def recorded(scanned: tuple[Path, Path]) -> Tables:
    tables = read_proof(scanned[1]) | {"claims": claims_table(read_findings(scanned[1]))}
    assert tables.keys() == KEYS.keys() == {"claims", *PROOF}
    return tables


def changed(tables: Tables, name: str, row: int, **values: Any) -> Tables:
    rows = tables[name].to_pylist()
    rows[row] |= values
    return tables | {name: pa.Table.from_pylist(rows, schema=tables[name].schema)}


def test_a_table_is_the_same_as_itself(recorded: Tables) -> None:
    found = compare(recorded, recorded)
    assert found.first is None
    total = found.total
    assert total.values == total.equal == sum(table.values for table in found.tables.values()) > 2000
    assert found.tables["proof_nulls"].values == recorded["proof_nulls"].num_rows
    # Nobody asked: a bundle may hold fewer tables.
    some = {name: recorded[name] for name in ("proof_views", "proof_nulls")}
    assert list(compare(some, recorded).tables) == ["proof_views", "proof_nulls"]


@pytest.mark.parametrize("name", sorted(PROOF))
def test_any_value_of_any_table_that_differs_is_found(recorded: Tables, name: str) -> None:
    """Each column in turn; one that names a row makes two rows of one."""
    schema, last = recorded[name].schema, recorded[name].num_rows - 1
    before = recorded[name].to_pylist()[last]
    for column in schema.names:
        value: Any = before[column]
        if isinstance(value, bool):
            other: Any = not value
        elif isinstance(value, str):
            other = value + "x"
        elif isinstance(value, list):
            other = [*value, 1.0]
        else:
            other = (value or 0) + 1 if isinstance(value, int) else (value or 0.0) + 1.0
        found = compare({name: recorded[name]}, changed(recorded, name, last, **{column: other}))
        assert found.total.differ >= 1
        assert found.first is not None
        assert found.first.table == name
        if column in KEYS[name]:
            assert str(found.first).endswith(": only recorded")
        elif isinstance(value, list):
            assert str(found.first).endswith(f"{column}[{len(value)}]: recorded None, replayed 1.0")
        else:
            assert str(found.first).endswith(f", {column}: recorded {value!r}, replayed {other!r}")


def test_what_differs_in_the_last_digits_is_told_apart(recorded: Tables) -> None:
    value = recorded["proof_nulls"].column("value")[5].as_py()
    found = compare(recorded, changed(recorded, "proof_nulls", 5, value=value * (1 + 3e-15)))
    assert (found.total.near, found.total.differ) == (1, 0)
    assert "draw 5, value: recorded" in str(found.first)
    # The first that is said is one that differs by more.
    both = changed(recorded, "proof_nulls", 5, value=value * (1 + 3e-15))
    found = compare(recorded, changed(both, "proof_nulls", 9, value=-1.0))
    assert (found.total.near, found.total.differ) == (1, 1)
    assert "draw 9" in str(found.first)
    # What is no number is the same as nothing.
    odd = changed(recorded, "proof_nulls", 5, value=float("nan"))
    assert compare(odd, odd).total.differ == 1


def test_rows_that_one_side_lacks_are_found(recorded: Tables) -> None:
    fewer = recorded | {"proof_nulls": recorded["proof_nulls"].slice(0, 100)}
    missing = recorded["proof_nulls"].num_rows - 100
    for one, other, side in ((recorded, fewer, "recorded"), (fewer, recorded, "replayed")):
        found = compare(one, other)
        assert found.total.differ == missing
        assert str(found.first).endswith(f"draw 100: only {side}")
    twice = recorded | {"proof_views": pa.concat_tables([recorded["proof_views"]] * 2)}
    assert compare(twice, recorded).first is not None


def test_a_bundle_of_one_campaign_is_compared_with_what_is_its_own(recorded: Tables) -> None:
    mine, other, *_ = sorted(set(recorded["claims"].column("campaign_id").to_pylist()))
    own: Tables = {}
    for name, table in recorded.items():
        rows = [row for row in table.to_pylist() if row.get("campaign_id") in (None, mine)]
        own[name] = pa.Table.from_pylist(rows, schema=table.schema)
    found = compare(own, recorded, [mine])
    assert found.first is None
    assert 0 < found.total.values < compare(recorded, recorded).total.values
    assert compare(own, recorded).first is not None
    assert compare(own, recorded, [mine, other]).first is not None


def test_campaigns_under_ids_of_earlier_results_are_matched(recorded: Tables) -> None:
    def under(tables: Tables, names: dict[str, str]) -> Tables:
        out = {}
        for name, table in tables.items():
            rows = [
                row | ({"campaign_id": names.get(row["campaign_id"])} if "campaign_id" in row else {})
                for row in table.to_pylist()
            ]
            out[name] = pa.Table.from_pylist(rows, schema=table.schema)
        return out

    ids = sorted(set(recorded["claims"].column("campaign_id").to_pylist()))
    # Turned round, so that an id that both sides have means another campaign.
    earlier = under(recorded, dict(zip(ids, reversed(ids), strict=True)))
    assert compare(earlier, recorded).first is not None
    assert compare(earlier, renamed(recorded, earlier)).first is None
    other = changed(recorded, "proof_views", 0, candidate_sha256="0" * 64)
    assert compare(earlier, renamed(other, earlier)).first is not None


def test_nothing_is_compared_where_there_is_nothing() -> None:
    empty = {name: schema.empty_table() for name, schema in PROOF.items()}
    found: Comparison = compare(empty, empty)
    assert (found.total.values, found.first) == (0, None)


def _run(**changes: Any) -> Run:
    inputs = [InputFile(rows=1, refused=0, digest=d * 64, format="canonical/parquet") for d in "aab"]
    side = [TableUsed(name="accounts", rows=3, digest="c" * 64)]
    return msgspec.structs.replace(sample_results().findings.run, inputs=inputs, side=side, **changes)


def _log(digests: str, **side: str) -> Any:
    inputs = [SimpleNamespace(path=f"{n}.parquet", digest=d * 64) for n, d in enumerate(digests)]
    return SimpleNamespace(inputs=inputs, side_digests={name: d * 64 for name, d in side.items()})


@pytest.mark.parametrize(
    ("digests", "side", "said"),
    [
        ("aabb", {"accounts": "c"}, "2.parquet: this is none of the 3 inputs"),
        ("aac", {"accounts": "c"}, "2.parquet: this is none of the 3 inputs that were recorded: SHA-256 ccc"),
        ("ab", {"accounts": "c"}, f"1 of the 3 recorded inputs are not here: SHA-256 {'a' * 64}\n"),
        ("", {"accounts": "c"}, "3 of the 3 recorded inputs are not here"),
        ("baa", {}, "the scan had a table of accounts, which is not here\n  give it with --accounts"),
        ("baa", {"accounts": "d"}, "the table of accounts is another one"),
        ("baa", {"accounts": "c", "releases": "e"}, "the scan had no table of releases"),
    ],
)
def test_other_inputs_are_refused_and_named(digests: str, side: dict[str, str], said: str) -> None:
    check_inputs(_run(), _log("baa", accounts="c"))
    with pytest.raises(InputError) as error:
        check_inputs(_run(), _log(digests, **side))
    assert said in str(error.value)


def test_other_settings_are_refused_and_named() -> None:
    asn, mail = (TableUsed(name=name, rows=1, digest="a" * 64) for name in ("asn_ipv4", "mail"))
    run = _run(config_digest="1" * 64, tables=[asn])
    check_settings(run, "1" * 64, [])
    newer = msgspec.structs.replace(asn, digest="b" * 64)
    for tables, said in (
        ([asn], "the settings are others than the scan's"),
        ([newer], "the lookup table asn_ipv4 that the scan had is another one"),
        ([], "the lookup table asn_ipv4 that the scan had is not here"),
        ([asn, mail], "there is a lookup table mail, which the scan did not have"),
    ):
        with pytest.raises(UsageError) as error:
            check_settings(run, "2" * 64, tables)
        assert said in str(error.value)


def test_standard_input_cannot_be_replayed(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        sources_of(["-"], _run(), tmp_path)
    assert sources_of([str(tmp_path), "b"], _run(), tmp_path).paths == [str(tmp_path), "b"]
    # A folder is one of partitions only if it has a manifest, and that must be whole.
    assert sources_of([str(tmp_path)], _run(), tmp_path).format is None
    (tmp_path / "manifest.json").write_text('{"version": 1, "parts": [')
    with pytest.raises(InputError):
        sources_of([str(tmp_path)], _run(), tmp_path)
    (tmp_path / "manifest.json").write_text('{"version": 1}')
    with pytest.raises(InputError) as error:
        sources_of([str(tmp_path)], _run(), tmp_path)
    assert "none of the partitions that were recorded" in str(error.value)


def test_the_log_has_to_hold_the_scan_with_these_results(tmp_path: Path) -> None:
    run = _run()
    told = {"results": "r", "version": run.version, "config": run.config_digest, "seed": run.seed}

    @contextmanager
    def refused(kind: type[StillwatchError], said: str) -> Iterator[None]:
        with pytest.raises(kind) as error:
            yield
        assert said in str(error.value)

    path = tmp_path / "log"
    with TransparencyLog.create(path, KEY, "example.com/log", ticking()) as log:
        log.append("scan", {"results": "another"})
        log.append("scan", told)
        log.append("scan", told | {"results": "s", "seed": 9})
    entry = committed(path, run, "r", KEY.public)
    assert (entry.number, json.loads(entry.payload or b"")) == (2, told)
    with refused(ResultError, "holds no scan with these results"):
        committed(path, run, "t")
    with refused(ResultError, "something else about the scan's seed: 9, the results 0"):
        committed(path, run, "s")
    with refused(JournalError, "key"):
        committed(path, run, "r", OTHER.public)


def test_another_computer_is_named_and_what_anybody_may_write_is_not_believed() -> None:
    mine = {"python": "3.12.1", "machine": "x86_64 zen4", "packages": {"numpy": "2.4.0", "numba": "0.68"}}
    assert other_computer(mine, mine) == []
    old = {"python": "3.12.1", "machine": "aarch64 a64fx", "packages": {"numpy": "2.3.0"}, "wall_s": 3}
    assert other_computer(old, mine) == ["machine aarch64 a64fx, here x86_64 zen4", "numpy 2.3.0, here 2.4.0"]
    worse = {"python": 3, "machine": "\x1b[2J", "packages": {"numpy": "9" * 99}}
    for odd in (None, [], "x", {}, {"packages": 3}, worse):
        assert other_computer(odd, mine) == []
