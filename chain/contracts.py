"""Where the protocol's contracts are: asked of its Controller, and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chain import abi
from chain.functions import GET_CONTRACT
from chain.networks import BONDING_MANAGER, ROUNDS_MANAGER, SERVICE_REGISTRY, TICKET_BROKER, Network
from chain.quorum import Agreed, Call, NoDecision, Quorum
from chain.signatures import checksum_address, keccak

_NOWHERE: Final = bytes(20)
_NAMES: Final = (TICKET_BROKER, ROUNDS_MANAGER, BONDING_MANAGER, SERVICE_REGISTRY)


class ContractsUnknown(NoDecision):
    """What answers is not the protocol that was configured. The text names contracts and addresses."""


@dataclass(frozen=True, slots=True)
class Contracts:
    """Addresses of 20 bytes."""

    ticket_broker: bytes
    rounds_manager: bytes
    bonding_manager: bytes
    service_registry: bytes


async def resolve(quorum: Quorum, block_hash: bytes, network: Network) -> Contracts:
    """The contracts as `network`'s Controller names them at this block.

    Raises NoDecision, or ContractsUnknown: nothing is there, or one is elsewhere than everybody knows it to be. What
    each of them answers is checked where it is read.
    """
    asked = [Call(network.controller, abi.calldata(GET_CONTRACT, keccak(name.encode()))) for name in _NAMES]
    agreed = await quorum.read(block_hash, asked)
    found = dict(zip(_NAMES, _addresses(agreed, network), strict=True))
    for name, address in found.items():
        if address == _NOWHERE:
            raise ContractsUnknown(f"the Controller {checksum_address(network.controller)} knows no {name}")
        if (known := network.known.get(name, address)) != address:
            raise ContractsUnknown(
                f"the Controller names {checksum_address(address)} as the {name} of {network.name}, "
                f"known is {checksum_address(known)}: do not pay before you know why"
            )
    return Contracts(*(found[name] for name in _NAMES))


def _addresses(agreed: Agreed, network: Network) -> list[bytes]:
    try:
        return [abi.address(result) for result in agreed.results]
    except abi.AbiError:
        raise ContractsUnknown(
            f"there is no Controller of {network.name} at {checksum_address(network.controller)}"
        ) from None
