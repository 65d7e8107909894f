"""The notebook: an analyst's afternoon with DuckDB, MinHash LSH and connected components."""

from __future__ import annotations

from pathlib import Path

from stillwatch.arena.baselines.log import MOST_ROWS, components, first_rows, missing, write_groups

ABOUT = "MinHash LSH over prompts (Jaccard .7), address blocks of 2 to 20 accounts, connected components of 5 or more"
LEAST = 5
WORDS = 8
"""Prompts of fewer words are passed over: greetings are everybody's."""


def flagged(log: Path, most_rows: int = MOST_ROWS) -> list[list[str]]:
    """Groups of accounts that use near-duplicate prompts or one address block."""
    try:
        from datasketch import MinHash, MinHashLSH
    except ModuleNotFoundError as error:
        raise missing("datasketch") from error
    rows = first_rows(log, "account_id, prompt, regexp_extract(ip, '(.*)\\.', 1) as block", most_rows)
    accounts, prompts, places = (rows[name].to_pylist() for name in ("account_id", "prompt", "block"))
    lsh = MinHashLSH(threshold=0.7, num_perm=64)
    owners: list[str] = []
    edges: list[tuple[str, str]] = []
    for account, prompt in zip(accounts, prompts, strict=True):
        words = (prompt or "").lower().split()
        if len(words) < WORDS:
            continue
        sketch = MinHash(num_perm=64)
        sketch.update_batch([" ".join(words[i : i + 3]).encode() for i in range(len(words) - 2)])
        for other in sorted(lsh.query(sketch))[:5]:
            if owners[other] != account:
                edges.append((account, owners[other]))
        lsh.insert(len(owners), sketch)
        owners.append(account)
    blocks: dict[str, set[str]] = {}
    for account, block in zip(accounts, places, strict=True):
        if block:
            blocks.setdefault(block, set()).add(account)
    for holders in blocks.values():
        ranked = sorted(holders)
        if 2 <= len(ranked) <= 20:
            edges += [(ranked[0], other) for other in ranked[1:]]
    return components(edges, LEAST)


def run(log: Path, out: Path) -> None:
    """See `ABOUT`."""
    write_groups(log, out, flagged(log))
