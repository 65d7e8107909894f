"""Keyed counts: what the bits of a campaign's named accounts follow from (`schema.scoring`), and nothing more.

Only keys that those accounts hold, each under a pseudonym; who else holds a key is a number. Honest groups have
numbers of their own in each bundle. Whoever knows one address block cannot tell which key it is, or whether it is
there at all; but a key of a third of all accounts is a great mail provider's, and looks like it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.detect.members import FEW, FOLDS, REPEATED
from stillwatch.store.pseudonyms import Pseudonyms

VIEWS = ("FORM", "LINK")


@dataclass(frozen=True, slots=True)
class Measured:
    """The accounts that a campaign names, as the scoring tables have them."""

    number: int
    """In `scoring_accounts`."""
    principal: str
    """Account id; behind a gateway the verified end user's after it."""
    fold: int
    time: float


def measured(scoring: Mapping[str, pa.Table], campaign: str) -> list[Measured]:
    """The named accounts of a campaign that was measured key by key; none for others."""
    table = scoring["scoring_measured"]
    mine = table.filter(pc.and_(pc.equal(table.column("campaign_id"), campaign), table.column("named")))
    ids = scoring["scoring_accounts"].column("account_id")
    return [
        Measured(row["account"], ids[row["account"]].as_py(), row["fold"], row["bits_time"])
        for row in mine.to_pylist()
    ]


def counts(
    scoring: Mapping[str, pa.Table], campaign: str, accounts: list[Measured], names: Pseudonyms
) -> dict[str, Any]:
    """`counts.json`. Accounts and keys stand in the order of their pseudonyms, which says nothing."""
    if not accounts:
        return {"accounts": [], "views": {}}
    held = _held(scoring, [account.number for account in accounts])
    keys = scoring["scoring_keys"]
    places = np.unique(np.concatenate([np.zeros(0, np.int64), *held.values()]))
    chosen = keys.take(pa.array(places)).to_pydict()
    named = [names.of("key", f"{key:016x}") for key in chosen["key"]]
    members = _members(scoring, campaign)
    honest, renamed = _honest(scoring, places, names)
    held_by = [[members.get((int(place), fold), 0) for fold in range(FOLDS)] for place in places]
    rows = _rows(scoring)
    views: dict[str, Any] = {}
    number: dict[int, int] = {}
    for view in VIEWS:
        mine = sorted((named[i], i) for i in range(len(places)) if chosen["view"][i] == view)
        number |= {int(places[i]): n for n, (_, i) in enumerate(mine)}
        views[view] = {
            "rows": rows[view, "", -1, -1],
            "own": [rows.get((view, campaign, -1, fold), 0) for fold in range(FOLDS)],
            "honest": [rows.get((view, "", group, -1), 0) for group in renamed],
            "keys": [
                [
                    name,
                    chosen["key_kind"][i],
                    _holders(chosen["holders"][i], held_by[i], honest.get(int(places[i]), [])),
                    held_by[i],
                    honest.get(int(places[i]), []),
                ]
                for name, i in mine
            ],
        }
    form = {int(p) for i, p in enumerate(places) if chosen["view"][i] == "FORM"}
    return {
        "accounts": sorted(
            [
                names.of("account", account.principal),
                account.fold,
                account.time,
                sorted(number[p] for p in held[account.number].tolist() if p in form),
                sorted(number[p] for p in held[account.number].tolist() if p not in form),
            ]
            for account in accounts
        ),
        "views": views,
    }


def _holders(holders: int, members: list[int], honest: list[list[int]]) -> int | None:
    """How many hold a key; not told where nothing follows from it: a key of no two members counts as any other."""
    return holders if sum(members) >= 2 or honest else None


def _held(scoring: Mapping[str, pa.Table], numbers: list[int]) -> dict[int, Any]:
    """Places of the keys that count for each account.

    A prompt family counts from its second use on, but for accounts that show too little (`detect.members`).
    """
    table, keys = scoring["scoring_held"], scoring["scoring_keys"]
    mine = table.filter(pc.is_in(table.column("account"), value_set=pa.array(numbers, pa.int32())))
    who, place = mine.column("account").to_numpy(), mine.column("place").to_numpy().astype(np.int64)
    template = pc.equal(keys.column("key_kind"), "prompt_family").to_numpy()[place]
    shown = scoring["scoring_accounts"].column("exchanges").to_numpy()[who]
    counted = ~template | (shown <= FEW) | (mine.column("count").to_numpy() >= REPEATED)
    return {number: np.sort(place[(who == number) & counted]) for number in numbers}


def _members(scoring: Mapping[str, pa.Table], campaign: str) -> dict[tuple[int, int], int]:
    """Members of each (place, fold) that hold the key."""
    table = scoring["scoring_profiles"]
    mine = table.filter(pc.equal(table.column("campaign_id"), campaign)).to_pydict()
    pairs = zip(mine["place"], mine["fold"], strict=True)
    return dict(zip(pairs, mine["members"], strict=True))


def _honest(
    scoring: Mapping[str, pa.Table], places: Any, names: Pseudonyms
) -> tuple[dict[int, list[list[int]]], list[int]]:
    """([group, members that hold it] by place, the scan's number of each group): renumbered, if they share a key."""
    table = scoring["scoring_honest"]
    mine = table.filter(pc.is_in(table.column("place"), value_set=pa.array(places, pa.int32()))).to_pydict()
    order = sorted(set(mine["honest"]), key=lambda n: names.digest("honest_group", str(n).encode()))
    place_of = {group: n for n, group in enumerate(order)}
    found: dict[int, list[list[int]]] = {}
    for group, place, members in zip(mine["honest"], mine["place"], mine["members"], strict=True):
        found.setdefault(place, []).append([place_of[group], members])
    return {place: sorted(pairs) for place, pairs in found.items()}, order


def _rows(scoring: Mapping[str, pa.Table]) -> dict[tuple[str, str, int, int], int]:
    """How many (account, key) rows there are, by view, campaign, honest group and fold."""
    table = scoring["scoring_rows"].to_pydict()
    names = ("view", "campaign_id", "honest", "fold")
    return dict(zip(zip(*(table[name] for name in names), strict=True), table["rows"], strict=True))
