"""What fingerprints of wording match, and what they do not, on made logs of two providers.

    python -m scripts.measure_intel [--corpora FILE] [--seeds N]

Both providers have the honest accounts of a made log of their own. The same operations are put into both: at the
first as they are, at the second with other slot values, or in other words besides. Printed are the shares of
fingerprints that the wording of the same operation holds, and of those that the wording of any other group holds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch import arena
from stillwatch.arena import vocabulary as V
from stillwatch.arena.corpora import CorporaText
from stillwatch.arena.text import BuiltinText, TextSource, split_slots
from stillwatch.evidence.intel.fingerprints import OWN_SHARE, Wording, fingerprint, hashes_of
from stillwatch.schema.intel import LEAST_HITS, FamilyFingerprint
from stillwatch.sketch import sketch_of
from stillwatch.store.pseudonyms import Pseudonyms
from stillwatch.views.families import Families, find_families

NAMES = Pseudonyms("0a0a0a0a", "fingerprint", bytes(range(32)))
CHANGES = ("nothing", "slots", "reordered", "reworded")
ACCOUNTS, REQUESTS = 20, 40


@dataclass(frozen=True)
class Operation:
    """Clauses of a template, and how many wordings of it are in use."""

    clauses: list[str]
    wordings: int


def operations(rng: np.random.Generator, source: TextSource, count: int) -> list[Operation]:
    """Operations as the arena composes them."""
    return [Operation(source.wording(rng, harvest=True), int(rng.choice([1, 2, 4]))) for _ in range(count)]


def written(
    rng: np.random.Generator, source: TextSource, operation: Operation, terms: Sequence[str], change: str
) -> list[str]:
    """Prompts of one operation. `reordered`: clauses stand in another order and one is dropped, labels are others, as
    the arena paraphrases; `reworded`: a third of the clauses are other ones besides."""
    clauses = list(operation.clauses)
    if change == "reworded":
        for place in range(len(clauses)):
            if rng.random() < 1 / 3 and "<a>" not in clauses[place]:
                fresh = [c for c in source.wording(rng, harvest=True) if "<a>" not in c]
                clauses[place] = fresh[0] if fresh else clauses[place]
    bodies = []
    for number in range(operation.wordings):
        head = list(clauses)
        if number or change in ("reordered", "reworded"):
            head = [head[i] for i in rng.permutation(len(head))]
            plain = [i for i, c in enumerate(head) if "<a>" not in c]
            if len(head) > 3 and plain:
                head.pop(plain[int(rng.integers(len(plain)))])
        label = V.LABELS[int(rng.integers(len(V.LABELS)))]
        bodies.append(split_slots(" ".join(head) + f"\n\n{label}: <p>"))
    count = ACCOUNTS * REQUESTS
    out = []
    for material in source.material(rng, np.zeros(count, int)):
        a, b = (terms[int(rng.integers(len(terms)))] for _ in range(2))
        text = []
        for literal, slot in bodies[int(rng.integers(len(bodies)))]:
            text += [literal, {"a": a, "b": b, "p": material, "": ""}[slot]]
        out.append("".join(text))
    return out


@dataclass(frozen=True)
class Provider:
    """Families of one provider's log, and who is in which group."""

    families: Families
    account: np.ndarray
    groups: dict[str, np.ndarray]
    postings: pa.Array | None = None

    def own(self, members: np.ndarray) -> list[Wording]:
        """Families of which the members are most holders; a family is held from its second use."""
        count = len(self.families)
        pair = self.account[self.families.row].astype(np.int64) * count + self.families.family
        names, uses = np.unique(pair, return_counts=True)
        owner, family = np.divmod(names[uses >= 2], count)
        holders = np.bincount(family, minlength=count)
        mine = np.isin(owner, members)
        inside = np.bincount(family[mine], minlength=count)
        out = []
        for number in np.flatnonzero((inside >= 3) & (inside >= OWN_SHARE * holders)).tolist():
            key = self.families.key[self.families.key_family == number]
            out.append(Wording("prompt", key, np.unique(owner[mine & (family == number)]), []))
        return out


def provider(log: Path, inserted: Sequence[tuple[str, list[str]]]) -> Provider:
    """The honest accounts of a made log, and operations by name."""
    truth = pq.read_table(log / "truth" / "accounts.parquet").to_pylist()
    honest = {r["account_id"]: r["group_id"] for r in truth if r["operation"] is None}
    table = pq.read_table(log / "exchanges.parquet", columns=["account_id", "prompt"])
    ids = table.column("account_id").to_pylist()
    kept = np.array([name in honest for name in ids], bool)
    number = {name: i for i, name in enumerate(sorted(honest))}
    account = [number[name] for name, keep in zip(ids, kept.tolist(), strict=True) if keep]
    texts = [table.column("prompt").filter(pa.array(kept)).cast(pa.string()).combine_chunks()]
    groups: dict[str, list[int]] = {}
    for name, group in honest.items():
        if group:
            groups.setdefault(f"honest {group}", []).append(number[name])
    top = len(number)
    for name, prompts in inserted:
        account += [top + i % ACCOUNTS for i in range(len(prompts))]
        groups[name] = list(range(top, top + ACCOUNTS))
        texts.append(pa.array(prompts))
        top += ACCOUNTS
    part = sketch_of(pa.concat_arrays(texts))
    owner = np.array(account, np.int32)
    found = find_families(owner, part.post_offsets, part.post, part.level, top)
    return Provider(found, owner, {n: np.array(m) for n, m in groups.items() if len(m) >= 5})


def share(print_: FamilyFingerprint, own: Sequence[Wording]) -> float:
    """Share of a fingerprint's hashes that some wording holds; 0 for fewer than match at all."""
    if not own:
        return 0.0
    held = hashes_of(NAMES, np.unique(np.concatenate([w.postings for w in own])))
    found = np.isin(np.array([int(h, 16) for h in print_.hashes], np.uint64), held)
    return float(found.mean()) if found.sum() >= LEAST_HITS else 0.0


def measure(
    seed: int, corpora: Path | None, folder: Path, accounts: int = 1000, count: int = 24
) -> tuple[dict[str, list[float]], list[float], list[int]]:
    """Shares of the same operation by change (-1: no fingerprint), largest share of any other group for each
    fingerprint and group, sizes of the fingerprints."""
    source: TextSource = BuiltinText(seed) if corpora is None else CorporaText(corpora, seed)
    rng = np.random.default_rng([seed, 77])
    ours = operations(rng, source, count)
    logs = []
    for side in (2 * seed, 2 * seed + 1):
        logs.append(folder / f"log{side}")
        arena.make("mixed", logs[-1], seed=side, accounts=accounts, corpora=corpora)
    first_terms = [source.terms(rng, 40) for _ in ours]
    other_terms = [source.terms(rng, 40) for _ in ours]
    first = provider(
        logs[0],
        [(f"op{i}", written(rng, source, o, first_terms[i], "nothing")) for i, o in enumerate(ours)],
    )
    made = {}
    for i in range(count):
        own = [w for w in first.own(first.groups[f"op{i}"]) if len(w.holders) >= 5]
        found = fingerprint(own, np.arange(10**6), NAMES, np.zeros(0, np.uint64))
        if found is not None:
            made[i] = found
    # The same made-up operations at the second provider, each changed in each way, as groups of their own.
    inserted = []
    for i, o in enumerate(ours):
        change = CHANGES[(i + seed) % len(CHANGES)]
        terms = first_terms[i] if change == "nothing" else other_terms[i]
        inserted.append((f"op{i}", written(rng, source, o, terms, change)))
    second = provider(logs[1], inserted)
    same: dict[str, list[float]] = {change: [] for change in CHANGES}
    others: list[float] = []
    wording = {name: second.own(members) for name, members in second.groups.items()}
    for i in range(count):
        change = CHANGES[(i + seed) % len(CHANGES)]
        same[change].append(share(made[i], wording[f"op{i}"]) if i in made else -1.0)
    for i, print_ in made.items():
        others += [share(print_, own) for name, own in wording.items() if name != f"op{i}" and own]
    return same, others, [len(p.hashes) for p in made.values()]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--corpora", type=Path)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--accounts", type=int, default=1000)
    options = parser.parse_args()
    same: dict[str, list[float]] = {change: [] for change in CHANGES}
    others: list[float] = []
    sizes: list[int] = []
    for seed in range(1, options.seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            mine, theirs, lengths = measure(seed, options.corpora, Path(folder), options.accounts)
        for change, values in mine.items():
            same[change] += values
        others += theirs
        sizes += lengths
    wanted = sum(map(len, same.values()))
    print(
        f"{len(sizes)} of {wanted} operations have a fingerprint, of {np.median(sizes):.0f} hashes (median)"
    )
    print(f"least  {'  '.join(f'{c:>10}' for c in CHANGES)}  other groups ({len(others):,})")
    for least in (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6):
        hit = [np.mean([v >= least for v in same[c] if v >= 0]) for c in CHANGES]
        wrong = sum(v >= least for v in others)
        print(
            f"{least:.2f}   {'  '.join(f'{100 * h:9.0f}%' for h in hit)}  "
            f"{wrong:,} ({100 * wrong / len(others):.2f} %)"
        )


if __name__ == "__main__":
    main()
