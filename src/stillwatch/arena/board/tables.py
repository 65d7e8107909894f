"""The scoreboard as Markdown: it reads well in a terminal and in a document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stillwatch.arena.board.adversary import HEAD, search_rows

Board = dict[str, Any]


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """One Markdown table, its columns padded to one width."""
    rows = [list(head), *([*line] for line in lines)]
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(head))]
    text = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    text.insert(1, "| " + " | ".join("-" * w for w in widths) + " |")
    return "\n".join(text) + "\n"


def number(value: float | None, digits: int = 3) -> str:
    """A plain number, or n/a."""
    return "n/a" if value is None else f"{value:.{digits}f}"


def spread(mean: dict[str, Any]) -> str:
    """Mean and interval over seeds."""
    if mean["low"] is None:
        return number(mean["value"])
    return f"{number(mean['value'])} [{number(mean['low'])}, {number(mean['high'])}]"


def of(part: dict[str, Any]) -> str:
    """Hits of a total."""
    return f"{part['hits']:,} of {part['total']:,}"


def markdown(board: Board) -> str:
    """Every table of the scoreboard that has rows."""
    parts = [
        ("Methods", _methods(board)),
        ("Operations, campaigns and requests", _wholes(board)),
        ("Recall by operation (accounts in campaigns; in brackets, those in leads)", _operations(board)),
        ("Recall by harvest share", _shares(board)),
        ("When an operation is found", _found(board)),
        ("Honest accounts in campaigns", _lookalikes(board)),
        ("Each honest account in a campaign, with its bits", _wrong(board)),
        ("Precision and recall against population size", _curve(board)),
        ("False groups among those named: promised and achieved", _false_groups(board)),
        *(
            (f"The cheapest ways past the verdict {a['past']}", search_table(a))
            for a in board.get("adversaries", ())
        ),
        ("Runs that failed", _failures(board)),
    ]
    text = [f"### {title}\n\n{body}" for title, body in parts if body]
    if len(board["versions"]) > 1:
        found = ", ".join(f"{name}: {count}" for name, count in board["versions"].items())
        text.append(
            f"Numbers of several versions stand side by side ({found}); --fresh measures all of them anew.\n"
        )
    return "\n".join(text)


def _methods(board: Board) -> str:
    lines = [
        [
            line["group"],
            line["method"] + ("" if line["setting"] == "all" else f", {line['setting']}"),
            str(len(line["seeds"])),
            spread(line["precision"]),
            spread(line["recall"]),
            number(line["lead_or_campaign"]["value"]),
            f"{of(line['false_accounts'])} (≤ {line['false_accounts']['upper_bound']:.5f})",
            f"{line['false_campaigns']} of {line['campaigns']}",
            number(line["honest_in_leads"]["value"], 4),
            f"{line['wall_s']:.0f}",
            f"{line['peak_memory_mib']:,}",
        ]
        for line in board["lines"]
    ]
    head = [
        "scenario",
        "method",
        "seeds",
        "precision",
        "recall",
        "or as a lead",
        "honest accounts in campaigns",
    ]
    return table([*head, "false campaigns", "honest in leads", "s", "MiB"], lines) if lines else ""


def _wholes(board: Board) -> str:
    lines = [
        [
            line["group"],
            line["method"],
            f"{line['operations_found']} of {line['operations']}",
            number(line["pieces"], 2),
            number(line["streams"][0]),
            number(line["streams"][1]),
            number(line["leads_per_10000"], 1),
            str(line["cleared_imitators"]),
        ]
        for line in board["lines"]
        if line["setting"] == "all" and line["operations"]
    ]
    head = [
        "scenario",
        "method",
        "operations found",
        "campaigns each",
        "requests: precision",
        "requests: recall",
    ]
    return table([*head, "leads in 10,000 accounts", "imitators cleared"], lines) if lines else ""


def _operations(board: Board) -> str:
    seeds = sorted({int(s) for row in board["operations"] for s in row["each"]})
    shown = len(seeds) <= 8
    lines = []
    for row in board["operations"]:
        cells = [row["each"].get(str(seed)) for seed in seeds]
        lines.append(
            [
                row["group"],
                row["operation"],
                *([_cell(cell) for cell in cells] if shown else []),
                f"{row['named']['hits']}/{row['named']['total']}",
                number(row["named"]["value"]),
                f"{row['found']}/{row['of']}",
            ]
        )
    head = ["scenario", "operation", *(f"seed {s}" for s in seeds if shown), "all", "recall", "found"]
    return table(head, lines) if lines else ""


def _cell(found: list[int] | None) -> str:
    if found is None:
        return ""
    named, led, total = found
    return f"{named}/{total}" + (f" (+{led})" if led else "")


def _shares(board: Board) -> str:
    lines, before = [], 0.0
    for row in board["shares"]:
        named = row["named"]
        lines.append(
            [
                f"{before:.0%} to {row['up_to']:.0%}",
                f"{row['found']} of {row['operations']}",
                of(named),
                f"{number(named['value'])} [{number(named['low'])}, {number(named['high'])}]",
            ]
        )
        before = row["up_to"]
    return table(["harvest share", "operations found", "accounts", "recall"], lines) if lines else ""


def _found(board: Board) -> str:
    lines = [
        [
            row["cell"],
            row["operation"],
            f"{row['accounts']:,}",
            f"{row['exchanges']:,}",
            "not found" if row["found"] is None else f"day {row['found']['days']}",
            "" if row["found"] is None else f"{row['found']['exchanges']:,}",
            "" if row["share"] is None else f"{row['share']:.0%}",
        ]
        for row in board["found"]
    ]
    head = ["log", "operation", "accounts", "exchanges in all", "found at", "taken by then", "share"]
    return table(head, lines) if lines else ""


def _lookalikes(board: Board) -> str:
    lines = [
        [row["kind"], of(row), f"[{row['low']:.6f}, {row['high']:.6f}]", f"{row['upper_bound']:.6f}"]
        for row in board["lookalikes"]
    ]
    head = ["kind", "accounts in campaigns", "95 % interval", "one-sided upper bound"]
    return table(head, lines) if lines else ""


def _wrong(board: Board) -> str:
    lines = [
        [
            row["cell"],
            row["kind"],
            str(row["attackers"]),
            ", ".join(f"{view.upper()} {bits:.1f}" for view, bits in row["bits"].items()),
        ]
        for row in board["wrong"]
    ]
    return table(["log", "kind", "attackers in the campaign", "bits"], lines) if lines else ""


def _curve(board: Board) -> str:
    lines = [
        [
            row["scenario"],
            row["method"],
            f"{row['accounts']:,}",
            spread(row["precision"]),
            spread(row["recall"]),
        ]
        for row in board["curve"]
    ]
    return table(["scenario", "method", "accounts", "precision", "recall"], lines) if lines else ""


def _false_groups(board: Board) -> str:
    lines = []
    for row in board["false_groups"]:
        a = row["achieved"]
        lines.append(
            [
                row["setting"],
                str(row["logs"]),
                f"{row['nominal']:.2f}",
                of(a),
                f"{number(a['value'], 4)} [{number(a['low'], 4)}, {number(a['high'], 4)}]",
            ]
        )
    return table(["setting", "logs", "promised", "false campaigns", "achieved"], lines) if lines else ""


def search_table(found: Board) -> str:
    """The cheapest operations that an adversary's search found, and their prices on logs of other seeds."""
    return table(HEAD, search_rows(found)) if found["best"] else ""


def _failures(board: Board) -> str:
    lines = [[row["cell"], row["method"], row["failure"]] for row in board["failures"]]
    return table(["log", "method", "what went wrong"], lines) if lines else ""
