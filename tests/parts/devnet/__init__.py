"""A chain of our own for tests: an anvil node, doubles of Livepeer's contracts on it, and a proxy that breaks the way
to it.

    with running_anvil(folder) as anvil:
        devnet = Devnet.deployed_on(anvil.url)
        devnet.fund(sender, deposit_wei=10**18, reserve_wei=10**18)
        devnet.join(orchestrator)
        devnet.next_round()                  # the orchestrator is active from here on
"""

from tests.parts.devnet.anvil import Anvil, AnvilMissing, anvil_program, running_anvil
from tests.parts.devnet.fault_proxy import FaultProxy, fault_proxy
from tests.parts.devnet.network import CONTROLLER, DEV_CHAIN_ID, FIRST_ROUND, Devnet, round_hash

__all__ = [
    "CONTROLLER",
    "DEV_CHAIN_ID",
    "FIRST_ROUND",
    "Anvil",
    "AnvilMissing",
    "Devnet",
    "FaultProxy",
    "anvil_program",
    "fault_proxy",
    "round_hash",
    "running_anvil",
]
