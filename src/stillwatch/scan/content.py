"""What a group asks for, by the tags of the rule pack: capabilities, and requests for a model's training material.

Tags never single a group out: auditors ask for explanations and evaluators grade. They say what a group that other
evidence has shown is after.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from stillwatch.scan.collect import Reduced
from stillwatch.scan.skeletons import Held
from stillwatch.schema.results import Evidence
from stillwatch.sketch import RulePack
from stillwatch.views.base import F64, I64

OFTEN = 0.5
"""Share of a family's requests from which a tag is the family's."""
AT_ALL = 0.1
"""Share of a group's requests from which a tag is named."""
LEAST_LIFT = 2.0
"""Asking for something is evidence where the group does so this many times as often as everybody else."""

Tags = npt.NDArray[np.uint32]


def counts(tags: Tags, rules: RulePack) -> I64:
    """Rows that have each tag of the pack, shape (tags,)."""
    return np.array([np.count_nonzero(tags & np.uint32(1 << tag.bit)) for tag in rules.tags], np.int64)


def shares(tags: Tags, rules: RulePack) -> F64:
    """Share of the rows that have each tag of the pack, shape (tags,)."""
    return np.asarray(counts(tags, rules) / max(1, len(tags)))


def capabilities(tags: Tags, rules: RulePack) -> list[str]:
    """Capabilities that at least `AT_ALL` of the rows ask for, most asked first."""
    held = shares(tags, rules)
    named = [tag for tag in rules.tags if tag.kind == "capability" and held[tag.bit] >= AT_ALL]
    return [tag.name for tag in sorted(named, key=lambda tag: (-held[tag.bit], tag.bit))]


@nb.njit(nogil=True, cache=True)
def _tallied(row: Any, family: Any, tags: Any, place: Any, kinds: int, found: int) -> Any:
    """(rows of each family asked about, of these those with each bit): `place` is -1 for families not asked about."""
    rows = np.zeros(found, np.int64)
    held = np.zeros((found, kinds), np.int64)
    for i in range(len(row)):
        at = place[family[i]]
        if at < 0:
            continue
        rows[at] += 1
        left = tags[row[i]]
        bit = 0
        while left != 0:
            held[at, bit] += left & 1
            left >>= 1
            bit += 1
    return rows, held


def of_families(reduced: Reduced, held: Iterable[Held]) -> dict[Held, list[str]]:
    """Tags, capability or elicitation, that at least half of each family's requests have."""
    held = list(held)
    out: dict[Held, list[str]] = {}
    for part, families, tags in (
        ("prompt", reduced.prompt_families, reduced.rows.tags),
        ("system", reduced.systems.families, reduced.systems.tags),
    ):
        wanted = [number for name, number in held if name == part]
        place = np.full(int(max(families.family.max(initial=-1), max(wanted, default=-1))) + 1, -1, np.int64)
        place[wanted] = np.arange(len(wanted))
        rows, counted = _tallied(families.row, families.family, tags, place, 32, len(wanted))
        often = counted >= np.maximum(OFTEN * rows, 1)[:, None]
        for number, mine in zip(wanted, often, strict=True):
            out[part, number] = [tag.name for tag in reduced.rules.tags if mine[tag.bit]]
    return out


def elicitation(reduced: Reduced, mine: I64, everybody: I64) -> list[Evidence]:
    """What of a model's training material the requests `mine` (rows) ask for, beside everybody else's.

    `everybody`: `counts` of all rows of the log.
    """
    if len(mine) == 0:
        return []
    held = counts(reduced.rows.tags[mine], reduced.rules)
    others = len(reduced.rows.tags) - len(mine)
    inside, outside = held / len(mine), (everybody - held) / max(1, others)
    out = []
    for tag in reduced.rules.tags:
        share, usual = inside[tag.bit], max(float(outside[tag.bit]), 1 / (others + 1))
        if tag.kind != "elicitation" or share < AT_ALL or share < LEAST_LIFT * usual:
            continue
        text = (
            f"{100 * share:.0f} % of the {len(mine):,} requests in its own templates {tag.says}; "
            f"{_percent(100 * outside[tag.bit])} of all others do."
        )
        out.append(
            Evidence(kind="TRACE", signal=tag.name, bits=float(share * np.log2(share / usual)), text=text)
        )
    return sorted(out, key=lambda e: -e.bits)


def _percent(value: float) -> str:
    return f"{value:.0f} %" if value >= 1 or value == 0 else f"{value:.1g} %"
