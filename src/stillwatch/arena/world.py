"""The plan of a world: accounts, streams of requests and hand-overs, before any request exists.

Population modules fill a `World`; `compose` turns it into tables. Nothing here is written to disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from stillwatch.arena.infrastructure import DISPOSABLE, WEBMAIL, Network, Pool, Stacks, hex_token, zipf_cdf
from stillwatch.arena.text import LANGUAGES, Template, TextSource
from stillwatch.arena.timing import DAY_US, HOUR_US, Bursts, daily_curve

LOG_DAYS = 14
LOG_HOURS = LOG_DAYS * 24
ZONES = (8, 0, 1, -5, -8, 9, 5, -3, 2, 3, -6, 7)
"""Hours east of UTC of the twelve regions."""
REGION_LANGUAGE = (1, 0, 4, 0, 0, 2, 0, 5, 3, 0, 3, 0)


@dataclass(frozen=True)
class Request:
    """Request settings that one program or person uses throughout."""

    max_tokens: int | None
    temperature: float | None
    stream: bool
    endpoint: str
    model: int
    tools_hash: int | None = None
    format_hash: int | None = None
    reasoning_effort: str | None = None


@dataclass(frozen=True)
class Stream:
    """A kind of request that an account makes repeatedly."""

    request: Request
    template: Template | None = None
    harvest: bool = False
    mode: str = "chat"
    """`chat`: turns of one conversation; `bulk`: independent requests; `agent`: tool loops."""
    mean_length: float = 4.0
    gap_s: float = 60.0
    split: int | None = None
    """Number of the work split: items are handed out without overlap over all accounts of one operation."""
    items: tuple[tuple[int, int, str], ...] | None = None
    """A finite public item set (slot a, slot b, material), drawn at random by everybody."""
    system: str | None = None
    obfuscate: float = 0.0
    """Share of requests whose wording is disguised."""
    repeat: int = 1
    """How often each item of the work split is handed out."""
    wander: bool = False
    """Every request picks a wording of its own instead of its account's usual one."""
    refuse: float = 0.0
    """Share of answered requests that the model declines."""
    window_us: tuple[int, int] | None = None
    """The stream is in use only between these moments."""
    circle: int | None = None
    """Number of the circle of accounts over which its conversations move and blocks are replayed."""
    move: float = 0.0
    """Chance that a later turn of a conversation goes to another account of the circle."""
    replay: float = 0.0
    """Share of requests that carry a reasoning block which another account of the circle was given."""
    compact: float = 0.0
    """Chance per later turn that the client replaces the conversation so far by a summary of its own."""


@dataclass
class Account:
    """Everything about one account but its requests."""

    kind: str
    group: int
    operation: str | None
    region: int
    language: int
    """Index into `LANGUAGES`; -1 for a relay, whose conversations are each in a language of their own."""
    created_us: int
    places: list[tuple[int, int]]
    """(block, last octet); the first is the usual one."""
    stacks: list[int]
    streams: list[tuple[float, int]]
    """(share, stream index)."""
    weight: float
    """Relative volume; ignored where `volume` is set."""
    volume: int | None = None
    schedule: np.ndarray | None = None
    """Hourly weights shared with a group, or None for the account's own daily curve."""
    schedule_share: float = 1.0
    active_us: tuple[int, int] | None = None
    """Life of the account inside the log; None for the whole log."""
    entity_id: str | None = None
    verified: bool | None = None
    tier: str = "free"
    program: str | None = None
    payment_fp: str | None = None
    payment_kind: str | None = None
    email_domain: str | None = None
    signup_place: tuple[int, int] | None = None
    device_fp: str | None = None
    referral: str | None = None
    contract: str | None = None
    end_users: list[str] | None = None
    end_user_trust: str | None = None
    shuffle_agents: bool = False
    """Claims a random user agent per conversation over one real stack."""
    pivot_us: int | None = None
    """From this moment on every request asks for the new model; None: by chance, as people do."""
    stripped: bool = False
    """Requests pass a gateway that removes user agent and conversation ids."""


@dataclass(frozen=True)
class Handover:
    """At `at_us` account `old` is stopped (`kind`: ban or rate_limit); `new` continues its conversations."""

    old: int
    new: int
    at_us: int
    kind: str
    stream: int
    within_s: float = 9.0
    """Longest time until the first request of `new`, in seconds."""


@dataclass
class World:
    """A population under construction."""

    seed: int
    scenario: str
    start_us: int
    first_weekday: int
    rng: np.random.Generator
    source: TextSource
    network: Network
    stacks: Stacks
    bursts: Bursts
    requested_accounts: int
    requested_exchanges: int
    models: list[str]
    release_us: int
    accounts: list[Account] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    handovers: list[Handover] = field(default_factory=list)
    bans: list[tuple[int, int, str, str]] = field(default_factory=list)
    """(ts_us, account, kind, reason) besides those of hand-overs."""
    public_streams: list[int] = field(default_factory=list)
    """Streams of popular public programs that anybody may use."""
    splits: int = 0
    circles: list[list[int]] = field(default_factory=list)
    """Accounts that can continue each other's conversations."""
    public_sets: list[tuple[tuple[int, int, str], ...]] = field(default_factory=list)
    """Published sets of instructions that researchers run without a wrapper."""
    public_tools: list[int] = field(default_factory=list)
    """Tool schemas (hashes) of popular agent programs."""
    largest_share: float = 0.035
    """Most exchanges of the log that one operation takes unless it is told otherwise."""
    first_account: int = 0
    first_group: int = 0
    """Accounts and groups of the shards before this one."""
    outage: tuple[int, int] | None = None
    """Begin and length (us) of the service's outage; None: drawn when the log is composed."""
    reseller: Pool | None = None
    """Whose stock operations buy from, if they buy from one."""

    @property
    def end_us(self) -> int:
        return self.start_us + LOG_DAYS * DAY_US

    def blank(self, **changes: Any) -> World:
        """A world with the same surroundings and nobody in it yet."""
        empty: dict[str, Any] = {f.name: [] for f in fields(self) if f.default_factory is list}
        return replace(self, **empty | changes)

    def group(self, kind: str, operation: str | None, **parameters: Any) -> int:
        """Register a group for the truth tables and return its index."""
        self.groups.append({"kind": kind, "operation": operation, "parameters": parameters})
        return len(self.groups) - 1

    def stream(self, stream: Stream) -> int:
        """Register a stream and return its index."""
        self.streams.append(stream)
        return len(self.streams) - 1

    def request(self, *, program: bool) -> Request:
        """Settings as a person (`program=False`) or a script chooses them; one distribution for all kinds."""
        rng = self.rng
        limits = (None, 256, 512, 1024, 2048, 4096, 8192)
        limit = limits[
            int(
                rng.integers(1, 7)
                if program and rng.random() < 0.8
                else rng.integers(0, 7) * (rng.random() < 0.3)
            )
        ]
        temperature = (
            round(float(rng.choice([0.0, 0.2, 0.3, 0.7, 0.8, 1.0])), 2)
            if rng.random() < (0.5 if program else 0.35)
            else None
        )
        model = int(np.searchsorted(np.cumsum([0.45, 0.3, 0.25]), rng.random()))
        return Request(
            max_tokens=limit,
            temperature=temperature,
            stream=bool(rng.random() < (0.35 if program else 0.8)),
            endpoint=("chat.completions", "messages", "responses")[int(rng.integers(3))],
            model=min(model, 2),
            format_hash=int(rng.integers(1, 1 << 63)) if program and rng.random() < 0.3 else None,
            reasoning_effort=("low", "medium", "high")[int(rng.integers(3))] if rng.random() < 0.2 else None,
        )

    def block_at_home(self, region: int) -> int:
        """A residential block of the region, Zipf-shared."""
        network, rng = self.network, self.rng
        for _ in range(12):
            block = int(
                network.homes[
                    min(int(np.searchsorted(network.home_cdf, rng.random())), len(network.homes) - 1)
                ]
            )
            if network.region[block] == region:
                return block
        return block

    def place(self, block: int) -> tuple[int, int]:
        """An address inside a block."""
        return block, int(self.rng.integers(1, 255))

    def popular_stack(self, *, sdk: bool) -> int:
        """A client stack by popularity; `sdk` keeps to programming libraries."""
        rank = min(int(np.searchsorted(self.stacks.popularity, self.rng.random())), len(self.stacks.ja4) - 1)
        if sdk:
            return int(self.stacks.sdk[rank % len(self.stacks.sdk)])
        return rank

    def signup(self, region: int) -> int:
        """An organic sign-up time (us): growing over 400 days, some inside the log, by the local clock."""
        rng = self.rng
        days_back = (
            float(rng.triangular(-LOG_DAYS + 1, 0, 400))
            if rng.random() < 0.92
            else float(rng.uniform(-9, 30))
        )
        day = self.start_us // DAY_US - int(days_back)
        local = float(np.clip(rng.normal(15, 4.2), 0, 23.99))
        moment = day * DAY_US + int(((local - ZONES[region]) % 24) * HOUR_US) + int(rng.integers(HOUR_US))
        return min(moment, self.end_us - 3 * DAY_US)

    def person(
        self,
        kind: str,
        group: int,
        streams: list[tuple[float, int]],
        *,
        weight: float,
        region: int | None = None,
    ) -> Account:
        """An account with identity drawn as unrelated people's are, appended to the world and returned."""
        rng = self.rng
        if region is None:
            region = int(np.searchsorted(zipf_cdf(12, 0.6), rng.random()))
        language = REGION_LANGUAGE[region] if rng.random() < 0.7 else int(rng.integers(len(LANGUAGES)))
        places = [self.place(self.block_at_home(region))]
        if rng.random() < 0.35:
            places.append(self.place(int(rng.choice(self.network.mobiles))))
        if rng.random() < 0.12:
            places.append(self.place(int(rng.choice(self.network.hosts))))
        if rng.random() < 0.08:
            places.append(self.place(int(rng.choice(self.network.proxies))))
        paid = rng.random() < 0.55
        draw = rng.random()
        mail = (
            WEBMAIL[int(np.searchsorted(zipf_cdf(len(WEBMAIL), 1.2), rng.random()))]
            if draw < 0.85
            else DISPOSABLE[int(rng.integers(len(DISPOSABLE)))]
            if draw < 0.88
            else f"{hex_token(rng, 8)}.example"
        )
        sdk = bool(rng.random() < 0.45)
        account = Account(
            kind=kind,
            group=group,
            operation=None,
            region=region,
            language=language,
            created_us=self.signup(region),
            places=places,
            stacks=[self.popular_stack(sdk=sdk)]
            + ([self.popular_stack(sdk=False)] if rng.random() < 0.25 else []),
            streams=streams,
            weight=weight,
            tier=("tier1", "tier2", "tier3")[int(rng.integers(3))] if paid else "free",
            program=("education", "research", "startup", "trial")[int(rng.integers(4))]
            if rng.random() < 0.07
            else None,
            payment_fp=hex_token(rng) if paid else None,
            payment_kind=("card", "card", "card", "virtual", "wallet")[int(rng.integers(5))]
            if paid
            else None,
            email_domain=mail,
            signup_place=places[0] if rng.random() < 0.85 else self.place(self.block_at_home(region)),
            device_fp=hex_token(rng) if rng.random() < 0.8 else None,
            referral=("search", "friend", "docs", "social")[int(rng.integers(4))]
            if rng.random() < 0.3
            else None,
        )
        self.accounts.append(account)
        return account

    def curve(self, region: int) -> np.ndarray:
        """The region's daily curve with personal peak and width, shape (LOG_HOURS,)."""
        rng = self.rng
        return daily_curve(
            LOG_HOURS,
            ZONES[region],
            peak=float(rng.normal(14.5, 2.5)),
            width=float(rng.uniform(2.5, 5.0)),
            floor=float(rng.uniform(0.02, 0.2)),
            weekend=float(rng.uniform(0.2, 1.0)),
            first_weekday=self.first_weekday,
        )
