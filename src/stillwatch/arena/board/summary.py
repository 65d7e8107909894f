"""From the numbers of single runs to the scoreboard: means over seeds with intervals, pooled proportions."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy import stats

from stillwatch.arena.score import CONFIDENCE, Proportion, proportion

FOUND = 0.5
"""Share of an operation's accounts in campaigns from which it counts as found."""
SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Upper ends of the bins of harvest share."""
NOMINAL = 0.10
"""Expected share of false groups among those named that a scan promises."""
Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean over seeds and its 95 % interval (Student's t); the interval is None for a single seed."""

    value: float | None
    low: float | None
    high: float | None
    each: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One method, with one setting, on the seeds of one scenario and size."""

    scenario: str
    group: str
    accounts: int
    operation: str
    method: str
    setting: str
    seeds: tuple[int, ...]
    precision: Mean
    recall: Mean
    lead_or_campaign: Mean
    false_accounts: Proportion
    """Honest accounts in campaigns, pooled."""
    honest_in_leads: Proportion
    campaigns: int
    false_campaigns: int
    seeds_with_false_campaign: int
    leads_per_10000: float
    operations: int
    operations_found: int
    pieces: float | None
    """Campaigns an operation that was found."""
    streams: tuple[float | None, float | None]
    """Precision and recall of the exchanges that are attributed to campaigns' own requests."""
    cleared_imitators: int
    wall_s: float
    peak_memory_mib: int


def mean(values: Iterable[float | None]) -> Mean:
    """Mean of what is known."""
    each = tuple(values)
    known = [v for v in each if v is not None]
    if not known:
        return Mean(None, None, None, each)
    middle = sum(known) / len(known)
    if len(known) < 2:
        return Mean(middle, None, None, each)
    error = math.sqrt(sum((v - middle) ** 2 for v in known) / (len(known) - 1) / len(known))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(known) - 1)) * error
    return Mean(middle, max(0.0, middle - reach), min(1.0, middle + reach), each)


def pooled(parts: Iterable[dict[str, Any]]) -> Proportion:
    """One proportion of several."""
    hits = total = 0
    for part in parts:
        hits, total = hits + part["hits"], total + part["total"]
    return proportion(hits, total)


def summarise(rows: Rows, main: str) -> dict[str, Any]:
    """The scoreboard as plain values. `main` is the method whose errors are looked at closely."""
    plain = [row for row in rows if "@" not in row["method"]]
    ours = [row for row in plain if row["method"] == main and row["failure"] is None]
    default = [(row, row["settings"]["all"]) for row in ours if "all" in row["settings"]]
    lines = _lines(plain)
    return {
        "main": main,
        "versions": _count(row["version"] for row in rows),
        "about": {row["method"]: row["about"] for row in plain},
        "lines": [asdict(line) for line in lines],
        "operations": _operations(default),
        "shares": _shares(default),
        "lookalikes": _lookalikes(default),
        "wrong": [
            {"cell": row["cell"]["name"], **one} for row, part in default for one in part.get("wrong", ())
        ],
        "curve": _curve(lines),
        "false_groups": _false_groups(lines, main),
        "found": _found([row for row in rows if row["method"] == f"{main}@found"]),
        "failures": [
            {"cell": row["cell"]["name"], "method": row["method"], "failure": row["failure"]}
            for row in rows
            if row["failure"] is not None
        ],
    }


def _is_found(operation: dict[str, Any]) -> bool:
    return bool(operation["named"] >= FOUND * operation["accounts"])


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _lines(rows: Rows) -> list[Line]:
    cells: dict[tuple[str, str, str], list[tuple[dict[str, Any], dict[str, Any]]]] = defaultdict(list)
    for row in rows:
        for setting, found in row["settings"].items():
            cells[row["cell"]["group"], row["method"], setting].append((row, found))
    return [
        _line(group, method, setting, sorted(found, key=lambda pair: pair[0]["cell"]["seed"]))
        for (group, method, setting), found in sorted(cells.items())
    ]


def _line(group: str, method: str, setting: str, found: list[tuple[dict[str, Any], dict[str, Any]]]) -> Line:
    cell = found[0][0]["cell"]
    scores = [part["score"] for _, part in found]
    operations = [o for _, part in found for o in part["operations"]]
    seen = [o for o in operations if _is_found(o)]
    streams = [part["streams"] for _, part in found if part["streams"] is not None]
    hits, attributed, harvested = (sum(s[k] for s in streams) for k in ("hits", "attributed", "harvested"))
    accounts = sum(s["false_positives"]["total"] + s["recall"]["total"] for s in scores)
    return Line(
        cell["scenario"],
        group,
        cell["accounts"],
        cell["operation"],
        method,
        setting,
        tuple(row["cell"]["seed"] for row, _ in found),
        mean(s["precision"]["value"] for s in scores),
        mean(s["recall"]["value"] for s in scores),
        mean(s["campaign_or_lead_recall"]["value"] for s in scores),
        pooled(s["false_positives"] for s in scores),
        pooled(s["honest_in_leads"] for s in scores),
        sum(s["campaigns"] for s in scores),
        sum(len(s["false_campaigns"]) for s in scores),
        sum(bool(s["false_campaigns"]) for s in scores),
        10_000 * sum(s["leads"] for s in scores) / max(1, accounts),
        len(operations),
        len(seen),
        sum(o["pieces"] for o in seen) / len(seen) if seen else None,
        (hits / attributed if attributed else None, hits / harvested if harvested else None),
        sum(sum(s["cleared_imitators"].values()) for s in scores),
        sum(row["wall_s"] for row, _ in found) / len(found),
        max(row["peak_memory_mib"] for row, _ in found),
    )


Pair = tuple[dict[str, Any], dict[str, Any]]


def _operations(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Recall of each operation, for each scenario and size."""
    table: dict[tuple[str, str], dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row, part in pairs:
        for o in part["operations"]:
            table[row["cell"]["group"], o["operation"]][row["cell"]["seed"]].append(o)
    out = []
    for (group, operation), seeds in sorted(table.items()):
        every = [o for found in seeds.values() for o in found]
        total = sum(o["accounts"] for o in every)
        out.append(
            {
                "group": group,
                "operation": operation,
                "named": asdict(proportion(sum(o["named"] for o in every), total)),
                "led": sum(o["led"] for o in every),
                "cleared": sum(o["cleared"] for o in every),
                "found": sum(_is_found(o) for o in every),
                "of": len(every),
                "each": {
                    str(seed): [sum(o[k] for o in found) for k in ("named", "led", "accounts")]
                    for seed, found in sorted(seeds.items())
                },
            }
        )
    return out


def _shares(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Recall by the share of an operation's requests that are harvest, over all scenarios."""
    bins: dict[float, list[dict[str, Any]]] = defaultdict(list)
    for _, part in pairs:
        for o in part["operations"]:
            if o["cover"] is None:
                continue
            share = 1 - o["cover"]
            bins[min(s for s in SHARES if share <= s + 1e-9)].append(o)
    return [
        {
            "up_to": end,
            "operations": len(found),
            "found": sum(_is_found(o) for o in found),
            "named": asdict(proportion(sum(o["named"] for o in found), sum(o["accounts"] for o in found))),
        }
        for end, found in sorted(bins.items())
    ]


def _lookalikes(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Honest accounts in campaigns by kind, pooled over everything that was measured."""
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for _, part in pairs:
        for kind, found in part["score"]["false_positives_by_kind"].items():
            kinds[kind].append(found)
    everything = [found for parts in kinds.values() for found in parts]
    rows = [{"kind": kind, **asdict(pooled(parts))} for kind, parts in sorted(kinds.items())]
    return [*rows, {"kind": "all", **asdict(pooled(everything))}] if rows else []


def _curve(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Precision and recall against population size, where a scenario was measured at several sizes."""
    sizes: dict[str, set[int]] = defaultdict(set)
    for line in lines:
        if not line.operation:
            sizes[line.scenario].add(line.accounts)
    return [
        {
            "scenario": line.scenario,
            "accounts": line.accounts,
            "method": line.method,
            "precision": asdict(line.precision),
            "recall": asdict(line.recall),
        }
        for line in sorted(lines, key=lambda one: (one.scenario, one.method, one.accounts))
        if line.setting == "all" and not line.operation and len(sizes[line.scenario]) > 1
        and line.precision.value is not None
    ]  # fmt: skip


def _false_groups(lines: Sequence[Line], main: str) -> list[dict[str, Any]]:
    """Nominal against achieved: false groups among those named, in each setting, over all logs."""
    out = []
    settings = dict.fromkeys(line.setting for line in lines if line.method == main)
    for setting in settings:
        mine = [line for line in lines if line.method == main and line.setting == setting]
        named, false = sum(line.campaigns for line in mine), sum(line.false_campaigns for line in mine)
        logs = sum(len(line.seeds) for line in mine)
        out.append(
            {
                "setting": setting,
                "nominal": NOMINAL,
                "logs": logs,
                "achieved": asdict(proportion(false, named)),
            }
        )
    return out


def _found(rows: Rows) -> list[dict[str, Any]]:
    """For each operation the first cut at which most of its accounts so far are named, and what it had taken."""
    out = []
    for row in rows:
        if not row["cuts"]:
            continue
        whole = {o["group"]: o for o in row["cuts"][-1]["operations"]}
        for group, end in sorted(whole.items()):
            when = None
            for one in row["cuts"]:
                now = {o["group"]: o for o in one["operations"]}.get(group)
                if now is not None and _is_found(now):
                    when = {"days": one["days"], "exchanges": now["exchanges"], "accounts": now["accounts"]}
                    break
            out.append(
                {
                    "cell": row["cell"]["name"],
                    "operation": end["operation"],
                    "accounts": end["accounts"],
                    "exchanges": end["exchanges"],
                    "found": when,
                    "share": None if when is None else when["exchanges"] / max(1, end["exchanges"]),
                }
            )
    return out
