"""Shared fixtures. Tests that need reference data or a server program skip by name, or fail where they must not."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from stillwatch import arena
from stillwatch.scan import scan
from stillwatch.schema.results import (
    ACCOUNT_ROWS,
    FAMILY_ROWS,
    PROFILE_ROWS,
    SCHEMA_VERSION,
    STREAM_ROWS,
    WATERFALL_ROWS,
    Claim,
    Evidence,
    EvidenceKey,
    Findings,
    Group,
    Run,
    SharedKind,
    Sight,
    TimelineEvent,
)
from stillwatch.store.results import Results, results_of, write_results


def shared_data() -> Path | None:
    """The reference data folder, where it is there."""
    named = os.environ.get("STILLWATCH_SHARED")
    places = [Path(named)] if named else [Path(__file__).parents[2] / "shared" / "data"]
    return next((place for place in places if (place / "corpora.parquet").exists()), None)


@pytest.fixture(autouse=True, scope="session")
def no_tables_of_this_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test may depend on lookup tables that somebody keeps on this computer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STILLWATCH_DATA", str(tmp_path_factory.mktemp("tables") / "none"))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shared_data() is None:
        skip = pytest.mark.skip(reason="the reference data folder is absent (STILLWATCH_SHARED names it)")
        for item in items:
            if item.get_closest_marker("corpora"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The demo's log and the results of its scan; made once for all processes of a run. Not to be written to."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "scanned"
    with (folder.parent / "scanned.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            making = folder.with_name("scanned.making")
            arena.make("demo", making / "log", seed=3)
            write_results(making / "results", results_of(scan([str(making / "log")])))
            making.rename(folder)
    return folder / "log", folder / "results"


@pytest.fixture
def sample() -> Callable[..., Results]:
    """Makes a small results folder's content, the same for every test that reads one."""
    return sample_results


def sample_results(
    text: str = "plain words", skeleton: str = "Rate the answer on ▢ from ▪ to ▪.\nCase: ▢"
) -> Results:
    """One campaign, one lead and one cleared group; `text` stands in every free text."""
    run = Run(
        version="1", config_digest="0" * 64, seed=0, inputs=[], accounts=5000, exchanges=10000, refused=2,
        first_ts="2026-01-01T00:00:00Z", last_ts="2026-01-03T23:00:00Z", candidates=9, confirmed=3,
        references=40, references_needed=19, p_min=1 / 41, reach=text,
        sight=[
            Sight(detector="LINK addresses", state="on", reason=text),
            Sight(detector="LINK payment", state="blind", reason=text),
        ],
        releases=[TimelineEvent(ts="2026-01-02T08:00:00Z", kind="release", text=text)], notes=[text],
    )  # fmt: skip
    key = EvidenceKey(
        key="00ff00ff00ff00ff", key_kind="payment", group_count=5, group_total=8, background_count=1,
        background_total=4992,
    )  # fmt: skip
    alone = msgspec.structs.replace(key, key="0abc0abc0abc0abc", key_kind="prompt_family", background_count=0)
    group = Group(
        id="g-0123456789ab", verdict="campaign", why=None, accounts=8, exchanges=1080, harvest_exchanges=940,
        first_ts="2026-01-01T00:10:00Z", last_ts="2026-01-03T22:00:00Z",
        claims=[
            Claim(name="coordinated", holds=True, text=text, p=2e-15, q=3e-8, p_min=1e-15),
            Claim(name="one_director", holds=True, text=text, p=1e-75, p_min=0.0),
            Claim(name="harvest_like", holds=False, text=text, p=0.0244, q=0.11, p_min=1 / 41, references=40),
        ],
        evidence=[
            Evidence(kind="FORM", signal="prompt_family", bits=14.2, text=text, keys=[alone]),
            Evidence(kind="LINK", signal="payment", bits=9.5, text=text, keys=[key]),
            Evidence(kind="DIRECT", signal="handover", bits=246.1, text=text),
        ],
        counter_evidence=[
            Evidence(kind="COUNTER", signal="openness", bits=-1.3, text=text),
            Evidence(kind="COUNTER", signal="TIME", bits=0.0, text=text),
        ],
        capabilities=[], families=["0abc0abc0abc0abc"],
        timeline=[
            TimelineEvent(ts="2026-01-01T00:10:00Z", kind="first", text="First exchange of a member."),
            TimelineEvent(ts="2026-01-02T08:00:00Z", kind="release", text=text),
            TimelineEvent(ts="2026-01-03T10:00:00Z", kind="sanction", text="3 members banned on this day."),
        ],
        activity=[100, 900, 80], entities=0, recommended_action=text, atlas=["AML.T0024.002"],
        shared=[
            SharedKind(
                view="LINK", key_kind="payment", keys=2, group_count=5, group_total=8, background_count=1,
                background_total=4992,
            )
        ],
        merged_from=["g-00000000000a"],
    )  # fmt: skip
    lead = msgspec.structs.replace(
        group, id="g-1111111111aa", verdict="lead", why="openly_one_customer", accounts=1, evidence=[],
        counter_evidence=[], families=[], shared=[], merged_from=[], split_from=["g-00000000000b"], atlas=[],
    )  # fmt: skip
    cleared = msgspec.structs.replace(
        lead, id="g-2222222222bb", verdict="cleared", why="benchmark", split_from=[]
    )
    row = {
        "account_id": "acct-1", "campaign_id": group.id, "verdict": "campaign", "role": "core", "e_bits": 6.25,
        "bits_form": 9.0, "bits_link": 7.0, "bits_time": -0.5, "exchanges": 120, "harvest_exchanges": 110,
        "first_ts": datetime(2026, 1, 1, 0, 10, tzinfo=UTC), "last_ts": datetime(2026, 1, 3, 22, tzinfo=UTC),
    }  # fmt: skip
    other = row | {"account_id": "acct-2", "role": "recruit", "e_bits": 4.0, "bits_time": None}
    steps = [
        ("FORM", "prompt_family", "0abc0abc0abc0abc", 8.5),
        ("FORM", "other_keys", None, 1.0),
        ("LINK", "payment", "00ff00ff00ff00ff", 5.5),
        ("LINK", "mail_domain", "0def0def0def0def", 1.75),
        ("TIME", "co_activity", None, -0.5),
        ("ALL", "closing", None, -10.0),
    ]
    profiles = [
        {"campaign_id": group.id, "view": view, "key": k.key, "key_kind": k.key_kind, "group_count": 5,
         "group_total": 8, "background_count": k.background_count, "background_total": 4992}
        for view, k in (("FORM", alone), ("LINK", key))
    ]  # fmt: skip
    family = {
        "family_id": "0abc0abc0abc0abc", "fingerprint": "0abc0abc0abc0abc", "part": "prompt", "skeleton": skeleton,
        "accounts": 5, "exchanges": 940, "capability": [], "public": False,
    }  # fmt: skip
    return Results(
        Findings(schema_version=SCHEMA_VERSION, run=run, groups=[group, lead, cleared]),
        pa.Table.from_pylist([row, other], schema=ACCOUNT_ROWS),
        STREAM_ROWS.empty_table(),
        pa.Table.from_pylist([family], schema=FAMILY_ROWS),
        pa.Table.from_pylist(profiles, schema=PROFILE_ROWS),
        pa.Table.from_pylist(
            [
                {
                    "account_id": "acct-1",
                    "campaign_id": group.id,
                    "view": v,
                    "key_kind": n,
                    "key": k,
                    "bits": b,
                }
                for v, n, k, b in steps
            ],
            schema=WATERFALL_ROWS,
        ),
    )
