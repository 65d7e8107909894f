"""The measured tables of docs/detection.md, as Markdown, from what scripts/measure.py wrote.

python scripts/tables.py MIXED.jsonl NULL.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from stillwatch.arena.score import proportion

Rows = list[dict[str, Any]]


def read(path: str) -> Rows:
    """All lines, in the order of logs."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def seed(row: dict[str, Any]) -> str:
    """The number in a log's name."""
    return "".join(c for c in row["log"] if c.isdigit())


def interval(p: dict[str, Any]) -> str:
    """Value and exact 95 % interval."""
    return "n/a" if p["value"] is None else f"{p['value']:.3f} [{p['low']:.3f}, {p['high']:.3f}]"


def table(head: list[str], lines: list[list[str]]) -> str:
    """One Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows) + "\n"


def main() -> None:
    """Print every table."""
    everything, null = read(sys.argv[1]), read(sys.argv[2])
    mixed = [row for row in everything if row["setting"] == "all"]
    lines = []
    for row in mixed:
        s = row["score"]
        site = s["recall_by_operation"].get("imitate_classroom", {"total": 0, "hits": 0})
        hits, total = s["recall"]["hits"] - site["hits"], s["recall"]["total"] - site["total"]
        leads = s["honest_in_leads"]
        lines.append(
            [
                seed(row),
                interval(s["precision"]),
                interval(s["recall"]),
                f"{hits / total:.3f} ({hits}/{total})",
                str(s["campaigns"]),
                str(len(s["false_campaigns"])),
                f"{leads['hits']}/{leads['total']}",
                interval(s["campaign_or_lead_recall"]),
                str(sum(s["cleared_imitators"].values())),
            ]
        )
    head = ["seed", "precision", "recall", "recall without operations at one site", "campaigns", "false"]
    print(table([*head, "honest accounts in leads", "campaign or lead recall", "imitators cleared"], lines))
    names = sorted({o for row in mixed for o in row["score"]["recall_by_operation"]})
    lines = [
        [name]
        + [
            f"{row['score']['recall_by_operation'][name]['hits']}/{row['score']['recall_by_operation'][name]['total']}"
            for row in mixed
        ]
        for name in names
    ]
    print(table(["operation", *(f"seed {seed(row)}" for row in mixed)], lines))
    lines = []
    for kind in sorted({k for row in mixed for k in row["score"]["false_positives_by_kind"]}):
        found = [row["score"]["false_positives_by_kind"].get(kind) for row in (*mixed, *null)]
        hits, total = (sum(f[n] for f in found if f is not None) for n in ("hits", "total"))
        p = proportion(hits, total)
        lines.append([kind, f"{hits:,} of {total:,}", f"[{p.low:.6f}, {p.high:.6f}]", f"{p.upper_bound:.6f}"])
    honest = [row["score"]["false_positives"] for row in (*mixed, *null)]
    p = proportion(sum(h["hits"] for h in honest), sum(h["total"] for h in honest))
    lines.append(
        ["all honest", f"{p.hits:,} of {p.total:,}", f"[{p.low:.6f}, {p.high:.6f}]", f"{p.upper_bound:.6f}"]
    )
    print(table(["look-alike", "accounts in a campaign", "95 % interval", "one-sided upper bound"], lines))
    settings = list(dict.fromkeys(row["setting"] for row in everything))
    lines = []
    for name in settings:
        cells = []
        for row in everything:
            if row["setting"] == name:
                s = row["score"]
                p, r = s["precision"]["value"], s["recall"]["value"]
                cells.append(
                    f"{p:.3f} / {r:.3f} / {len(s['false_campaigns'])}"
                    if p is not None
                    else f"- / {r:.3f} / 0"
                )
        lines.append([name, *cells])
    print(table(["setting", *(f"seed {seed(row)}" for row in mixed)], lines))
    false = [row for row in null if row["score"]["false_campaigns"]]
    leads = [row["score"]["honest_in_leads"] for row in null]
    print(f"null: {len(null)} seeds, {len(false)} with a false campaign.")
    print(
        f"Honest accounts in leads: at most {max(lead['hits'] for lead in leads)} of 20,000 in a seed, ",
        end="",
    )
    print(f"{sum(lead['hits'] for lead in leads)} of {sum(lead['total'] for lead in leads):,} in all.\n")
    lines = []
    for row in mixed:
        for group in row["honest_in_campaigns"]:
            who = ", ".join(
                f"{h['kind']} (FORM {h['FORM']}, LINK {h['LINK']}, TIME {h['TIME']})" for h in group["honest"]
            )
            lines.append([seed(row), str(group["attackers"]), ", ".join(group["direct"]) or "all views", who])
    print(
        table(
            ["seed", "attackers in the group", "singled out by", "honest accounts in it, with their bits"],
            lines,
        )
    )
    peak = max(row["peak_memory_mib"] for row in mixed)
    print(f"Peak memory of the measuring process, six settings kept: {peak} MiB.")


if __name__ == "__main__":
    main()
