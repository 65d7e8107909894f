"""The synthetic network: address blocks with owners, client software stacks, mail domains.

Autonomous system numbers are those of well-known operators, so that classification tables recognise their
kind; which block belongs to which of them is invented per seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESIDENTIAL = (
    7922,
    3320,
    4134,
    4837,
    3215,
    5089,
    7018,
    701,
    12322,
    3352,
    8151,
    28573,
    9121,
    9829,
    4766,
    2516,
    17676,
    3269,
    1221,
    12389,
)
MOBILE = (21928, 22394, 9808, 55836, 45609, 26599, 16135, 24203)
HOSTING = (16509, 14061, 24940, 16276, 63949, 20473, 15169, 8075, 45102, 51167)
CORPORATE = (13335, 15133, 32934, 714, 2906, 13414, 36351, 27435)
CAMPUS = (3, 32, 73, 25, 88, 111, 137, 680, 786, 1103, 2200, 4538, 7575)
WEBMAIL = (
    "gmail.com",
    "outlook.com",
    "yahoo.com",
    "icloud.com",
    "qq.com",
    "163.com",
    "proton.me",
    "gmx.de",
    "hotmail.com",
    "naver.com",
)
DISPOSABLE = (
    "mailinator.com",
    "guerrillamail.com",
    "yopmail.com",
    "temp-mail.org",
    "sharklasers.com",
    "dispostable.com",
)
_AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/{v}.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/{s}.1 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:{v}.0) Gecko/20100101 Firefox/{v}.0",
    "openai-python/1.{s}.{p}",
    "anthropic-sdk-python/0.{s}.{p}",
    "python-httpx/0.2{p}.0",
    "axios/1.{p}.2",
    "okhttp/4.1{p}.0",
    "Go-http-client/2.0",
    "node-fetch/3.{p}.1",
)


@dataclass(frozen=True)
class Network:
    """All address blocks (/24): `prefix[i]` is the text before the last octet, `asn[i]` its owner."""

    prefix: list[str]
    asn: np.ndarray
    homes: np.ndarray
    home_cdf: np.ndarray
    mobiles: np.ndarray
    hosts: np.ndarray
    offices: np.ndarray
    campuses: np.ndarray
    proxies: np.ndarray
    """Home blocks inside which resellers of residential exits operate; honest people live there too."""
    region: np.ndarray
    """Region 0..11 of each block; people sign up from their own region."""


@dataclass(frozen=True)
class Stacks:
    """Client software: TLS fingerprint, header order and user agent of each stack, with popularity."""

    ja4: list[str]
    header_hash: np.ndarray
    user_agent: list[str]
    popularity: np.ndarray
    sdk: np.ndarray
    """Indices of stacks that are programming libraries rather than browsers."""


def zipf_cdf(count: int, exponent: float) -> np.ndarray:
    """Cumulative Zipf weights over `count` ranks."""
    weights = 1.0 / np.arange(1, count + 1) ** exponent
    out: np.ndarray = np.cumsum(weights / weights.sum())
    return out


def hex_token(rng: np.random.Generator, digits: int = 16) -> str:
    """A random lower-case hexadecimal token."""
    return "".join("0123456789abcdef"[i] for i in rng.integers(0, 16, digits))


@dataclass(frozen=True)
class Pool:
    """What an operation buys once and reuses: addresses, instruments, client software, sign-up batches."""

    blocks: list[int]
    payments: list[str]
    stacks: list[int]
    batch_size: int
    batch_start_us: list[int]
    disposable_share: float
    virtual_share: float


def make_network(rng: np.random.Generator, accounts: int) -> Network:
    """Invent the address plan for a population of `accounts`."""
    n_home = max(200, accounts // 3)
    n_mobile = max(20, accounts // 120)
    n_host = max(30, accounts // 80)
    n_office = max(400, accounts // 8)
    n_campus = max(30, accounts // 200)
    sizes = (n_home, n_mobile, n_host, n_office, n_campus)
    total = sum(sizes)
    packed = rng.choice((223 - 11) * 65536, total, replace=False) + 11 * 65536
    first = packed // 65536
    packed = np.where(
        (first == 127) | (first == 172) | (first == 192) | (first == 169) | (first == 100),
        packed % 65536 + 45 * 65536,
        packed,
    )
    prefix = [f"{b >> 16}.{(b >> 8) & 255}.{b & 255}." for b in packed.tolist()]
    owners = [
        np.asarray(pool)[np.searchsorted(zipf_cdf(len(pool), 0.8), rng.random(size))]
        for pool, size in zip((RESIDENTIAL, MOBILE, HOSTING, CORPORATE, CAMPUS), sizes, strict=True)
    ]
    edges = np.cumsum((0, *sizes))
    ranges = [np.arange(edges[i], edges[i + 1]) for i in range(5)]
    proxies = rng.choice(ranges[0][: max(100, n_home // 2)], max(40, n_home // 25), replace=False)
    return Network(
        prefix=prefix,
        asn=np.concatenate(owners).astype(np.int32),
        homes=ranges[0],
        home_cdf=zipf_cdf(n_home, float(rng.uniform(0.5, 0.8))),
        mobiles=ranges[1],
        hosts=ranges[2],
        offices=ranges[3],
        campuses=ranges[4],
        proxies=proxies,
        region=rng.integers(0, 12, total),
    )


def make_stacks(rng: np.random.Generator, count: int = 70) -> Stacks:
    """Invent `count` client stacks; the first are the most popular."""
    ja4, agents, sdk = [], [], []
    for index in range(count):
        kind = int(rng.integers(len(_AGENTS)))
        browser = kind < 3
        ja4.append(
            f"t13d{15 if browser else int(rng.integers(10, 60)):02d}{int(rng.integers(8, 20)):02d}h2_"
            f"{hex_token(rng, 12)}_{hex_token(rng, 12)}"
        )
        agents.append(
            _AGENTS[kind].format(
                v=int(rng.integers(110, 142)), s=int(rng.integers(10, 60)), p=int(rng.integers(0, 9))
            )
        )
        if not browser:
            sdk.append(index)
    return Stacks(
        ja4=ja4,
        header_hash=rng.integers(1, 1 << 63, count, dtype=np.uint64),
        user_agent=agents,
        popularity=zipf_cdf(count, 1.1),
        sdk=np.asarray(sdk),
    )
