"""A partner that poisons: fingerprints of the wording of every honest group of a made log, as if of campaigns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch import arena
from stillwatch.evidence.intel.fingerprints import Wording, fingerprint
from stillwatch.scan import Scanned, scan
from stillwatch.scan.partner import Intel, Told
from stillwatch.schema.intel import HASHED_AFTER, FamilyFingerprint
from stillwatch.sketch import sketch_of
from stillwatch.sketch.keyed import KeyedHash
from stillwatch.store.pseudonyms import Pseudonyms
from stillwatch.store.results import encode_findings
from stillwatch.views.families import find_families

NAMES = Pseudonyms("0a0a0a0a", "fingerprint", bytes(range(32)))
NEVER_US = 1 << 60


@dataclass(frozen=True)
class Outcome:
    """What one log's scan came to without and with the poison."""

    same_bytes: bool
    poisoned: int
    aside: int
    honest_before: int
    honest_after: int
    accounts_before: int
    accounts_after: int


def of_honest_groups(log: Path) -> list[FamilyFingerprint]:
    """Fingerprints of wording that a group without an operation shares, by whoever knows all of the log."""
    truth = pq.read_table(log / "truth" / "accounts.parquet").to_pylist()
    table = pq.read_table(log / "exchanges.parquet", columns=["account_id", "prompt", "system"])
    number = {r["account_id"]: i for i, r in enumerate(truth)}
    account = np.array([number[name] for name in table.column("account_id").to_pylist()], np.int32)
    groups: dict[str, list[int]] = {}
    for row in truth:
        if row["operation"] is None and row["group_id"]:
            groups.setdefault(row["group_id"], []).append(number[row["account_id"]])
    found = []
    for part in ("prompt", "system"):
        sketch = sketch_of(table.column(part).combine_chunks().cast(pa.string()))
        families = find_families(account, sketch.post_offsets, sketch.post, sketch.level, len(truth))
        count = len(families)
        held = np.unique(account[families.row].astype(np.int64) * count + families.family)
        owner, family = np.divmod(held, count)
        holders = np.bincount(family, minlength=count)
        for members in groups.values():
            mine = np.isin(owner, members)
            inside = np.bincount(family[mine], minlength=count)
            own = [
                Wording(
                    part, families.key[families.key_family == f], np.unique(owner[mine & (family == f)]), []
                )
                for f in np.flatnonzero((inside >= 5) & (inside >= 0.3 * holders)).tolist()
            ]
            made = fingerprint(own, np.arange(len(truth)), NAMES, np.zeros(0, np.uint64))
            if made is not None:
                found.append(made)
    return found


def told(fingerprints: list[FamilyFingerprint]) -> Intel:
    """Each by a partner of its own: the worst case for the rule about partners."""
    key = KeyedHash(NAMES.secret, HASHED_AFTER)
    return Intel(
        tuple(
            Told(
                f"partner{n}", f"i-{n}", f.part, np.array([int(h, 16) for h in f.hashes], np.uint64), f.needed(),
                "amber", 90, NEVER_US, key, f.level,
            )
            for n, f in enumerate(fingerprints)
        )
    )  # fmt: skip


def campaigns_before_and_after(folder: Path, seed: int) -> Outcome:
    """Scan one made log without indicators, with none in force, and with the poison."""
    log = folder / f"log{seed}"
    arena.make("mixed", log, seed=seed, accounts=1000)
    truth = pq.read_table(log / "truth" / "accounts.parquet").to_pylist()
    honest = {r["account_id"] for r in truth if r["operation"] is None}

    def named(found: Scanned) -> set[str]:
        rows = found.accounts.to_pylist()
        return {r["account_id"] for r in rows if r["verdict"] == "campaign"}

    poison = of_honest_groups(log)
    before = scan([str(log)])
    none = scan([str(log)], intel=Intel((), None))
    after = scan([str(log)], intel=told(poison))
    assert after.heard is not None
    return Outcome(
        encode_findings(before.findings) == encode_findings(none.findings),
        len(poison),
        len(after.heard.aside),
        len(named(before) & honest),
        len(named(after) & honest),
        len(named(before)),
        len(named(after)),
    )
