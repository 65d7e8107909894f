"""An adversary that knows the detector: a search over an operation's parameters for the cheapest way past it.

The price of an operation is accounts times days for a million harvested exchanges that nobody acted on: what the
accounts in campaigns asked counts for nothing. Search: tree-structured Parzen estimator (Bergstra et al. 2011,
"Algorithms for hyper-parameter optimization"), by optuna. The cheapest settings are then priced again on logs that
the search has not seen, because the best of many draws is partly luck.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stillwatch.arena.board.method import Run
from stillwatch.arena.board.truth import read_truth
from stillwatch.arena.make import make
from stillwatch.schema.errors import MissingExtraError, OutputError, UsageError, Where

MILLION = 1_000_000
LOG_DAYS = 14
SEEN = {"campaign": ("campaign",), "lead": ("campaign", "lead")}
"""Verdicts that stop an account, by what the adversary wants to get past."""
OPERATIONS = ("mixing_50", "serve_and_harvest", "instruction_sweep", "injected_line", "worst_case")
BARELY = 0.5
"""Exchanges that are put down for an operation of which nothing got past: a price must be finite to be compared."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One parameter's range; `log` for those that matter by factors, `whole` for counts."""

    low: float
    high: float
    log: bool = False
    whole: bool = False


AXES: Mapping[str, Axis] = {
    "size": Axis(20, 120, log=True, whole=True),
    "requests_per_account": Axis(3, 200, log=True),
    "cover": Axis(0.0, 0.95),
    "templates": Axis(1, 12, log=True, whole=True),
    "variants": Axis(1, 60, log=True, whole=True),
    "obfuscate": Axis(0.0, 1.0),
    "clean": Axis(0.0, 1.0),
    "blocks_per_account": Axis(0.1, 3.0, log=True),
    "payments_per_account": Axis(0.1, 1.0, log=True),
    "own_payment": Axis(0.0, 1.0),
    "disposable": Axis(0.0, 1.0),
    "virtual": Axis(0.0, 1.0),
    "batch": Axis(1, 20, log=True, whole=True),
    "duty": Axis(0.0, 1.0),
}
"""What the adversary may choose, within what the arena can compose in a log of a few thousand accounts."""


@dataclass(frozen=True, slots=True)
class Priced:
    """One operation and what it cost. `seen` are the groups with three or more of its accounts."""

    operation: str
    settings: dict[str, float]
    seed: int
    accounts: int
    exchanges: int
    harvest: int
    free: int
    """Harvested exchanges of accounts that nobody acted on."""
    price: float
    """Account-days for a million harvested exchanges that got past."""
    blocks: int
    payments: int
    seen: list[dict[str, Any]]


def price(
    run: Run,
    operation: str,
    settings: Mapping[str, float],
    *,
    seed: int,
    accounts: int,
    past: str = "campaign",
    corpora: Path | None = None,
    traces: Path | None = None,
) -> Priced:
    """Compose one operation among honest accounts, run the detector, and say what got past."""
    with tempfile.TemporaryDirectory(prefix="stillwatch-adversary-") as folder:
        log, out = Path(folder) / "log", Path(folder) / "out"
        make(
            "field",
            log,
            seed=seed,
            accounts=accounts,
            exchanges=25 * accounts,
            corpora=corpora,
            traces=traces,
            operation=operation,
            settings={name: str(value) for name, value in settings.items()},
        )
        out.mkdir()
        run(log, out)
        results, truth = out / "all", read_truth(log)
        groups = json.loads((results / "findings.json").read_text(encoding="utf-8"))["groups"]
        placed = pq.read_table(
            results / "accounts.parquet", columns=["account_id", "campaign_id"]
        ).to_pylist()
    verdicts = {group["id"]: group for group in groups}
    (planned,) = truth.operations
    mine = set(planned.members)
    inside: dict[str, set[str]] = defaultdict(set)
    for row in placed:
        if row["account_id"] in mine:
            inside[row["campaign_id"]].add(row["account_id"])
    stopped = {a for g, found in inside.items() if verdicts[g]["verdict"] in SEEN[past] for a in found}
    exchanges, harvest = truth.of(planned.members)
    free = truth.of(tuple(mine - stopped))[1]
    return Priced(
        operation,
        dict(settings),
        seed,
        len(mine),
        exchanges,
        harvest,
        free,
        len(mine) * LOG_DAYS * MILLION / max(free, BARELY),
        int(planned.parameters.get("blocks", 0)),
        int(planned.parameters.get("payments", 0)),
        [_seen(verdicts[g], len(found)) for g, found in sorted(inside.items()) if len(found) >= 3],
    )


def _seen(group: Mapping[str, Any], accounts: int) -> dict[str, Any]:
    """What a result says of a group: its verdict, the kinds of evidence that count, the claims that hold."""
    kinds = {e["kind"] for e in group["evidence"] if (e.get("bits") or 0) > 0}
    claims = [c["name"] for c in group["claims"] if c["holds"]]
    return {"verdict": group["verdict"], "accounts": accounts, "evidence": sorted(kinds), "claims": claims}


def search(
    run: Run,
    *,
    trials: int,
    accounts: int = 3_000,
    seed: int = 0,
    past: str = "campaign",
    confirm: Sequence[int] = (),
    best: int = 4,
    journal: Path | None = None,
    corpora: Path | None = None,
    traces: Path | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Search `trials` operations, then price the `best` settings anew on the seeds `confirm`.

    Trials are kept in `journal` (JSON lines), so that a search goes on. Raises MissingExtraError without optuna.
    """
    if past not in SEEN:
        raise UsageError(f"there is no verdict {past!r} to get past", hint=f"choose {' or '.join(SEEN)}")
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingExtraError("optuna", "adversary", needed_for="the search of an adversary") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = _space(optuna)
    done = _earlier(journal)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed + len(done), multivariate=True))
    for old in done:
        study.add_trial(
            optuna.trial.create_trial(
                params={"operation": old.operation, **old.settings},
                distributions=space,
                value=math.log10(old.price),
            )
        )
    for number in range(len(done), trials):
        trial = study.ask(space)
        chosen = dict(trial.params)
        operation = str(chosen.pop("operation"))
        found = price(
            run, operation, chosen, seed=seed * 1000 + number, accounts=accounts, past=past, corpora=corpora,
            traces=traces,
        )  # fmt: skip
        study.tell(trial, math.log10(found.price))
        done.append(found)
        if journal is not None:
            with journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(found)) + "\n")
        say(f"[{number + 1}/{trials}] {operation}: {found.price:,.0f} account-days, {_words(found)}")
    ranked = sorted(done, key=lambda p: p.price)[:best]
    confirmed = []
    for leader in ranked:
        again = [
            price(
                run, leader.operation, leader.settings, seed=s, accounts=accounts, past=past, corpora=corpora,
                traces=traces,
            )
            for s in confirm
        ]  # fmt: skip
        for found in again:
            say(
                f"again, seed {found.seed}: {leader.operation}: {found.price:,.0f} account-days, {_words(found)}"
            )
        confirmed.append({"first": asdict(leader), "again": [asdict(found) for found in again]})
    return {"past": past, "accounts": accounts, "trials": [asdict(p) for p in done], "best": confirmed}


def _earlier(journal: Path | None) -> list[Priced]:
    if journal is None or not journal.exists():
        return []
    found = []
    for number, line in enumerate(journal.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(Priced(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise OutputError(
                "a trial of an earlier search cannot be read",
                where=Where(file=journal.name, row=number),
                hint="remove this line; the search goes on from the others",
            ) from error
    return found


def _space(optuna: Any) -> dict[str, Any]:
    space: dict[str, Any] = {"operation": optuna.distributions.CategoricalDistribution(OPERATIONS)}
    for name, axis in AXES.items():
        if axis.whole:
            space[name] = optuna.distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
        else:
            space[name] = optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.log)
    return space


def _words(found: Priced) -> str:
    if not found.seen:
        return f"{found.accounts} accounts, nothing seen"
    groups = ", ".join(
        f"{g['verdict']} of {g['accounts']} ({' '.join(g['evidence'])})" for g in found.seen[:3]
    )
    return f"{found.accounts} accounts: {groups}"


def search_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Rows for the cheapest settings: first price, prices on new seeds, what was bought, what is given up."""
    out = []
    for entry in found["best"]:
        first, again = entry["first"], entry["again"]
        seen = [g for p in (first, *again) for g in p["seen"]]
        kinds = sorted({kind for g in seen for kind in g["evidence"]})
        verdicts = sorted({g["verdict"] for g in seen})
        out.append(
            [
                first["operation"],
                f"{first['price']:,.0f}",
                ", ".join(f"{p['price']:,.0f}" for p in again),
                f"{first['accounts']} / {first['blocks']} / {first['payments']}",
                f"{first['exchanges'] / first['accounts']:.0f}",
                f"{first['harvest'] / max(1, first['exchanges']):.0%}",
                " ".join(verdicts) or "nothing",
                " ".join(kinds) or "none",
            ]
        )
    return out


HEAD = (
    "operation",
    "account-days",
    "on new seeds",
    "accounts / blocks / cards",
    "requests an account",
    "harvest",
    "what is seen",
    "evidence left",
)
