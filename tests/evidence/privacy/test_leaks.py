"""Nothing that leaves holds a prompt, an address, a mail domain or an account's id: planted ones are looked for.

In every form that `tests.leaks` knows, in every file, answer, log line and message. What names accounts does so by
design and is listed here: tables and report of a results folder stay with the operator.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from stillwatch.cli import main
from stillwatch.evidence.sharing import FORMATS
from stillwatch.guard import Secret, load
from stillwatch.guard.doors.asgi import StillwatchMiddleware
from stillwatch.guard.doors.check import CheckService
from stillwatch.guard.doors.events import EventLog
from stillwatch.guard.doors.metrics import Metrics
from stillwatch.guard.doors.prometheus import Exposition, GuardCollector
from stillwatch.guard.doors.spans import Spans
from stillwatch.schema.tables import EXCHANGES
from stillwatch.store.results import read_results
from tests.guard.test_doors import WHO, _ask, _echo, _Fixed
from tests.leaks import everything_in, leaks, unpacked

TEXTS = {
    "prompt": "zq canary prompt 7f3a91",
    "system": "zq canary system 5be2c7",
    "response": "zq canary answer 9d40b8",
}
IDS = {
    "account_id": "acct-canary-4d1e77", "ip": "203.0.113.213", "key_id": "sk-canary-b6c1d2e3",
    "end_user_id": "user-canary-81aa5f", "user_agent": "CanaryAgent/7.3 (zq-3c5d)",
    "conversation_id": "conv-canary-55e1", "exchange_id": "exch-canary-90b2",
}  # fmt: skip
OWNED = {
    "email_domain": "canary-mail-6e7f.example",
    "signup_ip": "198.51.100.213",
    "device_fp": "device-canary-2b9e",
}
ALL = [*TEXTS.values(), *IDS.values(), *OWNED.values()]
NO_ACCOUNT = [secret for secret in ALL if secret != IDS["account_id"]]
NAMES_ACCOUNTS = {
    "accounts.parquet",
    "streams.parquet",
    "waterfall.parquet",
    "scoring_accounts.parquet",
    "report.html",
}
"""Files of a results folder that name accounts: so that the operator can act. They stay where they are."""
SECRET = "a secret of the tests, no other"


@dataclass(frozen=True)
class World:
    """A log with planted texts and ids, what a scan made of it, and what was printed."""

    folder: Path
    printed: dict[str, bytes]
    members: list[str]

    @property
    def results(self) -> Path:
        """Results folder."""
        return self.folder / "results"


def _planted(source: Path, out: Path, members: list[str]) -> None:
    """The demo's log in which everything about some members of a campaign is planted."""
    out.mkdir()
    for name, columns in (
        ("exchanges", {**TEXTS, **IDS}),
        ("accounts", {"account_id": IDS["account_id"], **OWNED}),
    ):
        table = pq.read_table(source / f"{name}.parquet")
        accounts = table.column("account_id").to_pylist()
        mine = {account: number for number, account in enumerate(members)}
        for column, planted in columns.items():
            if column not in table.schema.names:
                kind = EXCHANGES.field(column).type
                table = table.append_column(column, pa.nulls(table.num_rows, kind))
            cells = table.column(column).to_pylist()
            for row, account in enumerate(accounts):
                if account not in mine or (column == "system" and cells[row] is None):
                    continue
                if column in TEXTS:
                    cells[row] = f"{cells[row] or ''}\n{planted}"
                elif column == "account_id":
                    cells[row] = f"{planted}-{mine[account]}"
                elif column == "exchange_id":
                    cells[row] = f"{planted}-{row}"
                else:
                    cells[row] = planted
            place = table.schema.get_field_index(column)
            table = table.set_column(
                place, table.schema.field(place), pa.array(cells, table.schema.field(place).type)
            )
        pq.write_table(table, out / f"{name}.parquet")


@pytest.fixture(scope="module")
def world(scanned: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("canaries")
    found = read_results(scanned[1])
    biggest = max((g for g in found.findings.groups if g.verdict == "campaign"), key=lambda g: g.accounts)
    rows = [r for r in found.accounts.to_pylist() if r["campaign_id"] == biggest.id and r["role"] == "core"]
    members = [row["account_id"] for row in sorted(rows, key=lambda r: -r["e_bits"])[:3]]
    _planted(scanned[0], folder / "log", members)
    assert {s for _, s, _ in leaks(everything_in(folder / "log"), ALL)} == set(ALL)
    return World(folder, {}, [f"{IDS['account_id']}-{number}" for number in range(3)])


Run = Callable[..., bytes]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Run:
    """A command; everything that it printed or logged, whether it went well or not."""

    def inner(*args: str | Path, code: int | None = 0) -> bytes:
        caplog.clear()
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        said = capfd.readouterr()
        assert code is None or int(stop.value.code or 0) == code, said.err
        return (said.out + said.err + caplog.text).encode()

    return inner


@pytest.mark.slow
def test_a_scan_its_guard_and_its_log_tell_of_nobody(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STILLWATCH_GUARD_SECRET", SECRET)
    folder, log = world.folder, ["--log", world.folder / "audit.log", "--log-key", world.folder / "audit.pem"]
    said = {"init": run("log", "init", log[1], "--key", log[3], "--new-key")}
    said["scan"] = run("scan", folder / "log", "--out", world.results, *log)
    said["check"] = run("check", folder / "log")
    said["check, json"] = run("check", folder / "log", "--json")
    said["snapshot"] = run(
        "guard", "snapshot", world.results, "--out", folder / "snapshot", "--accounts",
        folder / "log" / "accounts.parquet", *log,
    )  # fmt: skip
    groups = [g.id for g in read_results(world.results).findings.groups]
    rows = read_results(world.results).accounts.to_pylist()
    mine = {
        row["campaign_id"]
        for row in rows
        if row["account_id"] in world.members and row["verdict"] == "campaign"
    }
    assert mine
    said["show"] = run("log", "show", log[1], "--last", "9999")
    said["show, json"] = run("log", "show", log[1], "--last", "9999", "--json")
    said["prove"] = run("log", "prove", log[1], "1")
    said["verify"] = run("log", "verify", log[1])
    said["replay"] = run("guard", "replay", folder / "log", "--snapshot", folder / "snapshot")
    said["sketch"] = run("sketch", folder / "log", "--out", folder / "sketched", *log)
    said["retain"] = run("retain", "show", folder)
    assert leaks(said.items(), ALL) == []
    # `explain` names accounts where it is asked for them, and nothing else of them.
    explained = {group: run("explain", world.results, group) for group in groups}
    explained |= {name: run("explain", world.results, name) for name in world.members}
    assert leaks(explained.items(), NO_ACCOUNT) == []
    # A results folder names accounts in the files that are listed, and holds nothing else of theirs.
    found = leaks(everything_in(world.results), ALL)
    assert {secret for _, secret, _ in found} == {IDS["account_id"]}
    assert {place.split(" ")[0] for place, _, _ in found} == NAMES_ACCOUNTS
    # Neither the log nor a snapshot names anybody. Text-free tables have ids and addresses, no text.
    assert leaks(unpacked("audit.log", log[1].read_bytes()), ALL) == []
    assert leaks(unpacked("snapshot", (folder / "snapshot").read_bytes()), ALL) == []
    assert leaks(everything_in(folder / "sketched"), TEXTS.values()) == []


@pytest.fixture
def guarded(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> _Fixed:
    """The guard that knows the planted members, from the scan of the other test or its own."""
    monkeypatch.setenv("STILLWATCH_GUARD_SECRET", SECRET)
    if not world.results.exists():
        run("scan", world.folder / "log", "--out", world.results)
    if not (world.folder / "snapshot").exists():
        run("guard", "snapshot", world.results, "--out", world.folder / "snapshot")
    snapshot = load(world.folder / "snapshot", Secret(SECRET.encode()))
    return _Fixed(snapshot, snapshot.meta.last_us + 3_600_000_000)


@pytest.mark.slow
def test_what_the_guard_answers_counts_logs_and_traces_tells_of_nobody(
    world: World, guarded: _Fixed, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    metrics = Metrics(guarded)
    metrics.spans = Spans(provider, Secret(SECRET.encode()).spans())
    told: dict[str, bytes] = {}
    service = CheckService(guarded, WHO, None, metrics, Exposition(GuardCollector(metrics)).text)  # type: ignore[arg-type]
    middleware = StillwatchMiddleware(_echo, guarded, WHO)  # type: ignore[arg-type]
    body = json.dumps(
        {
            "system": TEXTS["system"],
            "messages": [{"role": "user", "content": TEXTS["prompt"]}],
            "user": IDS["end_user_id"],
        }
    ).encode()
    for name in (*world.members, "somebody"):
        headers = {
            "x-account": name, "x-forwarded-for": IDS["ip"], "user-agent": IDS["user_agent"],
            "authorization": f"Bearer {IDS['key_id']}",
        }  # fmt: skip
        for data in (body, body[:-9], b"\xff" + TEXTS["prompt"].encode()):
            told[f"check {name} {len(data)}"] = repr(_ask(service, "/v1/check", headers, data)).encode()
        # What the door itself says: refusals. What it passes on is the client's own.
        start, end = _ask(middleware, headers=headers, body=body)
        if start["status"] != 200:
            told[f"refused {name}"] = repr((start, end)).encode()
        told[f"state {name}"] = repr([v for k, v in start["headers"] if k == b"x-told"]).encode()
    told["metrics"] = repr(_ask(service, "/metrics", method="GET")).encode()
    told["ready"] = repr(_ask(service, "/readyz", method="GET")).encode()
    told["logged"] = caplog.text.encode()
    told["spans"] = "".join(span.to_json() for span in memory.get_finished_spans()).encode()
    assert len(memory.get_finished_spans()) >= 4
    assert leaks(told.items(), ALL) == []
    # The guard in LiteLLM notes who asked (ids, addresses: they are scanned), never a text.
    with closing(EventLog(tmp_path / "events")) as events:
        message = {"role": "user", "content": TEXTS["prompt"]}
        answer = {"choices": [{"message": {"content": TEXTS["response"]}, "finish_reason": "stop"}]}
        events.note(
            {"id": "e", "startTime": 1_772_366_400.5, "status": "success", "model": "m", "messages": [message],
             "response": answer, "metadata": {"user_api_key_user_id": world.members[0]}}, IDS["ip"],
        )  # fmt: skip
    assert leaks(everything_in(tmp_path / "events"), TEXTS.values()) == []
    assert leaks([("log", caplog.text.encode())], ALL) == []


def _row(**changes: object) -> dict[str, object]:
    row = {"ts": "2026-01-01T00:00:00Z", "model": "m", **TEXTS, **IDS}
    return {name: value for name, value in (row | changes).items() if value is not None}


BROKEN: list[dict[str, object]] = [
    _row(ts=TEXTS["prompt"]), _row(ts=None), _row(account_id=None), _row(account_id=[IDS["account_id"]]),
    _row(ip=f"{IDS['ip']}.9.{OWNED['email_domain']}"), _row(prompt={"text": TEXTS["prompt"]}),
    _row(n=TEXTS["prompt"]), _row(account_id="\x1f" + IDS["account_id"]),
    _row(temperature=IDS["account_id"]), _row(status="9" * 30 + IDS["ip"]), _row(model={"x": IDS["key_id"]}),
    _row(turn_hashes=[TEXTS["response"]]), _row(end_user_trust=IDS["end_user_id"]),
]  # fmt: skip


def test_messages_about_broken_logs_quote_nothing_of_them(run: Run, tmp_path: Path) -> None:
    rows = [json.dumps(row) for row in BROKEN]
    good = json.dumps(_row(exchange_id="e1", account_id="a"))
    lines = {
        "rows": "\n".join([good, *rows]), "cut": "\n".join([good, rows[0][:-20]]), "noise": TEXTS["prompt"] * 50,
        "array": "[" + ",".join(rows), "doubled": f"{good}\n{good}",
        "csv": f"account_id,{TEXTS['prompt']}\n{IDS['account_id']}",
    }  # fmt: skip
    said: dict[str, bytes] = {}
    for name, text in lines.items():
        path = tmp_path / f"{name}.{'csv' if name == 'csv' else 'jsonl'}"
        path.write_text(text)
        said[f"check {name}"] = run("check", path, code=None)
        for more in ([], ["--strict"]):
            out = tmp_path / f"i{name}{len(more)}"
            said[f"ingest {name} {more}"] = run("ingest", path, "--out", out, *more, code=None)
            if (out / "refused.jsonl").exists():
                said[f"refused {name} {more}"] = (out / "refused.jsonl").read_bytes()
    assert b"refused" in said["check rows"]
    assert any(name.startswith("refused rows") for name in said)
    assert leaks(said.items(), ALL) == []


def test_messages_about_broken_tables_and_results_quote_nothing_of_them(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLWATCH_GUARD_SECRET", SECRET)
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(_row()))
    sides = {
        "accounts": [
            [{"account_id": IDS["account_id"], **OWNED}] * 2, [{"account_id": None, **OWNED}], [OWNED],
            [{"account_id": IDS["account_id"], "created_at": OWNED["email_domain"]}],
            [{"account_id": IDS["account_id"], "signup_ip": OWNED["email_domain"], "contract": TEXTS["prompt"]}],
        ],
        "sanctions": [
            [{"account_id": IDS["account_id"], "ts": "2026-01-01T00:00:00Z", "kind": TEXTS["prompt"]}],
            [{"account_id": IDS["account_id"], "ts": IDS["ip"], "kind": "ban"}],
        ],
        "references": [
            [{"account_id": IDS["account_id"], "group_id": g} for g in ("a", "b")],
            [{"account_id": IDS["account_id"]}],
        ],
    }  # fmt: skip
    said: dict[str, bytes] = {}
    for name, variants in sides.items():
        for number, rows in enumerate(variants):
            side = tmp_path / f"{name}{number}.jsonl"
            side.write_text("\n".join(json.dumps(row) for row in rows))
            said[f"{name} {number}, check"] = run("check", log, f"--{name}", side, code=None)
    results = tmp_path / "broken"
    results.mkdir()
    for text in (
        f'{{"schema_version": 2, "x": "{TEXTS["prompt"]}"}}',
        f'{{"schema_version": "{IDS["account_id"]}"}}',
        TEXTS["prompt"],
    ):
        (results / "findings.json").write_text(text)
        for args in (
            ["explain", results, "g-1"],
            ["guard", "snapshot", results, "--out", tmp_path / "s"],
            ["retain", "show", results],
        ):
            said[f"{args[0]} {len(said)}"] = run(*args, code=None)
    keys = tmp_path / "keys.csv"
    keys.write_text(f"account_id,key\n{IDS['account_id']},{IDS['key_id']}\n{IDS['account_id']}\n")
    said["keys"] = run("guard", "snapshot", results, "--out", tmp_path / "s", "--keys", keys, code=None)
    for name, text in (
        ("decisions", f'{{"number": 0, "account": "{IDS["account_id"]}"}}'),
        ("ring", f'{{"keys": "{IDS["key_id"]}"}}'),
    ):
        (tmp_path / name).write_text(text)
    said["decisions"] = run("guard", "decisions", "--decisions", tmp_path / "decisions", code=5)
    said["ring"] = run("keys", "list", tmp_path / "ring", code=3)
    (tmp_path / "audit").write_text(TEXTS["prompt"] * 99)
    said["log"] = run("log", "verify", tmp_path / "audit", code=5)
    assert leaks(said.items(), ALL) == []


@pytest.fixture
def committed(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log that holds the planted scan; made here if the first test was not run."""
    monkeypatch.setenv("STILLWATCH_GUARD_SECRET", SECRET)
    log, key = world.folder / "audit.log", world.folder / "audit.pem"
    if not log.exists():
        run("log", "init", log, "--key", key, "--new-key")
    if not world.results.exists():
        run("scan", world.folder / "log", "--out", world.results)
    run("log", "take", log, world.results, "--key", key)
    return log


def _campaign(world: World) -> str:
    rows = read_results(world.results).accounts.to_pylist()
    return next(
        r["campaign_id"] for r in rows if r["account_id"] in world.members and r["verdict"] == "campaign"
    )


@pytest.mark.slow
def test_no_export_names_anybody(world: World, committed: Path, run: Run, tmp_path: Path) -> None:
    ring, campaign, out = tmp_path / "ring.json", _campaign(world), tmp_path / "out"
    out.mkdir()
    assert run("keys", "init", ring)
    said: dict[str, bytes] = {}
    with_log = ["--log", committed, "--log-key", world.folder / "audit.pem"]
    shared = [
        "share", campaign, "--results", world.results, "--keys", ring, "--partner", "b.example", "--tlp", "amber",
        "--confidence", "80", "--expires", "2030-01-01T00:00:00Z", *with_log,
    ]  # fmt: skip
    for form in FORMATS:
        said[form] = run(*shared, "--format", form, "--out", out / f"shared-{form}")
        back = ["--revoked", "--at", "2029-01-01T00:00:00Z"]
        said[f"{form} back"] = run(*shared, "--format", form, "--out", out / f"back-{form}", *back)
    assert len(list(out.iterdir())) == 2 * len(FORMATS) > 8
    said["bundle"] = run(
        "evidence", "build", campaign, "--results", world.results, "--inputs", world.folder / "log", "--log",
        committed, "--keys", ring, "--key", world.folder / "audit.pem", "--out", out / "bundle.zip",
        "--partner", "b.example",
    )  # fmt: skip
    said["verify"] = run("evidence", "verify", out / "bundle.zip")
    said["population"] = run("population", world.results, "--out", out / "population", "--internal")
    run("keys", "rotate", ring, "--purpose", "fingerprint", "--partner", "b.example")
    to_partner = ["--partner", "b.example", "--keys", ring, "--key", world.folder / "audit.pem"]
    said["feed"] = run(
        "intel", "export", world.results, *to_partner, "--out", out / "feed.json", "--tlp", "amber",
        "--confidence", "80",
    )  # fmt: skip
    said["question"] = run(
        "intel",
        "psi",
        "offer",
        world.results,
        *to_partner,
        "--out",
        out / "question",
        "--state",
        out / "state",
    )
    said["show"] = run("log", "show", committed, "--last", "9999")
    packed = [place for place, _ in everything_in(out) if "bundle.zip > " in place]
    assert len(packed) > 5
    assert leaks(said.items(), ALL) == []
    assert leaks(everything_in(out), ALL) == []
    assert leaks(unpacked("audit.log", committed.read_bytes()), ALL) == []
    # What is asked for by name is there: the same search finds it.
    raw = run(*shared, "--format", "decisions", "--out", out / "raw", "--show-accounts")
    assert b"accounts by their own ids" in raw
    assert {secret for _, secret, _ in leaks(everything_in(out / "raw"), ALL)} == {IDS["account_id"]}


@pytest.mark.slow
def test_an_appeal_tells_of_nobody_else_and_the_log_of_nobody(
    world: World, committed: Path, run: Run, tmp_path: Path
) -> None:
    ring, note, pem = tmp_path / "ring.json", tmp_path / "note.txt", world.folder / "audit.pem"
    run("keys", "init", ring)
    note.write_text(f"{TEXTS['response']}: {world.members[0]} at {IDS['ip']} showed it.")
    mine, others = world.members[0], world.members[1:]
    told = run("appeal", "show", mine, "--results", world.results, "--only", "told", "--json")
    assert leaks([("told", told)], [*NO_ACCOUNT, *others]) == []
    review = run("appeal", "show", mine, "--results", world.results, "--only", "review", "--json")
    assert leaks([("review", review)], [*NO_ACCOUNT, *others]) == []
    decided = run(
        "appeal", "decide", mine, "--outcome", "reversed", "--reason-code", "evaluation", "--results", world.results,
        "--note-file", note, "--key", pem, "--appeals", tmp_path / "appeals.jsonl", "--keys", ring,
        "--log", committed, "--log-key", pem,
    )  # fmt: skip
    shown = run("log", "show", committed, "--last", "2")
    assert b"appeal_reversal" in shown
    public = run("appeal", "list", "--appeals", tmp_path / "appeals.jsonl", "--public")
    places = [
        ("decided", decided),
        ("shown", shown),
        ("public", public),
        *unpacked("log", committed.read_bytes()),
    ]
    assert leaks(places, ALL) == []
