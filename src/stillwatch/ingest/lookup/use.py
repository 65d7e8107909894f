"""Looking things up: networks of addresses, classes of mail domains, published prompts. Whole columns at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.schema.results import TableUsed

_IPV4 = r"^(?:::ffff:)?(?P<a>\d{1,3})\.(?P<b>\d{1,3})\.(?P<c>\d{1,3})\.(?P<d>\d{1,3})$"

WEBMAIL = frozenset((
    "126.com", "163.com", "aol.com", "foxmail.com", "free.fr", "gmail.com", "gmx.com", "gmx.de", "gmx.net",
    "googlemail.com", "hotmail.com", "icloud.com", "live.com", "mail.com", "mail.ru", "me.com", "msn.com",
    "naver.com", "outlook.com", "proton.me", "protonmail.com", "qq.com", "rediffmail.com", "sina.com",
    "web.de", "yahoo.co.jp", "yahoo.co.uk", "yahoo.com", "yandex.com", "yandex.ru", "ymail.com",
    "zoho.com",
))  # fmt: skip
"""Mail providers that anybody knows; a log's own numbers tell the others."""

SHARED_KINDS = ("privacy_relay", "vpn", "tor_exit", "tor_node")
"""Kinds of `ip_kinds`, besides open proxies, whose addresses any stranger may come from."""

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Lookups:
    """The tables at hand, by name, in the form of `shapes`. Any of them may be missing."""

    tables: dict[str, pa.Table] = field(default_factory=dict)
    used: tuple[TableUsed, ...] = ()
    """Name, rows and digest of each table."""
    damaged: tuple[str, ...] = ()
    """Tables that are there and cannot be read; they count as missing."""

    def __contains__(self, name: str) -> bool:
        return name in self.tables

    def asn(self, addresses: pa.Array) -> pa.Array:
        """Autonomous system of each address of a string column, int32; null where the table knows none.

        IPv4 only, IPv6-mapped addresses included. Numbers above 2**31 (reserved ones) count as unknown.
        """
        table = self.tables.get("asn_ipv4")
        if table is None or addresses.null_count == len(addresses):
            return pa.nulls(len(addresses), pa.int32())
        encoded = addresses.dictionary_encode()
        number = ipv4_numbers(encoded.dictionary)
        place = np.searchsorted(table.column("start").to_numpy(), number, side="right") - 1
        inside = (number >= 0) & (place >= 0)
        place = np.where(inside, place, 0)
        if table.num_rows == 0:
            return pa.nulls(len(addresses), pa.int32())
        inside &= number <= table.column("end").to_numpy()[place]
        found = table.column("asn").to_numpy()[place]
        inside &= (found > 0) & (found < 2**31)
        return pa.array(found, mask=~inside).cast(pa.int32(), safe=False).take(encoded.indices)

    def hosted(self, addresses: pa.Array) -> Bool:
        """Whether each address lies in a hosting network or in a listed cloud, relay or proxy range."""
        encoded = addresses.dictionary_encode()
        number = ipv4_numbers(encoded.dictionary)
        hit = np.zeros(len(number), bool)
        if "hosting_asns" in self.tables:
            asn = pc.fill_null(self.asn(encoded.dictionary), -1).to_numpy(zero_copy_only=False)
            hit |= np.isin(asn, self.tables["hosting_asns"].column("asn").to_numpy())
        if "ip_kinds" in self.tables:
            hit |= _in_ranges(number, self.tables["ip_kinds"])
        index = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return np.append(hit, False)[index]

    def shared_exits(self, addresses: pa.Array) -> Bool:
        """Whether each address is one that strangers come out of: a privacy relay, a VPN, Tor, an open proxy."""
        if "ip_kinds" not in self.tables or pa.types.is_null(addresses.type):
            return np.zeros(len(addresses), bool)
        encoded = addresses.dictionary_encode()
        first, last = self.exits.T
        number = ipv4_numbers(encoded.dictionary)
        place = np.searchsorted(first, number, side="right") - 1
        hit = (place >= 0) & (number <= last[place]) if len(first) else np.zeros(len(number), bool)
        return np.append(hit, False)[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]

    @property
    def exits(self) -> I64:
        """IPv4 ranges that strangers come out of: (first, last) numbers, shape (ranges, 2), sorted and disjoint."""
        ranges = self.tables.get("ip_kinds")
        if ranges is None:
            return np.zeros((0, 2), np.int64)
        kind = ranges.column("kind")
        shared = pc.or_(pc.is_in(kind, pa.array(SHARED_KINDS, kind.type)), pc.starts_with(kind, "open_proxy"))
        ranges = ranges.filter(shared)
        start, end = (ranges.column(name).to_numpy().astype(np.int64) for name in ("start", "end"))
        furthest = np.maximum.accumulate(end)
        fresh = np.flatnonzero(np.append(True, start[1:] > furthest[:-1]))[: len(start)]
        if len(fresh) == 0:
            return np.zeros((0, 2), np.int64)
        return np.stack([start[fresh], furthest[np.append(fresh[1:], len(start)) - 1]], axis=1)

    def disposable(self, domains: Iterable[str]) -> set[str]:
        """Those of `domains` that are throw-away mail, by themselves or by a domain above them."""
        table = self.tables.get("disposable_email_domains")
        if table is None:
            return set()
        known = set(table.column("domain").to_pylist())
        return {domain for domain in domains if not known.isdisjoint(_with_parents(domain.lower()))}

    @property
    def public_postings(self) -> U64:
        """Shingles of published prompts, sorted."""
        table = self.tables.get("public_prompts")
        return np.zeros(0, np.uint64) if table is None else table.column("posting").to_numpy()


NO_LOOKUPS = Lookups()


def ipv4_numbers(addresses: pa.Array) -> I64:
    """IPv4 addresses of a string column as numbers; -1 for whatever is none. Shape (rows,)."""
    if pa.types.is_null(addresses.type):
        return np.full(len(addresses), -1, np.int64)
    parts = pc.extract_regex(pc.utf8_lower(pc.utf8_trim_whitespace(addresses)), _IPV4)
    good: Bool = parts.is_valid().to_numpy(zero_copy_only=False)
    total = np.zeros(len(addresses), np.int64)
    for name in "abcd":
        octet = pc.struct_field(parts, name).fill_null("0").cast(pa.int64()).to_numpy(zero_copy_only=False)
        good &= octet <= 255
        total = total * 256 + octet
    return np.where(good, total, -1)


def _in_ranges(number: I64, ranges: pa.Table) -> Bool:
    """Whether each number lies in one of the ranges, which are sorted by `start`; -1 lies in none."""
    if ranges.num_rows == 0:
        return np.zeros(len(number), bool)
    # Ranges may lie in each other: what counts is the furthest end of all that start at or before.
    furthest = np.maximum.accumulate(ranges.column("end").to_numpy())
    place = np.searchsorted(ranges.column("start").to_numpy(), number, side="right") - 1
    return np.asarray((number >= 0) & (place >= 0) & (number <= furthest[np.maximum(place, 0)]))


def _with_parents(domain: str) -> list[str]:
    labels = domain.split(".")
    return [".".join(labels[i:]) for i in range(max(1, len(labels) - 1))]
