"""Techniques: each follows from an observation, nothing without one, and the pinned names are the frameworks' own."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest

from stillwatch.campaign.techniques import CATALOGUE, atlas_ids, techniques
from stillwatch.schema.results import Claim, Evidence, EvidenceKey, Group, SharedKind
from stillwatch.store.results import Results, read_results

AFTER_THE_PIN = {"AML.T0008.005", "AML.T0065"}
"""Techniques that ATLAS has and the galaxy of the pinned package does not have yet."""
RENAMED = {
    "Extract ML Model": "Extract AI Model",
    "ai-model-access": "ml-model-access",
    "ai-attack-staging": "ml-attack-staging",
}
"""ATLAS says AI where it said ML."""


@pytest.fixture
def bare(sample: Callable[..., Results]) -> Group:
    """A campaign about which nothing is known but its size."""
    return msgspec.structs.replace(
        sample().findings.groups[0], claims=[], evidence=[], counter_evidence=[], shared=[], capabilities=[]
    )


def _ids(group: Group) -> list[str]:
    return [technique.id for technique in techniques(group)]


def _seen(signal: str, kind: str = "DIRECT", text: str = "7 seen, 0.1 by chance.") -> Evidence:
    return Evidence(kind=kind, signal=signal, bits=20.0, text=text)


def _shared(kind: str, view: str, held: int = 8, keys: int = 2) -> SharedKind:
    return SharedKind(
        view=view, key_kind=kind, keys=keys, group_count=held, group_total=8, background_count=1,
        background_total=4992,
    )  # fmt: skip


def test_without_an_observation_there_is_only_access(bare: Group) -> None:
    assert _ids(bare) == ["AML.T0040"]
    assert techniques(bare)[0].because == "8 accounts sent 1,080 requests to the model's interface."
    assert techniques(msgspec.structs.replace(bare, exchanges=0)) == []


@pytest.mark.parametrize(
    ("signal", "named"),
    [
        ("work_split", ["T1119"]),
        ("handover", ["AML.T0012", "T1078"]),
        ("takeover", ["AML.T0012", "T1078"]),
        ("replay", ["AML.T0008.005", "AML.T0012", "T1078"]),
        ("fan_out", ["AML.T0008.005"]),
        ("signup_batch", ["AML.T0021", "T1585"]),
        ("co_activity", []),
    ],
)
def test_a_test_that_fired_names_its_techniques_in_its_own_words(
    bare: Group, signal: str, named: list[str]
) -> None:
    found = techniques(msgspec.structs.replace(bare, evidence=[_seen(signal)]))
    found = [technique for technique in found if technique.id != "AML.T0040"]
    assert [technique.id for technique in found] == named
    assert all(technique.because == "7 seen, 0.1 by chance." for technique in found)
    assert all(technique.signals == (signal,) for technique in found)


def test_a_test_that_did_not_fire_or_a_circumstance_names_nothing(bare: Group) -> None:
    against = [_seen(name, "COUNTER") for name in ("work_split", "handover", "signup_batch", "fan_out")]
    assert _ids(msgspec.structs.replace(bare, counter_evidence=against)) == ["AML.T0040"]
    context = [_seen("work_split", "CONTEXT")]
    assert _ids(msgspec.structs.replace(bare, evidence=context)) == ["AML.T0040"]


@pytest.mark.parametrize("tag", ["elicit_reasoning", "grade_answers", "clean_traces", "make_training_data"])
def test_asking_for_training_material_is_replication(bare: Group, tag: str) -> None:
    assert "AML.T0005.001" in _ids(msgspec.structs.replace(bare, evidence=[_seen(tag, "TRACE")]))
    assert "AML.T0005.001" not in _ids(
        msgspec.structs.replace(bare, evidence=[_seen("policy_rewrite", "TRACE")])
    )


def test_a_stock_counts_where_most_members_draw_on_it(bare: Group) -> None:
    def named(*shared: SharedKind) -> set[str]:
        return set(_ids(msgspec.structs.replace(bare, shared=list(shared)))) - {"AML.T0040"}

    assert named(_shared("address_block", "LINK")) == {"T1090.002"}
    assert named(_shared("address_block", "LINK", keys=1)) == set()
    assert named(_shared("address_block", "LINK", held=3)) == set()
    assert named(_shared("mail_domain", "LINK", keys=1)) == {"T1583"}
    assert named(_shared("signup_batch", "LINK")) == {"AML.T0021", "T1585"}
    assert named(_shared("prompt_family", "FORM")) == {"AML.T0065"}
    found = techniques(msgspec.structs.replace(bare, shared=[_shared("mail_domain", "LINK", keys=1)]))
    assert found[-1].because == "8 of 8 members have the same mail domain; 1 of 4,992 other accounts do."


def test_claims_that_hold_are_observations(bare: Group) -> None:
    director = Claim(name="one_director", holds=True, text="Says why.", statistic=0.8)
    harvest = Claim(name="harvest_like", holds=True, text="Says how.")
    group = msgspec.structs.replace(bare, claims=[director, harvest], capabilities=["coding", "agents_tools"])
    found = {technique.id: technique.because for technique in techniques(group)}
    assert set(found) == {"AML.T0040", "AML.T0024.002", "T1588.007", "T1036"}
    assert found["AML.T0024.002"] == "Its requests are what a harvest looks like. Says how."
    assert found["T1036"] == "One hand directs 8 accounts that look like unrelated customers. Says why."
    assert found["T1588.007"].endswith("ask for the model's abilities in: coding, agents tools.")
    open_ = msgspec.structs.replace(director, statistic=0.2)
    weak = msgspec.structs.replace(harvest, holds=False)
    assert _ids(msgspec.structs.replace(group, claims=[open_, weak])) == ["AML.T0040"]


def test_a_rare_wording_of_its_own_is_prompt_crafting(bare: Group) -> None:
    key = EvidenceKey(
        key="0abc0abc0abc0abc", key_kind="system_prompt", group_count=8, group_total=8, background_count=0,
        background_total=4992,
    )  # fmt: skip
    form = msgspec.structs.replace(_seen("system_prompt", "FORM"), keys=[key])
    assert "AML.T0065" in _ids(msgspec.structs.replace(bare, evidence=[form]))
    assert "AML.T0021" not in _ids(msgspec.structs.replace(bare, evidence=[form]))


def test_leads_and_cleared_groups_have_none(sample: Callable[..., Results]) -> None:
    for group in sample().findings.groups[1:]:
        assert group.verdict != "campaign"
        loud = msgspec.structs.replace(group, evidence=[_seen("handover"), _seen("signup_batch")])
        assert techniques(loud) == [] == atlas_ids(loud)


def test_a_scan_writes_what_follows(scanned: tuple[Path, Path]) -> None:
    groups = read_results(scanned[1]).findings.groups
    assert any(group.atlas for group in groups)
    for group in groups:
        assert group.atlas == atlas_ids(group)
        assert "AML.T0024.002" in group.atlas or group.verdict != "campaign"
        for technique in techniques(group):
            assert technique.because
            assert technique.signals


def test_ids_and_names_are_those_of_the_pinned_galaxies() -> None:
    clusters = files("pymispgalaxies") / "data" / "misp-galaxy" / "clusters"
    known: dict[str, tuple[str, list[str]]] = {}
    for name in ("mitre-atlas-attack-pattern", "mitre-attack-pattern"):
        for value in json.loads((clusters / f"{name}.json").read_text())["values"]:
            id = value["meta"]["external_id"]
            tactics = [chain.partition(":")[2] for chain in value["meta"].get("kill_chain", [])]
            known[id] = (value["value"].removesuffix(f" - {id}"), tactics)
    assert {id for id in CATALOGUE if id not in known} == AFTER_THE_PIN
    for id in CATALOGUE.keys() & known.keys():
        name, tactics = known[id]
        tactic = CATALOGUE[id].tactic.lower().replace(" ", "-")
        assert RENAMED.get(name, name) == CATALOGUE[id].name
        assert RENAMED.get(tactic, tactic) in tactics
