"""What a scan leaves behind: the records of `findings.json` and the schemas of its tables.

Times in `findings.json` are ISO 8601, UTC. Statistics are rounded to 12 significant digits when written, so that
equal inputs give equal bytes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec
import pyarrow as pa

from stillwatch.schema.tables import TIMESTAMP

SCHEMA_VERSION = 2

Verdict = Literal["campaign", "lead", "cleared"]
WHY_LEAD = ("one_view", "few_references", "found_together", "not_harvest_like", "openly_one_customer")
WHY_CLEARED = ("verified_entity", "registered_gateway", "contract", "benchmark", "classroom")


class View(StrEnum):
    """Kinds of evidence."""

    FORM = "FORM"
    LINK = "LINK"
    TIME = "TIME"
    TRACE = "TRACE"
    FANOUT = "FANOUT"


class EvidenceKey(msgspec.Struct, frozen=True, kw_only=True):
    """Something that members share, and how rare it is elsewhere."""

    key: str
    """Hash of the key, 16 hex digits."""
    key_kind: str
    group_count: int
    """Members that hold it."""
    group_total: int
    background_count: int
    """Other accounts that hold it."""
    background_total: int


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One claim with its test."""

    name: str
    """`coordinated`, `one_director`, `harvest_like`."""
    holds: bool
    text: str
    statistic: float | None = None
    p: float | None = None
    q: float | None = None
    e_bits: float | None = None
    p_min: float | None = None
    """Smallest p that this test could have given."""
    references: int | None = None
    view_found: str | None = None
    views_confirmed: list[str] = []
    method: str | None = None


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of evidence or counter-evidence, in plain words and in bits (negative: against)."""

    kind: str
    """The view, or `DIRECT`, or `COUNTER`."""
    signal: str
    bits: float
    text: str
    keys: list[EvidenceKey] = []


class SharedKind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of key: who holds a key of that kind that is typical of the members and rare elsewhere."""

    view: str
    key_kind: str
    keys: int
    """Such keys; each is held by at most 1 in 100 other accounts."""
    group_count: int
    group_total: int
    background_count: int
    background_total: int


class TimelineEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened."""

    ts: str
    kind: str
    text: str


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """One group with its verdict."""

    id: str
    verdict: Verdict
    why: str | None
    accounts: int
    exchanges: int
    harvest_exchanges: int
    first_ts: str
    last_ts: str
    claims: list[Claim]
    evidence: list[Evidence]
    counter_evidence: list[Evidence]
    capabilities: list[str]
    families: list[str]
    timeline: list[TimelineEvent]
    activity: list[int]
    """Exchanges of the members per day of the log, first day first."""
    entities: int
    """Different declared or verified owners among the members."""
    recommended_action: str
    atlas: list[str]
    """Ids of the MITRE ATLAS techniques that the observations justify; none of a lead or a cleared group."""
    shared: list[SharedKind] = []
    """Largest share of members first."""
    merged_from: list[str] = []
    split_from: list[str] = []


class InputFile(msgspec.Struct, frozen=True, kw_only=True):
    """One input of a scan. The path is in `run.json`, outside every digest."""

    rows: int
    refused: int
    digest: str
    """SHA-256 of the file, hex."""
    format: str


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """How well one detector could see."""

    detector: str
    state: Literal["on", "weak", "blind"]
    reason: str


class TableUsed(msgspec.Struct, frozen=True, kw_only=True):
    """A lookup table (networks, mail domains, published prompts) or a side table that a scan had."""

    name: str
    rows: int
    digest: str
    """SHA-256 of its content, hex; of a side table's file."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The scan itself."""

    version: str
    config_digest: str
    seed: int
    inputs: list[InputFile]
    accounts: int
    exchanges: int
    refused: int
    first_ts: str
    last_ts: str
    candidates: int
    confirmed: int
    references: int
    references_needed: int
    p_min: float | None
    reach: str
    """What the number of references allows, in words."""
    sight: list[Sight]
    releases: list[TimelineEvent]
    notes: list[str]
    tables: list[TableUsed] = []
    """By name; the configuration digest covers them."""
    side: list[TableUsed] = []
    """Side tables (accounts, sanctions, releases, references) that the scan was given, by name: SHA-256 of the file.
    """
    previous: str | None = None
    """Digest of the earlier results whose group ids were kept."""
    appeals: str | None = None
    """Hash of the last row of the file of appeals that was given; the configuration digest covers it."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of `findings.json`."""

    schema_version: int
    run: Run
    groups: list[Group]


BITS = ("bits_form", "bits_link", "bits_time", "bits_trace", "bits_fanout")

ACCOUNT_ROWS = pa.schema(
    [
        pa.field("account_id", pa.string(), nullable=False),
        pa.field("campaign_id", pa.string(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("e_bits", pa.float64()),
        *(pa.field(name, pa.float64()) for name in BITS),
        pa.field("exchanges", pa.int64()),
        pa.field("harvest_exchanges", pa.int64()),
        pa.field("first_ts", TIMESTAMP),
        pa.field("last_ts", TIMESTAMP),
    ]
)
"""`accounts.parquet`: one row per account and group, all verdicts. Null bits: the view did not look."""

STREAM_ROWS = pa.schema(
    [
        pa.field("account_id", pa.string(), nullable=False),
        pa.field("family_id", pa.string(), nullable=False),
        pa.field("campaign_id", pa.string(), nullable=False),
        pa.field("exchanges", pa.int64()),
    ]
)
"""`streams.parquet`: which prompt families of which account belong to a group."""

FAMILY_ROWS = pa.schema(
    [
        pa.field("family_id", pa.string(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("skeleton", pa.string()),
        pa.field("accounts", pa.int64()),
        pa.field("exchanges", pa.int64()),
        pa.field("capability", pa.list_(pa.string())),
        pa.field("public", pa.bool_()),
    ]
)
"""`families.parquet`: families that some group holds."""

PROFILE_ROWS = pa.schema(
    [
        pa.field("campaign_id", pa.string(), nullable=False),
        pa.field("view", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("key_kind", pa.string(), nullable=False),
        pa.field("group_count", pa.int64()),
        pa.field("group_total", pa.int64()),
        pa.field("background_count", pa.int64()),
        pa.field("background_total", pa.int64()),
        pa.field("first_ts", TIMESTAMP),
    ]
)
"""`profiles.parquet`: what the guard and partners need of a group's keys."""

WATERFALL_ROWS = pa.schema(
    [
        pa.field("account_id", pa.string(), nullable=False),
        pa.field("campaign_id", pa.string(), nullable=False),
        pa.field("view", pa.string(), nullable=False),
        pa.field("key_kind", pa.string(), nullable=False),
        pa.field("key", pa.string()),
        pa.field("bits", pa.float64()),
    ]
)
"""`waterfall.parquet`: what makes up `e_bits` of the accounts of campaigns and leads; the bits of one account and
group sum to it. `key_kind` is a kind of key, `other_keys` (the weaker keys of a view together), `co_activity`, or
`closing` in the view `ALL`: the mean over stakes and views, and the strongest view, which does not count."""
