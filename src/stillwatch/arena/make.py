"""`make`: one scenario to one folder."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.arena.compose import Composed, account_codes, compose
from stillwatch.arena.field import EVERY_OPERATION, SCENARIO_OPERATIONS
from stillwatch.arena.infrastructure import make_network, make_stacks
from stillwatch.arena.population import populate
from stillwatch.arena.sessions import draw_sessions
from stillwatch.arena.text import BuiltinText, TextSource
from stillwatch.arena.timing import DAY_US, Bursts
from stillwatch.arena.world import LOG_HOURS, World
from stillwatch.schema.errors import OutputError, UsageError, Where, unwritable
from stillwatch.schema.tables import ACCOUNTS, RELEASES, SANCTIONS

SCENARIOS = {
    "null": (20_000, 500_000),
    "mixed": (20_000, 500_000),
    "demo": (4_000, 60_000),
    "field": (20_000, 500_000),
    "wide": (20_000, 500_000),
    "september": (12_000, 360_000),
}
"""Default accounts and exchanges of each scenario."""
_STREAM_OF_DRAWS = {"demo": 0, "mixed": 1, "null": 2, "field": 3, "wide": 4, "september": 5}
"""Fixed numbers: a scenario that is added later must not change what the others draw."""

_EPOCH_DAY = 20_454
"""First day of the earliest log, in days since 1970 (January 2026)."""

CORPORA_VARIABLE = "STILLWATCH_CORPORA"


@dataclass(frozen=True)
class MakeSummary:
    """What was written. Counts are rows, `kinds` and `operations` count accounts.

    `duplicate_share` is the share of individuals' exchanges whose exact prompt another account sent too.
    """

    scenario: str
    seed: int
    accounts: int
    exchanges: int
    attackers: int
    harvest: int
    kinds: dict[str, int]
    operations: dict[str, int]
    duplicate_share: float


def make(
    scenario: str,
    out: Path,
    *,
    seed: int = 0,
    accounts: int | None = None,
    exchanges: int | None = None,
    corpora: Path | None = None,
    traces: Path | None = None,
    operation: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> MakeSummary:
    """Generate a synthetic log with its truth into `out` (created with mode 0700, in one step).

    `scenario`: `null` (honest only), `mixed` (with operations), `demo` (small, built-in text only), `field`
    (more look-alikes and operations), `wide` (all of them) or `september` (pools of one reseller). In `field` and
    `wide`, `operation` names one to stand alone, and `settings` replace its drawn parameters, as text by name.
    `corpora`: a Parquet file of reference texts (default: the environment variable STILLWATCH_CORPORA);
    without it the built-in grammar writes all text. `traces`: a folder with recorded serving rates.
    The same arguments give the same bytes. Raises UsageError and OutputError.
    """
    if scenario not in SCENARIOS:
        raise UsageError(f"there is no scenario {scenario!r}", hint=f"choose one of {', '.join(SCENARIOS)}")
    if operation is not None and operation not in SCENARIO_OPERATIONS.get(scenario, ()):
        raise UsageError(
            f"the scenario {scenario} cannot hold an operation {operation!r} alone",
            hint=f"the scenario wide can hold {', '.join(EVERY_OPERATION)}",
        )
    if settings and operation is None:
        raise UsageError("parameters can only be set for one operation", hint="name it with --operation")
    out = out.absolute()
    default_accounts, default_exchanges = SCENARIOS[scenario]
    n_accounts = default_accounts if accounts is None else accounts
    n_exchanges = default_exchanges if exchanges is None else exchanges
    if n_accounts < 200 or n_exchanges < n_accounts:
        raise UsageError("a scenario needs at least 200 accounts and one exchange per account")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(
            "the output folder exists and is not empty", where=Where(file=out.name), hint="name a new folder"
        )
    world = _world(scenario, seed, n_accounts, n_exchanges, _source(scenario, seed, corpora), traces)
    populate(world, operation, settings)
    composed = compose(world, draw_sessions(world))
    temporary = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir(mode=0o700)
        _write(world, composed, temporary)
        temporary.replace(out)
    except OSError as error:
        raise unwritable(error, str(out), "the log") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _summary(world, composed)


def _source(scenario: str, seed: int, corpora: Path | None) -> TextSource:
    path = corpora
    if path is None and os.environ.get(CORPORA_VARIABLE):
        path = Path(os.environ[CORPORA_VARIABLE])
    if path is None or scenario == "demo":
        return BuiltinText(seed)
    from stillwatch.arena.corpora import CorporaText

    return CorporaText(path, seed)


def _world(
    scenario: str, seed: int, accounts: int, exchanges: int, source: TextSource, traces: Path | None
) -> World:
    rng = np.random.default_rng([seed, _STREAM_OF_DRAWS[scenario]])
    day = _EPOCH_DAY + int(rng.integers(0, 200))
    start = day * DAY_US
    return World(
        seed=seed,
        scenario=scenario,
        start_us=start,
        first_weekday=(day + 3) % 7,
        rng=rng,
        source=source,
        network=make_network(rng, accounts),
        stacks=make_stacks(rng),
        bursts=Bursts(LOG_HOURS, traces),
        requested_accounts=accounts,
        requested_exchanges=exchanges,
        models=["atlas-small-2", "atlas-large-2", "atlas-code-1", "atlas-large-3"],
        release_us=start + int(rng.uniform(4, 9) * DAY_US),
    )


def _write(world: World, composed: Composed, folder: Path) -> None:
    codes = account_codes(world)
    by_code = sorted(range(len(codes)), key=codes.__getitem__)
    pq.write_table(composed.table, folder / "exchanges.parquet", compression="zstd", row_group_size=65_536)
    prefix = world.network.prefix

    def address(place: tuple[int, int] | None) -> str | None:
        return None if place is None else f"{prefix[place[0]]}{place[1]}"

    plan = [(codes[i], world.accounts[i]) for i in by_code]
    rows = [
        {
            "account_id": code, "entity_id": a.entity_id, "verified": a.verified, "created_at": a.created_us,
            "tier": a.tier, "program": a.program, "payment_fp": a.payment_fp, "payment_kind": a.payment_kind,
            "email_domain": a.email_domain, "signup_ip": address(a.signup_place), "device_fp": a.device_fp,
            "referral": a.referral, "contract": a.contract,
        }
        for code, a in plan
    ]  # fmt: skip
    _save(pa.Table.from_pylist(rows, schema=ACCOUNTS), folder / "accounts.parquet")
    sanctions = [
        {"ts": t, "account_id": codes[a], "kind": k, "reason": r} for t, a, k, r in composed.sanctions
    ]
    _save(pa.Table.from_pylist(sanctions, schema=SANCTIONS), folder / "sanctions.parquet")
    releases = [
        {"ts": world.start_us - 90 * DAY_US, "model": world.models[1], "origin": "own"},
        {"ts": world.release_us, "model": world.models[-1], "origin": "own"},
        {"ts": world.release_us + 2 * DAY_US, "model": "zephyr-9", "origin": "external"},
    ]
    _save(pa.Table.from_pylist(releases, schema=RELEASES), folder / "releases.parquet")
    truth = folder / "truth"
    truth.mkdir(mode=0o700)
    accounts = {
        "account_id": [code for code, _ in plan],
        "group_id": [None if a.group < 0 else f"g{a.group:05d}" for _, a in plan],
        "kind": [a.kind for _, a in plan],
        "operation": [a.operation for _, a in plan],
    }
    text = pa.string()
    _save(
        pa.table(accounts, schema=pa.schema([(name, text) for name in accounts])), truth / "accounts.parquet"
    )
    flags = pa.table({"exchange_id": composed.table["exchange_id"], "harvest": pa.array(composed.harvest)})
    _save(flags, truth / "exchanges.parquet")
    groups = {
        "group_id": [f"g{i:05d}" for i in range(len(world.groups))],
        "kind": [g["kind"] for g in world.groups],
        "operation": [g["operation"] for g in world.groups],
        "parameters": [json.dumps(g["parameters"], sort_keys=True) for g in world.groups],
    }
    _save(pa.table(groups, schema=pa.schema([(name, text) for name in groups])), truth / "groups.parquet")


def _save(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def _summary(world: World, composed: Composed) -> MakeSummary:
    kinds = Counter(a.kind for a in world.accounts)
    operations = Counter(a.operation for a in world.accounts if a.operation is not None)
    return MakeSummary(
        scenario=world.scenario,
        seed=world.seed,
        accounts=len(world.accounts),
        exchanges=composed.table.num_rows,
        attackers=kinds.get("attack", 0),
        harvest=int(composed.harvest.sum()),
        kinds=dict(sorted(kinds.items())),
        operations=dict(sorted(operations.items())),
        duplicate_share=duplicate_share(world, composed),
    )


def duplicate_share(world: World, composed: Composed) -> float:
    """Share of the exchanges of individuals whose exact prompt some other account sent too."""
    own = np.array([a.kind == "individual" for a in world.accounts])[composed.account]
    codes = composed.table["prompt"].combine_chunks().dictionary_encode().indices.to_numpy()
    pairs = np.unique(np.stack((codes, composed.account)), axis=1)
    holders = np.bincount(pairs[0], minlength=int(codes.max()) + 1)
    return float((holders[codes[own]] > 1).mean()) if own.any() else 0.0
