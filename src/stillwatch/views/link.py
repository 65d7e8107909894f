"""LINK: what accounts share of infrastructure and identity.

*Identity* signals (address block, payment, device, mail domain, sign-up) are bought and arranged by whoever
runs the accounts. *Stack* signals (TLS client and header order) come with a piece of software, and with an
honest framework's prompt; so they may link accounts but never confirm a group that FORM found.
"""

from __future__ import annotations

import functools
import ipaddress
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.views.base import U64, column, hash_strings, mix

HOUR_US = 3_600_000_000
SIGNUP_BIN_US = 10 * 60 * 1_000_000
"""Width of a sign-up batch key. Ten minutes: a script's burst, not a launch day."""


@functools.lru_cache(maxsize=1 << 18)
def address_block(text: str | None) -> str | None:
    """IPv4 /24 or IPv6 /48 of an address, as text; None for what is no address or is not routable."""
    if not text:
        return None
    try:
        address = ipaddress.ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback or address.is_unspecified or address.is_link_local or address.is_multicast:
        return None
    if address.is_private and not _documentation(address):
        return None
    bits = 24 if address.version == 4 else 48
    return str(ipaddress.ip_network((address, bits), strict=False).network_address)


_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_PLAIN_IPV4 = rf"^(?P<block>{_OCTET}\.{_OCTET}\.{_OCTET})\.{_OCTET}$"
_DOCUMENTATION = tuple(
    ipaddress.ip_network(net)
    for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15", "2001:db8::/32")
)


def _documentation(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Documentation and benchmark ranges count as routable, so that examples behave like real logs."""
    return any(address.version == net.version and address in net for net in _DOCUMENTATION)


def address_blocks(addresses: pa.Array | pa.ChunkedArray, kind: str) -> U64:
    """Block keys of a string column of addresses, each distinct address parsed once. Shape (rows,)."""
    if isinstance(addresses, pa.ChunkedArray):
        addresses = addresses.combine_chunks()
    if pa.types.is_null(addresses.type):
        return np.zeros(len(addresses), np.uint64)
    encoded = addresses.dictionary_encode()
    # Plain IPv4 addresses are looked up by their first three numbers: many addresses, few blocks.
    first = pc.struct_field(pc.extract_regex(encoded.dictionary, _PLAIN_IPV4), "block")
    stand_in = pc.coalesce(
        pc.binary_join_element_wise(first, "0", "."), encoded.dictionary
    ).dictionary_encode()
    blocks = pa.array([address_block(a) for a in stand_in.dictionary.to_pylist()], pa.string())
    table: U64 = np.append(
        hash_strings(blocks, kind)[stand_in.indices.to_numpy(zero_copy_only=False)], np.uint64(0)
    )
    return table[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]


class AddressBlock:
    """Client address block (IPv4 /24, IPv6 /48)."""

    name: ClassVar[str] = "address_block"
    needs: ClassVar[tuple[str, ...]] = ("ip",)

    def keys(self, batch: pa.RecordBatch) -> U64:
        return address_blocks(column(batch, "ip"), self.name)


class Stack:
    """TLS client fingerprint together with the order of header names."""

    name: ClassVar[str] = "stack"
    needs: ClassVar[tuple[str, ...]] = ("ja4", "header_hash")

    def keys(self, batch: pa.RecordBatch) -> U64:
        ja4 = hash_strings(column(batch, "ja4"), "ja4")
        header = column(batch, "header_hash")
        if pa.types.is_null(header.type):
            return mix(ja4, self.name)
        order = pc.fill_null(header, 0).to_numpy(zero_copy_only=False).astype(np.uint64)
        with np.errstate(over="ignore"):
            both = ja4 ^ (order * np.uint64(0xD6E8FEB86659FD93))
        both[ja4 == 0] = 0
        return mix(both, self.name)


class _AccountColumn:
    """A signal that is one string column of the accounts table."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]

    def keys(self, accounts: pa.Table) -> U64:
        return hash_strings(column(accounts, self.needs[0]), self.name)


class Payment(_AccountColumn):
    """Payment instrument, as the operator's keyed hash."""

    name: ClassVar[str] = "payment"
    needs: ClassVar[tuple[str, ...]] = ("payment_fp",)


class Device(_AccountColumn):
    """Device fingerprint at sign-up."""

    name: ClassVar[str] = "device"
    needs: ClassVar[tuple[str, ...]] = ("device_fp",)


class MailDomain(_AccountColumn):
    """Mail domain. Webmail needs no list: thousands hold it, so it is worth no bits."""

    name: ClassVar[str] = "mail_domain"
    needs: ClassVar[tuple[str, ...]] = ("email_domain",)


class Referral(_AccountColumn):
    """Referral code used at sign-up."""

    name: ClassVar[str] = "referral"
    needs: ClassVar[tuple[str, ...]] = ("referral",)


class SignupBlock:
    """Address block at sign-up."""

    name: ClassVar[str] = "signup_block"
    needs: ClassVar[tuple[str, ...]] = ("signup_ip",)

    def keys(self, accounts: pa.Table) -> U64:
        # The same block at sign-up and in use is the same tell, so both carry one kind.
        return address_blocks(column(accounts, "signup_ip"), AddressBlock.name)


class SignupBatch:
    """Sign-up within the same ten minutes."""

    name: ClassVar[str] = "signup_batch"
    needs: ClassVar[tuple[str, ...]] = ("created_at",)

    def keys(self, accounts: pa.Table) -> U64:
        created = column(accounts, "created_at")
        if pa.types.is_null(created.type):
            return np.zeros(accounts.num_rows, np.uint64)
        us = pc.fill_null(pc.cast(created, pa.int64()), 0).to_numpy(zero_copy_only=False)
        known = us[us > 0]
        if len(known) and (known % HOUR_US == 0).mean() > 0.5:
            # Dates or whole hours: everybody of one day would share a key.
            return np.zeros(accounts.num_rows, np.uint64)
        return mix((us // SIGNUP_BIN_US).astype(np.uint64), self.name)


BATCH_SIGNALS = (AddressBlock(), Stack())
ACCOUNT_SIGNALS = (Payment(), Device(), MailDomain(), Referral(), SignupBlock(), SignupBatch())
IDENTITY_KINDS = ("address_block", "payment", "device", "mail_domain", "referral", "signup_batch")
"""Kinds that are arranged by whoever runs the accounts; only these confirm."""

KINDS = ("address_block", "stack", "payment", "device", "mail_domain", "referral", "signup_batch")
