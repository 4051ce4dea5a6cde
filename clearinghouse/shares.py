"""A bounded number of places that strangers share: nobody may hold more of them than are left for all others.

One address alone gets half of the places, two get a third each, k of them leave one place in k + 1 to everybody else.
No number by address has to be chosen: behind a proxy, where all clients have one address, half of the places are there
for them, and who wants more for his proxy doubles the number of places. A header that names another client
(X-Forwarded-For) is anybody's claim and changes nothing.
Source: dynamic thresholds of Choudhury and Hahne (IEEE/ACM Transactions on Networking 6/2, 1998), with α = 1.
"""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from typing import Final

#: What one subscriber of an IPv6 network gets at least: whoever has one address of it has all.
_IPV6_NETWORK_BITS: Final = 64


class NoPlace(StrEnum):
    """Why there is none."""

    ALL_TAKEN = "all_taken"
    OWN_SHARE_TAKEN = "own_share_taken"


class Place:
    """One place, until it is given back: at the end of a `with`, or before. Given back twice, it is given back once."""

    __slots__ = ("_shares", "holder")

    def __init__(self, shares: Shares, holder: str) -> None:
        self._shares: Shares | None = shares
        self.holder: Final = holder

    def __enter__(self) -> None:
        """It is held already."""

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def give_back(self) -> None:
        if self._shares is not None:
            self._shares._given_back(self.holder)
            self._shares = None


class Shares:
    """For the event loop alone. `taken_count` is what is held at present."""

    def __init__(self, places_max_count: int) -> None:
        assert places_max_count > 0, "somebody must have a place"
        self.places_max_count: Final = places_max_count
        self.taken_count = 0
        self._held: dict[str, int] = {}

    def take(self, holder: str) -> Place | NoPlace:
        """A place for `holder`, a name from `holder_of`."""
        free_count = self.places_max_count - self.taken_count
        held_count = self._held.get(holder, 0)
        if free_count <= 0:
            return NoPlace.ALL_TAKEN
        if held_count >= free_count:
            return NoPlace.OWN_SHARE_TAKEN
        self.taken_count += 1
        self._held[holder] = held_count + 1
        return Place(self, holder)

    def _given_back(self, holder: str) -> None:
        self.taken_count -= 1
        if self._held[holder] == 1:
            del self._held[holder]  # addresses come and go: none is remembered that holds nothing
        else:
            self._held[holder] -= 1


def holder_of(address: str) -> str:
    """Who stands behind an IP address: itself, or its network with IPv6. Anything else stands for itself."""
    if ":" not in address:
        return address
    try:
        ipv6 = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if ipv6.ipv4_mapped is not None:  # a port for both, as with host = "::"
        return str(ipv6.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(ipv6), _IPV6_NETWORK_BITS), strict=False))
