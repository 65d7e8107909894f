"""Ids of groups across scans: kept, merged, split, unrelated."""

from __future__ import annotations

from stillwatch.campaign.lineage import Lineage, trace


def _set(first: int, last: int) -> frozenset[str]:
    return frozenset(f"a{i}" for i in range(first, last))


def test_a_group_keeps_its_id_while_accounts_come_and_go() -> None:
    found = trace({"g-new": _set(70, 170)}, {"g-old": _set(0, 100)})
    assert found == {"g-new": Lineage("g-old")}


def test_two_groups_that_became_one_are_listed() -> None:
    found = trace({"g-new": _set(0, 100)}, {"g-one": _set(0, 60), "g-two": _set(60, 100)})
    assert found == {"g-new": Lineage("g-one", merged_from=("g-two",))}


def test_one_group_that_became_two_is_listed() -> None:
    found = trace({"g-a": _set(0, 30), "g-b": _set(30, 100)}, {"g-old": _set(0, 100)})
    assert found == {"g-a": Lineage("g-a", split_from=("g-old",)), "g-b": Lineage("g-old")}


def test_unrelated_groups_have_names_of_their_own() -> None:
    # Two stray accounts, and ten of a hundred, are no descent.
    found = trace(
        {"g-a": _set(98, 150), "g-b": _set(200, 300)}, {"g-old": _set(0, 100), "g-far": _set(290, 390)}
    )
    assert found == {"g-a": Lineage("g-a"), "g-b": Lineage("g-b")}


def test_a_name_that_another_group_inherits_is_not_used_twice() -> None:
    found = trace({"g-old": _set(500, 600), "g-new": _set(0, 90)}, {"g-old": _set(0, 100)})
    assert found["g-new"] == Lineage("g-old")
    assert found["g-old"].id not in ("g-old", "g-new")


def test_the_order_of_the_tables_does_not_matter() -> None:
    now = {"g-a": _set(0, 50), "g-b": _set(50, 100)}
    earlier = {"g-x": _set(0, 50), "g-y": _set(50, 100), "g-z": _set(25, 75)}
    assert trace(now, earlier) == trace(dict(reversed(now.items())), dict(reversed(earlier.items())))
