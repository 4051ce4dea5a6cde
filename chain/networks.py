"""The networks that the protocol runs on, by name.

Only the Controller is taken from here: every other address is read from it (contracts.py). Where an address is well
known all the same, what the Controller says must agree with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

TICKET_BROKER: Final = "TicketBroker"
ROUNDS_MANAGER: Final = "RoundsManager"
BONDING_MANAGER: Final = "BondingManager"
SERVICE_REGISTRY: Final = "ServiceRegistry"


@dataclass(frozen=True, slots=True)
class Network:
    """A deployment of the protocol. `known` has addresses of contracts by name, 20 bytes each.

    `eth_usd_feed` and `sequencer_feed` are Chainlink's, where it has any: what an ETH costs, and whether the chain is
    up.
    """

    name: str
    chain_id: int
    controller: bytes
    known: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    eth_usd_feed: bytes | None = None
    sequencer_feed: bytes | None = None


#: Remote-signer protocol, section 8.1. These are proxies: an upgrade of the protocol leaves them where they are.
ARBITRUM_ONE: Final = Network(
    name="arbitrum-one",
    chain_id=42161,
    controller=bytes.fromhex("d8e8328501e9645d16cf49539efc04f734606ee4"),
    known=MappingProxyType(
        {
            TICKET_BROKER: bytes.fromhex("a8bb618b1520e284046f3dfc448851a1ff26e41b"),
            ROUNDS_MANAGER: bytes.fromhex("dd6f56dcc28d3f5f27084381fe8df634985cc39f"),
            BONDING_MANAGER: bytes.fromhex("35bcf3c30594191d53231e4ff333e8a770453e40"),
        }
    ),
    eth_usd_feed=bytes.fromhex("639fe6ab55c921f74e7fac1ee960c0b6293ba612"),
    sequencer_feed=bytes.fromhex("fdb631f5ee196f0ed6faa767959853a9f217697d"),
)

#: A chain on the developer's own machine. Its Controller is the first contract of the first account that anvil and
#: hardhat make, so that nobody has to write down an address.
DEV: Final = Network(name="dev", chain_id=31337, controller=bytes.fromhex("5fbdb2315678afecb367f032d93f642f64180aa3"))

NETWORKS: Final = MappingProxyType({network.name: network for network in (ARBITRUM_ONE, DEV)})
