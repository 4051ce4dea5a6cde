"""From a URL that a stranger wrote to addresses that may be connected to: none of them leads into our own network.

Whoever lets others name a URL lends them its place in the network: metadata services, databases and everything else
that trusts the machine. So the name is resolved once, every address it has is judged, and the caller connects to an
address from here and never to the name, which may mean another address a moment later.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple
from urllib.parse import urlsplit

IPAddress = IPv4Address | IPv6Address
#: Raises OSError where a name cannot be resolved.
Resolver = Callable[[str], Awaitable[Sequence[IPAddress]]]

#: What the Internet routes, of IPv6: everything beyond is loopback, link-local, unique local, multicast, a spelling of
#: an IPv4 address (::/96, 64:ff9b::/96), or not assigned.
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
#: Within it: protocol assignments with Teredo (2001::/23), which embed IPv4 addresses as 6to4 (2002::/16) does, and
#: addresses for documentation.
_NOT_PUBLIC_IPV6: Final = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
#: Beyond what Python knows as not global: the anycast address of 6to4 relays.
_NOT_PUBLIC_IPV4: Final = (IPv4Network("192.88.99.0/24"),)
#: Where cloud machines find their credentials, besides the link-local 169.254.169.254.
_METADATA: Final = IPv6Address("fd00:ec2::254")
#: What is let through where private hosts are allowed. Never what is link-local.
_PRIVATE: Final = tuple(
    map(
        ip_network, ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "::1", "fc00::/7")
    )
)
_HOST_NAME: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*", re.ASCII)


class HostRefused(Exception):
    """The URL or an address behind it is not one to connect to. The text is for the log: it may name the address."""


class Endpoint(NamedTuple):
    """Where a URL leads, by name."""

    host: str
    port: int

    @property
    def authority(self) -> str:
        """As in a URL and in HTTP's Host."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def https_endpoint(url: str) -> Endpoint:
    """Of an https URL, port 443 where it has none. Raises HostRefused for every other; decided from the text alone."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise HostRefused("not a URL") from None
    if not url.isascii() or not url.isprintable() or parts.scheme != "https":
        raise HostRefused("not an https URL")
    if parts.username is not None or parts.password is not None or port == 0:
        raise HostRefused("a URL with credentials or without a port to connect to")
    if not _is_address(host) and _HOST_NAME.fullmatch(host) is None:
        raise HostRefused("not the name of a host")
    return Endpoint(host, port or 443)


async def resolve(host: str, resolver: Resolver, *, private_allowed: bool) -> Sequence[IPAddress]:
    """The addresses of a host, one at least and all of them to be connected to. Raises HostRefused or OSError.

    One address that is not public refuses the host: which of several is taken would be a matter of luck.
    """
    addresses = [ip_address(host)] if _is_address(host) else await resolver(host)
    if not addresses:
        raise OSError("the name has no address")
    for address in addresses:
        if not may_be_reached(address, private_allowed=private_allowed):
            raise HostRefused(f"{address} is not a public address")
    return addresses


def may_be_reached(address: IPAddress, *, private_allowed: bool) -> bool:
    """Whether an address is of the public Internet, or of a private network where those are allowed."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return may_be_reached(address.ipv4_mapped, private_allowed=private_allowed)
        if address.scope_id is not None or address == _METADATA:
            return False
    if private_allowed and any(address in network for network in _PRIVATE):
        return True
    if isinstance(address, IPv6Address):
        return address in _GLOBAL_UNICAST and not any(address in network for network in _NOT_PUBLIC_IPV6)
    is_routed = address.is_global and not address.is_multicast and not address.is_reserved
    return is_routed and not any(address in network for network in _NOT_PUBLIC_IPV4)


def system_resolver(executor: Executor) -> Resolver:
    """The machine's own resolver, on threads of `executor`: a name server that hangs must not hold those of others."""

    async def resolver(host: str) -> Sequence[IPAddress]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(executor, _addresses_of, host)
        return [ip_address(address) for address in found]

    return resolver


def _addresses_of(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
