"""Client addresses as gateways write them: with a port, in brackets, or as a chain of hops."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

_OWN = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.168.0.0/16", "::1/128", "fc00::/7", "fe80::/10",
    )
)  # fmt: skip
"""Addresses of an operator's own machines (RFC 1918, 6598, 4193 and loopback): proxies, not clients."""


def client_address(hops: Any, peer: Any = None) -> str | None:
    """The client's address from an `x-forwarded-for` chain, else from the peer's address; None for neither.

    Taken is the newest hop that is not one of the operator's own machines: every proxy appends the address it
    was called from, and whatever stands further left the caller may have written himself. Where all are
    own machines, the newest.
    """
    if isinstance(hops, str) and hops:
        newest: str | None = None
        for part in reversed(hops.split(",")[-64:]):
            found, own = _parsed(part.strip()[:64])
            if found is None:
                continue
            if not own:
                return found
            newest = newest or found
        outer, own = _parsed(peer[:64]) if isinstance(peer, str) else (None, True)
        return outer if outer is not None and not own else newest or outer
    return _parsed(peer[:64])[0] if isinstance(peer, str) else None


@lru_cache(maxsize=1 << 16)
def _parsed(text: str) -> tuple[str | None, bool]:
    """(address without port and brackets, is it one of the operator's own); (None, False) for no address."""
    bare = text
    if text.startswith("["):
        bare = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        bare = text.partition(":")[0]
    try:
        address: IPv4Address | IPv6Address = ip_address(bare.partition("%")[0])
    except ValueError:
        return None, False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address), any(address.version == net.version and address in net for net in _OWN)
