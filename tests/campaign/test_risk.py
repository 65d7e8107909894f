"""Points add up, every component says why, and more of anything never lowers a tier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwatch.campaign.risk import (
    COMPONENTS,
    CUTS,
    STANDBY,
    TIERS,
    WORTH,
    Observed,
    observed,
    risk,
    tier,
)
from stillwatch.schema.results import Evidence, TimelineEvent
from stillwatch.store.results import Results

TAGS = [*WORTH, "translation", "roleplay"]
seen = st.builds(
    Observed,
    harvested=st.integers(0, 10**7),
    operation=st.integers(0, 10**9),
    abilities=st.frozensets(st.sampled_from(TAGS)),
    evasion=st.floats(0, 1),
    standby=st.frozensets(st.sampled_from(sorted(STANDBY))),
    days=st.integers(0, 400),
    after_bans=st.booleans(),
)


@given(seen)
def test_points_add_up_and_each_component_is_explained(one: Observed) -> None:
    found = risk(one)
    assert found.points == sum(part.points for part in found.parts)
    assert [part.component for part in found.parts] == list(COMPONENTS)
    for part in found.parts:
        assert 0 <= part.points <= COMPONENTS[part.component][1]
        assert part.because.endswith(".")
    assert found.tier == tier(found.points)
    assert CUTS[found.tier] <= found.points


@given(seen, st.data())
def test_more_never_gives_fewer_points(one: Observed, data: st.DataObject) -> None:
    more = data.draw(
        st.sampled_from(
            [
                replace(one, harvested=one.harvested * 3 + 1),
                replace(one, operation=one.operation * 3 + 1),
                replace(one, abilities=one.abilities | {data.draw(st.sampled_from(TAGS))}),
                replace(one, evasion=min(1.0, one.evasion + 0.2)),
                replace(one, standby=one.standby | {data.draw(st.sampled_from(sorted(STANDBY)))}),
                replace(one, days=one.days + 5),
                replace(one, after_bans=True),
            ]
        )
    )
    before, after = risk(one), risk(more)
    assert all(a.points >= b.points for a, b in zip(after.parts, before.parts, strict=True))
    assert TIERS.index(after.tier) >= TIERS.index(before.tier)


def test_every_component_counts_and_the_tiers_are_all_in_reach() -> None:
    most = Observed(10**5, 10**7, frozenset(WORTH), 1.0, frozenset(STANDBY), 60, True)
    assert [part.points for part in risk(most).parts] == [most_ for _, most_ in COMPONENTS.values()]
    assert {tier(points) for points in range(risk(most).points + 1)} == set(TIERS)
    assert risk(Observed()).points == 0
    assert [tier(CUTS[name]) for name in TIERS] == list(TIERS)
    assert [tier(CUTS[name] - 1) for name in TIERS[1:]] == list(TIERS[:-1])


def test_techniques_alone_would_say_something_else() -> None:
    """One operation, three accounts: what each took makes the tier, not what the operation is."""
    operation = Observed(
        0, 20_000, frozenset({"elicit_reasoning", "coding"}), 0.95, frozenset({"takeover"}), 1
    )
    tiers = [risk(replace(operation, harvested=n, days=d)).tier for n, d in ((0, 1), (2_000, 12))]
    assert tiers == ["medium", "critical"]


def test_what_the_results_say_is_read_from_them(sample: Callable[..., Results]) -> None:
    results = sample()
    group, row = results.findings.groups[0], results.accounts.to_pylist()[0]
    found = observed(group, row)
    assert (found.harvested, found.operation, found.days) == (110, 940, 3)
    assert found.standby == {"handover"}
    # Banned at 10:00 on the last day: nothing shows that it went on.
    assert not found.after_bans
    assert found.evasion == 0.0
    claims = [msgspec.structs.replace(claim, statistic=0.8) for claim in group.claims]
    early = TimelineEvent(ts="2026-01-01T10:00:00Z", kind="sanction", text="1 member banned on this day.")
    other = msgspec.structs.replace(
        group, claims=claims, timeline=[early], harvest_exchanges=0,
        evidence=[Evidence(kind="CONTEXT", signal="takeover", bits=0.0, text="x")],
    )  # fmt: skip
    found = observed(other, row)
    assert (found.evasion, found.after_bans, found.standby) == (0.8, True, frozenset())
    assert (found.harvested, found.operation) == (row["exchanges"], group.exchanges)
    assert observed(group, row | {"first_ts": None, "last_ts": None}).days == 0


@pytest.mark.parametrize("name", sorted(COMPONENTS))
def test_each_component_has_words_for_the_reader(name: str) -> None:
    assert COMPONENTS[name][0]
    assert COMPONENTS[name][1] > 0
