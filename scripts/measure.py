"""The detection tables of docs/detection.md: made logs in, one JSON line per log and setting out.

    python scripts/measure.py OUT.jsonl LOG... [--settings]

Each LOG is a folder of `stillwatch arena make`. With `--settings`, the groups of one judged log are concluded with
fewer references and with one road alone too. Logs that OUT already has are skipped, so a run can be resumed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch import arena
from stillwatch.ingest import open_log
from stillwatch.scan.collect import COLUMNS, SEPARATOR, Collector
from stillwatch.scan.conclude import Concluded, conclude
from stillwatch.scan.judge import Judged, judge
from stillwatch.scan.run import peak_memory_mib
from stillwatch.scan.units import align

SETTINGS: dict[str, dict[str, Any]] = {
    "all": {},
    "50 references": {"most_references": 50},
    "20 references": {"most_references": 20},
    "0 references": {"most_references": 0},
    "references alone": {"roads": ("references",)},
    "direct alone": {"roads": ("direct",)},
}


def judged_log(log: Path) -> Judged:
    """One log through stages 1 to 6."""
    with tempfile.TemporaryDirectory() as folder, open_log([str(log)], columns=COLUMNS) as source:
        collector = Collector(Path(folder))
        for batch in source.batches():
            collector.add(batch)
        tables = dict(source.side)
        reduced = collector.finish(tables.get("accounts"))
        return judge(reduced, align(reduced, tables), 0)


def scored(concluded: Concluded, log: Path) -> dict[str, Any]:
    """The score of what was concluded, through the same result files as a scan's."""
    principals = concluded.judged.context.reduced.principals
    groups, accounts, names = [], [], []
    for number, (finding, members) in enumerate(zip(concluded.listed, concluded.assigned, strict=True)):
        groups.append({"id": f"g{number}", "verdict": finding.verdict})
        accounts += [principals[a].partition(SEPARATOR)[0] for a in members.accounts.tolist()]
        names += [f"g{number}"] * len(members.accounts)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "findings.json").write_text(json.dumps({"groups": groups}))
        pq.write_table(
            pa.table({"account_id": accounts, "campaign_id": names}), Path(folder) / "accounts.parquet"
        )
        return arena.score(Path(folder), log).as_dict()


def dissected(concluded: Concluded, log: Path) -> list[dict[str, Any]]:
    """Campaigns with an honest account: who they are, and why the group was named."""
    truth = pq.read_table(log / "truth" / "accounts.parquet").to_pydict()
    kinds = dict(zip(truth["account_id"], truth["kind"], strict=True))
    reduced = concluded.judged.context.reduced
    out = []
    for finding, members in zip(concluded.listed, concluded.assigned, strict=True):
        if finding.verdict != "campaign":
            continue
        of = [kinds[reduced.principals[a].partition(SEPARATOR)[0]] for a in members.accounts.tolist()]
        honest = [
            {"kind": kind, "exchanges": int(reduced.volume[a])}
            | {view: round(float(bits[i]), 1) for view, bits in members.bits.items()}
            for i, (a, kind) in enumerate(zip(members.accounts.tolist(), of, strict=True))
            if kind != "attack"
        ]
        if honest:
            fired = [d.name for d in finding.fired(concluded.judged.direct_level)]
            row = {"attackers": of.count("attack"), "roads": finding.roads, "direct": fired, "honest": honest}
            out.append(row)
    return out


def main() -> None:
    """Measure every log that OUT lacks."""
    out, *rest = sys.argv[1:]
    settings = "--settings" in rest
    path = Path(out)
    done = {json.loads(line)["log"] for line in path.read_text().splitlines()} if path.exists() else set()
    for log in (Path(name) for name in rest if not name.startswith("--")):
        if log.name in done:
            continue
        began = time.monotonic()
        judged = judged_log(log)
        lines = []
        for name, setting in SETTINGS.items() if settings else [("all", SETTINGS["all"])]:
            concluded = conclude(judged, **setting)
            line: dict[str, Any] = {"log": log.name, "setting": name, "score": scored(concluded, log)}
            if name == "all":
                line["honest_in_campaigns"] = dissected(concluded, log)
                line["references"] = len(judged.references)
                line["groups"] = len(judged.findings)
                line["candidates"] = judged.candidates
            lines.append(line)
        lines[0]["wall_s"] = round(time.monotonic() - began, 1)
        lines[0]["peak_memory_mib"] = peak_memory_mib()
        with path.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        first = lines[0]["score"]
        print(log.name, lines[0]["wall_s"], first["precision"]["value"], first["recall"]["value"], flush=True)


if __name__ == "__main__":
    main()
