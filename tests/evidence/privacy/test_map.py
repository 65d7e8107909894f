"""docs/privacy.md names every column and every file that may hold somebody; its commands work as written."""

from __future__ import annotations

import ast
import fnmatch
import json
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from stillwatch import schema
from stillwatch.cli import main
from stillwatch.evidence.database import KEPT
from stillwatch.evidence.privacy.forget import forget
from stillwatch.evidence.privacy.retain import delete
from stillwatch.evidence.read import entries
from stillwatch.guard import parse_policy
from stillwatch.guard.build import build
from stillwatch.guard.committed import of_snapshot
from stillwatch.guard.policy import SHADOW
from stillwatch.guard.snapshot import save
from stillwatch.schema import results as result_schemas
from stillwatch.schema import tables
from stillwatch.schema.proof import PROOF
from stillwatch.schema.scoring import SCORING
from stillwatch.store.decisions import Order, Signer, approve, expire, propose, read_decisions, revoke
from stillwatch.store.events import APPEALS, of_decisions, of_results, of_tables
from stillwatch.store.pseudonyms import PURPOSES
from tests.evidence.conftest import KEY
from tests.evidence.privacy.conftest import GONE, Kept
from tests.guard.conftest import SECRET

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "privacy.md").read_text()


def section(title: str) -> str:
    """What stands under a heading."""
    return PAGE.split(f"# {title}")[1].split("\n#")[0]


def named(text: str) -> set[str]:
    """What stands in backticks."""
    return set(re.findall(r"`([^`\n]+)`", text))


@pytest.mark.parametrize(
    ("title", "schemas"),
    [
        ("Tables of exchanges", [tables.EXCHANGES]),
        ("Side tables", list(tables.SIDE_TABLES.values())),
    ],
)
def test_every_column_of_a_log_is_in_the_map(title: str, schemas: list[object]) -> None:
    words = named(section(title))
    for one in schemas:
        assert set(one.names) <= words  # type: ignore[attr-defined]


def test_every_column_of_results_is_in_the_row_of_its_file() -> None:
    rows = [line for line in section("Results folder").splitlines() if line.startswith("| `")]
    files: dict[str, set[str]] = {}
    for row in rows:
        cells = row.split("|")
        for file in named(cells[1]):
            files[file] = named(cells[2])
    made = {
        "accounts": result_schemas.ACCOUNT_ROWS, "streams": result_schemas.STREAM_ROWS,
        "families": result_schemas.FAMILY_ROWS, "profiles": result_schemas.PROFILE_ROWS,
        "waterfall": result_schemas.WATERFALL_ROWS, **SCORING, **PROOF,
    }  # fmt: skip
    for name, one in made.items():
        assert set(one.names) <= files[f"{name}.parquet"], name
    assert hasattr(schema, "Journal")


def _literals(folder: Path) -> Iterator[str]:
    """File names in a room's code."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = re.findall(r"[\w*.-]+\.(?:parquet|jsonl|json|html|csv)\b", node.value)
                yield from (name for name in found if "\n" not in node.value)


def test_every_file_that_the_store_writes_is_in_the_map(kept: Kept) -> None:
    patterns = {word.rsplit("/", 1)[-1] for word in named(section("Data map") + PAGE.split("## Data map")[1])}
    patterns |= {"exchanges.parquet", *(f"{name}.parquet" for name in tables.SIDE_TABLES), "lock"}
    forget([kept.root], GONE)
    written = {path.name for path in kept.root.rglob("*") if path.is_file()}
    assert len(written) > 15
    missing = {name for name in written if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}
    assert missing == set()
    code = {name.lstrip(".") for name in _literals(ROOT / "src" / "stillwatch" / "store")}
    assert {"findings.json", "erasures.jsonl", "manifest.json"} <= code
    known = patterns | {f"{name}.parquet" for name in (*SCORING, *PROOF)}
    assert {name for name in code if name not in ("parquet", "jsonl") and not _known(name, known)} == set()


def _known(name: str, patterns: set[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(pattern, name) for pattern in patterns)


def test_every_purpose_of_a_key_is_named() -> None:
    assert set(PURPOSES) <= named(section("Keys"))


def test_no_event_of_the_log_can_be_guessed_from_its_digest(
    kept: Kept, scanned: tuple[Path, Path], tmp_path: Path
) -> None:
    """Each holds a digest or a pseudonym that nobody can try out; the page says so instead of a salt."""
    signers = [Signer(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2)]
    decisions, at = tmp_path / "decisions", datetime(2026, 1, 1, tzinfo=UTC)
    for hours in (1, 2):
        order = Order(
            campaign="g-1", action="block", policy="0" * 64, expires=at + timedelta(hours=hours), at=at
        )
        propose(decisions, order, signers[0])
        if hours == 1:
            approve(decisions, order.digest, signers[1], at)
            revoke(decisions, order.digest, signers[1], at)
    expire(decisions, at + timedelta(days=1))
    meta, arrays = build(scanned[1], parse_policy(SHADOW), SECRET)
    save(tmp_path / "snapshot", meta, arrays, SECRET)
    with kept.open() as log:
        log.append_all(of_results(kept.root / "results") + of_tables(kept.root / "tables"))
        log.append_all([*of_decisions(read_decisions(decisions)), of_snapshot(tmp_path / "snapshot")])
        forget([kept.root], GONE, "account-0123abcd-abcdefghijklmnopqrstuvwxyz", log)
        delete([kept.root / "tables"], datetime(2027, 1, 1, tzinfo=UTC), log)
    found = list(entries(kept.log))
    page = (ROOT / "docs" / "evidence.md").read_text()
    rows = [
        row.split("|")[1] for row in page.split("| kind | payload |")[1].split("\n\n")[0].splitlines() if row
    ]
    # Those of appeals, and of what partners are told or tell, have tests of their own.
    elsewhere = {"key", "payload_removed", "share", "intel", *APPEALS}
    assert {entry.kind for entry in found} == set(re.findall(r"`([a-z_]+)`", "".join(rows))) - elsewhere
    for entry in found:
        if entry.kind not in KEPT:
            strong = re.findall(rb'"(?:[0-9a-f]{64}|account-[0-9a-f]{8}-[a-z2-7]{26})"', entry.payload or b"")
            assert {value for value in strong if len(set(value)) > 8}, entry.kind


def test_the_commands_do_what_the_page_says(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(kept.root.parent)
    key = KEY._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    Path("audit.pem").write_bytes(key)
    blocks = [section("Retention").split("```")[1], section("One account is taken out").split("```")[1]]
    commands = [
        line for block in reversed(blocks) for line in block.splitlines() if line.startswith("stillwatch ")
    ]
    assert len(commands) == 6
    for command in commands:
        words = [{"DIR": "kept", "ACCOUNT": GONE}.get(word, word) for word in shlex.split(command)[1:]]
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert not stop.value.code, (command, capsys.readouterr().err)
    told = {entry.kind: json.loads(entry.payload or b"") for entry in entries(kept.log)}
    assert {"forgotten", "deleted", "partition_deleted"} <= told.keys()
    assert sorted(path.name for path in kept.root.iterdir()) == ["service"]
