"""Who orchestrates: the pool of the BondingManager with everybody's service URI, read once a round.

Who is active changes only when a round begins: whoever joins the pool is active from the next round, and whoever leaves
it is active until this one ends. So one list answers for a whole round. It is made of the pool as it stands, and of
whoever was on the list before, each asked about at the same block. Whoever left the pool in the round in which the
first list is read is not on it: that is one refusal too many, until the round ends, and none too few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from chain import abi
from chain.contracts import Contracts
from chain.functions import CURRENT_ROUND, GET_FIRST, GET_NEXT, GET_SERVICE_URI, IS_ACTIVE, IS_REGISTERED
from chain.quorum import Call, NoDecision, Quorum

#: Ten times the pool of today: a chain that answers with more is not Livepeer's.
POOL_MAX_COUNT: Final = 1000
_NOBODY: Final = bytes(20)


@dataclass(frozen=True, slots=True)
class Orchestrator:
    """`uri` is its own word, of any length and with anything in it; empty where it gave none."""

    address: bytes
    uri: str
    is_active: bool
    is_registered: bool


@dataclass(frozen=True, slots=True)
class Orchestrators:
    """Everybody who was asked about in `round`, by address."""

    round: int
    by_address: Mapping[bytes, Orchestrator]

    def is_active(self, address: bytes) -> bool:
        found = self.by_address.get(address)
        return found is not None and found.is_active

    def active_count(self) -> int:
        return sum(each.is_active for each in self.by_address.values())


class OrchestratorReader:
    """Reads the list again and again. What it knows of the pool spares most of the requests, also after a failure."""

    def __init__(self, quorum: Quorum) -> None:
        self._quorum = quorum
        #: Everybody met so far; forgotten when a list is complete and they are not on it.
        self._known: dict[bytes, None] = {}

    async def read(self, contracts: Contracts, block_hash: bytes) -> Orchestrators:
        """The list as of this block. Raises NoDecision."""
        try:
            pool = await self._pool(contracts.bonding_manager, block_hash)
            asked = list(self._known)
            calls = [Call(contracts.rounds_manager, CURRENT_ROUND)]
            for address in asked:
                calls += _about(contracts, address)
            round_, *said = (await self._quorum.read(block_hash, calls)).results
            found = [_orchestrator(each, said[3 * i : 3 * i + 3]) for i, each in enumerate(asked)]
            current_round = abi.uint(round_)
        except abi.AbiError:
            raise NoDecision("the BondingManager or the ServiceRegistry gives no answer of its kind") from None
        kept = {each.address: each for each in found if each.is_active or each.address in pool}
        self._known = dict.fromkeys(kept)
        return Orchestrators(current_round, MappingProxyType(kept))

    async def _pool(self, bonding_manager: bytes, block_hash: bytes) -> set[bytes]:
        """The linked list, walked. Who comes after somebody known is asked at once, after others when it gets there.

        Raises NoDecision, AbiError.
        """
        guesses = list(self._known)
        calls = [Call(bonding_manager, GET_FIRST)]
        calls += [Call(bonding_manager, abi.calldata(GET_NEXT, address)) for address in guesses]
        first, *nexts = (await self._quorum.read(block_hash, calls)).results
        after = {address: abi.address(next_) for address, next_ in zip(guesses, nexts, strict=True)}
        pool: set[bytes] = set()
        at = abi.address(first)
        while at != _NOBODY:
            if at in pool or len(pool) == POOL_MAX_COUNT:
                raise NoDecision("the list of orchestrators has no end")
            pool.add(at)
            self._known[at] = None
            if at not in after:
                agreed = await self._quorum.read(block_hash, [Call(bonding_manager, abi.calldata(GET_NEXT, at))])
                after[at] = abi.address(agreed.results[0])
            at = after[at]
        return pool


def _about(contracts: Contracts, address: bytes) -> list[Call]:
    return [
        Call(contracts.bonding_manager, abi.calldata(IS_ACTIVE, address)),
        Call(contracts.bonding_manager, abi.calldata(IS_REGISTERED, address)),
        Call(contracts.service_registry, abi.calldata(GET_SERVICE_URI, address)),
    ]


def _orchestrator(address: bytes, said: list[bytes]) -> Orchestrator:
    is_active, is_registered, uri = said
    return Orchestrator(address, abi.text(uri), abi.flag(is_active), abi.flag(is_registered))
