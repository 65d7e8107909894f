"""Scoring: a detector's result files against the truth of a made scenario. Nothing else is read.

An account is *flagged* when it is a member row of a group with verdict `campaign`. Intervals are
Clopper-Pearson (Clopper and Pearson 1934, Biometrika 26:404).
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import beta

from stillwatch.schema.errors import ResultError, Where

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Proportion:
    """`hits` of `total`, its exact 95 % interval and one-sided 95 % upper bound; 0 of 0 has no value."""

    hits: int
    total: int
    value: float | None
    low: float
    high: float
    upper_bound: float


@dataclass(frozen=True)
class FalseCampaign:
    """A group named a campaign of whose accounts less than half are attackers."""

    group_id: str
    accounts: int
    attackers: int
    kinds: dict[str, int]


@dataclass(frozen=True)
class Score:
    """How a detector did on one log. Every count is of accounts unless the name says groups."""

    precision: Proportion
    recall: Proportion
    recall_by_operation: dict[str, Proportion]
    false_positives_by_kind: dict[str, Proportion]
    false_positives: Proportion
    campaigns: int
    false_campaigns: tuple[FalseCampaign, ...]
    leads: int
    honest_in_leads: Proportion
    """Honest accounts in any lead, of all honest accounts."""
    lead_precision: Proportion
    lead_recall_rest: Proportion
    """Attackers in leads, of those in no campaign."""
    lead_recall: Proportion
    """Attackers in leads, of all attackers."""
    campaign_or_lead_recall: Proportion
    cleared_imitators: dict[str, int]
    """Accounts of each imitating operation in groups with verdict `cleared`."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def proportion(hits: int, total: int) -> Proportion:
    """Exact interval of a proportion. With no trials the interval is [0, 1] and the value is None."""
    if total == 0:
        return Proportion(hits, total, None, 0.0, 1.0, 1.0)
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, total - hits + 1))
    high = 1.0 if hits == total else float(beta.ppf(1 - tail, hits + 1, total - hits))
    bound = 1.0 if hits == total else float(beta.ppf(CONFIDENCE, hits + 1, total - hits))
    return Proportion(hits, total, hits / total, low, high, bound)


def score(results: Path, truth: Path) -> Score:
    """Compare a results folder (`findings.json`, `accounts.parquet`) with a `truth` folder.

    `truth` may also be the log folder that holds it. Raises ResultError where a file is missing or damaged.
    """
    verdicts = verdicts_of(results)
    rows = _columns(results / "accounts.parquet", ("account_id", "campaign_id"))
    folder = truth if (truth / "accounts.parquet").exists() and truth.name == "truth" else truth / "truth"
    if not (folder / "accounts.parquet").exists():
        folder = truth
    labels = _columns(folder / "accounts.parquet", ("account_id", "kind", "operation"))
    kind = dict(zip(labels["account_id"], labels["kind"], strict=True))
    operation = {
        a: o for a, o in zip(labels["account_id"], labels["operation"], strict=True) if o is not None
    }
    members: dict[str, set[str]] = defaultdict(set)
    for account, group in zip(rows["account_id"], rows["campaign_id"], strict=True):
        if group not in verdicts:
            raise ResultError(
                "accounts.parquet names a group that findings.json lacks",
                where=Where(file="accounts.parquet"),
            )
        if account not in kind:
            raise ResultError(
                "accounts.parquet names an account that the truth lacks",
                where=Where(file="accounts.parquet"),
                hint="score results only against the truth of the log that was scanned",
            )
        members[group].add(account)
    return _score(verdicts, members, kind, operation)


def _score(
    verdicts: dict[str, str], members: dict[str, set[str]], kind: dict[str, str], operation: dict[str, str]
) -> Score:
    by_verdict: dict[str, set[str]] = {"campaign": set(), "lead": set(), "cleared": set()}
    for group, verdict in verdicts.items():
        by_verdict[verdict] |= members[group]
    flagged, led, cleared = by_verdict["campaign"], by_verdict["lead"], by_verdict["cleared"]
    attackers = {a for a, k in kind.items() if k == "attack"}
    honest = set(kind) - attackers
    per_operation: dict[str, set[str]] = defaultdict(set)
    for account, name in operation.items():
        per_operation[name].add(account)
    per_kind: dict[str, set[str]] = defaultdict(set)
    for account in honest:
        per_kind[kind[account]].add(account)
    false = []
    for group in sorted(verdicts):
        inside = members[group]
        hits = len(inside & attackers)
        if verdicts[group] == "campaign" and 2 * hits < max(1, len(inside)):
            false.append(
                FalseCampaign(
                    group, len(inside), hits, dict(sorted(Counter(kind[a] for a in inside).items()))
                )
            )
    rest = attackers - flagged
    return Score(
        precision=proportion(len(flagged & attackers), len(flagged)),
        recall=proportion(len(flagged & attackers), len(attackers)),
        recall_by_operation={
            o: proportion(len(per_operation[o] & flagged), len(per_operation[o]))
            for o in sorted(per_operation)
        },
        false_positives_by_kind={
            k: proportion(len(per_kind[k] & flagged), len(per_kind[k])) for k in sorted(per_kind)
        },
        false_positives=proportion(len(honest & flagged), len(honest)),
        campaigns=sum(v == "campaign" for v in verdicts.values()),
        false_campaigns=tuple(false),
        leads=sum(v == "lead" for v in verdicts.values()),
        honest_in_leads=proportion(len(honest & led), len(honest)),
        lead_precision=proportion(len(led & attackers), len(led)),
        lead_recall_rest=proportion(len(led & rest), len(rest)),
        lead_recall=proportion(len(led & attackers), len(attackers)),
        campaign_or_lead_recall=proportion(len((led | flagged) & attackers), len(attackers)),
        cleared_imitators={
            o: len(per_operation[o] & cleared) for o in sorted(per_operation) if o.startswith("imitate_")
        },
    )


def verdicts_of(results: Path) -> dict[str, str]:
    """Verdict of each group of a results folder. ResultError where `findings.json` is missing or damaged."""
    path = results / "findings.json"
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))["groups"]
        found = {str(g["id"]): str(g["verdict"]) for g in groups}
    except FileNotFoundError as error:
        raise ResultError("the results folder has no findings.json", where=Where(file=path.name)) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultError(
            "findings.json is damaged", where=Where(file=path.name), hint="scan again"
        ) from error
    strange = sorted(set(found.values()) - {"campaign", "lead", "cleared"})
    if strange:
        raise ResultError(
            f"findings.json uses unknown verdicts: {', '.join(strange)}", where=Where(file=path.name)
        )
    return found


def _columns(path: Path, names: tuple[str, ...]) -> dict[str, list[Any]]:
    try:
        table = pq.read_table(path, columns=list(names), partitioning=None)
    except (OSError, pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise ResultError(
            "a table is missing or damaged", where=Where(file=path.name), hint="scan or make it again"
        ) from error
    missing = [n for n in names if n not in table.column_names]
    if missing:
        raise ResultError("a table lacks a column", where=Where(file=path.name, column=missing[0]))
    return {name: table[name].to_pylist() for name in names}


def render(result: Score) -> str:
    """The score of one log as plain text."""
    lines = [
        f"campaigns {result.campaigns}, of them false {len(result.false_campaigns)}; leads {result.leads}",
        _line("precision (campaign)", result.precision),
        _line("recall (campaign)", result.recall),
        _line("honest accounts in leads", result.honest_in_leads),
        _line("lead precision", result.lead_precision),
        _line("lead recall, not in campaigns", result.lead_recall_rest),
        _line("lead recall, all", result.lead_recall),
        _line("campaign or lead recall", result.campaign_or_lead_recall),
        "",
        "recall by operation",
        *(_line("  " + name, p) for name, p in result.recall_by_operation.items()),
        "",
        "false positives by kind (upper: one-sided 95 %)",
        *(_line("  " + name, p, upper=True) for name, p in result.false_positives_by_kind.items()),
        _line("  all honest accounts", result.false_positives, upper=True),
    ]
    if result.false_campaigns:
        lines += ["", "false campaigns"]
        for group in result.false_campaigns:
            kinds = ", ".join(f"{k} {n}" for k, n in group.kinds.items())
            lines.append(
                f"  {group.group_id}: {group.accounts} accounts, {group.attackers} attackers ({kinds})"
            )
    if result.cleared_imitators:
        lines += [
            "",
            "imitators cleared (accounts)",
            *(f"  {n:<30} {c}" for n, c in result.cleared_imitators.items()),
        ]
    return "\n".join(lines) + "\n"


def _line(name: str, p: Proportion, *, upper: bool = False) -> str:
    value = "  n/a " if p.value is None else f"{p.value:6.3f}"
    bound = f"  upper {p.upper_bound:.4f}" if upper else ""
    return f"{name:<32} {value}  [{p.low:.3f}, {p.high:.3f}]  {p.hits}/{p.total}{bound}"
