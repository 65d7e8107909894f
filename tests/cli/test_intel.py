"""`stillwatch intel` at a terminal: from one provider's results to the other's store, and back out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stillwatch.cli import main
from stillwatch.evidence.read import entries
from stillwatch.store.pseudonyms import KeyRing
from tests.cli.test_log import signer

Run = Callable[..., tuple[int, str, str]]
LATER = "2027-01-02"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def inner(*args: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return inner


@pytest.fixture
def sides(run: Run, tmp_path: Path) -> Path:
    """Two providers who know each other's keys: us.ring, us.pem, us.intel, and them.ring, them.pem."""
    for number, (name, partner) in enumerate((("us", "them"), ("them", "us")), 1):
        KeyRing.create(tmp_path / f"{name}.ring").agree("fingerprint", partner, bytes(range(32)))
        signer(tmp_path / f"{name}.pem", number)
    public = run("intel", "key", "--key", tmp_path / "them.pem")[1].strip()
    assert run("intel", "partner", "add", "them", "--key", public, "--store", tmp_path / "us.intel")[0] == 0
    return tmp_path


def test_from_results_to_the_partners_store(run: Run, sides: Path, scanned: tuple[Path, Path]) -> None:
    feed, store = sides / "feed.json", sides / "us.intel"
    made = run(
        "log", "init", sides / "log", "--key", sides / "log.pem", "--new-key", "--origin", "a.test/log"
    )
    assert made[0] == 0
    log = ["--log", sides / "log", "--log-key", sides / "log.pem"]
    terms = ["--tlp", "TLP:AMBER", "--confidence", "80"]
    mine = ["--partner", "us", "--keys", sides / "them.ring", "--key", sides / "them.pem"]
    code, out, err = run(
        "intel", "export", scanned[1], *mine, *terms, "--out", feed, "--at", "2027-01-01", *log
    )
    assert (code, err) == (0, "")
    assert "campaigns, 0 taken back, for us" in out
    told = ["--partner", "them", "--keys", sides / "us.ring", "--store", store, "--at", LATER]
    code, out, err = run("intel", "import", feed, *told, *log)
    assert (code, err) == (0, "")
    assert "0 changed" in out
    assert [e.kind for e in entries(sides / "log", 9, None)] == ["log", "intel", "intel"]
    code, _, err = run("intel", "import", feed, *told)
    assert code == 3
    assert "sent again" in err
    rows = json.loads(run("intel", "list", "--store", store, "--at", LATER, "--json")[1])
    assert {(r["partner"], r["state"], r["tlp"], r["confidence"]) for r in rows} == {
        ("them", "valid", "amber", 80)
    }
    out = run("intel", "list", "--store", store, "--at", "2028-01-02")[1]
    assert "expired" in out
    name = rows[0]["indicator"]
    assert run("intel", "remove", name, "--partner", "them", "--store", store)[0] == 0
    assert name not in run("intel", "list", "--store", store)[1]
    # Taken back: by the same id, though the results name the campaign no more.
    group = next(
        g
        for g in json.loads((scanned[1] / "findings.json").read_text())["groups"]
        if g["verdict"] == "campaign"
    )
    code, out, _ = run(
        "intel",
        "export",
        scanned[1],
        *mine,
        *terms,
        "--revoke",
        group["id"],
        "--out",
        sides / "revoke.json",
        "--at",
        LATER,
    )
    assert code == 0
    assert "0 campaigns, 1 taken back" in out
    assert "1 of them take an indicator back" in run("intel", "import", sides / "revoke.json", *told)[1]
    assert run("intel", "partner", "list", "--store", store)[1].startswith("them: ")
    assert run("intel", "partner", "remove", "them", "--store", store)[0] == 0


def test_no_export_names_anybody_or_quotes_anything(
    run: Run, sides: Path, scanned: tuple[Path, Path]
) -> None:
    import base64

    mine = ["--partner", "us", "--keys", sides / "them.ring", "--key", sides / "them.pem"]
    run(
        "intel",
        "export",
        scanned[1],
        *mine,
        "--tlp",
        "green",
        "--confidence",
        "70",
        "--out",
        sides / "feed.json",
    )
    payload = base64.b64decode(json.loads((sides / "feed.json").read_text())["payload"]).decode()
    findings = json.loads((scanned[1] / "findings.json").read_text())
    assert all(g["id"] not in payload for g in findings["groups"])
    import pyarrow.parquet as pq

    accounts = set(pq.read_table(scanned[1] / "accounts.parquet").column("account_id").to_pylist())
    assert not [a for a in accounts if a in payload]
    log = pq.read_table(scanned[0] / "exchanges.parquet", columns=["prompt", "ip"]).slice(0, 500).to_pylist()
    assert not [row for row in log if row["ip"] and row["ip"] in payload]
    assert not [
        row for row in log if row["prompt"] and len(row["prompt"]) > 12 and row["prompt"][:12] in payload
    ]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["import", "{feed}", "--partner", "nobody", "--keys", "{ring}", "--store", "{store}"],
            "no partner of this store",
        ),
        (
            ["import", "{none}", "--partner", "them", "--keys", "{ring}", "--store", "{store}"],
            "cannot be read",
        ),
        (["import", "{feed}", "--partner", "them", "--keys", "{none}", "--store", "{store}"], "no key ring"),
        (["list", "--store", "{none}"], "no store of partners' indicators"),
        (["list", "--store", "{store}", "--at", "soon"], "is no time"),
        (["remove", "x", "--partner", "them", "--store", "{store}"], "no such indicator"),
        (["partner", "add", "../x", "--key", "ed25519:AAAA", "--store", "{store}"], "cannot name a partner"),
        (["partner", "add", "x", "--key", "rsa:AAAA", "--store", "{store}"], "no public key"),
        (["sign", "{feed}", "--key", "{pem}", "--out", "{none}"], "no STIX bundle and no feed"),
    ],
)
def test_mistakes_are_told_in_one_line(run: Run, sides: Path, args: list[str], message: str) -> None:
    (sides / "feed").write_text("{}")
    places = {
        "feed": sides / "feed", "ring": sides / "us.ring", "store": sides / "us.intel", "none": sides / "none",
        "pem": sides / "us.pem",
    }  # fmt: skip
    code, out, err = run("intel", *(a.format(**places) for a in args))
    assert code in (2, 3)
    assert message in err
    assert out == ""


def test_scan_wants_the_ring_with_the_store(run: Run, sides: Path, scanned: tuple[Path, Path]) -> None:
    code, _, err = run("scan", scanned[0], "--out", sides / "out", "--intel", sides / "us.intel")
    assert code == 2
    assert "--keys" in err
    assert not (sides / "out").exists()
